"""fullcmc: every control of the standard and its outcome, and the services that controls ask for."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.cli import pending
from estgw.cmc import crmf, parts, proofs
from estgw.cmc.controls import BY_NAME, TABLE, Control, Taken
from estgw.cmc.messages import PKIData, TaggedContentInfo, pki_response
from estgw.cmc.requests import CRMFRequest, PKCS10Request
from estgw.cmc.status import CMCFailInfo, CMCStatus, PendInfo, StatusInfo
from estgw.cmc.values import (
    AddExtensions,
    ControlsProcessed,
    DecryptedPOP,
    EncryptedPOP,
    GetCert,
    GetCRL,
    LraPopWitness,
    ModCertTemplate,
    PublicationInfo,
    PublishTrustAnchors,
    RevokeRequest,
    Witness,
)
from estgw.cms import signed
from estgw.cms.algorithms import HMAC_SHA256, SHA256, Algorithm
from estgw.cms.fields import integer, sequence
from estgw.cms.identifiers import IssuerAndSerial
from estgw.est import certs
from estgw.register import engines
from estgw.register.requests import Requests
from tests.cmc_service import office as cmc
from tests.cmc_service.office import Person, control, fresh, message, new_key, pkcs10, proof
from tests.kit.csr import csr
from tests.kit.der import UTF8, attribute, tlv
from tests.kit.keys import KEY
from tests.kit.processes import run
from tests.kit.workspace import Workspace

NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device-7")])
HASH, MAC = Algorithm(SHA256), Algorithm(HMAC_SHA256)
FAILED, DONE, UNSUPPORTED = CMCStatus.FAILED, CMCStatus.SUCCESS, CMCStatus.NO_SUPPORT


@pytest.fixture(scope="module")
def shared(lab, tmp_path_factory):
    office = cmc.Office(lab.copy(tmp_path_factory.mktemp("controls")))
    office.secrets()
    return office


@pytest.fixture
def office(shared):
    return shared.allow()


@pytest.fixture(scope="module")
def ra(shared):
    return shared.person("the RA", ra=True)


@pytest.fixture(scope="module")
def member(shared):
    return shared.person("device-7")


# The table. Each row has the section, how we use the control, and the outcome of a request with it: first by the holder
# of one of our certificates, then by an RA. DONE stands for a control that asks for nothing by itself.

RANDOM = b"0123456789abcdef"
VALUES = {
    "statusInfo": lambda: StatusInfo(DONE, (0,)),
    "identification": lambda: "device-7",
    "identityProof": lambda: b"not a proof",
    "dataReturn": lambda: b"give it back",
    "transactionId": lambda: 17,
    "senderNonce": lambda: RANDOM,
    "recipientNonce": lambda: RANDOM,
    "addExtensions": lambda: AddExtensions(0, (1,), san("added.example")),
    "encryptedPOP": lambda: EncryptedPOP(pkcs10(1, key=KEY), b"\x30\x00", MAC, HASH, b"x"),
    "decryptedPOP": lambda: DecryptedPOP(1, MAC, b"x"),
    "lraPOPWitness": lambda: LraPopWitness(0, (1,)),
    "getCert": lambda: GetCert(directory(NAME), 5),
    "getCRL": lambda: GetCRL(NAME.public_bytes()),
    "revokeRequest": lambda: RevokeRequest(NAME.public_bytes(), 5),
    "regInfo": lambda: b"for your information",
    "responseInfo": lambda: b"for your information",
    "queryPending": lambda: b"no such token",
    "popLinkRandom": lambda: RANDOM,
    "popLinkWitness": lambda: b"x",
    "confirmCertAcceptance": lambda: IssuerAndSerial(NAME.public_bytes(), 5),
    "statusInfoV2": lambda: StatusInfo(DONE, (0,)),
    "trustedAnchors": lambda: PublishTrustAnchors(1, HASH, (b"x",)),
    "authData": lambda: 1,
    "batchRequests": lambda: (1,),
    "batchResponses": lambda: (1,),
    "publishCert": lambda: PublicationInfo(HASH, (b"x",), b"\x30\x03\x02\x01\x00"),
    "modCertTemplate": lambda: ModCertTemplate((0,), (1,), crmf.CertTemplate(subject=NAME.public_bytes())),
    "controlProcessed": lambda: ControlsProcessed((2,)),
    "popLinkWitnessV2": lambda: Witness(HASH, MAC, b"x"),
    "identityProofV2": lambda: Witness(HASH, MAC, b"x"),
    "raIdentityWitness": lambda: (1,),
    "changeSubjectName": lambda: b"\x30\x00",
    "responseBody": lambda: (1,),
}
REQUEST, IDENTITY, CERT_ID = CMCFailInfo.BAD_REQUEST, CMCFailInfo.BAD_IDENTITY, CMCFailInfo.BAD_CERT_ID
OUTCOMES = {
    # name: (section of RFC 5272 or 6402, how we use it, outcome for a member, outcome for an RA)
    "statusInfo": ("6.1.2", "read, logged, without consequence", DONE, DONE),
    "identification": ("6.2.3", "names the shared secret", DONE, DONE),
    "identityProof": ("6.2.2", "checked, if the policy takes SHA-1", IDENTITY, IDENTITY),
    "dataReturn": ("6.4", "goes back", DONE, DONE),
    "transactionId": ("6.6", "goes back", DONE, DONE),
    "senderNonce": ("6.6", "goes back as recipientNonce, and is taken once", DONE, DONE),
    "recipientNonce": ("6.6", "must be the one that we have sent in this transaction", REQUEST, REQUEST),
    "addExtensions": ("6.5.2", "an RA adds alternative names; other extensions are unsupportedExt", IDENTITY, DONE),
    "encryptedPOP": ("6.7", "sent to keys that can't sign", REQUEST, REQUEST),
    "decryptedPOP": ("6.7", "answers a challenge; asks for nothing beside a signed request", DONE, DONE),
    "lraPOPWitness": ("6.8", "an RA vouches for possession", IDENTITY, DONE),
    "getCert": ("6.9", "the certificate is in the bag", CERT_ID, CERT_ID),
    "getCRL": ("6.10", "the list is in the bag", CERT_ID, CERT_ID),
    "revokeRequest": ("6.11", "by the holder, an RA, or with a passphrase", CERT_ID, CERT_ID),
    "regInfo": ("6.12", "read, logged, without consequence", DONE, DONE),
    "responseInfo": ("6.12", "none of a request's", REQUEST, REQUEST),
    "queryPending": ("6.13", "what waits, by its token", REQUEST, REQUEST),
    "popLinkRandom": ("6.3.1.3", "what witnesses in requests are made for", DONE, DONE),
    "popLinkWitness": (
        "6.3.1.2",
        "checked inside a request, if the policy takes SHA-1; beside it, refused",
        REQUEST,
        REQUEST,
    ),
    "confirmCertAcceptance": ("6.14", "ends confirmRequired", CERT_ID, CERT_ID),
    "statusInfoV2": ("6.1.1", "read, logged, without consequence; every response has it", DONE, DONE),
    "trustedAnchors": ("6.15", "sent to those who have no certificate of ours", REQUEST, REQUEST),
    "authData": ("6.16", "not offered: authDataFail", CMCFailInfo.AUTH_DATA_FAIL, CMCFailInfo.AUTH_DATA_FAIL),
    "batchRequests": ("6.17", "an RA gets a response for each message inside", IDENTITY, DONE),
    "batchResponses": ("6.17", "answers batchRequests", REQUEST, REQUEST),
    "publishCert": ("6.18", "not offered: noSupport", UNSUPPORTED, UNSUPPORTED),
    "modCertTemplate": ("6.5.1", "an RA changes subject and alternative names", IDENTITY, DONE),
    "controlProcessed": ("6.19", "an RA has dealt with these controls", IDENTITY, DONE),
    "popLinkWitnessV2": ("6.3.1.1", "checked inside a request; beside it, refused", REQUEST, REQUEST),
    "identityProofV2": ("6.2.1", "checked", IDENTITY, IDENTITY),
    "raIdentityWitness": ("RFC 6402 2.9", "an RA has checked the identity", IDENTITY, DONE),
    "changeSubjectName": ("RFC 6402 2.8", "an attribute of a request; beside it, refused", REQUEST, REQUEST),
    "responseBody": ("RFC 6402 2.6", "none of a request's", REQUEST, REQUEST),
}
SENT = {
    "dataReturn", "transactionId", "senderNonce", "recipientNonce", "encryptedPOP", "statusInfoV2", "trustedAnchors",
    "batchResponses",
}  # fmt: skip


def san(*names: str) -> bytes:
    value = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    return parts.write_extensions([x509.Extension(value.oid, False, value)])


def directory(name: x509.Name) -> bytes:
    """A GeneralName: [4] around a Name."""
    return tlv(0xA4, name.public_bytes())


def test_the_table_has_every_control_with_its_section():
    assert {row.name: row.section for row in TABLE} == {name: outcome[0] for name, outcome in OUTCOMES.items()}
    assert {row.name for row in TABLE if row.sent} == SENT
    for row in TABLE:
        member_gets, ra_gets = OUTCOMES[row.name][2:]
        if row.taken in (Taken.REFUSED, Taken.MISPLACED):
            assert member_gets == ra_gets in (REQUEST, UNSUPPORTED, CMCFailInfo.AUTH_DATA_FAIL), row.name
        if row.taken is Taken.IGNORED:
            assert member_gets == ra_gets == DONE, row.name


@pytest.mark.parametrize("who", ["member", "ra"])
@pytest.mark.parametrize("name", OUTCOMES)
def test_a_control_beside_a_good_request_has_the_outcome_of_the_table(office, member, ra, name, who):
    """A failing control fails the whole message, unless it asks for a service."""
    person = ra if who == "ra" else member
    expected = OUTCOMES[name][3 if who == "ra" else 2]
    value = secrets.token_bytes(16) if name == "senderNonce" else VALUES[name]()
    asked = control(name, value, 2)
    reply = office.ask(message(PKIData((asked,), (pkcs10(1, key=person.key),)), person))
    bad = [each for each in reply.statuses if each.status in (FAILED, UNSUPPORTED)]
    if expected is DONE:
        assert not bad, bad
        assert reply.status.status == DONE
        return
    (found,) = bad
    assert (found.status if expected is UNSUPPORTED else found.failure) == expected
    assert found.body_list in ((2,), (0,))
    whole = not [each for each in reply.statuses if each.status == DONE]
    is_service = name in ("getCert", "getCRL", "revokeRequest", "queryPending", "confirmCertAcceptance")
    assert whole != is_service, "a service fails alone; all else takes the message with it (RFC 5272 3.2.1.1)"
    assert reply.http == (200 if is_service else reply.http)


def test_an_unknown_control_fails_the_message(office, member):
    unknown = Control(9, "1.3.6.1.4.1.99999.7", (b"\x05\x00",))
    before = office.count()
    reply = office.ask(message(PKIData((unknown,), (pkcs10(1, key=member.key),)), member))
    assert reply.failure is CMCFailInfo.BAD_REQUEST
    assert reply.status.body_list == (9,)
    assert office.count() == before


# Nonces, transactions, returned data.


def test_f8_nonce_transaction_id_and_data_are_returned(office, member):
    nonce, number = secrets.token_bytes(20), 2**80 + 1
    sent = [control("transactionId", number), control("senderNonce", nonce)]
    sent += [control("dataReturn", b"one"), control("dataReturn", b"two")]
    reply = office.ask(message(PKIData(tuple(sent), (pkcs10(1, key=member.key),)), member))
    assert (reply.value("transactionId"), reply.value("recipientNonce")) == (number, nonce)
    assert len(reply.value("senderNonce")) == 16
    assert [each.value for each in reply.response.find("dataReturn")] == [b"one", b"two"]


def test_f8_nonce_and_transaction_id_are_returned_in_a_refusal(office, member):
    nonce = secrets.token_bytes(20)
    sent = [control("transactionId", 5, 1), control("senderNonce", nonce, 2)]
    for data in (
        PKIData((*sent, control("responseInfo", b"x", 3))),
        PKIData((*sent, control("dataReturn", b"x", 2))),
        PKIData((*sent, Control(3, BY_NAME["getCRL"].oid, (b"\x05\x00",)))),
    ):
        reply = office.ask(message(data, member))
        assert reply.failure is CMCFailInfo.BAD_REQUEST
        assert (reply.value("transactionId"), reply.value("recipientNonce")) == (5, nonce)


def test_a_repeated_message_or_nonce_is_refused(office, member):
    nonce = control("senderNonce", secrets.token_bytes(16))
    number = control("transactionId", 99)
    body = message(PKIData((number, nonce), (pkcs10(1, key=member.key),)), member)
    assert office.ask(body).status.status == DONE
    before = office.count()
    for again in (body, message(PKIData((number, nonce), (pkcs10(1, key=member.key),)), member)):
        reply = office.ask(again)
        assert reply.failure is CMCFailInfo.BAD_REQUEST
        assert "before" in reply.status.text
    assert office.count() == before
    body = message(PKIData((control("transactionId", 99),), (pkcs10(1, key=member.key),)), member)
    assert office.ask(body).status.status == DONE
    assert office.ask(body).failure is CMCFailInfo.BAD_REQUEST, "without a nonce the message itself is remembered"
    other = office.person("device-9")
    reply = office.ask(message(PKIData((number, nonce), (pkcs10(1, "device-9", key=other.key),)), other))
    assert reply.status.status == DONE, "a nonce is one sender's"


# Certificates and CRLs.


def test_get_cert_returns_certificates_of_this_ca_alone(office, member):
    issuer = office.issuer.subject
    server = x509.load_pem_x509_certificate((office.ca / "server.pem").read_bytes())
    for wanted in (member.certificate, server):
        wish = control("getCert", GetCert(directory(issuer), wanted.serial_number), 1)
        reply = office.ask(message(PKIData((*fresh(), wish)), member))
        assert (reply.status.status, reply.status.body_list) == (DONE, (1,))
        assert wanted in reply.message.bag
    for name, serial in ((issuer, 4711), (issuer, -5), (NAME, member.certificate.serial_number)):
        wish = control("getCert", GetCert(directory(name), serial), 1)
        reply = office.ask(message(PKIData((*fresh(), wish)), member))
        assert reply.failure is CMCFailInfo.BAD_CERT_ID
        assert reply.http == 400
    wish = control("getCert", GetCert(tlv(0x82, b"ca.example"), 5), 1)
    assert office.ask(message(PKIData((*fresh(), wish)), member)).failure is CMCFailInfo.BAD_CERT_ID


def test_an_issuer_in_the_wrong_form_is_accepted(shared, tmp_path):
    """JSS, and so Dogtag, sends a bare Name in getCert. The tags of the two forms differ, so reading both is safe."""
    office = cmc.Office(shared.lab.copy(tmp_path))
    member, name = office.person("device-7"), office.issuer.subject
    serial = member.certificate.serial_number

    def ask(kind, value):
        asked = Control(1, BY_NAME[kind].oid, (value,))
        return office.ask(message(PKIData((*fresh(), asked)), member))

    bare = sequence(name.public_bytes(), integer(serial))
    reply = ask("getCert", bare)
    assert (reply.status.status, member.certificate in reply.message.bag) == (DONE, True)
    assert ask("getCert", sequence(NAME.public_bytes(), integer(serial))).failure is CMCFailInfo.BAD_CERT_ID
    assert len(ask("getCRL", sequence(directory(name))).message.crls) == 1
    assert ask("revokeRequest", sequence(directory(NAME), integer(serial), b"\x0a\x01\x04")).failure is CERT_ID
    assert ask("revokeRequest", sequence(directory(name), integer(serial), b"\x0a\x01\x04")).status.status == DONE


def test_get_crl_lists_a_revocation_and_a_broken_crl_is_an_error(shared, tmp_path):
    """The CRLs of openssl-ca are made again if none is there or in force. openssl verifies them."""
    office = cmc.Office(shared.lab.copy(tmp_path / "lab"))
    member = office.person("device-7")
    wish = control("getCRL", GetCRL(office.issuer.subject.public_bytes()), 1)

    def crls():
        reply = office.ask(message(PKIData((*fresh(), wish)), member))
        assert reply.status.status == DONE
        found = [x509.load_der_x509_crl(each) for each in reply.message.crls]
        for at, crl in enumerate(found):
            file = tmp_path / f"{at}.crl"
            file.write_bytes(crl.public_bytes(Encoding.DER))
            run("openssl", "crl", "-inform", "DER", "-in", file, "-CAfile", office.lab.anchor, "-noout")
        return found

    (made,) = crls()
    assert len(made) == 0
    assert made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number > 0
    unlucky = office.person("device-9")
    revoke = RevokeRequest(office.issuer.subject.public_bytes(), unlucky.certificate.serial_number, 1)
    refused = office.ask(message(PKIData((*fresh(), control("revokeRequest", revoke, 1))), member))
    assert refused.failure is CMCFailInfo.BAD_IDENTITY
    assert refused.http == 403
    assert not crls()[0].get_revoked_certificate_by_serial_number(unlucky.certificate.serial_number)
    done = office.ask(message(PKIData((*fresh(), control("revokeRequest", revoke, 1))), unlucky))
    assert (done.status.status, done.status.body_list) == (DONE, (1,))
    (listed,) = crls()
    entry = listed.get_revoked_certificate_by_serial_number(unlucky.certificate.serial_number)
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason == x509.ReasonFlags.key_compromise
    assert (office.ca / "crl-1.der").read_bytes() == listed.public_bytes(Encoding.DER)
    assert office.enrol(pkcs10(1, "device-9", key=unlucky.key), by=unlucky).failure is CMCFailInfo.BAD_IDENTITY
    (office.ca / "crl-1.der").write_bytes(made.public_bytes(Encoding.DER)[:-5])
    assert office.ask(message(PKIData((*fresh(), wish)), member)).failure is CMCFailInfo.INTERNAL_CA_ERROR
    (office.ca / "crl-1.der").unlink()
    assert crls()[0].get_revoked_certificate_by_serial_number(unlucky.certificate.serial_number)
    past = GetCRL(office.issuer.subject.public_bytes(), time=datetime.now(UTC) - timedelta(days=30))
    reply = office.ask(message(PKIData((*fresh(), control("getCRL", past, 1))), member))
    assert reply.failure is CMCFailInfo.BAD_REQUEST


def test_get_crl_works_for_a_ca_without_openssl_scripts(tmp_path):
    """handlers/python/create-ca makes such a CA. Only its register says what is revoked."""
    run(sys.executable, cmc.HANDLERS / "create-ca", "--key", "p-256", tmp_path / "ca")

    class Bare(Workspace):
        ca = tmp_path / "ca"
        anchor = tmp_path / "ca/cacert.pem"

    office = cmc.Office(Bare(tmp_path))
    unlucky = office.person("device-9")
    ra = office.person("ra", ra=True)
    issuer = x509.load_pem_x509_certificate((tmp_path / "ca/cacert.pem").read_bytes())
    name = issuer.subject.public_bytes()
    wishes = [
        control("revokeRequest", RevokeRequest(name, unlucky.certificate.serial_number, 4), 1),
        control("getCRL", GetCRL(name), 2),
    ]
    reply = office.ask(message(PKIData((*fresh(), *wishes)), ra))
    assert (reply.status.status, reply.status.body_list) == (DONE, (1, 2))
    crl = x509.load_der_x509_crl(reply.message.crls[0])
    assert crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    entry = crl.get_revoked_certificate_by_serial_number(unlucky.certificate.serial_number)
    assert entry is not None
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason == x509.ReasonFlags.superseded
    assert signed.certificate_of(reply.message, reply.message.signers[0]) == issuer, "there is no server.pem"


@pytest.mark.parametrize("reason", [6, 8, 9, 10])
def test_a_revocation_reason_that_cannot_be_stored_is_refused(office, member, ra, reason):
    wish = RevokeRequest(office.issuer.subject.public_bytes(), member.certificate.serial_number, reason)
    reply = office.ask(message(PKIData((*fresh(), control("revokeRequest", wish, 1))), ra))
    assert reply.failure is CMCFailInfo.BAD_REQUEST
    assert office.enrol(pkcs10(1, key=member.key), by=member).status.status == DONE


def test_a_passphrase_revokes_its_certificate_and_no_other(office):
    """The request has a revocationChallenge (RFC 7894 3.2). An unsigned message with the passphrase then revokes
    (6.11).
    """
    key, word = new_key(), b"open sesame"
    challenge = attribute("1.2.840.113549.1.9.16.2.57", tlv(UTF8, word))
    asked = PKCS10Request(1, csr("device-7", challenge, key=key))
    issued = office.enrol(asked, by=Person(key)).certificate
    name = office.issuer.subject.public_bytes()

    def ask(passphrase, serial=issued.serial_number):
        wish = control("revokeRequest", RevokeRequest(name, serial, 0, None, passphrase), 1)
        return office.ask(message(PKIData((*fresh(), wish))), EST_AUTH_METHODS="")

    assert ask(None).failure is CMCFailInfo.BAD_IDENTITY
    assert ask(b"guess").failure is CMCFailInfo.BAD_IDENTITY
    other = office.person("device-9")
    assert ask(word, other.certificate.serial_number).failure is CMCFailInfo.BAD_IDENTITY
    assert ask(word).status.status == DONE
    assert office.enrol(pkcs10(1, key=key), by=Person(key, issued)).failure is CMCFailInfo.BAD_IDENTITY
    for _ in range(office.policy.tries - 1):
        assert ask(b"guess", other.certificate.serial_number).failure is CMCFailInfo.BAD_IDENTITY
    assert ask(b"guess", other.certificate.serial_number).failure is CMCFailInfo.TRY_LATER
    assert b"sesame" not in (office.ca / "certs.sqlite").read_bytes()
    assert (office.ca / "certs.sqlite").stat().st_mode & 0o777 == 0o600


def test_an_unsigned_message_gets_the_anchors_and_nothing_else(office, member):
    """RFC 7030 4.1.1: bootstrapping by fullcmc, with an unsigned message."""
    reply = office.ask(message(PKIData(tuple(fresh()))), EST_AUTH_METHODS="")
    assert reply.status.status == DONE
    anchors = reply.value("trustedAnchors")
    root = x509.load_pem_x509_certificate(office.lab.anchor.read_bytes())
    assert anchors.anchors == (root.fingerprint(hashes.SHA256()),)
    assert root in reply.message.bag
    wish = control("getCert", GetCert(directory(NAME), 5), 7)
    reply = office.ask(message(PKIData((*fresh(), wish))), EST_AUTH_METHODS="")
    assert reply.failure is CMCFailInfo.BAD_IDENTITY
    assert reply.status.body_list == (7,)
    assert office.enrol(pkcs10(1, key=member.key), by=member).value("trustedAnchors") is None
    assert office.allow(anchors=False).ask(message(PKIData(tuple(fresh())))).value("trustedAnchors") is None


# Messages of an RA.


def nested(number: int, data: PKIData, *people: Person) -> TaggedContentInfo:
    return TaggedContentInfo(number, message(data, *people))


def test_wrapped_messages_are_served_by_their_own_proofs(office, ra):
    """Each status names its request by path. The clients' own proofs and signatures count."""
    first, second = new_key(), new_key()
    asked = pkcs10(1, key=first)
    inner = [
        nested(11, PKIData((*fresh(), *proof([asked])), (asked,)), Person(first)),
        nested(12, PKIData(tuple(fresh()), (pkcs10(2, "b", key=second),)), Person(second)),
    ]
    reply = office.ask(message(PKIData(tuple(fresh()), (), tuple(inner)), ra))
    assert (reply.status.status, reply.status.body_list) == (DONE, ((11, 1), (12, 2)))
    assert len(reply.issued) == 2
    liar = nested(13, PKIData(tuple(fresh()), (pkcs10(2, "b", key=second),)), Person(first))
    reply = office.ask(message(PKIData(tuple(fresh()), (), (liar,)), ra))
    assert reply.failure is CMCFailInfo.BAD_IDENTITY
    assert reply.status.body_list == ((13, 0),)


