"""Full CMC messages made here, their answers, and answers that must be refused; with a stand-in for the CA."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from pyasn1.codec.der.decoder import decode
from pyasn1_alt_modules import rfc5652, rfc6402

from estgw.client import Trust
from estgw.client.faults import Exit
from estgw.client.transport import trust
from estgw.cmc.controls import BY_NAME, Control
from estgw.cmc.explain import explain
from estgw.cmc.messages import PKI_RESPONSE, PKIResponse
from estgw.cmc.requests import CRMFRequest, PKCS10Request
from estgw.cmc.status import CMCFailInfo, CMCStatus
from estgw.cms import signed
from estgw.cms.identifiers import IssuerAndSerial
from estgw.cms.signed import Signer
from estgw.est import certs, csr
from estgw.est.csrattrs import EC_PUBLIC_KEY, AttributeWish, CsrAttrs, encode_oid
from tests.client import cmcca, rogue
from tests.client.cmcca import Challenging, Desk, Doubting, Knowing, status
from tests.client.common import pair_fits
from tests.client.conftest import Terminal
from tests.kit.ca import DAY, NOW, RA_USAGES, root

NEW = ("--new-key", "ec:P-256", "--subject", "CN=device,O=Example", "--dns", "a.example", "-o", "device.pem")


@pytest.fixture
def run(holder, anchor, estclient):
    """Run `estclient fullcmc COMMAND` against a CA of cmcca.py."""

    def run(desk, command, *arguments):
        with rogue.Server(holder, desk) as server:
            return estclient("fullcmc", command, "-u", server.url, "-c", anchor, *arguments)

    return run


@pytest.fixture
def member(ca, tmp_path):
    """Options of a client with a certificate."""
    own = ca.server("member", names=["a.example"])
    (tmp_path / "member.pem").write_bytes(own.pem)
    (tmp_path / "member.key").write_bytes(own.key_pem)
    return own, ("--cert", "member.pem", "--key", "member.key")


# Successful transactions.


@pytest.mark.parametrize("kind", ["ec:P-256", "ec:P-384", "rsa:2048", "ed25519", "ml-dsa-65"])
@pytest.mark.parametrize("crmf", [(), ("--crmf",)], ids=["pkcs10", "crmf"])
def test_fullcmc_enrols_with_a_signature_by_the_new_key(run, ca, tmp_path, kind, crmf):
    desk = Desk(ca)
    ended = run(desk, "enroll", "--new-key", kind, *NEW[2:], *crmf, "--json")
    assert ended.status == Exit.DONE, ended.err
    assert pair_fits("device.pem", "device.key")
    assert stat.S_IMODE((tmp_path / "device.key").stat().st_mode) == 0o600
    assert ended.json["cmc"] == ["success"]
    (data,) = desk.seen
    (asked,) = data.requests
    assert isinstance(asked, CRMFRequest if crmf else PKCS10Request)
    assert asked.csr.san is not None
    assert asked.csr.san.get_values_for_type(x509.DNSName) == ["a.example"]
    assert asked.csr.text_attribute(csr.CHALLENGE_PASSWORD) is not None
    assert data.value("transactionId") > 0
    assert len(data.value("senderNonce")) == 16
    assert isinstance(desk.signed_by[0], bytes)


@pytest.mark.parametrize("crmf", [(), ("--crmf",)], ids=["pkcs10", "crmf"])
@pytest.mark.parametrize("without", [(), ("--no-pop",)], ids=["linked", "not linked"])
def test_the_request_has_the_binding_unless_no_pop_is_given(holder, anchor, ca, estclient, without, crmf):
    desk = Desk(ca)
    with rogue.Server(holder, desk) as server:
        ended = estclient("fullcmc", "enroll", "-u", server.url, "-c", anchor, *NEW, *without, *crmf)
    assert ended.status == Exit.DONE, ended.err
    (request,) = (each for each in server.requests if each.operation == "fullcmc")
    claim = desk.seen[0].requests[0].csr.text_attribute(csr.CHALLENGE_PASSWORD)
    assert claim == (None if without else request.binding)


@pytest.mark.parametrize("crmf", [(), ("--crmf",)], ids=["pkcs10", "crmf"])
def test_fullcmc_enrols_with_a_signature_by_a_certificate(run, ca, member, crmf):
    own, options = member
    desk = Desk(ca)
    ended = run(desk, "enroll", *NEW, *options, *crmf)
    assert ended.status == Exit.DONE, ended.err
    assert desk.signed_by == [own.certificate]
    assert pair_fits("device.pem", "device.key")


def test_an_ra_sends_the_csr_of_another(run, ca, member, tmp_path):
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "k.pem"]
    command = ["openssl", "req", "-new", *key, "-subj", "/CN=other", "-out", "req.pem"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    own, options = member
    desk = Desk(ca)
    assert run(desk, "enroll", "--csr", "req.pem", "-o", "other.pem", *options).status == Exit.DONE
    assert desk.signed_by == [own.certificate]
    assert pair_fits("other.pem", "k.pem")
    for more in ((), (*options, "--secret-file", "k.pem")):
        assert run(desk, "enroll", "--csr", "req.pem", *more).status == Exit.USAGE
    for idle in ("--crmf", "--encrypted-pop"):
        assert run(desk, "enroll", "--csr", "req.pem", *options, idle).status == Exit.USAGE
    (tmp_path / "none.pem").write_text("hello")
    ended = run(desk, "enroll", "--csr", "none.pem", *options)
    assert ended.status == Exit.USAGE
    assert "no CMC message can be made of this" in ended.err


@pytest.mark.parametrize("crmf", [(), ("--crmf",)], ids=["pkcs10", "crmf"])
@pytest.mark.parametrize("name", [(), ("--identification", "device-7")], ids=["", "named"])
def test_enrol_with_a_secret_proves_and_links_the_identity(run, ca, tmp_path, crmf, name):
    (tmp_path / "secret").write_text(f"{cmcca.SECRET}\nmore\n")
    desk = Knowing(ca)
    ended = run(desk, "enroll", *NEW, "--secret-file", "secret", *name, *crmf)
    assert ended.status == Exit.DONE, ended.err
    assert len(desk.seen[0].value("popLinkRandom")) >= 64
    assert desk.seen[0].value("identification") == (name[1] if name else None)
    assert cmcca.SECRET not in ended.err


def test_with_a_secret_the_certificate_is_for_tls_only(run, ca, member, tmp_path):
    """It may be from the device maker; the CA accepts no signature by such a certificate."""
    (tmp_path / "secret").write_text(cmcca.SECRET)
    desk = Knowing(ca)
    assert run(desk, "enroll", *NEW, *member[1], "--secret-file", "secret").status == Exit.DONE
    assert isinstance(desk.signed_by[0], bytes)


def test_a_script_can_make_the_request_of_a_message(run, ca, member, tmp_path):
    own, options = member
    script = tmp_path / "make"
    request = 'openssl req -new -key member.key -subj /CN=x -addext "subjectAltName=URI:$EST_SERVER_URL"'
    script.write_text(f"#!/bin/sh\n{request}\n")
    script.chmod(0o700)
    desk = Desk(ca)
    ended = run(desk, "enroll", "-R", script, *options, "-o", "x.pem")
    assert ended.status == Exit.DONE, ended.err
    assert desk.signed_by == [own.certificate]
    assert desk.seen[0].requests[0].csr.san[0].value.endswith("/.well-known/est/fullcmc")


def test_the_secret_is_read_from_stdin_or_the_terminal(run, ca, monkeypatch):
    read_end, write_end = os.pipe()
    os.write(write_end, cmcca.SECRET.encode() + b"\n")
    os.close(write_end)
    with open(read_end) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        ended = run(Knowing(ca), "enroll", *NEW, "--secret-file", "-")
    assert ended.status == Exit.DONE, ended.err
    os.unlink("device.key")
    with open("/dev/null") as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        ended = run(Knowing(ca), "enroll", *NEW, "--identification", "x")
    assert ended.status == Exit.USAGE
    assert "--secret-file" in ended.err
    monkeypatch.setattr("getpass.getpass", lambda prompt: cmcca.SECRET if "of x" in prompt else "")
    monkeypatch.setattr("sys.stdin", Terminal())
    assert run(Knowing(ca), "enroll", *NEW, "--identification", "x").status == Exit.DONE


def test_an_empty_secret_is_a_usage_error(run, ca, tmp_path):
    for data in (b"", b"\nsecret", b"\xff\n"):
        (tmp_path / "secret").write_bytes(data)
        assert run(Desk(ca), "enroll", *NEW, "--secret-file", "secret").status == Exit.USAGE
    assert not (tmp_path / "device.key").exists()


@pytest.mark.parametrize("kind", ["rsa:2048", "ec:P-256"])
@pytest.mark.parametrize("how", ["key", "secret", "certificate"])
def test_encrypted_pop_proves_possession_by_a_challenge(run, ca, member, tmp_path, kind, how):
    """RFC 5272 6.7, for keys that can't sign: a digest replaces the signature."""
    (tmp_path / "secret").write_text(cmcca.SECRET)
    _, by_certificate = member
    more = {"key": (), "secret": ("--secret-file", "secret"), "certificate": by_certificate}[how]
    desk = Challenging(ca)
    ended = run(desk, "enroll", "--new-key", kind, *NEW[2:], "--crmf", "--encrypted-pop", *more)
    assert ended.status == Exit.DONE, ended.err
    assert pair_fits("device.pem", "device.key")
    assert [bool(data.find("identityProofV2")) for data in desk.seen] == [how == "secret"] * 2
    assert not desk.seen[0].find("popLinkRandom")
    first = signed.parse(desk.bodies[0])
    assert first.signers[0].is_signed == (how == "certificate")


