"""Hints: each row of the table is provoked over real TLS, and each refusal in the source has a row of its own."""

from __future__ import annotations

import ast
import contextlib
import re
import socket
import ssl
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from estgw.cmc.messages import PKIData
from estgw.cmc.requests import PKCS10Request
from estgw.est import keygen
from estgw.est.binding import Binding, BindingType
from estgw.record import explain
from estgw.record.explain import Bindings, Facts
from estgw.record.gates import Gate
from estgw.record.hints import NO_PASSWORDS, ROWS
from tests.cmc_service import office
from tests.kit.clients import CHANGE, LINKING, OTP, People, bound, digest_answer, digest_challenge, digest_file, linking
from tests.kit.connection import V12, V13, Connection, basic, request
from tests.kit.csr import csr
from tests.kit.der import INTEGER, SEQUENCE, attribute, dn, tlv
from tests.kit.gateway import LOGIN, Gateway, enrol, running_gateway
from tests.kit.keys import rsa_key
from tests.kit.processes import ROOT
from tests.kit.workspace import Workspace
from tests.record.kit import Record, Recording, recording

GOOD = csr()

# What the script of a label does on simpleenroll.
HANDLERS = {
    "crash": "exit 3",
    "missing": "no-such-command",
    "hang": "sleep 60",
    "flood": "head -c 3000000 /dev/zero; sleep 30",
    "killed": "kill -SEGV $$",
    "large": 'exec head -c 3000000 /dev/zero >"$EST_TMPDIR/large"',
    "junk": "echo hello",
    "no": "echo 'not on the list'; exit 77",
    "faulty": "echo 'a serial number is missing'; exit 65",
    "unknown": "exit 64",
    "busy": "exit 69",
    "later": "exit 75",
    "conflict": "printf 'Status: 409\\n\\ntwice\\n'",
}
DECISIONS = {"says-no": "exit 77", "says-faulty": "exit 65", "says-unknown": "exit 64"}