def test_a_wrapped_message_of_a_client_that_is_no_ra_is_refused(office, member):
    inner = nested(11, PKIData(tuple(fresh()), (pkcs10(2, "b", key=member.key),)), member)
    reply = office.ask(message(PKIData(tuple(fresh()), (), (inner,)), member))
    assert reply.failure is CMCFailInfo.BAD_IDENTITY
    assert reply.http == 403


def test_a_wrapped_client_does_not_get_the_rights_of_the_ra(office, ra, member):
    key = new_key()
    vouch = control("lraPOPWitness", LraPopWitness(0, (2,)))
    request = crmf.request_for(key.public_key(), 2, NAME.public_bytes())
    for pop, controls in ((crmf.RA_VERIFIED, []), (crmf.CHALLENGE, [vouch])):
        asked = CRMFRequest(crmf.CertReqMsg(request, pop))
        inner = nested(11, PKIData((*fresh(), *controls), (asked,)), member)
        reply = office.ask(message(PKIData(tuple(fresh()), (), (inner,)), ra))
        expected = CMCFailInfo.BAD_IDENTITY if controls else CMCFailInfo.POP_FAILED
        assert reply.failure is expected
    vouched = control("lraPOPWitness", LraPopWitness(11, (2,)))
    inner = nested(11, PKIData(tuple(fresh()), (CRMFRequest(crmf.CertReqMsg(request, crmf.CHALLENGE)),)), member)
    reply = office.ask(message(PKIData((*fresh(), vouched), (), (inner,)), ra))
    assert (reply.status.status, reply.status.body_list) == (DONE, ((11, 2),))