def test_encrypted_pop_refuses_keys_that_cannot_decrypt(run, ca, tmp_path):
    for options in (("--encrypted-pop",), ("--crmf", "--encrypted-pop", "--new-key", "ed25519")):
        new = ("--new-key", *NEW[2:]) if "--new-key" not in options else NEW[2:]
        assert run(Desk(ca), "enroll", *new, *options).status == Exit.USAGE
    ended = run(Desk(ca), "enroll", "--new-key", "ed448", *NEW[2:])
    assert ended.status == Exit.USAGE
    assert "does not sign here" in ended.err


def test_a_pending_enrolment_is_queried_and_confirmed(run, ca):
    """With --wait the client asks again with the token, and confirms the certificate."""
    desk = Doubting(ca)
    ended = run(desk, "enroll", *NEW, "--wait", "60")
    assert ended.status == Exit.DONE, ended.err
    assert pair_fits("device.pem", "device.key")
    assert len({data.value("transactionId") for data in desk.seen}) == 1
    assert len({data.value("senderNonce") for data in desk.seen}) == len(desk.seen) == 3


def test_a_pending_enrolment_without_wait_exits_3(run, ca, tmp_path):
    desk = Doubting(ca)
    ended = run(desk, "enroll", *NEW, "--json")
    assert ended.status == Exit.TRY_LATER
    assert ended.json["retry_after"] >= 1
    assert ended.json["cmc"] == ["pending"]
    assert (tmp_path / "device.key").exists()
    assert not (tmp_path / "device.pem").exists()
    ended = run(Desk(ca), "enroll", "--reuse-key", "device.key", *NEW[2:])
    assert ended.status == Exit.DONE, ended.err


