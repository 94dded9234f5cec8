"""curl over every operation of both handler sets: openssl without a label, `python` as conf.yaml has it."""

from __future__ import annotations

import base64
import email
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from tests.kit.ca import pem
from tests.kit.connection import CERTS_ONLY, PKCS10
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, Gateway, running_gateway
from tests.kit.keys import KEY, KEY_PEM
from tests.kit.processes import run
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.client("curl")

LABELS = {"openssl": "", "python": "/python"}


@pytest.fixture(scope="module")
def gateway(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    own = lab.copy(tmp_path_factory.mktemp("both"))
    overrides = {"callouts": {"operations": {"serverkeygen": {"enabled": True}}}}
    with running_gateway(own, overrides, python=True) as running:
        yield running


@pytest.fixture(params=LABELS)
def curl(request: pytest.FixtureRequest, gateway: Gateway, tmp_path: Path) -> Curl:
    (tmp_path / "request.b64").write_bytes(base64.encodebytes(csr("moon", x509.DNSName("moon.example"))))
    return Curl(gateway, tmp_path, LABELS[request.param])


class Curl:
    """curl for the paths of one handler set. Each answer must agree with the access line."""

    def __init__(self, gateway: Gateway, path: Path, label: str) -> None:
        self.gateway, self.path, self.label = gateway, path, label

    def __call__(self, operation: str, *options: str | Path) -> tuple[int, str, bytes]:
        """Status, type and body of the answer."""
        out = self.path / "answer"
        out.unlink(missing_ok=True)
        url = f"{self.gateway.url}/.well-known/est{self.label}/{operation}"
        command = ("curl", "-sS", "--cacert", str(self.gateway.lab.anchor), "-o", str(out))
        told = ("-w", "%{http_code} %{content_type}")
        done = run(*command, *told, *options, url, env={"PATH": os.environ["PATH"], "HOME": str(self.path)})
        status, _, content_type = done.stdout.decode().partition(" ")
        line = self.gateway.access[-1]
        assert (line["operation"], line.get("label", "")) == (operation, self.label.lstrip("/"))
        assert line["status"] == int(status)
        return int(status), content_type, out.read_bytes() if out.exists() else b""

    def post(self, operation: str, *options: str | Path, content_type: str = PKCS10) -> tuple[int, str, bytes]:
        body = ("--data-binary", f"@{self.path}/request.b64", "-H", f"Content-Type: {content_type}")
        return self(operation, *body, *options)


def issued(answer: tuple[int, str, bytes]) -> x509.Certificate:
    assert answer[:2] == (200, CERTS_ONLY), answer
    (certificate,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer[2]))
    return certificate


def test_curl_gets_the_root_from_cacerts(curl):
    status, content_type, body = curl("cacerts")
    assert (status, content_type) == (200, "application/pkcs7-mime")
    root = x509.load_pem_x509_certificate(curl.gateway.lab.anchor.read_bytes())
    assert pkcs7.load_der_pkcs7_certificates(base64.b64decode(body)) == [root]


def test_curl_gets_csr_attributes(curl):
    status, content_type, body = curl("csrattrs")
    assert (status, content_type) == (200, "application/csrattrs")
    assert base64.b64decode(body)[:1] == b"\x30"


def test_enrol_with_a_password_then_renew_with_the_certificate(curl, tmp_path):
    assert curl.post("simpleenroll")[0] == 401
    first = issued(curl.post("simpleenroll", "-u", LOGIN))
    curl.gateway.lab.verify(first)
    assert first.public_key() == KEY.public_key()
    assert curl.post("simplereenroll", "-u", LOGIN)[0] == 403
    (tmp_path / "old.pem").write_bytes(pem(first))
    (tmp_path / "key.pem").write_bytes(KEY_PEM)
    pair = ("--cert", tmp_path / "old.pem", "--key", tmp_path / "key.pem")
    second = issued(curl.post("simplereenroll", *pair))
    curl.gateway.lab.verify(second)
    assert (second.subject, second.serial_number != first.serial_number) == (first.subject, True)
    for certificate in (first, second):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(names) == [x509.DNSName("moon.example")]


def test_serverkeygen_returns_a_new_key_and_its_certificate(curl):
    status, content_type, body = curl.post("serverkeygen", "-u", LOGIN)
    assert status == 200, body
    message = email.message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    first, second = (part for part in message.walk() if not part.is_multipart())
    assert [first["Content-Type"], second["Content-Type"]] == ["application/pkcs8", CERTS_ONLY]
    key = serialization.load_der_private_key(base64.b64decode(str(first.get_payload())), None)
    certificate = issued((200, CERTS_ONLY, str(second.get_payload()).encode()))
    assert key.public_key() == certificate.public_key() != KEY.public_key()
    curl.gateway.lab.verify(certificate)


def test_full_cmc_refuses_a_body_that_is_not_a_message(curl):
    content_type = "application/pkcs7-mime; smime-type=CMC-request"
    status, kind, body = curl.post("fullcmc", "-u", LOGIN, content_type=content_type)
    assert (status, kind) == (400, "application/pkcs7-mime; smime-type=CMC-response")
    assert b"PRIVATE" not in body