def test_an_ra_may_wrap_the_message_of_an_ra_but_not_of_a_client(office, ra):
    second = office.person("another RA", ra=True)
    key = new_key()
    inner = nested(2, PKIData(tuple(fresh()), (pkcs10(1, "deep", key=key),)), Person(key))
    middle = nested(3, PKIData(tuple(fresh()), (), (inner,)), second)
    reply = office.ask(message(PKIData(tuple(fresh()), (), (middle,)), ra))
    assert (reply.status.status, reply.status.body_list) == (DONE, ((3, 2, 1),))
    member = office.person("device-7")
    middle = nested(3, PKIData(tuple(fresh()), (), (inner,)), member)
    assert office.ask(message(PKIData(tuple(fresh()), (), (middle,)), ra)).failure is CMCFailInfo.BAD_IDENTITY


def test_an_identity_counts_if_the_ra_says_that_it_was_checked(office, ra):
    """Only the RA knows the secret. raIdentityWitness or controlProcessed says that it has checked."""
    key = new_key()
    asked = pkcs10(1, key=key)
    claim = proof([asked], "device-7", secret="known to the RA alone")
    inner = nested(11, PKIData((*fresh(), *claim), (asked,)), Person(key))
    assert office.ask(message(PKIData(tuple(fresh()), (), (inner,)), ra)).failure is CMCFailInfo.BAD_IDENTITY
    number = claim[1].body_part_id
    for said in (
        control("raIdentityWitness", (11, number)),
        control("raIdentityWitness", (11,)),
        control("controlProcessed", ControlsProcessed(((11, number),))),
    ):
        reply = office.ask(message(PKIData((*fresh(), said), (), (inner,)), ra))
        assert reply.status.status == DONE, (said, reply.statuses)