@pytest.mark.parametrize("held", [True, False], ids=["with a token", "without"])
def test_a_202_is_followed_by_another_try(run, ca, held):
    """RFC 7030 4.2.3: the answer may also be a 202. The client uses both Retry-After and the token."""

    class Slow(Doubting):
        def http(self, *parts):
            if len(self.seen) > 1:
                return super().http(*parts)
            body = self.body(*parts) if held else b"later\n"
            return rogue.reply(202, body, cmcca.TYPE if held else "text/plain", Retry_After="1")

        def decide(self, data):
            if not held and len(self.seen) > 1:
                return Desk.decide(self, data)
            return super().decide(data)

    desk = Slow(ca)
    ended = run(desk, "enroll", *NEW, "--wait", "60")
    assert ended.status == Exit.DONE, ended.err
    assert bool(desk.seen[1].find("queryPending")) == held


def test_retry_after_counts_beside_the_message(run, ca):
    class Patient(Doubting):
        def http(self, *parts):
            return rogue.reply(200, self.body(*parts), cmcca.TYPE, Retry_After="4000")

    ended = run(Patient(ca), "enroll", *NEW, "--wait", "60", "--json")
    assert ended.status == Exit.TRY_LATER
    assert ended.json["retry_after"] == 4000


@pytest.mark.parametrize("new", [(), ("--new-key",)], ids=["same key", "new key"])
@pytest.mark.parametrize("crmf", [(), ("--crmf",)], ids=["pkcs10", "crmf"])
def test_renew_replaces_the_pair_in_place(run, ca, member, tmp_path, new, crmf):
    own, options = member
    desk = Desk(ca)
    ended = run(desk, "renew", *options, *new, *crmf, "--json")
    assert ended.status == Exit.DONE, ended.err
    assert ended.json["renewed"] is True
    assert desk.signed_by == [own.certificate]
    assert pair_fits("member.pem", "member.key")
    found = x509.load_pem_x509_certificate((tmp_path / "member.pem").read_bytes())
    assert found.subject == own.certificate.subject
    assert certs.san(found) == certs.san(own.certificate)
    assert (certs.spki(found) != certs.spki(own.certificate)) == bool(new)
    again = run(desk, "renew", *options, "--if-expires-within", "1d", "--json")
    assert (again.status, again.json["renewed"], len(desk.seen)) == (Exit.DONE, False, 1)