@pytest.fixture(scope="module")
def own(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return lab.copy(tmp_path_factory.mktemp("hints") / "lab")


@pytest.fixture(scope="module")
def people(own: Workspace) -> People:
    return People(own)


@pytest.fixture(scope="module")
def recorder(own: Workspace, people: People) -> Iterator[Recording]:
    labels: dict[str, Any] = {}
    for name, text in HANDLERS.items():
        labels[name] = {"operations": {"simpleenroll": {"handler": str(own.script(f"bench/{name}", text))}}}
    labels["hang"]["operations"]["simpleenroll"]["timeout"] = 0.5
    for name, text in DECISIONS.items():
        labels[name] = {"authorize": str(own.script(f"bench/{name}", text))}
    own.script("bench/gone", "exit 0")
    labels |= {
        "broken": {"authenticate": str(own.script("bench/authenticate", "exit 64"))},
        "start": {"operations": {"simpleenroll": {"handler": str(own.path / "bench/gone")}}},
        "http": {"operations": {"simpleenroll": {"requires": "http"}}},
        "tls": {"operations": {"simpleenroll": {"requires": "tls"}}},
        "no-authorize": {"authorize": None},
        "change": {"change_subject_name": True},
        "look-up": {"renew_without_certificate": True, "operations": {"simplereenroll": {"requires": "any"}}},
        "any-renewal": {"operations": {"simplereenroll": {"requires": "any"}}},
        "template": {"csr_template": str(template(own))},
        "linked": {},
        "keygen": {"operations": {"serverkeygen": {"enabled": True}}},
        "own-words": {"operations": {"fullcmc": {"enabled": True}}},
        "fault": {"ca_dir": str(own.path / "nowhere")},
    }
    digests = str(digest_file(own, LOGIN))
    overrides = {
        "server": {"handshake_timeout": 1, "body_timeout": 1, "max_body": 65536},
        "client_auth": {
            **people.config,
            "digest": ["MD5"],
            "digest_users": digests,
            "nonce_age": 2,
        },
        "callouts": {"max_file": 1 << 20, "max_stdout": 100_000, "max_running": 1, "max_waiting": 1},
        "pop": {"rules": [{"label": "linked", "pop": "required"}]},
        "labels": labels,
    }
    with recording(own, overrides, clean=False) as running:
        (own.path / "bench/gone").unlink()
        yield running


def template(own: Workspace) -> Path:
    path = own.path / "template.yaml"
    path.write_text("- key: ec:P-384\n- serialNumber\n")
    return path


@pytest.fixture(scope="module")
def device(recorder: Recording, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return enrol(recorder.gateway, tmp_path_factory.mktemp("device"))


class Scene:
    """What a provocation may use."""

    def __init__(self, recorder: Recording, people: People, device: tuple[Path, Path]) -> None:
        self.gateway: Gateway = recorder.gateway
        self.people, self.device = people, device

    def post(self, path: str = "simpleenroll", body: bytes = GOOD, **options: Any) -> None:
        self.gateway.post(path, body, **options)

    def get(self, *paths: str) -> None:
        for path in paths:
            self.gateway.get(path)

    def as_device(self, path: str, body: bytes, kind: str = "", **options: Any) -> None:
        pair = self.people.pairs[kind] if kind else self.device
        self.gateway.post(path, body, certificate=pair, login=None, **options)

    def plain(self, data: bytes, *, reset: bool = False) -> None:
        """Bytes on TCP without TLS, then the end."""
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=20) as connection:
            connection.sendall(data)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while connection.recv(1000):
                    pass

    def silent(self) -> None:
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=20) as connection:
            connection.recv(1000)

    def shake(self, **settings: Any) -> None:
        """A handshake that fails, by a context with these attributes."""
        context = ssl.create_default_context(cafile=str(settings.pop("cafile", self.gateway.anchor)))
        name = settings.pop("server_hostname", "localhost")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            for key, value in settings.items():
                context.set_ciphers(value) if key == "ciphers" else setattr(context, key, value)
        with (
            socket.create_connection(("127.0.0.1", self.gateway.port), timeout=20) as plain,
            contextlib.suppress(ssl.SSLError, OSError),
        ):
            context.wrap_socket(plain, server_hostname=name).close()

    def digest(self, *, drop: tuple[str, ...] = (), wait: float = 0, **changes: Any) -> None:
        with self.gateway.connect() as connection:
            challenge = digest_challenge(connection.ask("POST", "simpleenroll", GOOD))
            time.sleep(wait)
            header = digest_answer(challenge, LOGIN, drop=drop, **changes)
            connection.ask("POST", "simpleenroll", GOOD, headers={"Authorization": header})

    def authorization(self, value: str) -> None:
        self.gateway.post("simpleenroll", GOOD, login=None, headers={"Authorization": value})

    def raw(self, data: bytes) -> None:
        with self.gateway.connect() as connection:
            connection.send(data)
            connection.rest()


SAN = x509.DNSName("a.example")
ALERTS = ssl.TLSVersion.TLSv1_1
SYM, ASYM = keygen.DECRYPT_KEY_ID, keygen.ASYMMETRIC_DECRYPT_KEY_ID
NEW_NAME = attribute(CHANGE, tlv(SEQUENCE, dn(("2.5.4.3", 0x0C, b"new"))))


def crowd(scene: Scene) -> None:
    """Three requests at once, where one may run and one may wait; the third is refused."""
    connections = [scene.gateway.connect() for _ in range(3)]
    for connection in connections:
        connection.send(request("POST", "hang/simpleenroll", GOOD, login=LOGIN))
    answers = [connection.response().status for connection in connections]
    for connection in connections:
        connection.close()
    assert sorted(answers) == [503, 504, 504]


def reenroll_with_foreign(scene: Scene) -> None:
    scene.as_device("any-renewal/simplereenroll", csr("device-1"), "theirs")