def test_an_unknown_control_is_accepted_if_the_ra_processed_it(office, ra):
    key = new_key()
    unknown = Control(9, "1.3.6.1.4.1.99999.7", (b"\x05\x00",))
    inner = nested(11, PKIData((unknown,), (pkcs10(1, key=key),)), Person(key))
    reply = office.ask(message(PKIData(tuple(fresh()), (), (inner,)), ra))
    assert reply.failure is CMCFailInfo.BAD_REQUEST
    assert reply.status.body_list == ((11, 9),)
    done = control("controlProcessed", ControlsProcessed(((11, 9),)))
    assert office.ask(message(PKIData((*fresh(), done), (), (inner,)), ra)).status.status == DONE


def test_a_batch_gets_a_signed_response_for_each_message(office, ra):
    first, second = new_key(), new_key()
    nonce = secrets.token_bytes(16)
    inner = [
        nested(11, PKIData((control("senderNonce", nonce),), (pkcs10(1, "a", key=first),)), Person(first)),
        nested(12, PKIData(tuple(fresh()), (pkcs10(1, "b", key=second),)), Person(first)),
    ]
    batch = control("batchRequests", (11, 12))
    reply = office.ask(message(PKIData((*fresh(), batch), (), tuple(inner)), ra))
    states = [(each.status, each.body_list) for each in reply.statuses]
    assert states == [(CMCStatus.PARTIAL, (0,)), (DONE, (11,)), (FAILED, (12,))]
    answers = reply.value("batchResponses")
    assert answers == tuple(each.body_part_id for each in reply.response.cms)
    contents = []
    for part in reply.response.cms:
        found = signed.parse(part.der)
        signer = signed.certificate_of(found, found.signers[0])
        assert signer is not None
        signed.verify(found, found.signers[0], signer.public_key())
        contents.append(pki_response(found))
    assert contents[0].value("recipientNonce") == nonce
    assert [each.statuses[0].status for each in contents] == [DONE, FAILED]
    assert contents[1].statuses[0].failure == CMCFailInfo.BAD_IDENTITY


