"""The certificate in an answer: for the CSR's key, for one of its names, and by a CA that the server shows."""

from __future__ import annotations

import pytest
from cryptography import x509

from estgw.client.faults import Exit, InvalidAnswer, NotOffered
from estgw.client.transport import issued
from estgw.est import csr as csrs
from tests.client import rogue
from tests.client.common import ENROLL
from tests.kit.ca import certificate, name, root
from tests.kit.clients import CHANGE
from tests.kit.csr import csr
from tests.kit.der import attribute, tlv
from tests.kit.keys import KEYS


def dns(*hosts):
    return x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])


def judged(ca, request, subject, *extensions):
    issued.require_names(certificate(ca, subject, *extensions), csrs.parse(request))


@pytest.mark.parametrize(
    ("subject", "extensions"),
    [
        ("CN=device", ()),
        ("CN=DEVICE,O=Added", ()),
        ("CN=changed", (dns("device"),)),
        ("CN=changed", (dns("other.example", "A.example"),)),
        ("O=Nothing else", (dns("a.example"),)),
    ],
)
def test_one_of_the_names_in_the_csr_is_enough(ca, subject, extensions):
    judged(ca, csr(name("CN=device,O=Example"), x509.DNSName("a.example")), subject, *extensions)


@pytest.mark.parametrize(
    ("subject", "extensions"),
    [("CN=somebody", ()), ("CN=somebody,O=Example", ()), ("CN=somebody", (dns("b.example"),)), ("O=Example", ())],
)
def test_a_certificate_without_any_name_of_the_csr_is_refused(ca, subject, extensions):
    with pytest.raises(InvalidAnswer, match="has none of the names in the CSR"):
        judged(ca, csr(name("CN=device,O=Example"), x509.DNSName("a.example")), subject, *extensions)


def test_a_csr_that_names_nobody_lets_the_ca_choose(ca):
    judged(ca, csr(name("O=Example")), "CN=chosen by the CA")


def test_a_change_of_names_asks_for_the_new_ones(ca):
    """RFC 6402 2.8: the CSR has the old names still."""
    new = name("CN=new").public_bytes()
    request = csr("old", attribute(CHANGE, tlv(0x30, new)))
    judged(ca, request, "CN=new")


@pytest.mark.parametrize("kind", ["p256", "rsa", "ed25519", "ml-dsa-65"])
def test_a_signature_of_an_anchor_is_found_without_asking_the_server(kind):
    ca = root("CA", key=KEYS[kind]())
    issued.require_issuer(certificate(ca), [ca.certificate], lambda: pytest.fail("not needed"))


def test_a_signature_of_a_ca_that_the_server_shows_is_enough(ca):
    other = root("Another")
    issued.require_issuer(certificate(other), [ca.certificate], lambda: [other.certificate])
    issued.require_issuer(certificate(other), [], lambda: [other.certificate])


@pytest.mark.parametrize("issuer", ["Test CA", "Another"])
def test_a_certificate_of_a_ca_that_nobody_shows_is_refused(ca, issuer):
    """Also of one with the name of ours and another key."""
    with pytest.raises(InvalidAnswer, match="neither one of our anchors nor in the server's /cacerts"):
        issued.require_issuer(certificate(root(issuer)), [ca.certificate], lambda: [ca.certificate])


def test_a_server_that_does_not_show_its_ca_is_named(ca):
    def missing():
        raise NotOffered("this server does not offer cacerts")

    with pytest.raises(InvalidAnswer, match="/cacerts does not help: this server does not offer cacerts"):
        issued.require_issuer(certificate(root("Another")), [ca.certificate], missing)


def wrong_name(ca):
    def answer(request):
        key = csrs.parse(request.body).request.public_key()
        made = ca.sign(name("CN=somebody"), key)
        return rogue.reply(body=rogue.bag(made), content_type=rogue.CERTS_ONLY)

    return answer


def wrong_issuer(_):
    def answer(request):
        made = root("Another").certify(csrs.parse(request.body).der)
        return rogue.reply(body=rogue.bag(made), content_type=rogue.CERTS_ONLY)

    return answer


@pytest.mark.parametrize("wrong", [wrong_name, wrong_issuer])
def test_enroll_keeps_a_wrong_certificate_with_any_certificate_only(
    ca, holder, anchor, estclient, enroller, tmp_path, wrong
):
    with rogue.Server(holder, enroller(simpleenroll=wrong(ca))) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *ENROLL)
        assert ended.status == Exit.INVALID_ANSWER
        assert "--any-certificate accepts it all the same" in ended.err
        assert not (tmp_path / "device.pem").exists()
        (tmp_path / "device.key").unlink()
        assert estclient("enroll", "-u", server.url, "-c", anchor, *ENROLL, "--any-certificate").status == Exit.DONE
    assert (tmp_path / "device.pem").exists()


def test_a_certificate_of_a_sub_ca_in_cacerts_is_accepted(ca, holder, anchor, estclient, enroller):
    sub = root("Subordinate")

    def answer(request):
        made = sub.certify(csrs.parse(request.body).der)
        return rogue.reply(body=rogue.bag(made), content_type=rogue.CERTS_ONLY)

    shown = rogue.reply(body=rogue.bag(ca.certificate, ca.vouch(sub)))
    with rogue.Server(holder, enroller(simpleenroll=answer, cacerts=shown)) as server:
        assert estclient("enroll", "-u", server.url, "-c", anchor, *ENROLL).status == Exit.DONE
    assert [request.operation for request in server.requests] == ["simpleenroll", "cacerts"]
