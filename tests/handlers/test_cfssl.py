"""handlers/upstream/cfssl in front of a real cfssl: what it issues and refuses, and its absence and slowness."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from estgw.est import certs
from tests.kit.ca import pem
from tests.kit.cfssl import CFSSL, KEY, running_cfssl
from tests.kit.csr import csr, subject
from tests.kit.gateway import running_gateway
from tests.kit.keys import KEY_PEM
from tests.kit.processes import ROOT, free_port
from tests.kit.upstream import Upstream
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.client("cfssl", "cfssljson")

LATER = "The CA can't be asked now; come back later."


def configuration() -> str:
    """The README's, with a profile that takes some names only."""
    section = (ROOT / "handlers/upstream/README.md").read_text().partition("## CFSSL")[2]
    found = json.loads(re.search(r"```json\n(.*?)```", section, re.DOTALL)[1])  # type: ignore[index]
    found["auth_keys"]["est"]["key"] = KEY
    profiles = found["signing"]["profiles"]
    profiles["strict"] = profiles["est"] | {"name_whitelist": r"^printer-[0-9]+$"}
    return json.dumps(found)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CFSSL]:
    with running_cfssl(tmp_path_factory.mktemp("cfssl"), configuration()) as running:
        yield running


@pytest.fixture
def cfssl(server: CFSSL, own_lab: Workspace) -> Upstream:
    """The handler as an operator sets it up."""
    made = Upstream.create(own_lab, "cfssl", {"https://cfssl.example.org:8888/api/v1/cfssl/": server.url})
    made.write("cfssl-anchors.pem", server.anchor.read_bytes())
    made.write("secrets/auth-key", KEY)
    return made


@pytest.mark.slow
def test_the_gateway_gives_out_what_cfssl_issues_and_renews_it(server, cfssl):
    anchors = str(cfssl.write("anchors.pem", server.ca.read_bytes()))
    overrides = {
        "client_auth": {"explicit": ["openssl-ca/anchors.pem", anchors]},
        "labels": {"cfssl": cfssl.settings()},
    }
    ca = x509.load_pem_x509_certificate(server.ca.read_bytes())
    name = subject({NameOID.ORGANIZATION_NAME: "Example"}, "device-1")
    with running_gateway(cfssl.lab, overrides) as gateway:
        assert gateway.get("/.well-known/est/cfssl/cacerts").certificates == [ca]
        wanted = csr(name, x509.DNSName("one.example"))
        first = gateway.post("/.well-known/est/cfssl/simpleenroll", wanted).certificate
        first.verify_directly_issued_by(ca)
        assert first.subject == name
        assert [each.value for each in certs.san(first) or ()] == ["one.example"]
        usage = first.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        files = cfssl.write("client.pem", pem(first)), cfssl.write("client.key", KEY_PEM)
        path = "/.well-known/est/cfssl/simplereenroll"
        second = gateway.post(path, wanted, login=None, certificate=files).certificate
        assert (second.subject, certs.san(second)) == (first.subject, certs.san(first))


def test_what_the_profile_refuses_is_a_403_in_its_own_words(cfssl):
    cfssl.lab.edit(cfssl.script, 'profile = "est"', 'profile = "strict"')
    result = cfssl.run("simpleenroll", csr())
    assert result.status == 77
    assert result.words == "the CA refused: Request does not match policy whitelist"
    assert cfssl.run("simpleenroll", csr("printer-7")).status == 0


def test_a_wrong_key_is_the_operators_fault_though_its_status_is_400(cfssl):
    cfssl.write("secrets/auth-key", KEY[::-1])
    result = cfssl.run("simpleenroll", csr())
    assert (result.status, result.words) == (69, LATER)
    assert "HTTP 400: invalid token" in result.err
    assert KEY[::-1] not in result.err


@pytest.mark.exhaustive
def test_a_key_that_is_not_hex_is_told_by_its_file_alone(cfssl):
    cfssl.write("secrets/auth-key", "not hex")
    result = cfssl.run("simpleenroll", csr())
    assert result.status == 78
    assert result.err == f"{cfssl.folder}/secrets/auth-key: it must have hex digits\n"


def test_an_absent_or_slow_ca_is_a_503(server, cfssl):
    with server.stopped():
        slow = cfssl.run("simpleenroll", csr(), EST_TIMEOUT="3")
    assert (slow.status, slow.words) == (69, LATER)
    assert "no answer in 2 s" in slow.err
    cfssl.lab.edit(cfssl.script, server.url, f"https://localhost:{free_port()}/api/v1/cfssl/")
    absent = cfssl.run("simpleenroll", csr())
    assert (absent.status, absent.words) == (69, LATER)


@pytest.mark.exhaustive
def test_a_dry_run_asks_for_the_cas_certificate_and_for_nothing_else(server, cfssl):
    before = server.log.count("authsign")
    result = cfssl.run("simpleenroll", csr(), EST_REPLAY="1")
    assert result.status == 69
    assert result.words.startswith("This is a dry run: nothing was sent")
    assert b"BEGIN CERTIFICATE" in cfssl.run("cacerts", EST_REPLAY="1").out
    assert server.log.count("authsign") == before
