"""handlers/upstream/openbao in front of a real OpenBao: what it issues and refuses, and its absence and slowness."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from estgw.est import certs
from tests.kit.ca import CMC_RA, pem
from tests.kit.csr import csr, subject
from tests.kit.gateway import running_gateway
from tests.kit.keys import KEY_PEM
from tests.kit.openbao import ROOT_TOKEN, OpenBao, running_openbao
from tests.kit.processes import free_port
from tests.kit.upstream import Upstream, commands
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.client("bao")

STRICT = {"allowed_domains": "example.org", "allow_subdomains": True, "key_type": "any"}


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with running_openbao(tmp_path_factory.mktemp("bao")) as running:
        yield running


@pytest.fixture(scope="module")
def prepared(bao: OpenBao, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands in the README have made, and a role besides that refuses some names."""
    directory = tmp_path_factory.mktemp("administrator")
    bao.shell(commands("OpenBao and Vault"), directory)
    bao.ask("POST", "pki/roles/strict", STRICT)
    return directory / "vault-ca"


@pytest.fixture(scope="module")
def shared_vault(bao: OpenBao, prepared: Path, lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    """The handler as an operator sets it up, for the tests that change nothing."""
    return set_up(bao, prepared, lab.copy(tmp_path_factory.mktemp("vault") / "lab"))


@pytest.fixture
def vault(bao: OpenBao, prepared: Path, own_lab: Workspace) -> Upstream:
    return set_up(bao, prepared, own_lab)


def set_up(bao: OpenBao, prepared: Path, lab: Workspace) -> Upstream:
    made = Upstream.create(lab, "openbao", {"https://vault.example.org:8200/v1/": bao.url})
    shutil.copytree(prepared, made.folder, dirs_exist_ok=True)
    made.write("vault-anchors.pem", bao.ca.read_bytes())
    return made


def ca_of(bao: OpenBao) -> x509.Certificate:
    return x509.load_pem_x509_certificate(bao.ask("GET", "pki/cert/ca")["certificate"].encode())


def number_of_certificates(bao: OpenBao) -> int:
    return len(bao.ask("LIST", "pki/certs")["keys"])


def usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_an_enrolment_keeps_subject_and_names_and_has_the_roles_usages(bao, shared_vault):
    name = subject({NameOID.ORGANIZATION_NAME: "Example"}, {NameOID.SERIAL_NUMBER: "17"}, "device-1")
    issued = shared_vault.run("simpleenroll", csr(name, x509.DNSName("one.example"))).certificate
    assert issued.subject == name
    assert [each.value for each in certs.san(issued) or ()] == ["one.example"]
    assert usages(issued) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    issued.verify_directly_issued_by(ca_of(bao))


def test_the_scripts_are_asked_by_the_gateway_for_cacerts_enrolment_and_renewal(bao, vault):
    anchors = str(vault.folder / "anchors.pem")
    overrides = {
        "client_auth": {"explicit": ["openssl-ca/anchors.pem", anchors]},
        "labels": {"vault": vault.settings()},
    }
    with running_gateway(vault.lab, overrides) as gateway:
        assert gateway.get("/.well-known/est/vault/cacerts").certificates == [ca_of(bao)]
        first = gateway.post("/.well-known/est/vault/simpleenroll", csr()).certificate
        files = vault.write("client.pem", pem(first)), vault.write("client.key", KEY_PEM)
        path = "/.well-known/est/vault/simplereenroll"
        second = gateway.post(path, csr(), login=None, certificate=files).certificate
        assert (second.subject, second.issuer) == (first.subject, first.issuer)
        assert second.serial_number != first.serial_number
        # The CA is asked about the certificate itself, as the gateway knows of no list here.
        bao.ask("POST", "pki/revoke", {"certificate": pem(first).decode()})
        refused = gateway.post(path, csr(), login=None, certificate=files)
        assert (refused.status, refused.words) == (403, "your certificate is revoked")


@pytest.mark.exhaustive
def test_a_certificate_that_the_ca_does_not_know_is_not_renewed(bao, shared_vault):
    result = shared_vault.run("simplereenroll", csr())  # its file has a certificate of the demo's CA
    assert (result.status, result.words) == (77, "the CA does not know your certificate")


def test_an_ras_certificate_is_refused_before_the_ca_is_asked(bao, shared_vault):
    """`sign-verbatim` would give it that usage."""
    before = number_of_certificates(bao)
    result = shared_vault.run("simpleenroll", csr("device-1", x509.ExtendedKeyUsage([CMC_RA])))
    assert result.status == 77
    assert result.words == "Leave extendedKeyUsage out of the CSR, or ask for less in it: the CA would copy it."
    assert number_of_certificates(bao) == before


def test_what_the_ca_refuses_is_a_403_in_its_own_words(vault):
    vault.lab.edit(vault.script, 'sign = f"{mount}/sign-verbatim/est"', 'sign = f"{mount}/sign/strict"')
    vault.write("secrets/token", ROOT_TOKEN)
    result = vault.run("simpleenroll", csr("device.example.com"))
    assert result.status == 77
    assert result.words == "the CA refused: common name device.example.com not allowed by this role"
    assert "pki/sign/strict: HTTP 400: common name" in result.err
    assert vault.run("simpleenroll", csr("device.example.org")).status == 0


@pytest.mark.exhaustive
def test_a_role_that_is_missing_is_the_operators_fault_though_its_status_is_400(vault):
    vault.lab.edit(vault.script, "/sign-verbatim/est", "/sign-verbatim/nobody")
    vault.write("secrets/token", ROOT_TOKEN)
    result = vault.run("simpleenroll", csr())
    assert (result.status, result.words) == (69, "The CA can't be asked now; come back later.")
    assert "HTTP 400: unknown role: nobody" in result.err


@pytest.mark.exhaustive
def test_a_wrong_path_is_the_operators_fault_and_not_the_clients(vault):
    vault.lab.edit(vault.script, 'mount, lifetime = "pki"', 'mount, lifetime = "pkix"')
    vault.write("secrets/token", ROOT_TOKEN)
    result = vault.run("simpleenroll", csr())
    assert (result.status, result.words) == (69, "The CA can't be asked now; come back later.")
    assert 'HTTP 404: no handler for route "pkix/' in result.err


def test_a_wrong_token_is_the_operators_fault_and_is_not_printed(vault):
    vault.write("secrets/token", "s.wrong-token")
    result = vault.run("simpleenroll", csr())
    assert result.status == 69
    assert "HTTP 403: permission denied" in result.err
    assert "wrong-token" not in result.err + result.words


@pytest.mark.exhaustive
def test_a_token_that_others_can_read_is_not_used(vault):
    vault.write("secrets/token", "root", 0o640)
    result = vault.run("simpleenroll", csr())
    assert (result.status, result.out) == (78, b"")
    assert result.err == f"{vault.folder}/secrets/token: others can read it; chmod 600 {vault.folder}/secrets/token\n"


@pytest.mark.exhaustive
@pytest.mark.parametrize("content", ["", "two\nlines", "s.t\u00f6ken", "a\x1bb"])
def test_a_file_that_is_no_token_is_told_by_its_name_alone(vault, content):
    vault.write("secrets/token", content)
    result = vault.run("simpleenroll", csr())
    assert result.status == 78
    assert result.err == f"{vault.folder}/secrets/token: it must have one line of plain text\n"


@pytest.mark.exhaustive
def test_an_absent_ca_is_a_503(vault, bao):
    vault.lab.edit(vault.script, bao.url, f"https://127.0.0.1:{free_port()}/v1/")
    for operation in ("simpleenroll", "cacerts"):
        result = vault.run(operation, csr())
        assert (result.status, result.words) == (69, "The CA can't be asked now; come back later.")
        assert "Connection refused" in result.err


@pytest.mark.exhaustive
def test_a_ca_with_another_tls_certificate_is_not_told_the_token(vault):
    vault.write("vault-anchors.pem", vault.lab.anchor.read_bytes())
    result = vault.run("simpleenroll", csr())
    assert result.status == 69
    assert "certificate verify failed" in result.err


@pytest.mark.exhaustive
def test_a_slow_ca_is_a_503_before_the_gateways_time_is_over(shared_vault, bao):
    with bao.stopped():
        began = time.monotonic()
        result = shared_vault.run("simpleenroll", csr(), EST_TIMEOUT="3")
        assert 1.5 < time.monotonic() - began < 15
    assert result.status == 69
    assert "no answer in 2 s; it may have issued what nobody gets" in result.err


def test_a_dry_run_sends_nothing_to_the_ca(shared_vault, bao):
    before = number_of_certificates(bao)
    result = shared_vault.run("simpleenroll", csr(), EST_REPLAY="1")
    assert result.status == 69
    assert result.words == "This is a dry run: nothing was sent, and the CA alone knows what it would answer."
    assert number_of_certificates(bao) == before
    assert b"BEGIN CERTIFICATE" in shared_vault.run("cacerts", EST_REPLAY="1").out


@pytest.mark.exhaustive
def test_another_operation_is_unknown(shared_vault):
    assert shared_vault.run("serverkeygen", csr()).status == 64