def test_renew_keeps_the_staged_key_while_it_is_pending(run, ca, member, tmp_path):
    _, options = member
    ended = run(Doubting(ca), "renew", *options, "--new-key")
    assert ended.status == Exit.TRY_LATER
    staged = (tmp_path / "member.key.next").read_bytes()
    assert run(Desk(ca), "renew", *options, "--new-key").status == Exit.DONE
    assert (tmp_path / "member.key").read_bytes() == staged
    assert pair_fits("member.pem", "member.key")


def test_revoke_names_the_target_by_file_or_serial(run, ca, member, tmp_path):
    own, options = member
    other = ca.issue("other")
    (tmp_path / "other.pem").write_bytes(other.pem)
    (tmp_path / "ca.pem").write_bytes(root("Other CA").pem)
    elsewhere = certs.load_pem((tmp_path / "ca.pem").read_bytes())[0].subject.public_bytes()
    desk = Desk(ca)
    cases = [
        ((), IssuerAndSerial.of(own.certificate)),
        (("--target", "other.pem"), IssuerAndSerial.of(other.certificate)),
        (("--serial", "0A:bc"), IssuerAndSerial(ca.certificate.subject.public_bytes(), 0xABC)),
        (("--serial", "0xabc", "--issuer", "ca.pem"), IssuerAndSerial(elsewhere, 0xABC)),
    ]
    for which, target in cases:
        ended = run(desk, "revoke", *options, *which, "--reason", "keyCompromise", "--json")
        assert ended.status == Exit.DONE, ended.err
        assert ended.json["revoked"] == f"{target.serial:X}"
        asked = desk.revoked[-1]
        assert (asked.issuer, asked.serial, asked.reason, asked.passphrase) == (target.issuer, target.serial, 1, None)
    assert desk.signed_by == [own.certificate] * 4


def test_revoke_with_a_passphrase_is_unsigned_and_not_traced(run, ca, tmp_path):
    """RFC 5272 6.11: it replaces the signature, and --trace does not show it."""
    (tmp_path / "member.pem").write_bytes(ca.issue("member").pem)
    (tmp_path / "secret").write_text("open sesame")
    desk = Desk(ca)
    ended = run(desk, "revoke", "--target", "member.pem", "--secret-file", "secret", "--trace")
    assert ended.status == Exit.DONE, ended.err
    assert desk.revoked[0].passphrase == b"open sesame"
    assert desk.signed_by == [None]
    assert "secret in it ***" in ended.err
    assert base64.encodebytes(desk.bodies[0]).splitlines()[0].decode() not in ended.err


def test_revocation_secret_file_puts_a_passphrase_into_the_request(run, ca, tmp_path):
    for crmf in ((), ("--crmf",)):
        (tmp_path / "secret").write_text("open sesame")
        desk = Desk(ca)
        assert run(desk, "enroll", *NEW, *crmf, "--revocation-secret-file", "secret").status == Exit.DONE
        assert desk.seen[0].requests[0].csr.text_attribute(csr.REVOCATION_CHALLENGE) == "open sesame"
        os.unlink("device.key")
    (tmp_path / "secret").write_text("x" * 256)
    assert run(desk, "enroll", *NEW, "--revocation-secret-file", "secret").status == Exit.USAGE


def test_revoke_refuses_contradictory_targets(run, ca, member):
    _, options = member
    for arguments in (
        (),
        ("--serial", "1"),
        (*options, "--issuer", "member.pem"),
        (*options, "--target", "member.pem", "--serial", "1"),
        (*options, "--serial", "xyz"),
        (*options, "--reason", "boredom"),
        ("--target", "member.pem"),
    ):
        assert run(Desk(ca), "revoke", *arguments).status == Exit.USAGE, arguments


