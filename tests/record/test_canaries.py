"""Secrets of every kind, through all operations, runners and handler sets: none is in a record."""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from estgw.auth import users
from estgw.cmc.messages import PKIData
from estgw.cmc.requests import PKCS10Request
from estgw.cmc.values import RevokeRequest
from estgw.est.operations import OPERATIONS
from tests.cmc_service import office
from tests.kit.cases import some
from tests.kit.clients import OTP, REVOCATION, bound, digest_answer, digest_challenge, digest_file, linking
from tests.kit.connection import V12, basic
from tests.kit.csr import csr
from tests.kit.gateway import enrol
from tests.kit.keys import KEY, KEY_PEM
from tests.kit.processes import until
from tests.kit.workspace import Workspace
from tests.record.kit import Record, Recording, readings, recording

LOGIN = "canary:Correct-Horse-1"
CANARIES = {
    "the password": "Correct-Horse-1",
    "a wrong password": "Battery-Staple-2",
    "a bearer token": "Bearer-Canary-3",
    "a password without a scheme": "Schemeless-Canary-4",
    "handler_env": "Database-Canary-5",
    "a header": "Api-Canary-6",
    "a cookie": "Cookie-Canary-7",
    "a one-time password": "Otp-Canary-8",
    "a revocation challenge": "Revoke-Canary-9",
    "a password in challengePassword": "Challenge Canary 10",
    "the query": "Query-Canary-11",
    "a passphrase": "Passphrase-Canary-12",
    "a short password": "q7",
}
KEY_LINE = KEY_PEM.decode().splitlines()[1]
KEY_DER = KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
LOUD = {
    "bash": '#!/bin/bash\nenv >&2; cat; cat; echo "$EST_PASSWORD ${EST_OTP-}"; cat key.pem >&2; exit 77\n',
    "python": (
        "#!/usr/bin/env python3\nimport os, sys\nprint(os.environ, file=sys.stderr)\nprint(sys.stdin.read())\n"
        "print(os.environ.get('EST_PASSWORD'), os.environ.get('EST_OTP'))\n"
        "print(open('key.pem').read(), file=sys.stderr)\nsys.exit(77)\n"
    ),
}
"""Scripts that print all they know."""
REQUESTS = ("simpleenroll", "simplereenroll", "serverkeygen")
RUNNERS = ("exec", "fork", "pool")