@pytest.mark.parametrize("inside", [False, True], ids=["its own", "wrapped"])
def test_an_ra_may_change_names_but_no_other_extension_or_validity(office, ra, inside):
    key = new_key()
    wanted = pkcs10(1, "before", x509.SubjectAlternativeName([x509.DNSName("before.example")]), key=key)
    new = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "after")])
    where = 11 if inside else 0

    def ask(*controls):
        if not inside:
            return office.ask(message(PKIData((*fresh(), *controls), (wanted,)), ra))
        inner = nested(11, PKIData(tuple(fresh()), (wanted,)), Person(key))
        return office.ask(message(PKIData((*fresh(), *controls), (), (inner,)), ra))

    def names(reply):
        assert reply.status.status == DONE, reply.statuses
        try:
            found = reply.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return reply.certificate.subject.rfc4514_string(), []
        return reply.certificate.subject.rfc4514_string(), found.get_values_for_type(x509.DNSName)

    added = control("addExtensions", AddExtensions(where, (1,), san("added.example")))
    assert names(ask(added)) == ("CN=before", ["added.example"])
    template = crmf.CertTemplate(subject=new.public_bytes())
    changed = control("modCertTemplate", ModCertTemplate((where,), (1,), template))
    assert names(ask(changed)) == ("CN=after", ["before.example"])
    assert names(ask(added, changed)) == ("CN=after", ["added.example"])
    taken = crmf.CertTemplate(extensions=san("before.example"))
    removed = control("modCertTemplate", ModCertTemplate((where,), (1,), taken, replace=False))
    assert names(ask(removed)) == ("CN=before", [])
    part = (11, 1) if inside else 1
    usage = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CODE_SIGNING])
    odd = AddExtensions(where, (1,), parts.write_extensions([x509.Extension(usage.oid, False, usage)]))
    reply = ask(control("addExtensions", odd))
    assert reply.failure is CMCFailInfo.UNSUPPORTED_EXT
    assert reply.status.body_list == (part,)
    late = crmf.CertTemplate(not_after=datetime.now(UTC) + timedelta(days=9999))
    reply = ask(control("modCertTemplate", ModCertTemplate((where,), (1,), late)))
    assert reply.failure is CMCFailInfo.BAD_REQUEST
    office.policy = replace(office.policy, may_add=())
    assert ask(added).failure is CMCFailInfo.UNSUPPORTED_EXT


