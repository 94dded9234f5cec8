"""Sample records of a lesson: one of each kind that the page has to show, in the form of docs/records.md, format 1."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import hashlib
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from estgw.config import csrattrs_yaml
from estgw.est import encoding
from tests.kit.ca import CA, common_name, pem, root
from tests.kit.csr import csr
from tests.kit.der import armoured
from tests.kit.processes import ROOT

GATES = ("TLS", "path", "password", "requires", "CSR", "linking", "authorize", "handler")
BEGIN = dt.datetime(2026, 11, 29, 14, 55, 0, 114000, dt.UTC)
CHALLENGE = 'Basic realm="estrealm"'
EXPECTED, FOUND = (base64.b64encode(hashlib.sha256(text).digest()).decode() for text in (b"this", b"another"))
MARKUP = "<img src=x onerror=alert(1)><script>document.title='owned'</script>"
HOSTILE = f"CN={MARKUP}\x1b[31mred\u202egnp.exe\u200b\u2066end"
"""A subject that would do harm as markup, in a terminal, and by its direction."""


def at(seconds: float) -> str:
    """A time of the lesson."""
    return (BEGIN + dt.timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def record(number: int, seconds: float, operation: str | None, **more: Any) -> dict[str, Any]:
    """A request that went well, with `more` in place of what it has; ids are the number as 10 hex digits."""
    method = "GET" if operation in ("cacerts", "csrattrs") else "POST"
    label = more.get("label")
    path = "/".join(part for part in ("/.well-known/est", label, operation) if part)
    made: dict[str, Any] = {
        "format": 1,
        "id": f"{0x8F0C21AB00 + number:010x}",
        "at": at(seconds),
        "kind": "request",
        "label": None,
        "operation": operation,
        "profile": "rfc",
        "connection": {"number": number, "request": 1, "peer": "127.0.0.1", "port": 51500 + number, "at": at(seconds)},
        "tls": tls(),
        "binding": binding(None),
        "auth": auth("none" if method == "GET" else "any"),
        "request": request(f"{method} {path} HTTP/1.1"),
        "response": response(200, "application/pkcs7-mime"),
        "gates": gates(),
        "callouts": [],
        "outcome": {"status": 200, "gate": None, "reason": "", "hint": None},
        "issued": None,
        "ms": 1.2,
    }
    return made | more


def tls(**more: Any) -> dict[str, Any]:
    return {
        "version": "TLSv1.3",
        "cipher": "TLS_AES_256_GCM_SHA384",
        "server_name": "localhost",
        "handshake_ms": 2.1,
        "certificate": None,
        "chain": [],
        "subject": None,
        "verify": "NONE",
        "trust": "none",
        "is_ra": False,
    } | more


def binding(result: str | None, found: str | None = None) -> dict[str, Any]:
    given = result is not None
    return {
        "type": "tls-exporter" if given else None,
        "expected": EXPECTED if given else None,
        "found": found,
        "attribute": "challengePassword" if found else None,
        "required": False,
        "result": result,
    }


def auth(requires: str, scheme: str | None = None, user: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "requires": requires,
        "scheme": scheme,
        "user": user,
        "verified": True if scheme else None,
        "challenges": [],
        "methods": "http" if scheme else "",
    } | more


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def request(line: str, body: bytes | None = None, kind: str | None = None, csr: Any = None) -> dict[str, Any]:
    headers = [["Host", "localhost:8443"], ["User-Agent", "curl/7.88.1"], ["Accept", "*/*"]]
    headers += [["Content-Type", kind], ["Content-Length", str(len(body))]] if body and kind else []
    return {
        "line": line,
        "headers": headers,
        "body": b64(body) if body else None,
        "length": len(body or b""),
        "cut": False,
        "ms": 0.4,
        "csr": csr,
    }


REASONS = {200: "OK", 202: "Accepted", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden"}


def response(status: int, kind: str | None = None, body: bytes = b"", *more: list[str]) -> dict[str, Any]:
    headers = [["Content-Type", kind]] if kind else []
    headers += [["Content-Length", str(len(body))], ["Server", "estgw"], *more]
    return {
        "status": status,
        "reason": REASONS[status],
        "headers": headers,
        "body": b64(body) if body else None,
        "length": len(body),
        "cut": False,
    }


def gates(
    refused: str | None = None, reason: str = "", skipped: tuple[str, ...] = ("password", "CSR", "linking", "authorize")
) -> list[dict[str, Any]]:
    """The eight: all before the one that refuses pass, but for `skipped`."""
    made: list[dict[str, Any]] = []
    took = dict(zip(GATES, (None, 0.1, 77.2, 0.1, 0.4, 0.1, 6.3, 12.8), strict=True))
    over = False
    for name in GATES:
        result = "skip" if over or name in skipped else "pass"
        if name == refused:
            result, over = "refuse", True
        made.append({"name": name, "result": result, "reason": reason if result == "refuse" else "", "ms": took[name]})
    return made


def callout(
    kind: str, operation: str, status: int | None = 0, stdout: str = "", stderr: str = "", **more: Any
) -> dict[str, Any]:
    script = f"handlers/openssl/{operation if kind == 'handler' else kind}"
    return {
        "kind": kind,
        "script": script,
        "sha256": hashlib.sha256(script.encode()).hexdigest(),
        "runner": "exec",
        "environment": {
            "EST_CONTRACT": "1",
            "EST_OPERATION": operation,
            "EST_CA_DIR": "/lab/openssl-ca",
            "REMOTE_USER": "estuser",
            "EST_CSR_SUBJECT": "CN=device-5",
            "EST_PASSWORD": "[removed]",
            "REMOTE_ADDR": "127.0.0.1",
        },
        "exit": status,
        "signal": None,
        "timed_out": False,
        "flooded": False,
        "stdout": stdout,
        "stdout_length": len(stdout),
        "stdout_cut": False,
        "stderr": stderr,
        "waited_ms": 0.1,
        "ran_ms": 12.6 if kind == "handler" else 6.1,
        "cached": False,
    } | more


@functools.cache
def ca() -> CA:
    return root("Lesson CA")


@functools.cache
def certificate(name: str) -> x509.Certificate:
    return ca().issue(name, names=(f"{name}.example",)).certificate


def wanted(
    name: str | x509.Name, *wishes: Any, subject: str | None = None, challenge: str | None = None
) -> tuple[bytes, dict[str, Any]]:
    """The body of a request, and its CSR in the record."""
    der = csr(name, *wishes, challenge=challenge)
    text = armoured(der).decode()
    body = encoding.encode_base64(der)
    return body, {
        "subject": subject if subject is not None else f"CN={name}",
        "names": [f"DNS:{wish.value}" for wish in wishes],
        "key": "EC P-256",
        "signature": "ecdsa-with-SHA256",
        "sha256": hashlib.sha256(der).hexdigest(),
        "pem": text,
    }


def enrolment(
    number: int, seconds: float, name: str = "device-5", operation: str = "simpleenroll", **more: Any
) -> dict[str, Any]:
    """An enrolment by password that went well."""
    label = more.get("label")
    path = "/".join(part for part in ("/.well-known/est", label, operation) if part)
    body, made = wanted(name, x509.DNSName(f"{name}.example"), challenge=more.pop("challenge", None))
    leaf = certificate(name)
    answer = encoding.encode_base64(pkcs7.serialize_certificates([leaf], Encoding.DER))
    return record(
        number,
        seconds,
        operation,
        **{
            "auth": auth("any", "Basic", "estuser"),
            "binding": binding("absent"),
            "request": request(f"POST {path} HTTP/1.1", body, "application/pkcs10", made),
            "response": response(
                200, "application/pkcs7-mime; smime-type=certs-only", answer, ["Content-Transfer-Encoding", "base64"]
            ),
            "gates": gates(skipped=()),
            "callouts": [callout("authorize", operation), callout("handler", operation, stdout=pem(leaf).decode())],
            "issued": {
                "serial": f"{leaf.serial_number:X}",
                "subject": f"CN={name}",
                "names": [f"DNS:{name}.example"],
                "not_after": at(90 * 86400).replace(".114", ""),
                "pem": pem(leaf).decode(),
            },
            "ms": 19.3,
        }
        | more,
    )


def refusal(number: int, seconds: float, gate: str, status: int, reason: str, hint: str, **more: Any) -> dict[str, Any]:
    """An enrolment that a gate refused; nothing was issued, and no script runs after it."""
    return enrolment(
        number,
        seconds,
        **{
            "response": response(status, "text/plain; charset=utf-8", f"{reason}\n".encode()),
            "gates": gates(gate, reason, skipped=()),
            "callouts": [],
            "outcome": {"status": status, "gate": gate, "reason": reason, "hint": hint},
            "issued": None,
            "ms": 1.0,
        }
        | more,
    )


def unauthorized(number: int, seconds: float, reason: str, hint: str, **credentials: Any) -> dict[str, Any]:
    return refusal(
        number,
        seconds,
        "requires" if not credentials.get("scheme") else "password",
        401,
        reason,
        hint,
        auth=auth("any", **{"verified": None, "challenges": [CHALLENGE], "methods": ""} | credentials),
        response=response(401, None, b"", ["WWW-Authenticate", CHALLENGE]),
        ms=0.4,
    )


def message(name: str) -> bytes:
    """A CMC message of the fuzzer's corpus."""
    return (ROOT / "tests/fuzz/corpus/cmc" / name).read_bytes()