def test_a_simple_answer_to_a_revocation_is_refused(run, ca, member):
    class Simple(Desk):
        def http(self, *_):
            return rogue.reply(body=rogue.bag(self.ca.certificate), content_type=rogue.CERTS_ONLY)

    assert run(Simple(ca), "revoke", *member[1]).status == Exit.INVALID_ANSWER


@pytest.mark.parametrize("form", ["pem", "der"])
def test_get_crl_writes_a_crl_that_openssl_verifies(run, ca, member, tmp_path, form):
    for options in ((), member[1], ("--issuer", "anchor.pem")):
        desk = Desk(ca)
        ended = run(desk, "get-crl", *options, "-o", "crl", "--outform", form, "--json")
        assert ended.status == Exit.DONE, ended.err
        assert ended.json["crl"]["revoked"] == 0
        done = subprocess.run(
            ["openssl", "crl", "-in", "crl", "-inform", form, "-CAfile", "anchor.pem", "-noout"],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert "verify OK" in done.stderr


def test_get_crl_accepts_a_simple_answer_with_the_crl(run, ca, tmp_path):
    """The CRL has its own signature."""

    class Simple(Desk):
        def http(self, controls, certificates=(), crls=()):
            body = base64.encodebytes(signed.certs_only([self.ca.certificate], crls))
            return rogue.reply(body=body, content_type=rogue.CERTS_ONLY)

    assert run(Simple(ca), "get-crl", "-o", "crl").status == Exit.DONE


def test_an_untrusted_crl_is_refused(run, ca, member, tmp_path):
    stranger = root(ca.certificate.subject.rfc4514_string().removeprefix("CN="))

    class Wrong(Desk):
        crls = ()

        def decide(self, data):
            return [status(parts=[4])], [stranger.certificate], self.crls

    made = Desk(ca)
    cases = [
        ((), "no CRL of"),
        ((b"0\0", Desk(root("Other CA")).crl()), "no CRL of"),
        ((made.crl(key=ca.issue("x").key),), "does not fit"),
        ((made.crl(key=stranger.key),), "to one of our anchors"),
        ((made.crl(days=-1),), "expired on"),
    ]
    for given, words in cases:
        desk = Wrong(ca)
        desk.crls = given
        ended = run(desk, "get-crl", "-o", "crl")
        assert ended.status == Exit.INVALID_ANSWER
        assert words in ended.err
        assert not (tmp_path / "crl").exists()
    assert run(Desk(ca), "get-crl", "--outform", "p7").status == Exit.USAGE


def test_get_crl_needs_an_unambiguous_ca(holder, estclient, ca, tmp_path):
    (tmp_path / "two.pem").write_bytes(ca.pem + root("Other CA").pem)
    with rogue.Server(holder, Desk(ca)) as server:
        ended = estclient("fullcmc", "get-crl", "-u", server.url, "-c", "two.pem")
    assert ended.status == Exit.USAGE
    assert "--issuer" in ended.err


# Our messages, read by other programs.


def test_openssl_reads_our_messages(run, ca, member, tmp_path):
    """`openssl cms -verify` checks the signature; pyasn1's modules decode every layer completely."""
    (tmp_path / "secret").write_text(cmcca.SECRET)
    _, options = member
    secret = ("--secret-file", "secret", "--identification", "x")
    for number, (command, *arguments) in enumerate(
        (
            ("enroll", *options, *NEW[:-1], "1.pem"),
            ("enroll", *options, *NEW[:-1], "2.pem", "--crmf"),
            ("renew", *options, "--new-key"),
            ("revoke", *options, "--reason", "superseded"),
            ("get-crl", *options),
            ("enroll", *secret, *NEW[:-1], "3.pem"),
            ("enroll", *secret, *NEW[:-1], "4.pem", "--crmf"),
        )
    ):
        desk = Desk(ca)
        assert run(desk, command, *arguments).status == Exit.DONE
        (body,) = desk.bodies
        (tmp_path / "message").write_bytes(body)
        if number < 5:  # openssl finds keys by certificates only
            opened = ["openssl", "cms", "-verify", "-inform", "DER", "-in", "message", "-CAfile", "anchor.pem"]
            done = subprocess.run([*opened, "-purpose", "any", "-binary"], cwd=tmp_path, capture_output=True)
            assert b"Verification successful" in done.stderr, done.stderr
        content, rest = decode(body, asn1Spec=rfc5652.ContentInfo())
        inner, more = decode(content["content"], asn1Spec=rfc5652.SignedData())
        assert inner["encapContentInfo"]["eContentType"] == rfc6402.id_cct_PKIData
        data, most = decode(inner["encapContentInfo"]["eContent"], asn1Spec=rfc6402.PKIData())
        assert (rest, more, most) == (b"", b"", b"")
        names = {each["attrType"] for each in data["controlSequence"]}
        assert {rfc6402.id_cmc_transactionId, rfc6402.id_cmc_senderNonce} <= names
        for control in data["controlSequence"]:
            spec = rfc6402.cmcControlAttributesMap[control["attrType"]]
            assert decode(control["attrValues"][0], asn1Spec=spec)[1] == b""
        assert "PKIData" in explain(body)


@pytest.mark.parametrize("crmf", [(), ("--crmf",)], ids=["pkcs10", "crmf"])
def test_csrattrs_are_followed_in_cmc(run, ca, crmf):
    """As in simpleenroll, they decide the kind of key, the hash, and the attribute of the binding."""
    wanted = CsrAttrs(
        (
            AttributeWish(EC_PUBLIC_KEY, (encode_oid("1.3.132.0.34"),)),
            "1.2.840.10045.4.3.4",
            csr.EST_IDENTITY_LINKING,
        )
    )

    class Wishing(Desk):
        def __call__(self, request):
            if request.operation == "csrattrs":
                return rogue.reply(200, base64.encodebytes(wanted.encode()), "application/csrattrs")
            return super().__call__(request)

    desk = Wishing(ca)
    ended = run(desk, "enroll", "--new-key", *NEW[2:], *crmf)
    assert ended.status == Exit.DONE, ended.err
    (asked,) = desk.seen[0].requests
    assert asked.csr.text_attribute(csr.EST_IDENTITY_LINKING)
    assert asked.csr.text_attribute(csr.CHALLENGE_PASSWORD) is None
    assert asked.csr.request.public_key().curve.name == "secp384r1"
    oid = asked.message.pop.algorithm.oid if crmf else asked.csr.request.signature_algorithm_oid.dotted_string
    assert oid == "1.2.840.10045.4.3.4"


# Answers that must be refused.


class Liar(Desk):
    """A CA with one fault."""

    def __init__(self, ca, **faults):
        super().__init__(ca, faults.pop("signer", None))
        self.faults = faults

    def echo(self, data):
        return {name: value for name, value in {**super().echo(data), **self.faults.get("echo", {})}.items() if value}

    def certify(self, asked):
        if "key" in self.faults:
            return self.ca.issue("other").certificate
        return super().certify(asked)

    def sign(self, content, certificates=(), crls=()):
        made = self.faults.get("content", lambda given: given)(content)
        if "sign" in self.faults:
            return self.faults["sign"](self, made, certificates)
        return super().sign(made, certificates, crls)

    def http(self, *parts):
        return rogue.reply(body=self.faults.get("body", bytes)(self.body(*parts)), content_type=self.faults.get(
            "type", cmcca.TYPE
        ))  # fmt: skip


def unsigned(desk, content, certificates):
    return signed.sign(PKI_RESPONSE, content, [], certificates=certificates)


def by_nothing(desk, content, certificates):
    return signed.sign(PKI_RESPONSE, content, [Signer(None, b"id")], certificates=certificates)


def forged(desk, content, certificates):
    """The CA's name and another key."""
    signer = Signer.of(root().key, desk.ca.certificate)
    return signed.sign(PKI_RESPONSE, content, [signer], certificates=[desk.ca.certificate, *certificates])


def nameless(desk, content, certificates):
    signer = desk.ca.issue("x", eku=RA_USAGES)
    return signed.sign(PKI_RESPONSE, content, [Signer.of(signer.key, signer.certificate)], certificates=certificates)


def of_another_kind(desk, content, certificates):
    signer = Signer.of(desk.ca.key, desk.ca.certificate)
    return signed.sign(signed.DATA, content, [signer], certificates=[desk.ca.certificate, *certificates])


STATUS = BY_NAME["statusInfo"].oid


def with_control(content, control):
    found = PKIResponse.decode(content)
    return replace(found, controls=(*found.controls, control)).encode()


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"echo": {"recipientNonce": None}}, "lacks our recipientNonce"),
    ({"echo": {"recipientNonce": b"x" * 16}}, "has another recipientNonce"),
    ({"content": lambda content: with_control(content, Control.make(99, "senderNonce", b"a second"))}, "can't be read"),
    ({"content": lambda content: with_control(content, Control(99, STATUS, (b"\x30\x00",)))}, "can't be read"),
    ({"echo": {"transactionId": None}}, "lacks our transactionId"),
    ({"echo": {"transactionId": 77}}, "has another transactionId"),
    ({"key": True}, "no certificate for our key"),
    ({"sign": unsigned}, "it is not signed"),
    ({"sign": by_nothing}, "its signer's certificate is not in it"),
    ({"sign": forged}, "the signature does not fit"),
    ({"sign": nameless}, "its signer's certificate is not in it"),
    ({"sign": of_another_kind}, "in place of a PKIResponse"),
    ({"content": lambda content: content + b"\0"}, "can't be read"),
    ({"content": lambda content: b"\x30\x00"}, "can't be read"),
    ({"body": lambda body: base64.encodebytes(base64.decodebytes(body) + b"\0")}, "can't be read"),
    ({"body": lambda body: body[:-100]}, "can't be read"),
    ({"body": lambda body: b""}, "can't be read"),
    ({"type": "text/html"}, "of type 'text/html'"),
    ({"type": "application/pkcs7-mime; smime-type=enveloped-data"}, "smime-type 'enveloped-data'"),
]