# Confirmation (6.14).


def test_only_its_holder_can_confirm_a_certificate_and_only_once(office):
    strict = office.allow(confirm=timedelta(hours=1))
    key = new_key()
    reply = strict.enrol(pkcs10(1, key=key), by=Person(key))
    assert (reply.http, reply.status.status, reply.status.body_list) == (200, CMCStatus.CONFIRM_REQUIRED, (1,))
    issued = reply.certificate
    wish = control("confirmCertAcceptance", IssuerAndSerial.of(issued), 1)
    other = office.person("device-9")
    assert strict.ask(message(PKIData((*fresh(), wish)), other)).failure is CMCFailInfo.BAD_CERT_ID
    done = strict.ask(message(PKIData((*fresh(), wish)), Person(key, issued)))
    assert done.status.status == DONE
    again = strict.ask(message(PKIData((*fresh(), wish)), Person(key, issued)))
    assert again.failure is CMCFailInfo.BAD_CERT_ID


def test_a_certificate_that_is_not_confirmed_is_revoked(office):
    strict = office.allow(confirm=timedelta(seconds=-5))
    key = new_key()
    issued = strict.enrol(pkcs10(1, key=key), by=Person(key)).certificate
    member = office.person("device-9")
    reply = office.enrol(pkcs10(1, "device-9", key=member.key), by=member)
    assert "nobody has confirmed" in reply.log
    reply = office.enrol(pkcs10(1, "device-9", key=member.key), by=member)
    assert "nobody has confirmed" not in reply.log
    reply = office.enrol(pkcs10(1, key=key), by=Person(key, issued))
    assert reply.failure is CMCFailInfo.BAD_IDENTITY
    assert "revoked" in reply.status.text


# Pending requests (6.13).


@pytest.fixture
def script(tmp_path):
    def write(text):
        path = tmp_path / "authorize"
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        return {"EST_AUTHORIZE": str(path)}

    return write


def test_a_pending_request_is_issued_to_its_client_alone(office, script):
    key = new_key()
    person = Person(key)
    waits = office.enrol(pkcs10(1, key=key), by=person, **script("exit 75"))
    assert waits.http == 202
    assert 60 <= int(waits.headers["Retry-After"]) <= 120
    state = waits.status
    assert (state.status, state.body_list) == (CMCStatus.PENDING, (1,))
    assert isinstance(state.pending, PendInfo)
    assert state.pending.time > datetime.now(UTC)
    nonce = waits.value("senderNonce")
    number = waits.value("transactionId")

    def query(who, token=state.pending.token, sent=None, **env):
        wish = [control("queryPending", token, 3), control("transactionId", number)]
        wish += [control("senderNonce", secrets.token_bytes(16))]
        wish += [] if sent is None else [control("recipientNonce", sent)]
        return office.ask(message(PKIData(tuple(wish)), who), **env)

    other = office.person("device-7")
    assert query(other).failure is CMCFailInfo.BAD_REQUEST, "another client's token"
    assert query(person, REMOTE_USER="somebody").failure is CMCFailInfo.BAD_REQUEST, "another client's token"
    assert query(Person(new_key())).failure is CMCFailInfo.BAD_IDENTITY, "a key that is in no request names nobody"
    assert query(person, b"no such token").failure is CMCFailInfo.BAD_IDENTITY
    assert query(person, sent=b"another nonce").failure is CMCFailInfo.BAD_REQUEST
    before = office.count()
    done = query(person, sent=nonce, **script("exit 0"))
    assert (done.status.status, done.status.body_list) == (DONE, (3,))
    assert done.certificate.public_key() == key.public_key()
    assert office.count() == before + 1


