"""The log: one line per request, nothing forged in it, nothing secret."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import socket
import ssl
import subprocess
import warnings

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from estgw.auth import users
from tests.kit.connection import V12, basic, request
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, running_gateway
from tests.kit.keys import KEY_PEM
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import ROOT, run

GOOD = csr()


# The access line.


def test_an_access_line_has_all_fields_of_its_request(gateway, device):
    with gateway.connect(version=V12, certificate=device) as connection:
        binding = base64.b64encode(connection.tls_unique).decode()
        answer = connection.ask("POST", "simplereenroll", csr(challenge=binding), login=LOGIN)
    line = gateway.access[-1]
    assert re.fullmatch("[0-9a-f]{10}", line.pop("request_id"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("timestamp"))
    assert 0 < line.pop("ms") < 20_000
    assert int(line.pop("serial"), 16) == answer.certificate.serial_number
    assert line == {
        "event": "request",
        "level": "info",
        "status": 200,
        "method": "POST",
        "path": "/.well-known/est/simplereenroll",
        "peer": "127.0.0.1",
        "tls": "TLSv1.2",
        "operation": "simplereenroll",
        "identity": "CN=device-1",
        "user": "estuser",
        "subject": "CN=device-1",
        "pop": "linked",
    }


def test_each_request_has_one_access_line_with_any_status(bench):
    before = len(bench.access)
    asked = [
        ("GET", "cacerts", None, 200),
        ("GET", "nowhere", None, 404),
        ("POST", "simpleenroll", GOOD, 401),
        ("POST", "crash/simpleenroll", GOOD, 401),
        ("PUT", "cacerts", GOOD, 405),
    ]
    with bench.connect() as connection:
        for method, path, body, status in asked:
            assert connection.ask(method, path, body).status == status
    bench.post("crash/simpleenroll", GOOD)
    lines = bench.access[before:]
    assert [line["status"] for line in lines] == [*(status for *_, status in asked), 500]
    assert len({line["request_id"] for line in lines}) == len(lines)
    assert lines[-1]["label"] == "crash"
    # The client is refused before it has an identity, so the line has a reason only.
    assert lines[2]["reason"] == "no credentials, and no client certificate"
    assert "identity" not in lines[2]


def test_each_line_of_a_scripts_stderr_is_a_log_line(bench):
    bench.post("talk/simpleenroll", GOOD)
    access = bench.access[-1]
    said = [line for line in bench.lines_of(access["request_id"]) if line["event"] == "handler stderr"]
    assert [line["line"] for line in said] == [
        "one",
        "\\x1b[31mtwo",
        '{"event": "forged"}',
        "[private key removed]",
    ]
    assert {(line["handler"], line["level"]) for line in said} == {("talk", "warning")}
    assert not [line for line in bench.log if line["event"] == "forged"]


# Nothing forged.

EVIL = '"}\n{"event": "forged", "status": 200}\n\x1b[2J\r\u2028\u202e'


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_client_can_forge_a_log_line(own_lab, form):
    """Neither subject, user, path nor header can: the log has one line per request and no control codes."""
    with running_gateway(own_lab, {"log": {"format": form}}, clean=False) as gateway:
        start = len(gateway.log_text)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, EVIL)])
        encoded = "".join(f"%{byte:02x}" for byte in EVIL.encode())
        gateway.post("simpleenroll", csr(name))
        gateway.post("simpleenroll", GOOD, login=f"{EVIL}:estpwd")
        gateway.get(f"/.well-known/est/{encoded}")
        gateway.get(f"/.well-known/est/{encoded}/cacerts")
        gateway.post("simpleenroll", GOOD, headers={"Content-Type": 'text/"}{\x1b[2J'})
        gateway.post("simpleenroll", GOOD, headers={"Authorization": 'B"}{ x'})
        gateway.post("simpleenroll", GOOD, headers={"User-Agent": '"}{'})
        with gateway.connect() as connection:
            connection.send(b'GET /\x1b[2J"}{ HTTP/1.1\r\n\r\n')
            connection.rest()
        text = gateway.log_text[start:]
        lines = [line for line in text.splitlines() if not line.startswith("    next: ")]
        assert len(lines) == 8, text
        assert text.replace("\n", "").isprintable()
        if form == "json":
            assert [line["event"] for line in gateway.log[-8:]] == ["request"] * 8
            assert "forged" not in {line["event"] for line in gateway.log}
        else:
            assert not [line for line in lines if not re.match(r"\d\d:\d\d:\d\d  [24]\d\d  ", line)]


# Nothing secret.

SECRETS = ["correct-horse", "battery-staple", "Tr0ub4dor", "token-of-bearer", "no-scheme-here", "s3cret-in-digest"]


def test_no_secret_ever_reaches_the_log(own_lab):
    """Clients send credentials of every kind, right and wrong, whole and broken. Then the whole log is searched."""
    users.set_password(own_lab.path / "users.htpasswd", "alice", SECRETS[0])
    say_all = own_lab.script("say-all", "env; env >&2; cat; exit 1")
    keygen = {"serverkeygen": {"enabled": True}}
    overrides = {
        "log": {"level": "debug"},
        "callouts": {"operations": keygen},
        "labels": {"loud": {"profile": "draft", "operations": {"simpleenroll": {"handler": str(say_all)}}}},
    }
    shown: list[str] = []

    def headers(value: str) -> dict[str, str]:
        shown.append(value)
        return {"Authorization": value}

    with running_gateway(own_lab, overrides) as gateway:
        for password in SECRETS[:3]:
            for path in ("simpleenroll", "simpleEnroll", "serverkeygen", "simplereenroll", "nowhere", "cacerts"):
                gateway.post(path, GOOD, login=None, headers=headers(basic(f"alice:{password}")))
        answer = gateway.post("serverkeygen", GOOD, login=f"alice:{SECRETS[0]}")
        assert answer.status == 200
        for value in (
            f"Bearer {SECRETS[3]}",
            SECRETS[4],
            f"{SECRETS[4]} {SECRETS[4]}",
            f"Basic alice:{SECRETS[1]}",
            basic(f"alice{SECRETS[1]}"),
            basic(f"alice\n:{SECRETS[1]}"),
            f'Digest username="alice", response="{SECRETS[5]}"',
            f"Digest {SECRETS[5]}",
            basic(f"alice:{SECRETS[1]}" * 500),
        ):
            assert gateway.post("simpleenroll", GOOD, login=None, headers=headers(value)).status in (400, 401)
        for line in (f"Authorization : Basic {SECRETS[1]}", f"Authorization: Basic {SECRETS[1]}\0", SECRETS[1]):
            with gateway.connect() as connection:
                connection.send(f"POST /.well-known/est/simpleenroll HTTP/1.1\r\n{line}\r\n\r\n".encode())
                assert connection.response().status == 400
        # A private key instead of a CSR, and a script that prints everything it knows.
        gateway.post("simpleenroll", KEY_PEM, login=f"alice:{SECRETS[0]}")
        text = gateway.log_text
    for secret in [*SECRETS, *shown, *(value.partition(" ")[2][:40] for value in shown)]:
        assert not secret or secret not in text, secret
    for word in ("PRIVATE KEY-----", key_text(answer.body), KEY_PEM.decode().splitlines()[1]):
        assert word not in text


def key_text(multipart: bytes) -> str:
    """A piece of the private key in a keygen answer, in base64."""
    return multipart.split(b"\r\n\r\n")[1][:60].decode()


# Failed handshakes.


def test_a_client_that_distrusts_the_gateway_is_logged(gateway, own_lab):
    before = len(gateway.log)
    run(own_lab.ca / "create-ca", "--force")
    with pytest.raises(ssl.SSLCertVerificationError):
        gateway.connect(anchor=own_lab.anchor)
    line = gateway.wait_for("TLS handshake failed", after=before)
    assert "unknown ca" in line["reason"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", line["peer"])


def test_plain_http_is_answered_with_400_and_logged(gateway):
    before = len(gateway.log)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as plain:
        plain.sendall(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"in the URL.\n") and (data := plain.recv(1000)):
            answer += data
    head, _, words = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain")
    assert words == b"This port speaks HTTPS only: write https:// in the URL.\n"
    assert "http request" in gateway.wait_for("TLS handshake failed", after=before)["reason"]


def test_tls_1_1_is_refused_and_logged(gateway):
    before = len(gateway.log)
    context = ssl.create_default_context(cafile=str(gateway.lab.anchor))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as plain,
        pytest.raises(ssl.SSLError, match="alert protocol version"),
    ):
        context.wrap_socket(plain, server_hostname="localhost")
    assert gateway.wait_for("TLS handshake failed", after=before)["reason"] == "unsupported protocol"


def test_a_client_that_leaves_in_the_handshake_is_logged(gateway):
    before = len(gateway.log)
    socket.create_connection(("127.0.0.1", gateway.port), timeout=10).close()
    assert "closed" in gateway.wait_for("TLS handshake failed", after=before)["reason"]


# The form.


def test_the_log_is_text_on_a_terminal(own_lab):
    config = own_lab.path / "conf.yaml"
    config.write_text(config.read_text().replace("127.0.0.1:8443", "127.0.0.1:0"))
    terminal, line = pty.openpty()
    command = [*forked_estgw(), "serve", "-c", config]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=line) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
        finally:
            process.terminate()
    os.close(line)
    said = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert "listening" in said
    with pytest.raises(json.JSONDecodeError):
        json.loads(said.splitlines()[0])


def test_log_level_warning_leaves_out_requests(own_lab):
    with running_gateway(own_lab, {"log": {"level": "warning"}}) as gateway:
        assert gateway.get("cacerts").status == 200
        with gateway.connect() as connection:
            connection.send(request("GET", "nowhere"))
            assert connection.response().status == 404
        assert gateway.log_text == ""


# All output of a script is in the log, and a fault of the server is at least a warning.


def test_text_before_a_scripts_pem_is_in_the_log(own_lab):
    own_lab.edit("handlers/openssl/cacerts", "#!/bin/bash\n", "#!/bin/bash\necho debugging now\n")
    with running_gateway(own_lab) as gateway:
        assert gateway.get("cacerts").status == 200
        line = gateway.wait_for("text outside of PEM is not used")
    assert (line["handler"], line["printed"], line["level"]) == ("cacerts", '"debugging now"', "info")


def test_a_5xx_is_a_warning_that_quotes_the_script(own_lab):
    own_lab.edit("handlers/openssl/cacerts", "#!/bin/bash\n", "#!/bin/bash\necho hi; exit 0\n")
    with running_gateway(own_lab) as gateway:
        assert gateway.get("cacerts").status == 500
        line = gateway.access[-1]
    assert line["level"] == "warning"
    assert line["reason"].endswith('It printed "hi". stdout is the answer; messages go to stderr.')