@pytest.mark.parametrize(("faults", "words"), FAULTS, ids=[f"{n}-{next(iter(f))}" for n, (f, _) in enumerate(FAULTS)])
def test_an_unreadable_answer_is_an_invalid_answer(run, ca, tmp_path, faults, words):
    ended = run(Liar(ca, **faults), "enroll", *NEW)
    assert ended.status == Exit.INVALID_ANSWER
    assert words in ended.err
    assert not (tmp_path / "device.pem").exists()


def test_an_answer_from_an_unknown_signer_is_refused(run, ca, tmp_path):
    """Another CA, a certificate without the usage of an RA, and an expired one."""
    for signer, words in (
        (root(), "no path leads from there to one of our anchors"),
        (root().issue("ra", eku=RA_USAGES), "no path leads from there to one of our anchors"),
        (ca.issue("somebody"), "neither a CA nor its RA"),
        (
            ca.issue("old", eku=RA_USAGES, starts=NOW - 9 * DAY, ends=NOW - 3 * DAY),
            "no path leads from there to one of our anchors",
        ),
    ):
        ended = run(Liar(ca, signer=signer), "enroll", *NEW)
        assert ended.status == Exit.INVALID_ANSWER
        assert words in ended.err
        os.unlink("device.key")


def test_an_ra_or_cmc_ca_may_sign_under_explicit_anchors(run, ca):
    for usages in (RA_USAGES, (trust.CMC_CA,)):
        assert run(Desk(ca, ca.issue("speaker", eku=usages)), "get-crl").status == Exit.DONE