def test_a_holder_polls_with_the_latest_nonce_until_issued_once(office, script, member):
    def ask(*controls, requests=(), **env):
        return office.ask(message(PKIData(tuple(controls), tuple(requests)), member), **env)

    number = control("transactionId", 4711)
    waits = ask(number, control("senderNonce", secrets.token_bytes(16)),
                requests=[pkcs10(1, key=member.key)], **script("exit 75"))  # fmt: skip
    token, nonce = waits.status.pending.token, waits.value("senderNonce")

    def query(**env):
        controls = [control("queryPending", token, 3), number]
        controls += [control("senderNonce", secrets.token_bytes(16)), control("recipientNonce", nonce)]
        return ask(*controls, **env)

    still = query(**script("exit 75"))
    assert (still.http, still.status.status, still.status.body_list) == (202, CMCStatus.PENDING, (3,))
    assert still.status.pending.token == token
    assert query(**script("exit 0")).failure is CMCFailInfo.BAD_REQUEST, "that nonce was the last but one"
    nonce = still.value("senderNonce")
    before = office.count()
    done = query(**script("exit 0"))
    assert (done.http, done.status.status, done.status.body_list) == (200, DONE, (3,))
    assert done.certificate.public_key() == member.key.public_key()
    assert office.count() == before + 1
    again = ask(control("queryPending", token, 3), *fresh(), **script("exit 0"))
    assert again.failure is CMCFailInfo.BAD_REQUEST
    assert office.count() == before + 1


def test_a_repeated_message_of_a_pending_request_is_asked_again(office, script, member):
    """EST clients repeat a request that got a 202 (RFC 7030 4.2.3)."""
    body = message(PKIData(tuple(fresh()), (pkcs10(1, key=new_key()),)), member)
    first, second = office.ask(body, **script("exit 75")), office.ask(body, **script("exit 75"))
    assert (first.http, second.http) == (202, 202)
    assert first.status.pending.token == second.status.pending.token
    before = office.count()
    done = office.ask(body, **script("exit 0"))
    assert (done.http, done.status.status) == (200, DONE)
    assert office.ask(body, **script("exit 0")).failure is CMCFailInfo.BAD_REQUEST
    wish = control("queryPending", first.status.pending.token, 3)
    assert office.enrol(by=member, controls=[wish]).failure is CMCFailInfo.BAD_REQUEST
    assert office.count() == before + 1


def test_a_pending_request_stays_pending_after_a_fault_of_the_ca(office, script, member):
    waits = office.enrol(pkcs10(1, key=new_key()), by=member, **script("exit 75"))
    for text, failure in (("exit 69", CMCFailInfo.TRY_LATER), ("exit 1", CMCFailInfo.INTERNAL_CA_ERROR)):
        wish = control("queryPending", waits.status.pending.token, 3)
        assert office.enrol(by=member, controls=[wish], **script(text)).failure is failure
    (office.ca / "private/cakey.pem").rename(office.ca / "away")
    wish = control("queryPending", waits.status.pending.token, 3)
    assert office.enrol(by=member, controls=[wish]).failure is CMCFailInfo.INTERNAL_CA_ERROR
    (office.ca / "away").rename(office.ca / "private/cakey.pem")
    assert office.enrol(by=member, controls=[wish]).status.status == DONE


def test_a_refusal_by_authorize_ends_a_pending_request(office, script, member):
    waits = office.enrol(pkcs10(1, key=member.key), by=member, **script("exit 75"))
    wish = control("queryPending", waits.status.pending.token, 3)
    reply = office.enrol(by=member, controls=[wish], **script("echo no; exit 77"))
    assert reply.failure is CMCFailInfo.BAD_IDENTITY
    wish = control("queryPending", waits.status.pending.token, 4)
    assert office.enrol(by=member, controls=[wish], **script("exit 0")).failure is CMCFailInfo.BAD_REQUEST


@pytest.mark.parametrize(
    ("text", "failure", "http"),
    [
        ("echo 'not you'; exit 77", CMCFailInfo.BAD_IDENTITY, 403),
        ("echo 'not that'; exit 65", CMCFailInfo.BAD_REQUEST, 400),
        ("echo 'busy'; exit 69", CMCFailInfo.TRY_LATER, 503),
        ("exit 1", CMCFailInfo.INTERNAL_CA_ERROR, 500),
        ("kill -9 $$", CMCFailInfo.INTERNAL_CA_ERROR, 500),
    ],
)
def test_only_exit_0_of_authorize_lets_a_request_pass(office, script, text, failure, http):
    key = new_key()
    before = office.count()
    reply = office.enrol(pkcs10(1, key=key), by=Person(key), **script(text))
    assert (reply.failure, reply.http) == (failure, http)
    assert office.count() == before


@pytest.mark.parametrize("verdict", ["approve", "refuse"])
def test_a_request_that_waits_for_a_human_is_issued_or_refused(shared, tmp_path, verdict):
    """With `human` in the policy, requests wait in the register, where `estgw pending` finds them."""
    office = cmc.Office(shared.lab.copy(tmp_path)).allow(human=True)
    member = office.person("device-7")
    asked = pkcs10(1, key=member.key)
    waits = office.enrol(asked, by=member)
    assert waits.http == 202
    places = [Requests(engines.open_register(None, office.ca, 10))]
    (request,) = pending.requests(places)
    assert request.state == "waiting"
    assert request.facts["EST_CSR_SUBJECT"] == "CN=device-7"
    assert request.describe()["operation"] == "simplereenroll"
    wish = control("queryPending", waits.status.pending.token, 3)
    assert office.enrol(by=member, controls=[wish]).http == 202
    if verdict == "refuse":
        pending.refuse(places, request.id, "ask your teacher")
        reply = office.enrol(by=member, controls=[control("queryPending", waits.status.pending.token, 3)])
        assert (reply.failure, reply.status.text) == (CMCFailInfo.BAD_REQUEST, "ask your teacher")
        return
    pending.approve(places, request.id)
    before = office.count()
    (office.ca / "private/cakey.pem").rename(office.ca / "away")
    wish = control("queryPending", waits.status.pending.token, 3)
    assert office.enrol(by=member, controls=[wish]).failure is CMCFailInfo.INTERNAL_CA_ERROR
    (office.ca / "away").rename(office.ca / "private/cakey.pem")
    assert pending.requests(places)[0].state == "approved"
    reply = office.enrol(by=member, controls=[control("queryPending", waits.status.pending.token, 3)])
    assert reply.status.status == DONE
    again = office.enrol(asked, by=member)
    assert again.status.status == DONE
    assert office.count() == before + 1
    (new,) = (each for each in again.issued if each != member.certificate)
    assert new in reply.issued
    assert pending.requests(places)[0].state == "issued"
    assert pending.requests(places)[0].certificate == new
    with contextlib.closing(sqlite3.connect(office.ca / "certs.sqlite")) as db, db:
        db.execute("UPDATE certificates SET status = 'revoked' WHERE serial = ?", [certs.serial_hex(new)])
    assert office.enrol(asked, by=member).http == 202, "a revoked certificate is not given again: a person decides anew"