def rejected(scene: Scene) -> None:
    """A Full PKI Request without a nonce's worth of sense: its response rejects it with a 400."""
    key = office.new_key()
    message = office.message(PKIData((), (PKCS10Request(7, csr("device-7")),)), office.Person(key))
    scene.post("own-words/fullcmc", message, headers={"Content-Type": "application/pkcs7-mime"})


def unbound(scene: Scene) -> None:
    scene.post(body=csr(challenge="not a binding"))


Provocation = Callable[[Scene], None]

CASES: dict[tuple[Gate | None, str], Provocation] = {
    (Gate.TLS, "^http request$"): lambda s: s.plain(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (Gate.TLS, "alert unknown ca"): lambda s: s.shake(cafile=ROOT / "tests/handlers/rfc9881/ml-dsa-44-cert.pem"),
    (
        Gate.TLS,
        "alert certificate (expired|unknown)|alert bad certificate|alert unsupported certificate",
    ): lambda s: s.shake(server_hostname="elsewhere.example"),
    (
        Gate.TLS,
        "unsupported protocol|version too low|wrong version number|no protocols available",
    ): lambda s: s.shake(ciphers="ALL:@SECLEVEL=0", minimum_version=ALERTS, maximum_version=ALERTS),
    (Gate.TLS, "no shared cipher|no suitable|no shared group|no shared signature"): lambda s: s.shake(
        ciphers="AES128-SHA", maximum_version=V12
    ),
    (Gate.TLS, "timed out"): lambda s: s.silent(),
    (Gate.TLS, "closed by the peer|without close_notify|Connection reset"): lambda s: s.plain(b""),
    (Gate.TLS, ""): lambda s: s.plain(b"\x16\x03\x01\x00\x04abcd"),
    (Gate.PATH, "^EST lives under|^No operation in the path|^Too many path segments|ends in a slash"): lambda s: s.get(
        "/", "/.well-known/est", "/.well-known/est/a/b/c", "/.well-known/est/a/"
    ),
    (Gate.PATH, "^No such EST operation"): lambda s: s.get("nowhere"),
    (Gate.PATH, "^No such CA label"): lambda s: s.get("nolabel/cacerts"),
    (Gate.PATH, "is not switched on here"): lambda s: s.post("serverkeygen"),
    (Gate.PATH, "^(?P<name>\\S+) is a (?P<method>[A-Z]+)"): lambda s: s.post("cacerts"),
    (Gate.PATH, "takes (?P<type>\\S+), "): lambda s: s.post(headers={"Content-Type": "text/plain"}),
    (Gate.PATH, "^The path (is not UTF-8|holds an encoded slash)"): lambda s: s.get("/.well-known/est/a%2fb/cacerts"),
    (Gate.PATH, "^The body is larger than"): lambda s: s.post(body=bytes(70000)),
    (Gate.PATH, "^The body took too long"): lambda s: s.raw(
        request("POST", "simpleenroll", b"", headers={"Content-Length": "10"})
    ),
    (Gate.PATH, "^body: |^not HTTP"): lambda s: s.raw(b"no HTTP at all\r\n\r\n"),
    (Gate.PATH, "is out of service"): lambda s: s.post("fault/simpleenroll"),
    (Gate.PASSWORD, "scheme not offered: (?P<scheme>\\w+)"): lambda s: s.authorization("Bearer abc"),
    (Gate.PASSWORD, "scheme not offered"): lambda s: s.authorization("hunter2"),
    (Gate.PASSWORD, "more than one Authorization header"): lambda s: s.authorization(basic(f"estuser:{'x' * 5000}")),
    (Gate.PASSWORD, "the Basic credentials"): lambda s: s.authorization("Basic estuser:estpwd"),
    (Gate.PASSWORD, "qop that was not offered"): lambda s: s.digest(qop="auth-int"),
    (Gate.PASSWORD, "the Digest credentials|in the Digest credentials"): lambda s: s.digest(drop=("nonce",)),
    (Gate.PASSWORD, "^the password is right; the Digest nonce"): lambda s: s.digest(wait=2.2),
    (Gate.PASSWORD, "^digest uri"): lambda s: s.digest(uri="/elsewhere"),
    (Gate.PASSWORD, "^wrong user name or password"): lambda s: s.post(login="estuser:wrong"),
    (Gate.PASSWORD, "said"): lambda s: s.post("broken/simpleenroll"),
    (Gate.REQUIRES, "^no credentials$"): lambda s: s.post("http/simpleenroll", login=None),
    (
        Gate.REQUIRES,
        "^no credentials, and no client certificate; the one offered was not accepted: (?P<why>.*)",
    ): lambda s: s.as_device("simpleenroll", GOOD, "expired"),
    (Gate.REQUIRES, "^no credentials, and no client certificate"): lambda s: s.post(login=None),
    (
        Gate.REQUIRES,
        "needs a TLS client certificate; the one offered was not accepted: (?P<why>.*)",
    ): lambda s: s.as_device("simplereenroll", GOOD, "unknown"),
    (Gate.REQUIRES, "needs a TLS client certificate"): lambda s: s.post("tls/simpleenroll"),
    (Gate.CSR, "body is empty"): lambda s: s.post(body=b""),
    (
        Gate.CSR,
        "^Not base64|^Truncated base64|^PEM block|PEM block that does not end|is encrypted or has headers",
    ): lambda s: s.post(body=b"%PDF-1.7"),
    (Gate.CSR, "base64 of something that is not|exactly one PEM|Not a PKCS#10"): lambda s: s.post(
        body=bytes.fromhex("300302012a")
    ),
    (Gate.CSR, "bytes too many|is cut off|longer than the one around it"): lambda s: s.post(body=GOOD + b"\0\0"),
    (Gate.CSR, "signature does not fit its key|signature can't be checked"): lambda s: s.post(
        body=GOOD.replace(b"device-1", b"device-2")
    ),
    (Gate.CSR, "is signed with"): lambda s: s.post(body=csr(key=rsa_key(2048), algorithm="1.2.840.113549.1.1.5")),
    (Gate.CSR, "is the least here|A DSA key|public key can't be used"): lambda s: s.post(
        body=csr(key=ec.generate_private_key(ec.SECP192R1()))
    ),
    (Gate.CSR, "subject is empty"): lambda s: s.post(body=csr(x509.Name([]))),
    (Gate.CSR, "otpChallenge, and nothing here can verify"): lambda s: s.post(
        "no-authorize/simpleenroll", csr("device-1", linking("12345678", kind=OTP))
    ),
    (Gate.CSR, "keeps subject and subject alternative name"): lambda s: s.as_device("simplereenroll", csr("other")),
    (Gate.CSR, "yours is another's"): reenroll_with_foreign,
    (
        Gate.CSR,
        "renews the certificate that the client presents in TLS; the one offered",
    ): lambda s: s.post("any-renewal/simplereenroll", certificate=s.people.pairs["expired"]),
    (Gate.CSR, "renews the certificate that the client presents in TLS"): lambda s: s.post(
        "any-renewal/simplereenroll"
    ),
    (Gate.CSR, "No valid certificate with the CSR's subject"): lambda s: s.post(
        "look-up/simplereenroll", csr("never-issued")
    ),
    (Gate.CSR, "Names are not changed here"): lambda s: s.as_device("simplereenroll", csr("device-1", NEW_NAME)),
    (Gate.CSR, "ChangeSubjectName needs a TLS client certificate"): lambda s: s.post(
        "change/simpleenroll", csr("device-1", NEW_NAME)
    ),
    (Gate.CSR, "With ChangeSubjectName the CSR keeps"): lambda s: s.as_device(
        "change/simpleenroll", csr("other", NEW_NAME)
    ),
    (Gate.CSR, "(?i)changeSubjectName"): lambda s: s.as_device(
        "change/simplereenroll", csr("device-1", attribute(CHANGE))
    ),
    (Gate.CSR, "lacks what is insisted on"): lambda s: s.post("template/simpleenroll"),
    (Gate.CSR, "setting (is|name_bounds)"): lambda s: s.post(body=csr("x" * 65)),
    (Gate.CSR, "holds a control character"): lambda s: s.post(body=csr("device-1", x509.DNSName("a\0b.example"))),
    (Gate.CSR, "private key encrypted|SMIMECapabilities|DecryptKeyIdentifier"): lambda s: s.post(
        "keygen/serverkeygen", csr("device-1", attribute(SYM, tlv(4, b"a")), attribute(ASYM, tlv(4, b"a")))
    ),
    (Gate.CSR, ""): lambda s: s.post(body=csr("device-1", linking("a"), linking("b"))),
    (Gate.LINKING, "is required here"): lambda s: s.post("linked/simpleenroll"),
    (Gate.LINKING, "is not base64 of this TLS connection's"): unbound,
    (Gate.LINKING, ""): lambda s: s.post(body=csr("device-1", attribute(LINKING, tlv(INTEGER, b"\1")))),
    (None, "^the queue of callouts is full"): crowd,
    (None, "^could not start"): lambda s: s.post("start/simpleenroll"),
    (None, "over its (?P<seconds>[0-9.]+) s, killed"): lambda s: s.post("hang/simpleenroll"),
    (None, "flooded its (?P<stream>\\w+), killed"): lambda s: s.post("flood/simpleenroll"),
    (None, "SIGXFSZ"): lambda s: s.post("large/simpleenroll"),
    (None, "ended by signal"): lambda s: s.post("killed/simpleenroll"),
    (None, "exited with 12[67]"): lambda s: s.post("missing/simpleenroll"),
    (None, "exited with (?P<exit>\\d+)"): lambda s: s.post("crash/simpleenroll"),
    (Gate.AUTHORIZE, "said 77"): lambda s: s.post("says-no/simpleenroll"),
    (Gate.AUTHORIZE, "said 65"): lambda s: s.post("says-faulty/simpleenroll"),
    (Gate.AUTHORIZE, "said 64"): lambda s: s.post("says-unknown/simpleenroll"),
    (None, "^pending: "): lambda s: s.post("later/simpleenroll"),
    (None, "said (69|75)"): lambda s: s.post("busy/simpleenroll"),
    (Gate.HANDLER, "said 77"): lambda s: s.post("no/simpleenroll"),
    (Gate.HANDLER, "said 65"): lambda s: s.post("faulty/simpleenroll"),
    (Gate.HANDLER, "said 64"): lambda s: s.post("unknown/simpleenroll"),
    (Gate.HANDLER, "said 0"): lambda s: s.post("conflict/simpleenroll"),
    (None, "^The value for|^More than \\d+ values|environment that is too large|^[A-Z_]+: "): lambda s: s.post(
        body=csr("device-1", *(x509.DNSName(f"h{number}.example") for number in range(200)))
    ),
    (Gate.HANDLER, "^the answer of the script refuses"): rejected,
    (Gate.HANDLER, ": (?P<fault>.+)"): lambda s: s.post("junk/simpleenroll"),
}

ELSEWHERE = {
    (Gate.TLS, "not come from a load balancer in server.proxies"): "tests/e2e/test_load_balancer.py",
    (Gate.TLS, "PROXY header"): "tests/e2e/test_load_balancer.py",
    (Gate.TLS, "alert"): "an alert with another reason, which no client library here sends",
    (Gate.TLS, "certificate verify failed"): "test_a_certificate_that_is_rejected_has_its_hint",
    (Gate.TLS, "connections are open"): "test_a_full_gateway_has_its_hint",
    (Gate.TLS, "no longer accepted here: (?P<why>.*)"): "test_a_certificate_that_is_rejected_has_its_hint",
    (Gate.TLS, "certificate can't be read"): "a certificate that OpenSSL reads and cryptography does not",
    (Gate.PATH, "^The HTTP version"): "aiohttp refuses it before",
    (Gate.PASSWORD, "^Too many failed attempts"): "test_a_guessed_password_has_its_hint",
    (Gate.LINKING, "is required here, and there is no channel binding"): "test_no_channel_binding_has_its_hint",
    (Gate.LINKING, "but there is no channel binding"): "test_no_channel_binding_has_its_hint",
    (None, "the warm parent died"): "tests/callout kills it",
    (Gate.HANDLER, "in the clear, and the client asked for an encrypted one"): "test_a_key_in_the_clear_has_its_hint",
    (None, "no descriptor is free|can be started|no memory is free|no space is left|disk quota"): "tests/e2e",
    (None, ""): "the last resort",
}
"""Rows that other tests provoke, or that need a fault of the machine."""


def test_every_row_is_provoked():
    rows = {(row.gate, row.reason) for row in ROWS}
    assert len(rows) == len(ROWS)
    assert rows == CASES.keys() | ELSEWHERE.keys()
    assert not CASES.keys() & ELSEWHERE.keys()


@pytest.mark.parametrize(("gate", "pattern"), CASES, ids=lambda value: str(value)[:40])
def test_a_refusal_has_its_hint_in_log_and_record(recorder, people, device, gate, pattern):
    known = len(recorder.records)
    CASES[gate, pattern](Scene(recorder, people, device))

    def fits(record: Record) -> bool:
        outcome = record["outcome"]
        if outcome["gate"] is None:
            return False
        row, _ = explain.row_of(Gate(outcome["gate"]), outcome["reason"])
        return (row.gate, row.reason) == (gate, pattern)

    record = recorder.wait(fits, known)
    assert record["outcome"]["hint"]
    assert "{" not in record["outcome"]["hint"].replace("{ subject", "").replace("{enabled", "")
    lines = [line for line in recorder.gateway.log if line.get("hint") == record["outcome"]["hint"]]
    assert any(line.get("request_id") in (record["id"], None) for line in lines)


# Rows that need a gateway of their own.


def test_a_certificate_that_is_rejected_has_its_hint(own_lab, tmp_path):
    people = People(own_lab)
    with recording(own_lab, {"client_auth": {**people.config, "unknown_certificates": "reject"}}) as running:

        def ask() -> None:
            with (
                contextlib.suppress(ssl.SSLError, OSError),
                running.gateway.connect(certificate=people.pairs["unknown"], version=V12) as connection,
            ):
                connection.ask("GET", "cacerts")

        record = running.of(ask)
        assert "client_auth.unknown_certificates is reject" in record["outcome"]["hint"]
        with running.gateway.connect(certificate=people.pairs["ours"]) as connection:
            assert connection.ask("GET", "cacerts").status == 200
            running.gateway.configure(
                {"client_auth": {"unknown_certificates": "reject"}, "record": {"dir": str(running.folder), "keep": 100}}
            )
            assert running.gateway.reload()["event"] == "reloaded"
            record = running.of(lambda: connection.ask("GET", "cacerts"))
    assert record["gates"][0]["result"] == "refuse"
    assert record["outcome"]["hint"].startswith("The certificate of this open connection has been revoked")


def test_a_full_gateway_has_its_hint(own_lab):
    with recording(own_lab, {"server": {"max_connections": 1}}) as running, running.gateway.connect():
        record = running.of(lambda: socket.create_connection(("127.0.0.1", running.gateway.port)).close())
    assert record["outcome"]["hint"].startswith("The gateway is full: raise server.max_connections")
    assert record["connection"]["number"] == 0


def test_a_guessed_password_has_its_hint(own_lab):
    with recording(own_lab, {"client_auth": {"guess_delay": 60}}) as running:

        def guess() -> None:
            connections = [running.gateway.connect() for _ in range(40)]
            for number, connection in enumerate(connections):
                connection.send(request("POST", "simpleenroll", GOOD, login=f"user-{number}:wrong"))
            for connection in connections:
                connection.response()
                connection.close()

        guess()
        record = running.wait(lambda record: record["outcome"]["status"] == 429)
    assert record["gates"][2]["result"] == "refuse"
    assert record["outcome"]["hint"].startswith("Wrong passwords from this address come too fast")


def test_no_channel_binding_has_its_hint(own_lab):
    pop = {"tls13": "off", "rules": [{"operation": "simplereenroll", "pop": "optional"}, {"pop": "required"}]}
    with recording(own_lab, {"pop": pop}) as running:
        missing = running.of(lambda: running.gateway.post("simpleenroll", GOOD, version=V13))
        present = running.of(lambda: running.gateway.post("simpleenroll", csr(challenge="x"), version=V13))
    assert missing["outcome"]["hint"] == "Connect over TLS 1.2, or set pop.tls13: exporter in conf.yaml."
    assert "A password belongs into HTTP authentication" in present["outcome"]["hint"]


def test_a_key_in_the_clear_has_its_hint(own_lab):
    own_lab.edit("handlers/openssl/issue.sh", "[[ $EST_KEYGEN_PROTECT == none ]] || key=", "[[ 1 ]] || key=")
    capability = attribute(
        keygen.SMIME_CAPABILITIES, tlv(SEQUENCE, tlv(SEQUENCE, bytes.fromhex("060960864801650304012d")))
    )
    body = csr("device-1", attribute(SYM, tlv(4, b"device-7")), capability)
    with recording(own_lab, {"callouts": {"operations": {"serverkeygen": {"enabled": True}}}}) as running:
        record = running.of(lambda: running.gateway.post("serverkeygen", body))
    assert record["outcome"]["hint"].startswith("The handler must encrypt the key")


def test_a_gateway_without_passwords_says_so(own_lab):
    with recording(own_lab, {"client_auth": {"users": None}}) as running:
        record = running.of(lambda: running.gateway.post("simpleenroll", GOOD, login=None))
        assert (record["outcome"]["status"], record["outcome"]["hint"]) == (403, NO_PASSWORDS)
        record = running.of(lambda: running.gateway.post("simpleenroll", GOOD))
        assert record["outcome"]["hint"] == NO_PASSWORDS


# Where a wrong channel binding comes from.


def hint_of(recorder: Recording, connection: Connection, value: str) -> str:
    record = recorder.of(lambda: connection.ask("POST", "simpleenroll", csr(challenge=value), login=LOGIN))
    assert (record["binding"]["result"], record["outcome"]["status"]) == ("refused", 400)
    hint: str = record["outcome"]["hint"]
    return hint


def test_a_binding_of_another_connection_names_that_connection(recorder):
    with recorder.gateway.connect(pyopenssl=True) as other, recorder.gateway.connect() as connection:
        known = recorder.of(lambda: other.ask("GET", "cacerts"))
        hint = hint_of(recorder, connection, bound(other))
    number = known["connection"]["number"]
    assert re.fullmatch(
        rf"It was made for connection {number}, \d+ s ago \(tls-exporter\): sign after connecting\.", hint
    )


def test_a_binding_of_a_connection_without_a_request_is_known_too(recorder):
    with recorder.gateway.connect(version=V12) as other:
        value = bound(other)
    with recorder.gateway.connect() as connection:
        assert "(tls-unique): sign after connecting." in hint_of(recorder, connection, value)


def test_a_binding_of_the_other_type_is_named(recorder):
    with recorder.gateway.connect(version=V12, pyopenssl=True) as connection:
        value = bound(connection)
        hint = hint_of(recorder, connection, value)
    assert hint == "That is tls-exporter, and here tls-unique counts: let the client use that one."


def test_a_binding_of_nobody_asks_for_a_proxy(recorder):
    with recorder.gateway.connect() as connection:
        hint = hint_of(recorder, connection, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
    assert "is there a TLS proxy in between" in hint


def test_a_password_in_the_challenge_is_told_from_a_binding_and_not_recorded(recorder):
    with recorder.gateway.connect() as connection:
        record = recorder.of(
            lambda: connection.ask("POST", "simpleenroll", csr(challenge="my-pass phrase"), login=LOGIN)
        )
    assert "may be a password" in record["outcome"]["hint"]
    assert record["binding"]["found"] == record["request"]["body"] == record["request"]["csr"]["pem"] == "[removed]"
    assert "my-pass phrase" not in str(record)


def test_a_gateway_that_records_nothing_has_hints_in_its_log(own_lab):
    with running_gateway(own_lab) as gateway, gateway.connect(version=V12) as other:
        gateway.post("simpleenroll", csr(challenge=bound(other)))
        assert gateway.access[-1]["hint"].startswith("The CSR was signed for another connection")


def test_only_the_last_connections_are_remembered():
    known = Bindings(most=2)
    values = [bytes([number]) * 32 for number in range(3)]
    for number, value in enumerate(values, start=1):
        known.add(number, [Binding(BindingType.TLS_EXPORTER, value)])
    assert known.find(values[0]) is None
    found = known.find(values[2])
    assert found is not None
    assert found[:2] == (3, BindingType.TLS_EXPORTER)


# The text form of the log.


def test_a_hint_stands_at_the_end_of_a_line_or_on_the_next(own_lab):
    with running_gateway(own_lab, {"log": {"format": "text"}}) as gateway:
        start = len(gateway.log_text)
        gateway.post("simpleenroll", GOOD, headers={"Content-Type": "a/b"})
        gateway.get("/x")
        lines = gateway.log_text[start:].splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("    next: Send the header Content-Type: application/pkcs10")
    assert all(len(line) <= 120 or "next:" not in line for line in lines[::2])


# The source.

FILES = {
    Gate.PATH: ["est/operations.py", "gateway/body.py"],
    Gate.PASSWORD: ["auth/http.py", "auth/digest.py"],
    Gate.CSR: ["est/csr.py", "est/bounds.py", "est/template_check.py", "gateway/request.py", "gateway/renewal.py"],
}
"""Modules in which every refusal belongs to one gate."""


def refusals(path: Path) -> Iterator[str]:
    """The texts of the refusals in a module, with X for what is filled in."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
            continue
        call = node.exc
        words = [keyword.value for keyword in call.keywords if keyword.arg == "log"] or call.args[:1]
        for word in words:
            match word:
                case ast.Constant(value=str() as text):
                    yield text
                case ast.JoinedStr(values=parts):
                    yield "".join(part.value if isinstance(part, ast.Constant) else "X" for part in parts)  # type: ignore[misc]


@pytest.mark.parametrize(("gate", "name"), [(gate, name) for gate, names in FILES.items() for name in names])
def test_every_refusal_in_the_source_has_a_row_of_its_gate(gate, name):
    last = {"", ": (?P<fault>.+)"}
    found = list(refusals(ROOT / "estgw" / name))
    assert found
    for text in found:
        sentence = f"{text[:1].upper()}{text[1:]}" if gate is Gate.CSR else text
        row, _ = explain.row_of(gate, sentence)
        assert row.gate is gate, text
        assert gate is Gate.CSR or row.reason not in last, text


def test_a_hint_is_bounded_however_long_the_reason():
    reason = f"This operation needs a TLS client certificate; the one offered was not accepted: {'x' * 4000}"
    assert len(explain.hint(Gate.REQUIRES, reason, Facts(offered=("Basic",)))) == explain.LONGEST