@pytest.fixture(scope="module")
def own(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = lab.copy(tmp_path_factory.mktemp("canaries") / "lab")
    users.set_password(made.path / "users.htpasswd", *LOGIN.split(":"))
    users.set_password(made.path / "users.htpasswd", "short", "q7")
    digest_file(made, LOGIN)
    for name, text in LOUD.items():
        made.script(f"loud/{name}", text)
    (made.path / "loud/key.pem").write_bytes(KEY_PEM)
    return made


@pytest.fixture(scope="module", params=some(RUNNERS, 2))
def recorder(own: Workspace, request: pytest.FixtureRequest) -> Iterator[Recording]:
    loud = {"pass_credentials": True, "handler_env": {"DB_PASSWORD": CANARIES["handler_env"]}, "requires": "any"}
    labels: dict[str, Any] = {}
    for name in LOUD:
        script = str(own.path / "loud" / name)
        operations: dict[str, Any] = {each: {**loud, "enabled": True, "handler": script} for each in OPERATIONS}
        operations["crls"] = {
            **loud, "handler": script, "method": "GET", "response_type": "text/plain", "body": "raw",
        }  # fmt: skip
        labels[f"loud-{name}"] = {"operations": operations, "authorize": str(own.path / "handlers/python/authorize")}
        labels[f"asks-{name}"] = {"authorize": script, "handlers": str(own.path / "handlers/python")}
        labels[f"checks-{name}"] = {"authenticate": script, "handlers": str(own.path / "handlers/python")}
        if name == "python":
            for label in ("loud-python", "asks-python", "checks-python"):
                labels[label]["runner"] = request.param
    labels["python"] = {
        "runner": request.param,
        "operations": {"serverkeygen": {"enabled": True}, "fullcmc": {"enabled": True}},
    }
    overrides = {
        "client_auth": {"digest": ["MD5"], "digest_users": str(own.path / "users.htdigest")},
        "callouts": {
            "pass_headers": ["X-Api-Key", "Cookie", "User-Agent"],
            "operations": {"serverkeygen": {"enabled": True}},
        },
        "labels": labels,
    }
    with recording(own, overrides, clean=False) as running:
        yield running


def texts(value: Any) -> Iterator[str]:
    """Every text in a record, the names of keys as well."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


SHORT = re.compile(rb"(?<![A-Za-z0-9+/])q7(?![A-Za-z0-9+/=])")


def found(record: Record) -> set[str]:
    """The canaries in a record."""
    return set().union(*map(found_in, texts(record)))


@functools.cache
def found_in(text: str) -> set[str]:
    """The canaries in a text.  Records have many texts in common, and each test looks at all."""
    seen = set()
    for number, content in enumerate(readings(text)):
        for name, canary in CANARIES.items():
            if (canary.encode() in content) if len(canary) > 2 else (number == 0 and SHORT.search(content)):
                seen.add(name)
        if KEY_LINE.encode() in content or KEY_DER[-100:-60] in content:
            seen.add("a private key")
        if KEY_DER[36:60] in content:
            seen.add("the scalar of a private key")
    return seen


def clean(recorder: Recording, count: int) -> list[Record]:
    """All records, at least so many, without a canary."""
    recorder.gateway.get("cacerts")
    records = until(lambda: kept if len(kept := recorder.records) > count else None)
    for record in records:
        assert found(record) == set(), [text for text in texts(record) if found({"text": text})]
    return records


def test_a_canary_would_be_found():
    """The search itself: in plain text, in base64, and in base64 of base64."""
    inner = base64.b64encode(b"xx" + CANARIES["a passphrase"].encode() + b"yy")
    assert found({"a": [CANARIES["the password"]]}) == {"the password"}
    assert found({"a": inner.decode()}) == {"a passphrase"}
    assert found({"a": {"b": base64.b64encode(b"{" + inner + b"}").decode()}}) == {"a passphrase"}
    assert found({"a": base64.b64encode(KEY_PEM).decode()}) == {"a private key", "the scalar of a private key"}


def test_credentials_of_every_kind_stay_out(recorder):
    gateway = recorder.gateway
    headers = {"X-Api-Key": CANARIES["a header"], "Cookie": f"session={CANARIES['a cookie']}"}
    count = len(recorder.records)
    for set_ in LOUD:
        for label in (f"loud-{set_}", f"asks-{set_}", f"checks-{set_}"):
            for login in (LOGIN, f"canary:{CANARIES['a wrong password']}", "short:q7"):
                gateway.post(f"{label}/simpleenroll?token={CANARIES['the query']}", csr(), login=login, headers=headers)
                count += 1
    for value in (
        f"Bearer {CANARIES['a bearer token']}",
        CANARIES["a password without a scheme"],
        f"{CANARIES['a password without a scheme']} {CANARIES['a password without a scheme']}",
        basic(f"canary{CANARIES['the password']}"),
        f"Basic {LOGIN}",
    ):
        gateway.post("simpleenroll", csr(), login=None, headers={"Authorization": value})
        gateway.get("cacerts", headers={"Authorization": value})
        count += 2
    with gateway.connect() as connection:
        challenge = digest_challenge(connection.ask("POST", "simpleenroll", csr()))
        header = digest_answer(challenge, LOGIN)
        connection.ask("POST", "loud-bash/simpleenroll", csr(), headers={"Authorization": header})
    records = clean(recorder, count)
    response = re.search(r'response="(\w+)"', header)
    assert response is not None
    assert response[1] not in json.dumps(records)
    heard = [each for record in records for each in record["callouts"] if "loud" in each["script"]]
    assert any("DB_PASSWORD" in each["environment"] for each in heard), "the scripts have seen them"
    assert any("EST_PASSWORD" in each["stderr"] for each in heard)


def test_every_operation_of_a_loud_script_stays_silent(recorder, tmp_path):
    gateway = recorder.gateway
    device = enrol(gateway, tmp_path)
    odd = {
        "otp": linking(CANARIES["a one-time password"], kind=OTP),
        "revocation": linking(CANARIES["a revocation challenge"], kind=REVOCATION),
    }
    message = office.message(PKIData(tuple(office.fresh()), (PKCS10Request(7, csr("device-7")),)), office.Person(KEY))
    for set_ in LOUD:
        for operation in (*OPERATIONS, "crls"):
            path = f"loud-{set_}/{operation}"
            if operation in ("cacerts", "csrattrs", "crls"):
                gateway.get(path, login=LOGIN)
            elif operation == "fullcmc":
                gateway.post(path, message, login=LOGIN, headers={"Content-Type": "application/pkcs7-mime"})
            else:
                for wishes in ([], [odd["otp"]], [odd["revocation"]]):
                    gateway.post(path, csr("device-1", *wishes), login=LOGIN, certificate=device)
                gateway.post(path, csr(challenge=CANARIES["a password in challengePassword"]), login=LOGIN)
                for body in (KEY_PEM, KEY_DER, base64.b64encode(KEY_DER)):
                    gateway.post(path, body, login=LOGIN)
    records = clean(recorder, 2 * (4 + 3 * 7))
    assert {record["operation"] for record in records} >= {*OPERATIONS, "crls"}


def test_a_half_request_with_a_one_time_password_stays_out(recorder):
    whole = csr("device-1", linking(CANARIES["a one-time password"], kind=OTP))
    for body in (whole[:-20], whole + b"\0", base64.b64encode(whole)[:-30], base64.b64encode(whole) + b"="):
        recorder.gateway.post("simpleenroll", body, login=LOGIN)
    clean(recorder, 4)


@pytest.mark.parametrize("label", ["", "python/"])
def test_a_key_that_the_server_makes_stays_out(recorder, label):
    answers = []
    path, body = f"{label}serverkeygen", csr("device-9")
    record = recorder.of(lambda: answers.append(recorder.gateway.post(path, body, login=LOGIN)))
    (answer,) = answers
    assert answer.status == 200
    key = answer.body.split(b"\r\n\r\n")[1].split(b"\r\n--")[0]
    shown = base64.b64decode(record["response"]["body"])
    assert b"[removed]" in shown
    assert b"application/pkcs8" in shown
    assert key[:40] not in shown
    assert record["callouts"][-1]["stdout"] == "[removed]"
    assert record["issued"]["subject"] == "CN=device-9"
    der = base64.b64decode(key)
    for text in texts(record):
        for content in readings(text):
            assert der[36:68] not in content


def test_a_passphrase_in_a_revocation_request_stays_out(recorder, tmp_path):
    pair = enrol(recorder.gateway, tmp_path)
    body = revocation(Path(pair[0]))
    types = {"Content-Type": "application/pkcs7-mime"}
    record = recorder.of(lambda: recorder.gateway.post("fullcmc", body, login=LOGIN, headers=types))
    assert record["request"]["body"] == "[removed]"
    clean(recorder, 1)


def revocation(certificate: Path) -> bytes:
    """A Full PKI Request that revokes with a passphrase."""
    made = x509.load_pem_x509_certificate(certificate.read_bytes())
    secret = CANARIES["a passphrase"].encode()
    wanted = RevokeRequest(made.issuer.public_bytes(), made.serial_number, 4, passphrase=secret)
    return office.message(PKIData((*office.fresh(), office.control("revokeRequest", wanted)), ()), office.Person(KEY))


def test_a_right_binding_is_no_secret(recorder):
    with recorder.gateway.connect(version=V12) as connection:
        value = bound(connection)
        body = csr(challenge=value)
        record = recorder.of(lambda: connection.ask("POST", "simpleenroll", body, login=LOGIN))
    assert base64.b64decode(record["request"]["body"]) == body
    assert record["binding"]["found"] == value