def test_only_the_server_or_a_ca_may_sign_under_implicit_anchors(ca, tmp_path, monkeypatch):
    """As in TLS (RFC 7030 3.6.2), only the server's name counts under implicit anchors, not the usage."""
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    trusted = Trust(explicit=(root("Other").certificate,), implicit=True)

    def fault(holder):
        return trust.speaker_fault(trusted, holder.certificate, "est.example", []) or "none"

    assert fault(ca.server("x", names=["est.example"])) == "none"
    assert fault(ca) == "none"
    assert "neither a CA nor est.example" in fault(ca.issue("x", eku=RA_USAGES))
    assert "no path leads from there to one of our anchors" in fault(root("Third"))
    trusted = Trust(implicit=True)
    assert "no path leads from there to one of our anchors" in fault(root("Third"))
    assert fault(ca) == "none"


def test_a_signer_below_an_intermediate_is_accepted(run, ca):
    middle = root("Middle")
    link = ca.vouch(middle)

    class Below(Desk):
        def decide(self, data):
            controls, found, crls = super().decide(data)
            return controls, [*found, link], crls

    signer = middle.issue("speaker", eku=RA_USAGES)
    assert run(Below(ca, signer), "enroll", *NEW).status == Exit.DONE


def test_a_huge_answer_is_refused(run, ca):
    class Huge(Desk):
        def http(self, *_):
            return rogue.reply(body=b"MAAA" * 700_000, content_type=cmcca.TYPE)

    assert run(Huge(ca), "enroll", *NEW).status == Exit.INVALID_ANSWER


