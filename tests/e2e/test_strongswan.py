"""strongSwan's `pki`: a client that sends neither User-Agent nor Accept and fails on any line break in base64."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, Gateway, running_gateway
from tests.kit.keys import KEY_PEM
from tests.kit.processes import run
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.client("pki")


SETS = ("openssl", "python")


@pytest.fixture(scope="module", params=SETS)
def gateway(
    request: pytest.FixtureRequest, lab: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway with one of the handler sets on the unlabelled paths: pki has no way to name a label."""
    own = lab.copy(tmp_path_factory.mktemp("strongswan"))
    handlers = f"handlers/{request.param}"
    with running_gateway(own, {"callouts": {"handlers": handlers, "authorize": f"{handlers}/authorize"}}) as running:
        yield running


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    path = tmp_path / "request.der"
    path.write_bytes(csr("moon"))
    return path


def pki(gateway: Gateway, command: str, *options: str | Path, status: int = 0) -> tuple[bytes, str]:
    """Run one command against a gateway. Returns standard output and error."""
    url = f"https://localhost:{gateway.port}"
    done = run("pki", command, "--url", url, "--cacert", gateway.lab.anchor, *options, status=status)
    return done.stdout, done.stderr.decode()


def with_certificate(directory: Path, out: bytes) -> tuple[str | Path, ...]:
    """Options to log in with this certificate."""
    (directory / "old.pem").write_bytes(out)
    (directory / "key.pem").write_bytes(KEY_PEM)
    return "--cert", directory / "old.pem", "--key", directory / "key.pem"


def test_pki_gets_and_trusts_the_ca_certificate(gateway, tmp_path):
    _, words = pki(gateway, "--estca", "--caout", tmp_path / "ca.pem", "--outform", "pem")
    assert "Root CA cert is trusted" in words
    saved = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    assert saved == x509.load_pem_x509_certificate(gateway.lab.anchor.read_bytes())


def test_pki_enrols_with_a_password_and_renews_with_the_certificate(gateway, tmp_path, request_file):
    enrol = ("--in", request_file, "--outform", "pem")
    out, words = pki(gateway, "--est", *enrol, "--userpass", LOGIN)
    assert "Issued certificate is trusted" in words
    first = x509.load_pem_x509_certificate(out)
    gateway.lab.verify(first)
    assert (gateway.access[-1]["operation"], gateway.access[-1]["user"]) == ("simpleenroll", "estuser")

    out, words = pki(gateway, "--est", *enrol, *with_certificate(tmp_path, out))
    assert "Issued certificate is trusted" in words
    second = x509.load_pem_x509_certificate(out)
    gateway.lab.verify(second)
    assert second.subject == first.subject
    assert second.serial_number != first.serial_number
    assert (gateway.access[-1]["operation"], gateway.access[-1]["identity"]) == ("simplereenroll", "CN=moon")


def test_pki_with_a_wrong_password_gets_401(gateway, request_file):
    before = gateway.lab.books()
    _, words = pki(gateway, "--est", "--in", request_file, "--userpass", "estuser:wrong", status=1)
    assert "HTTP 401" in words
    assert gateway.lab.books() == before


@pytest.mark.parametrize("handlers", SETS)
def test_pki_waits_for_retry_after_and_gets_the_certificate(own_lab, request_file, handlers):
    """The first answer is a 202 with an empty body and whole seconds. The second is the certificate."""
    own_lab.script(
        "handlers/later",
        f'once=$EST_CA_DIR/$EST_PENDING_ID\n[[ -e $once ]] && exec "$PWD/{handlers}/simpleenroll"\n'
        ">\"$once\"; printf 'Status: 202\\nRetry-After: 1\\n\\n'",
    )
    handler = str(own_lab.path / "handlers/later")
    with running_gateway(own_lab, {"callouts": {"operations": {"simpleenroll": {"handler": handler}}}}) as gateway:
        options = ("--in", request_file, "--userpass", LOGIN, "--interval", "1", "--maxpolltime", "10")
        out, _ = pki(gateway, "--est", *options, "--outform", "pem")
        own_lab.verify(x509.load_pem_x509_certificate(out))
        assert [line["status"] for line in gateway.access] == [202, 200]