def lesson() -> list[dict[str, Any]]:
    """The records of a lesson, oldest first: at least one of each kind."""
    attributes = csrattrs_yaml.read((ROOT / "handlers/openssl/csrattrs.yaml").read_bytes(), ROOT / "csrattrs.yaml")
    assert attributes is not None
    client = certificate("device-3")
    by_certificate = tls(certificate=pem(client).decode(), subject="CN=device-3", verify="SUCCESS", trust="explicit")
    pending = "waits for approval; come back in 60 s"
    policy = "you may only be CN=estuser and nothing else"
    second = {"number": 17, "request": 2, "peer": "127.0.0.1", "port": 51514, "at": at(456)}
    return [
        record(
            1,
            0,
            "cacerts",
            response=response(
                200,
                "application/pkcs7-mime",
                encoding.encode_base64(pkcs7.serialize_certificates([client], Encoding.DER)),
            ),
            callouts=[callout("handler", "cacerts")],
            outcome={"status": 200, "gate": None, "reason": "1 certificate", "hint": None},
            ms=6.2,
        ),
        record(
            2,
            23,
            "csrattrs",
            label="iot",
            response=response(200, "application/csrattrs", encoding.encode_base64(attributes.encode())),
            callouts=[callout("handler", "csrattrs", None, cached=True, ran_ms=None, sha256=None)],
            outcome={"status": 200, "gate": None, "reason": "kept answer", "hint": None},
        ),
        refusal(
            3,
            24,
            "handler",
            202,
            pending,
            "A human decides: `estgw pending list` shows what waits.",
            label="iot",
            auth=auth("any", "Basic", "p07"),
            response=response(202, None, b"", ["Retry-After", "60"]),
            callouts=[
                callout("authorize", "simpleenroll"),
                callout("handler", "simpleenroll", 75, pending, "asked for device-5"),
            ],
            ms=19.0,
        ),
        enrolment(
            4,
            41,
            "device-3",
            "simplereenroll",
            tls=by_certificate,
            auth=auth("tls", methods="tls"),
            gates=gates(skipped=("password",)),
            outcome={"status": 200, "gate": None, "reason": "rekey", "hint": None},
            ms=18.1,
        ),
        {
            "format": 1,
            "id": "8f0c21ab05",
            "at": at(68),
            "kind": "handshake",
            "connection": {"number": 5, "request": 0, "peer": "127.0.0.1", "port": 51505, "at": at(68)},
            "tls": {},
            "request": None,
            "response": None,
            "gates": gates("TLS", "tlsv1 alert unknown ca"),
            "outcome": {
                "status": None,
                "gate": "TLS",
                "reason": "the client does not trust our CA (tlsv1 alert unknown ca)",
                "hint": "The client ended it. Give it `openssl-ca/cacert.pem` as its trust anchor.",
            },
            "ms": 2.3,
        },
        unauthorized(
            6,
            70,
            "wrong password for estuser",
            "The password is wrong. The demo's is in the README.",
            scheme="Basic",
            user="estuser",
            verified=False,
        ),
        unauthorized(
            7,
            80,
            "Digest is not offered here",
            "The client sent Digest, and the gateway offers Basic: set `client_auth.digest`, or use Basic.",
            scheme="Digest",
            user="estuser",
            verified=False,
            digest={"realm": "estrealm", "nonce": "3f9a", "uri": "/.well-known/est/simpleenroll", "algorithm": "MD5"},
        ),
        enrolment(8, 88, "printer-7", ms=17.6),
        refusal(
            9,
            120,
            "authorize",
            403,
            policy,
            "The script `handlers/openssl/authorize` said no with these words.",
            callouts=[callout("authorize", "simpleenroll", 77, policy, "policy: CN=device-5 is not CN=estuser")],
            ms=14.2,
        ),
        record(
            10,
            150,
            "serverkeygen",
            auth=auth("any", "Basic", "estuser"),
            gates=gates(skipped=("linking",)),
            request=request("POST /.well-known/est/serverkeygen HTTP/1.1", *wanted_parts("keyless-1")),
            response={**response(200, "multipart/mixed; boundary=estgw"), "body": "[removed]", "length": 1893},
            callouts=[callout("authorize", "serverkeygen"), callout("handler", "serverkeygen", stdout="[removed]")],
            issued=enrolment(10, 150, "keyless-1")["issued"],
            ms=31.5,
        ),
        record(
            11,
            180,
            "fullcmc",
            auth=auth("any", "Basic", "estuser"),
            gates=gates(skipped=("CSR", "linking")),
            request=request(
                "POST /.well-known/est/fullcmc HTTP/1.1",
                encoding.encode_base64(message("signed")),
                "application/pkcs7-mime",
            ),
            response=response(
                200, "application/pkcs7-mime; smime-type=CMC-response", encoding.encode_base64(message("response"))
            ),
            callouts=[callout("authorize", "fullcmc"), callout("handler", "fullcmc")],
            ms=44.0,
        ),
        hostile(12, 210),
        record(
            13,
            260,
            None,
            request=request("GET /.well-known/est/nothing HTTP/1.1"),
            gates=gates("path", "No such EST operation here."),
            response={
                **response(400, "text/plain; charset=utf-8", b"No such EST operation here.\n"),
                "status": 404,
                "reason": "Not Found",
            },
            outcome={
                "status": 404,
                "gate": "path",
                "reason": "No such EST operation here.",
                "hint": "`estgw check` lists what is served.",
            },
            ms=0.2,
        ),
        unauthorized(17, 456, "no credentials", "Nothing was sent. Log in by password or by a certificate.")
        | {"connection": {**second, "request": 1}},
        refusal(
            18,
            457,
            "linking",
            400,
            "the CSR was signed for another connection",
            "Its binding is the one of connection 16, which closed 12 s ago. Make the CSR after connecting, or let "
            "`estclient` do it.",
            binding=binding("refused", FOUND),
            challenge=FOUND,
            connection=second,
        ),
        replayed(19, 459),
        enrolment(20, 461, "device-1", binding=binding("linked", EXPECTED), challenge=EXPECTED, ms=17.3),
    ]