class Refusing(Desk):
    """A CA that refuses, in one of several ways."""

    code, echoes = 200, True

    def decide(self, data):
        return [status(CMCStatus.FAILED, text="who?\x1b[2J", failure=CMCFailInfo.BAD_IDENTITY)], [], []

    def echo(self, data):
        return super().echo(data) if self.echoes else {}

    def http(self, *parts):
        return rogue.reply(self.code, self.body(*parts), cmcca.TYPE)


@pytest.mark.parametrize(("code", "echoes"), [(200, True), (200, False), (403, True)])
def test_a_refusal_is_printed_and_leaves_no_key(run, ca, tmp_path, code, echoes):
    """Also without our nonce: a server that could not read the message has no nonce to return."""
    desk = Refusing(ca)
    desk.code, desk.echoes = code, echoes
    ended = run(desk, "enroll", *NEW, "--json")
    assert ended.status == Exit.REFUSED
    assert "failed (badIdentity): who?\\x1b[2J" in ended.err
    assert ended.json["http_status"] == code
    assert not (tmp_path / "device.key").exists()


def test_a_refusal_from_an_unknown_signer_is_an_invalid_answer(run, ca):
    ended = run(Refusing(ca, root()), "enroll", *NEW)
    assert ended.status == Exit.INVALID_ANSWER
    assert "it says failed (badIdentity)" in ended.err


def test_a_simple_answer_is_enough_for_our_key(run, ca):
    """RFC 5272 4.1: it has no signature and no nonce, but TLS has authenticated the server and the key is ours."""

    class Simple(Desk):
        own = True

        def http(self, controls, certificates=(), crls=()):
            found = certificates if self.own else [self.ca.issue("x").certificate]
            return rogue.reply(body=rogue.bag(*found), content_type=rogue.CERTS_ONLY)

    assert run(Simple(ca), "enroll", *NEW).status == Exit.DONE
    os.unlink("device.key")
    desk = Simple(ca)
    desk.own = False
    assert run(desk, "enroll", *NEW).status == Exit.INVALID_ANSWER


def test_two_certificates_for_our_key_are_refused(run, ca):
    class Double(Desk):
        def decide(self, data):
            controls, found, _ = super().decide(data)
            return controls, [*found, self.certify(data.requests[0])], []

    ended = run(Double(ca), "enroll", *NEW)
    assert ended.status == Exit.INVALID_ANSWER
    assert "2 certificates for our key" in ended.err


def without_pop(challenge):
    asked = challenge.request
    return replace(challenge, request=replace(asked, message=replace(asked.message, pop=None)))


def test_a_challenge_for_another_request_is_refused(run, ca):
    """It must be for our request, readable, and fit its witness (RFC 5272 6.7)."""

    class Wrong(Challenging):
        change: Any

        def decide(self, data):
            (verdict, (name, value)), *rest = super().decide(data)
            return [verdict, (name, self.change(value))], *rest

    for change, words in (
        (without_pop, "for another request"),
        (lambda value: replace(value, witness=bytes(32)), "does not fit its witness"),
        (lambda value: replace(value, cms=b"\x30\x00"), "can't be met"),
    ):
        desk = Wrong(ca)
        desk.change = change
        ended = run(desk, "enroll", *NEW, "--crmf", "--encrypted-pop")
        assert ended.status == Exit.INVALID_ANSWER
        assert words in ended.err
        assert len(desk.seen) == 1
        os.unlink("device.key")


def test_fullcmc_answers_a_challenge_and_follows_a_redirect(holder, anchor, ca, estclient):
    """The session handles both. A message is made again for every connection."""
    desk = Desk(ca)

    def answer(request):
        if request.operation != "fullcmc":
            return desk(request)
        if "moved" not in request.target:
            return rogue.reply(307, content_type=None, Location="/.well-known/est/moved/fullcmc")
        if "Authorization" not in request.headers:
            return rogue.reply(401, content_type=None, WWW_Authenticate='Basic realm="estrealm"')
        return desk(request)

    with rogue.Server(holder, answer) as server:
        ended = estclient("fullcmc", "enroll", "-u", server.url, "-c", anchor, "-p", "estuser:estpwd", *NEW)
    assert ended.status == Exit.DONE, ended.err
    assert server.requests[-1].headers["Authorization"].startswith("Basic ")
