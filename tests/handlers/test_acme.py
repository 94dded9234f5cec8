"""handlers/upstream/acme in front of Pebble: orders over several requests, refusals, absence and slowness."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from estgw.est import certs
from tests.kit.csr import csr, subject
from tests.kit.gateway import running_gateway
from tests.kit.keys import key_pem
from tests.kit.pebble import Pebble, running_pebble
from tests.kit.processes import free_port, until
from tests.kit.upstream import Upstream
from tests.kit.workspace import Result, Workspace

pytestmark = pytest.mark.client("pebble", "pebble-challtestsrv")

LATER = "The CA can't be asked now; come back later."
HOST = x509.DNSName("one.example")


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    with running_pebble(tmp_path_factory.mktemp("pebble")) as running:
        yield running


@pytest.fixture
def acme(pebble: Pebble, own_lab: Workspace) -> Upstream:
    """The handler as an operator sets it up."""
    made = Upstream.create(own_lab, "acme", {"https://acme.example.org/directory": pebble.url})
    own_lab.edit("handlers/upstream/solve", "/var/www/acme", str(pebble.webroot))
    made.write("acme-anchors.pem", pebble.anchor.read_bytes())
    made.write("issuers.pem", pebble.root())
    made.write("secrets/account.pem", key_pem(ec.generate_private_key(ec.SECP256R1())))
    return made


def enrol(acme: Upstream, request: bytes, **env: str) -> Result:
    """Come back as long as the answer is a 202."""
    env = {"EST_PENDING_ID": "0a1b2c", **env}

    def done() -> Result | None:
        result = acme.run("simpleenroll", request, **env)
        return result if result.status != 75 else None

    return until(done)


def orders(acme: Upstream) -> int:
    with closing(sqlite3.connect(acme.folder / "certs.sqlite")) as register:
        number: int = register.execute("SELECT count(*) FROM kept WHERE kind = 'acme'").fetchone()[0]
    return number


@pytest.mark.exhaustive
def test_a_host_gets_a_certificate_and_the_order_is_forgotten(acme, pebble):
    names = [HOST, x509.DNSName("two.example")]
    result = enrol(acme, csr("one.example", *names))
    issued = result.certificate
    assert {each.value for each in certs.san(issued) or ()} == {"one.example", "two.example"}
    issued.verify_directly_issued_by(x509.load_pem_x509_certificate(pebble.issuer()))
    assert orders(acme) == 0


@pytest.mark.slow
def test_the_gateway_answers_202_until_the_server_is_done_and_then_gives_it_out(acme, pebble):
    acme.lab.edit(acme.script, "patience = 5 ", "patience = 0 ")
    with running_gateway(acme.lab, {"labels": {"acme": acme.settings()}}) as gateway:
        assert gateway.get("/.well-known/est/acme/cacerts").certificates == [
            x509.load_pem_x509_certificate(pebble.root())
        ]
        statuses = []
        wanted = csr("one.example", HOST)

        def answer():
            found = gateway.post("/.well-known/est/acme/simpleenroll", wanted)
            statuses.append(found.status)
            assert found.status in (200, 202), found
            assert found.status == 200 or found.header("Retry-After") == "10"
            return found if found.status == 200 else None

        issued = until(answer).certificate
    assert statuses[0] == 202
    issued.verify_directly_issued_by(x509.load_pem_x509_certificate(pebble.issuer()))


def test_a_host_without_its_proof_is_refused_in_the_servers_words(acme):
    acme.lab.script("handlers/upstream/solve", ":")
    result = enrol(acme, csr("one.example", HOST))
    assert result.status == 77
    assert "the CA refused: " in result.words
    assert "404" in result.words or "unauthorized" in result.words.lower()
    assert orders(acme) == 0


@pytest.mark.exhaustive
def test_a_name_that_the_server_does_not_certify_is_refused_in_its_words(acme):
    result = enrol(acme, csr("a.blocked.example", x509.DNSName("a.blocked.example")))
    assert result.status == 77
    assert "blocked.example" in result.words


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "wanted",
    [
        csr("device-1"),
        csr("one.example", HOST, x509.RFC822Name("a@one.example")),
        csr("another.example", HOST),
        csr(subject("one.example", "device-1"), HOST),
    ],
)
def test_a_csr_for_anything_but_hosts_is_refused_before_the_server_is_asked(acme, wanted):
    result = enrol(acme, wanted)
    assert result.status == 77
    assert result.words.startswith("The CA certifies hosts alone")
    assert not (acme.folder / "certs.sqlite").exists()


@pytest.mark.exhaustive
def test_a_solver_that_fails_is_ours_to_mend(acme):
    acme.lab.script("handlers/upstream/solve", "echo no web server; exit 3")
    result = enrol(acme, csr("one.example", HOST))
    assert (result.status, result.words) == (69, LATER)
    assert "no web server" in result.err
    assert "./solve ended with 3" in result.err


@pytest.mark.exhaustive
@pytest.mark.parametrize("key", [b"none", key_pem(ec.generate_private_key(ec.SECP384R1()))])
def test_a_key_that_an_account_cannot_have_is_told(acme, key):
    acme.write("secrets/account.pem", key)
    result = enrol(acme, csr("one.example", HOST))
    assert result.status == 78
    assert "key" in result.err


@pytest.mark.exhaustive
def test_an_absent_or_slow_server_is_a_503(acme, pebble):
    with pebble.stopped():
        slow = acme.run("simpleenroll", csr("one.example", HOST), EST_TIMEOUT="3")
    assert (slow.status, slow.words) == (69, LATER)
    acme.lab.edit(acme.script, pebble.url, f"https://localhost:{free_port()}/dir")
    absent = acme.run("simpleenroll", csr("one.example", HOST))
    assert (absent.status, absent.words) == (69, LATER)


def test_a_dry_run_makes_neither_account_nor_order(acme):
    result = acme.run("simpleenroll", csr("one.example", HOST), EST_REPLAY="1")
    assert result.status == 69
    assert result.words.startswith("This is a dry run: nothing was sent")
    assert not (acme.folder / "certs.sqlite").exists()