def test_an_identity_proof_with_an_unknown_mac_is_bad_alg(office):
    """An unknown MAC must be reported as badAlg, not as badIdentity."""
    key = new_key()
    asked = pkcs10(1, key=key)
    value = proofs.identity_proof_v2(PKIData((), (asked,)).request_sequence, cmc.SECRETS["device-7"], "device-7")
    odd = Witness(value.hash, Algorithm("1.2.3.4"), value.witness)
    reply = office.enrol(
        asked, by=Person(key), controls=[control("identification", "device-7"), control("identityProofV2", odd)]
    )
    assert reply.failure is CMCFailInfo.BAD_ALG


def test_a_revocation_that_fails_is_tried_again_later(shared, tmp_path):
    office = cmc.Office(shared.lab.copy(tmp_path))
    key = new_key()
    issued = office.allow(confirm=timedelta(seconds=-5)).enrol(pkcs10(1, key=key), by=Person(key)).certificate
    (office.ca / "revoke").rename(office.ca / "elsewhere")
    (office.ca / "revoke").write_text("#!/bin/bash\necho no; exit 1\n")
    (office.ca / "revoke").chmod(0o755)
    member = office.person("device-9")
    reply = office.enrol(pkcs10(1, "device-9", key=member.key), by=member)
    assert reply.status.status == DONE, "it is nothing of this client's"
    assert "could not be revoked" in reply.log
    (office.ca / "elsewhere").rename(office.ca / "revoke")
    reply = office.enrol(pkcs10(1, "device-9", key=member.key), by=member)
    assert "nobody has confirmed" in reply.log
    assert office.enrol(pkcs10(1, key=key), by=Person(key, issued)).failure is CMCFailInfo.BAD_IDENTITY


def test_a_revocation_that_fails_is_an_internal_error(shared, tmp_path):
    office = cmc.Office(shared.lab.copy(tmp_path))
    (office.ca / "revoke").write_text("#!/bin/bash\necho the CA in here is busy; exit 1\n")
    member = office.person("device-9")
    wish = RevokeRequest(office.issuer.subject.public_bytes(), member.certificate.serial_number, 4)
    reply = office.ask(message(PKIData((*fresh(), control("revokeRequest", wish, 1))), member))
    assert reply.failure is CMCFailInfo.INTERNAL_CA_ERROR
    assert reply.http == 500
    assert "is busy" in reply.log
    assert office.enrol(pkcs10(1, "device-9", key=member.key), by=member).status.status == DONE


def test_an_unsigned_message_has_one_passphrase_checked(office, member):
    name = office.issuer.subject.public_bytes()
    wishes = [
        control("revokeRequest", RevokeRequest(name, member.certificate.serial_number, 0, None, b"guess"), number)
        for number in (1, 2)
    ]
    reply = office.ask(message(PKIData((*fresh(), *wishes))), EST_AUTH_METHODS="")
    assert reply.failure is CMCFailInfo.BAD_IDENTITY
    assert reply.status.body_list == (2,)


def test_a_sub_ca_in_its_own_directory_enrols_and_revokes(tmp_path):
    """For a CA of `create-ca --sub-ca --dir`: its certificates, its revocations, and a chain that openssl verifies."""
    run("bash", cmc.HANDLERS.parents[1] / "openssl-ca/create-ca", "--sub-ca", "--dir", tmp_path / "ca")

    class Elsewhere(Workspace):
        ca = tmp_path / "ca"
        anchor = tmp_path / "ca/issuer.pem"

    office = cmc.Office(Elsewhere(tmp_path))
    member = office.person("device-7")
    reply = office.enrol(pkcs10(1, key=member.key), by=member)
    assert reply.status.status == DONE
    (tmp_path / "answer").write_bytes(reply.der)
    command = ["openssl", "cms", "-verify", "-inform", "DER", "-in", tmp_path / "answer", "-purpose", "any"]
    run(*command, "-CAfile", tmp_path / "ca/cacert.pem", "-out", tmp_path / "content")
    root = x509.load_pem_x509_certificate((tmp_path / "ca/cacert.pem").read_bytes())
    name = office.issuer.subject.public_bytes()
    for issuer, expected in ((root.subject.public_bytes(), CMCFailInfo.BAD_CERT_ID), (name, None)):
        wish = control("revokeRequest", RevokeRequest(issuer, member.certificate.serial_number, 5), 1)
        reply = office.ask(message(PKIData((*fresh(), wish)), member))
        assert reply.status.failure == expected
    (crl,) = (x509.load_der_x509_crl(file.read_bytes()) for file in (tmp_path / "ca").glob("crl-*.der"))
    assert crl.get_revoked_certificate_by_serial_number(member.certificate.serial_number)
    other = office.person("device-9")
    reply = office.ask(message(PKIData((*fresh(), control("getCRL", GetCRL(name), 1))), other))
    assert reply.message.crls == (crl.public_bytes(Encoding.DER),)