def wanted_parts(name: str) -> tuple[bytes, str, dict[str, Any]]:
    body, made = wanted(name)
    return body, "application/pkcs10", made


def hostile(number: int, seconds: float) -> dict[str, Any]:
    """A request in which everything that a client can say is hostile."""
    subject = HOSTILE.removeprefix("CN=")
    body, made = wanted(common_name("x"), subject=HOSTILE)
    reason = f"you may not be {HOSTILE}"
    return refusal(
        number,
        seconds,
        "authorize",
        403,
        reason,
        f"{MARKUP} is no name for a device.",
        auth=auth("any", "Basic", f"u\u202eser {MARKUP}"),
        request={
            **request(
                f"POST /.well-known/est/simpleenroll?{MARKUP} HTTP/1.1",
                body,
                "application/pkcs10",
                {**made, "names": [f"DNS:{subject}"]},
            ),
            "headers": [
                ["X-Hostile\u202e", f"{MARKUP}'$(touch /tmp/never)`id`"],
                ["Content-Type", "application/pkcs10'; id #"],
            ],
        },
        callouts=[
            callout(
                "authorize",
                "simpleenroll",
                77,
                reason,
                f"\x1b]0;title\x07{MARKUP}\n\u2028next",
                environment={"EST_CSR_SUBJECT": HOSTILE, MARKUP: "\x00"},
            )
        ],
    )


def least(number: int) -> dict[str, Any]:
    """A record without any part that may be missing."""
    return {"format": 1, "id": f"{0x8F0C21AB00 + number:010x}", "at": at(500), "kind": "request", "outcome": {}}


def unreadable(number: int, seconds: float) -> dict[str, Any]:
    """What a client sent was no HTTP, so there is no request."""
    return record(
        number,
        seconds,
        None,
        request=None,
        auth=None,
        binding=None,
        profile=None,
        gates=gates("path", "not HTTP: Bad status line"),
        response=response(400, "text/plain", b"no HTTP\n"),
        outcome={"status": 400, "gate": "path", "reason": "not HTTP: Bad status line", "hint": None},
    )


def replayed(number: int, seconds: float) -> dict[str, Any]:
    """A replay of the refusal by policy, after the policy was edited."""
    return enrolment(number, seconds, kind="replay", of="8f0c21ab09", ms=15.2)
