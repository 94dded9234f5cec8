"""fullcmc: who may sign, how possession is proved, which names are allowed, and what is issued."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from estgw.cmc import crmf, parts, proofs
from estgw.cmc.messages import PKI_DATA, PKIData, TaggedContentInfo
from estgw.cmc.requests import CRMFRequest, OtherRequest, PKCS10Request
from estgw.cmc.status import CMCFailInfo, CMCStatus
from estgw.cmc.values import DecryptedPOP, RevokeRequest
from estgw.cms import enveloped, signed
from estgw.cms.algorithms import HMAC_SHA256, Algorithm
from estgw.cms.fields import Fields, bits, oid, sequence
from estgw.cms.identifiers import IssuerAndSerial, key_id_of
from estgw.est import certs
from tests.cmc_service import office as cmc
from tests.cmc_service.office import Person, control, fresh, message, new_key, pkcs10, proof
from tests.kit.csr import csr, san
from tests.kit.der import OCTETS, SEQUENCE, UTF8, attribute, tlv
from tests.kit.keys import KEY, SHA1_ECDSA, rsa_key

SIGNS = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
ENCRYPTS = x509.KeyUsage(False, False, True, False, False, False, False, False, False)
AGREES = x509.KeyUsage(False, False, False, False, True, False, False, False, False)
LINKING = "1.2.840.113549.1.9.7"


@pytest.fixture(scope="module")
def shared(lab, tmp_path_factory):
    office = cmc.Office(lab.copy(tmp_path_factory.mktemp("fullcmc")))
    office.secrets()
    return office


@pytest.fixture
def office(shared):
    return shared.allow()


def crmf_request(number, name="device-7", *, key, extensions=(), controls=(), prove=True, pop=None):
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]).public_bytes()
    wished = [x509.Extension(each.oid, False, each) for each in extensions]
    encoded = parts.write_extensions(wished) if wished else None
    request = crmf.request_for(key.public_key(), number, subject, encoded, controls)
    return CRMFRequest(crmf.prove(key, request) if prove else crmf.CertReqMsg(request, pop))


def fails(reply, failure, *parts):
    assert reply.failure is failure, reply.status
    assert reply.status.body_list == (parts or (0,))
    return True


# Signers.


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: rsa_key(2048),
        ed25519.Ed25519PrivateKey.generate,
        mldsa.MLDSA65PrivateKey.generate,
    ],
    ids=["P-384", "RSA", "Ed25519", "ML-DSA"],
)
def test_every_kind_of_key_is_certified_and_renewed(office, make):
    """The new key signs the first message, and its certificate signs the next one."""
    key = make()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kind")])
    hashed = None if isinstance(key, (ed25519.Ed25519PrivateKey, mldsa.MLDSA65PrivateKey)) else hashes.SHA256()
    request = PKCS10Request(
        1, x509.CertificateSigningRequestBuilder(subject).sign(key, hashed).public_bytes(Encoding.DER)
    )
    first = office.enrol(request, by=Person(key))
    assert (first.http, first.status.status) == (200, CMCStatus.SUCCESS), first
    second = office.enrol(request, by=Person(key, first.certificate))
    assert second.status.status == CMCStatus.SUCCESS
    issued = [each for each in second.issued if each != first.certificate]
    assert issued[0].public_key() == key.public_key()


def test_a_new_key_may_sign_by_own_id_usual_id_or_own_certificate(office):
    """By the identifier in the request, by the usual identifier, and by a self-signed certificate."""
    key = new_key()
    own_id = b"my very own identifier"
    asked = pkcs10(1, "self", x509.SubjectKeyIdentifier(own_id), key=key)
    own = signed.Signer(key, own_id)
    body = signed.sign(PKI_DATA, PKIData(tuple(fresh()), (asked,)).encode(), [own], signing_time=datetime.now(UTC))
    assert office.ask(body).status.status == CMCStatus.SUCCESS
    assert office.enrol(pkcs10(1, "self", key=key), by=Person(key)).status.status == CMCStatus.SUCCESS
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "me")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(5).not_valid_before(datetime.now(UTC)).not_valid_after(datetime.now(UTC) + timedelta(1))
    )
    mine = builder.sign(key, hashes.SHA256())
    assert office.enrol(pkcs10(1, "self", key=key), by=Person(key, mine)).status.status == CMCStatus.SUCCESS
    stranger = new_key()
    assert fails(office.enrol(pkcs10(1, "x", key=stranger), by=Person(key, mine)), CMCFailInfo.BAD_IDENTITY)


def test_a_new_key_without_a_login_is_refused(office):
    key = new_key()
    reply = office.enrol(pkcs10(4, key=key), by=Person(key), EST_AUTH_METHODS="")
    assert fails(reply, CMCFailInfo.BAD_IDENTITY, 4)
    assert reply.http == 403
    assert fails(office.allow(connection=False).enrol(pkcs10(4, key=key), by=Person(key)), CMCFailInfo.BAD_IDENTITY, 4)


@pytest.mark.parametrize("old", [False, True], ids=["identityProofV2", "identityProof"])
def test_a_shared_secret_authenticates_a_new_key(office, old):
    key = new_key()
    asked = pkcs10(1, key=key)
    sequence = PKIData((), (asked,)).request_sequence
    controls = proof([asked])
    if old:
        value = proofs.identity_proof(sequence, cmc.SECRETS["device-7"], "device-7")
        controls = [controls[0], control("identityProof", value)]
    reply = office.enrol(asked, by=Person(key), controls=controls, EST_AUTH_METHODS="")
    assert (reply.http, reply.status.status) == (200, CMCStatus.SUCCESS)
    assert reply.certificate.public_key() == key.public_key()
    assert "correct horse" not in reply.log
    refused = office.allow(secrets=False).enrol(asked, by=Person(key), controls=controls, EST_AUTH_METHODS="")
    assert fails(refused, CMCFailInfo.BAD_IDENTITY)
    if old:
        refused = office.allow(old_proofs=False).enrol(asked, by=Person(key), controls=controls)
        assert fails(refused, CMCFailInfo.BAD_ALG, controls[1].body_part_id)


@pytest.mark.parametrize("identification", ["device-7", "nobody-here", "device-8"])
def test_wrong_proofs_are_refused_alike_and_then_locked(shared, tmp_path, identification):
    office = cmc.Office(shared.lab.copy(tmp_path))
    key = new_key()
    asked = pkcs10(1, key=key)
    controls = proof([asked], identification, secret="guess")
    for _ in range(office.policy.tries):
        reply = office.enrol(asked, by=Person(key), controls=controls)
        assert fails(reply, CMCFailInfo.BAD_IDENTITY, controls[1].body_part_id)
        assert reply.status.text == "the proof of identity is wrong"
    reply = office.enrol(asked, by=Person(key), controls=controls)
    assert fails(reply, CMCFailInfo.TRY_LATER, controls[1].body_part_id)
    assert reply.http == 503
    assert 60 <= int(reply.headers["Retry-After"]) <= 120
    good = proof([asked], "device-7") if identification == "device-7" else []
    if good:
        assert office.enrol(asked, by=Person(key), controls=good).failure is CMCFailInfo.TRY_LATER, "it rests"
    rested = office.allow(tries=office.policy.tries + 1)
    if good:
        assert rested.enrol(asked, by=Person(key), controls=good).status.status == CMCStatus.SUCCESS


def test_an_identity_proof_for_other_requests_is_refused(office):
    key = new_key()
    controls = proof([pkcs10(1, "somebody", key=key)])
    reply = office.enrol(pkcs10(1, "else", key=key), by=Person(key), controls=controls)
    assert reply.failure is CMCFailInfo.BAD_IDENTITY


def test_a_secrets_file_that_others_can_read_is_not_used(shared, tmp_path):
    office = cmc.Office(shared.lab.copy(tmp_path))
    (office.ca / "cmc-secrets").chmod(0o644)
    key = new_key()
    asked = pkcs10(1, key=key)
    reply = office.enrol(asked, by=Person(key), controls=proof([asked]))
    assert reply.failure is CMCFailInfo.INTERNAL_CA_ERROR
    assert reply.http == 500
    assert "chmod 600" in reply.log
    assert "chmod" not in (reply.status.text or "")


def test_the_holder_of_a_certificate_gets_only_the_same_names(office):
    person = office.person("device-9", sans=["m.example"])
    names = x509.SubjectAlternativeName([x509.DNSName("M.example")])
    reply = office.enrol(pkcs10(1, "device-9", names, key=person.key), by=person)
    assert reply.status.status == CMCStatus.SUCCESS
    rekeyed = office.enrol(pkcs10(1, "device-9", names, key=new_key()), by=person)
    assert rekeyed.status.status == CMCStatus.SUCCESS
    for wish in (pkcs10(1, "device-9", key=person.key), pkcs10(1, "Device-10", names, key=person.key)):
        assert fails(office.enrol(wish, by=person), CMCFailInfo.BAD_IDENTITY, 1)
    assert fails(office.allow(members=False).enrol(wish, by=person), CMCFailInfo.BAD_IDENTITY)


def test_an_ra_may_ask_for_any_name(office):
    ra = office.person("ra", ra=True)
    reply = office.enrol(pkcs10(1, "a", key=new_key()), pkcs10(2, "b", key=new_key()), by=ra)
    assert (reply.status.status, reply.status.body_list) == (CMCStatus.SUCCESS, (1, 2))
    assert len(reply.issued) == 2
    assert fails(office.allow(ras=False).enrol(pkcs10(1, "a", key=new_key()), by=ra), CMCFailInfo.BAD_IDENTITY)


@pytest.mark.parametrize(
    "spoil",
    [
        ("another CA's", lambda office, person: foreign(office, person)),
        ("expired", lambda office, person: lapsed(office, person)),
        ("revoked", lambda office, person: revoked(office, person)),
        ("a CA's own", lambda office, person: Person(office.ca_key, office.issuer)),
        ("not for signatures", lambda office, person: not_for_signatures(office, person)),
    ],
    ids=lambda spoil: spoil[0],
)
def test_a_signer_with_an_unusable_certificate_is_refused(office, spoil):
    person = office.person("device-7")
    spoilt = spoil[1](office, person)
    before = office.count()
    reply = office.enrol(pkcs10(1, key=person.key), by=spoilt)
    assert fails(reply, CMCFailInfo.BAD_IDENTITY)
    assert reply.http == 403
    assert office.count() == before


def built(office, person, *, starts=-1, ends=1, issuer=None, usage=SIGNS):
    key, name = issuer or (office.ca_key, office.issuer.subject)
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(person.certificate.subject).issuer_name(name)
    builder = builder.public_key(person.key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now + timedelta(starts)).not_valid_after(now + timedelta(ends))
    builder = builder.add_extension(usage, critical=True)
    return Person(person.key, builder.sign(key, hashes.SHA256()))


def foreign(office, person):
    return built(office, person, issuer=(new_key(), office.issuer.subject))


def lapsed(office, person):
    return built(office, person, starts=-3, ends=-1)


def not_for_signatures(office, person):
    return built(office, person, usage=AGREES)


def revoked(office, person):
    ra = office.person("ra", ra=True)
    issuer = person.certificate.issuer.public_bytes()
    wish = control("revokeRequest", RevokeRequest(issuer, person.certificate.serial_number, 4))
    assert office.ask(message(PKIData((*fresh(), wish)), ra)).status.status == CMCStatus.SUCCESS
    return person


def test_a_wrong_signature_fails_the_message_check(office):
    person = office.person("device-7")
    liar = Person(new_key(), person.certificate)
    assert fails(office.enrol(pkcs10(1, key=person.key), by=liar), CMCFailInfo.BAD_MESSAGE_CHECK)


def test_a_server_certificate_gets_no_client_certificate(office):
    """simplereenroll answers it with 403, too. It may still revoke its own certificate."""
    member, person = office.person("device-7"), office.person("device-7", profile="server")
    before = office.count()
    assert fails(office.enrol(pkcs10(1, key=person.key), by=person), CMCFailInfo.BAD_IDENTITY, 1)
    assert fails(office.enrol(pkcs10(1, key=new_key()), by=person), CMCFailInfo.BAD_IDENTITY, 1)
    assert office.count() == before
    name = person.certificate.issuer.public_bytes()
    wish = control("revokeRequest", RevokeRequest(name, member.certificate.serial_number, 4), 1)
    assert fails(office.ask(message(PKIData((*fresh(), wish)), person)), CMCFailInfo.BAD_IDENTITY, 1)
    wish = control("revokeRequest", RevokeRequest(name, person.certificate.serial_number, 4), 1)
    assert office.ask(message(PKIData((*fresh(), wish)), person)).status.status == CMCStatus.SUCCESS
    assert office.enrol(pkcs10(1, key=member.key), by=member).status.status == CMCStatus.SUCCESS


def test_the_certificate_of_the_gateway_does_not_make_an_ra(office, monkeypatch):
    """Like server.pem it has id-kp-cmcRA beside serverAuth (RFC 7030 3.6.1), and TLS does not accept it as a client."""
    ra, member, ca = office.person("ra", ra=True), office.person("device-7"), cmc.module("ca")
    usage = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH, certs.CMC_RA])
    monkeypatch.setitem(ca.PROFILES, "the gateway", [usage])
    gateway = office.person("localhost", profile="the gateway")
    before = office.count()
    assert fails(office.enrol(pkcs10(1, "anybody", key=new_key()), by=gateway), CMCFailInfo.BAD_IDENTITY, 1)
    name = gateway.certificate.issuer.public_bytes()
    wish = control("revokeRequest", RevokeRequest(name, member.certificate.serial_number, 4), 1)
    assert fails(office.ask(message(PKIData((*fresh(), wish)), gateway)), CMCFailInfo.BAD_IDENTITY, 1)
    key = new_key()
    inner = message(PKIData(tuple(fresh()), (pkcs10(1, "anybody", key=key),)), Person(key))
    wrapped = message(PKIData(tuple(fresh()), (), (TaggedContentInfo(7, inner),)), gateway)
    assert fails(office.ask(wrapped), CMCFailInfo.BAD_IDENTITY, (7, 0))
    request = crmf_request(3, "anybody", key=new_key(), prove=False, pop=crmf.RA_VERIFIED)
    wrapped = message(PKIData(tuple(fresh()), (request,)), gateway)
    outer = message(PKIData(tuple(fresh()), (), (TaggedContentInfo(7, wrapped),)), ra)
    assert fails(office.ask(outer), CMCFailInfo.POP_FAILED, (7, 3))
    assert office.count() == before


def test_two_signatures_must_both_be_valid(office):
    person, other = office.person("device-7"), new_key()
    data = PKIData(tuple(fresh()), (pkcs10(1, key=other),))
    assert office.ask(message(data, person, Person(other))).status.status == CMCStatus.SUCCESS
    data = PKIData(tuple(fresh()), (pkcs10(1, key=other),))
    liar = Person(new_key(), person.certificate)
    assert fails(office.ask(message(data, Person(other), liar)), CMCFailInfo.BAD_MESSAGE_CHECK)


def test_the_tls_client_must_be_the_signer_or_an_ra(office):
    person, other, twin = office.person("device-7"), office.person("device-9"), office.person("device-7")
    request = pkcs10(1, key=person.key)

    def enrol(shown, **env):
        pem = shown.certificate.public_bytes(Encoding.PEM).decode()
        tls = {"EST_CLIENT_TRUST": "explicit", "SSL_CLIENT_CERT": pem, "SSL_CLIENT_VERIFY": "SUCCESS"}
        return office.enrol(request, by=person, **tls, **env)

    assert fails(enrol(other), CMCFailInfo.BAD_IDENTITY)
    assert enrol(other, EST_CLIENT_IS_RA="1").status.status == CMCStatus.SUCCESS
    assert enrol(twin).status.status == CMCStatus.SUCCESS
    assert enrol(person).status.status == CMCStatus.SUCCESS


def test_a_signing_time_an_hour_off_is_refused(office):
    person = office.person("device-7")
    for hours in (-1, 1):
        data = PKIData(tuple(fresh()), (pkcs10(1, key=person.key),))
        reply = office.ask(message(data, person, at=datetime.now(UTC) + timedelta(hours=hours)))
        assert fails(reply, CMCFailInfo.BAD_TIME)
    data = PKIData(tuple(fresh()), (pkcs10(1, key=person.key),))
    at = datetime.now(UTC) - timedelta(minutes=10)
    assert office.ask(message(data, person, at=at)).status.status == CMCStatus.SUCCESS


def test_a_message_without_the_signers_certificate_is_served(office):
    person = office.person("device-7")
    data = PKIData(tuple(fresh()), (pkcs10(1, key=person.key),))
    assert office.ask(message(data, person, certificates=[])).status.status == CMCStatus.SUCCESS


# Requests and proof of possession.


def test_a_crmf_request_needs_a_signature_that_fits(office):
    key = new_key()
    names = x509.SubjectAlternativeName([x509.DNSName("crmf.example")])
    reply = office.enrol(crmf_request(77, "crmf", key=key, extensions=[names]), by=Person(key))
    assert (reply.status.status, reply.status.body_list) == (CMCStatus.SUCCESS, (77,))
    issued = reply.certificate
    assert issued.subject.rfc4514_string() == "CN=crmf"
    assert issued.public_key() == key.public_key()
    assert issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value == names
    spoilt = crmf_request(78, key=key)
    wrong = replace(spoilt.message, request=crmf_request(78, "other", key=key).message.request)
    assert fails(office.enrol(CRMFRequest(wrong), by=Person(key)), CMCFailInfo.POP_FAILED, 78)
    assert fails(office.enrol(crmf_request(79, key=key, prove=False), by=Person(key)), CMCFailInfo.POP_REQUIRED, 79)


def test_ra_verified_counts_only_from_an_ra(office):
    key = new_key()
    request = crmf_request(5, "vouched", key=key, prove=False, pop=crmf.RA_VERIFIED)
    assert fails(office.enrol(request, by=Person(key)), CMCFailInfo.POP_FAILED, 5)
    reply = office.enrol(request, by=office.person("ra", ra=True))
    assert reply.status.status == CMCStatus.SUCCESS


def test_a_pkcs10_with_a_broken_signature_fails_pop(office):
    person = office.person("device-7")
    der = bytearray(csr(key=person.key))
    der[-3] ^= 1
    before = office.count()
    reply = office.enrol(PKCS10Request(8, bytes(der)), by=person)
    assert fails(reply, CMCFailInfo.POP_FAILED, 8)
    assert office.count() == before


@pytest.mark.parametrize(
    ("request_", "failure"),
    [
        (lambda: PKCS10Request(3, csr("weak", key=rsa_key(1024))), CMCFailInfo.BAD_ALG),
        (lambda: PKCS10Request(3, csr("old", key=KEY, algorithm=SHA1_ECDSA)), CMCFailInfo.BAD_ALG),
        (lambda: PKCS10Request(3, b"\x30\x03\x02\x01\x05"), CMCFailInfo.BAD_REQUEST),
        (lambda: PKCS10Request(3, csr(b"\x30\x00")), CMCFailInfo.BAD_REQUEST),
        (lambda: PKCS10Request(3, csr("x", san(x509.DNSName("a\x00b")))), CMCFailInfo.BAD_REQUEST),
    ],
    ids=["RSA-1024", "SHA-1", "not a request", "malformed subject", "NUL in a name"],
)
def test_a_weak_or_malformed_request_is_refused(office, request_, failure):
    reply = office.enrol(request_(), by=office.person("ra", ra=True))
    assert fails(reply, failure, 3)


def test_a_request_in_another_format_gets_no_support(office):
    reply = office.enrol(OtherRequest(6, "1.3.6.1.4.1.99999.1", b"\x05\x00"), by=office.person("ra", ra=True))
    assert (reply.status.status, reply.status.body_list) == (CMCStatus.NO_SUPPORT, (6,))
    assert reply.http == 400


def test_one_failed_request_leaves_the_other_issued(office):
    ra = office.person("ra", ra=True)
    good, bad = pkcs10(1, "good", key=new_key()), bytearray(csr("bad"))
    bad[-3] ^= 1
    reply = office.enrol(good, PKCS10Request(2, bytes(bad)), by=ra)
    found = [(each.status, each.body_list, each.failure) for each in reply.statuses]
    assert reply.http == 200
    assert found == [
        (CMCStatus.PARTIAL, (0,), None),
        (CMCStatus.SUCCESS, (1,), None),
        (CMCStatus.FAILED, (2,), CMCFailInfo.POP_FAILED),
    ]
    assert reply.certificate.subject.rfc4514_string() == "CN=good"


def open_challenge(reply, key, whom=None):
    sent = reply.value("encryptedPOP")
    _, value = enveloped.decrypt(sent.cms, key, whom)
    return sent, value


@pytest.mark.parametrize("make", [lambda: rsa_key(2048), new_key], ids=["RSA", "EC"])
@pytest.mark.parametrize("form", ["crmf", "pkcs10"])
def test_a_key_that_cannot_sign_must_answer_a_challenge(office, make, form):
    """encryptedPOP and decryptedPOP (RFC 5272 6.7), in a message that a shared secret authenticates (appendix C.1)."""
    key = make()
    usage = ENCRYPTS if isinstance(key, rsa.RSAPrivateKey) else AGREES
    if form == "crmf":
        request = crmf_request(21, key=key, prove=False, pop=crmf.CHALLENGE, extensions=[usage])
    else:
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device-7")]).public_bytes()
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        extensions = parts.write_extensions([x509.Extension(usage.oid, True, usage)])
        carrier = parts.carrier(subject, spki, extensions)
        request = PKCS10Request(21, without_signature(carrier))
    signer = signed.Signer(None, key_id_of(key.public_key()))

    def ask(*controls):
        data = PKIData((*fresh(), *proof([request]), *controls), (request,))
        return office.ask(signed.sign(PKI_DATA, data.encode(), [signer], signing_time=datetime.now(UTC)))

    first = ask()
    assert (first.http, first.status.status, first.status.body_list) == (200, CMCStatus.POP_REQUIRED, (21,))
    sent, value = open_challenge(first, key)
    expected = IssuerAndSerial(parts.EMPTY_NAME, 21)
    assert sent.request == request
    (recipient,) = enveloped.parse(sent.cms).recipients
    assert recipient.whom == expected, "RFC 5272 6.7: an empty issuer and the body part id"
    wrong = ask(control("decryptedPOP", DecryptedPOP(21, sent.mac, b"guess")))
    assert fails(wrong, CMCFailInfo.POP_FAILED, 21)
    assert fails(ask(control("decryptedPOP", proofs.answer(sent, value, 21))), CMCFailInfo.POP_FAILED, 21), "one try"
    sent, value = open_challenge(ask(), key)
    reply = ask(control("decryptedPOP", proofs.answer(sent, value, 21)))
    assert reply.status.status == CMCStatus.SUCCESS, reply.status
    found = reply.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert not found.digital_signature
    assert found.key_encipherment == isinstance(key, rsa.RSAPrivateKey)
    assert found.key_agreement == isinstance(key, ec.EllipticCurvePrivateKey)
    refused = office.allow(challenges=False)
    data = PKIData((*fresh(), *proof([request])), (request,))
    body = signed.sign(PKI_DATA, data.encode(), [signer], signing_time=datetime.now(UTC))
    assert fails(refused.ask(body), CMCFailInfo.POP_REQUIRED, 21)


def without_signature(carrier: bytes) -> bytes:
    """The same PKCS#10 with id-alg-noSignature and a digest (RFC 5272 appendix C.1)."""
    info = Fields(carrier, "a carrier").take("info")
    return sequence(info, sequence(oid("1.3.6.1.5.5.7.6.2"), b"\x05\x00"), bits(hashlib.sha256(info).digest()))


def test_a_digest_in_place_of_a_signature_authenticates_nobody(office):
    key = rsa_key(2048)
    request = crmf_request(21, key=key, prove=False, pop=crmf.CHALLENGE)
    signer = signed.Signer(None, key_id_of(key.public_key()))
    data = PKIData(tuple(fresh()), (request,))
    body = signed.sign(PKI_DATA, data.encode(), [signer], signing_time=datetime.now(UTC))
    assert fails(office.ask(body, EST_AUTH_METHODS=""), CMCFailInfo.BAD_IDENTITY, 21)
    changed = body.replace(b"device-7", b"device-8")
    assert changed != body
    assert fails(office.ask(changed), CMCFailInfo.BAD_MESSAGE_CHECK)


def test_a_key_that_can_neither_sign_nor_decrypt_is_refused(office):
    key = ed25519.Ed25519PrivateKey.generate()
    request = crmf_request(22, key=key, prove=False, pop=crmf.CHALLENGE)
    assert fails(office.enrol(request, by=office.person("ra", ra=True)), CMCFailInfo.POP_REQUIRED, 22)


def test_an_answer_without_a_challenge_fails_pop(office):
    key = rsa_key(2048)
    request = crmf_request(23, key=key, prove=False, pop=crmf.CHALLENGE)
    answer = control("decryptedPOP", DecryptedPOP(23, Algorithm(HMAC_SHA256), b"x"))
    reply = office.enrol(request, by=office.person("ra", ra=True), controls=[answer])
    assert fails(reply, CMCFailInfo.POP_FAILED, 23)


# Linking.


@pytest.mark.parametrize("form", ["pkcs10", "crmf"])
@pytest.mark.parametrize("version", [2, 1])
def test_a_pop_link_witness_links_only_with_its_random_and_secret(office, form, version):
    """RFC 5272 6.3.1. Where linking is required, a witness replaces the channel binding (RFC 7030 3.5)."""
    key, random = new_key(), secrets.token_bytes(64)
    secret = cmc.SECRETS["device-7"]
    oid = f"1.3.6.1.5.5.7.7.{33 if version == 2 else 23}"

    def ask(random_sent, known=secret, **env):
        if version == 2:
            value = proofs.pop_link_witness_v2(random, known).encode()
        else:
            value = tlv(OCTETS, proofs.pop_link_witness(random, known))
        if form == "pkcs10":
            asked = PKCS10Request(1, csr("device-7", attribute(oid, value), key=key))
        else:
            asked = crmf_request(1, key=key, controls=[crmf.TypeAndValue(oid, value)])
        controls = proof([asked])
        if random_sent is not None:
            controls.append(control("popLinkRandom", random_sent))
        return office.enrol(asked, by=Person(key), controls=controls, EST_POP_LINKING="required", **env)

    assert ask(random).status.status == CMCStatus.SUCCESS
    assert fails(ask(b"another random"), CMCFailInfo.POP_FAILED, 1)
    assert fails(ask(None), CMCFailInfo.POP_FAILED, 1)
    assert fails(ask(random, "another secret"), CMCFailInfo.POP_FAILED, 1)
    if version == 1:
        office.policy = replace(office.policy, old_proofs=False)
        assert fails(ask(random), CMCFailInfo.BAD_ALG, 1)


@pytest.mark.parametrize(
    ("linking", "given", "outcome"),
    [
        ("optional", None, "absent"),
        ("optional", "this", "linked"),
        ("optional", "foreign", CMCFailInfo.POP_FAILED),
        ("required", None, CMCFailInfo.POP_REQUIRED),
        ("required", "this", "linked"),
        ("required", "foreign", CMCFailInfo.POP_FAILED),
        ("waived", None, "absent"),
        ("waived", "this", "linked"),
        ("waived", "foreign", "waived"),
    ],
)
def test_the_channel_binding_of_an_inner_request_follows_the_rule(office, linking, given, outcome, tmp_path):
    binding = base64.b64encode(b"the binding of this connection").decode()
    other = base64.b64encode(b"another").decode()
    text = {"this": binding, "foreign": other, None: None}[given]
    key = new_key()
    asked = pkcs10(1, key=key, challenge=text)
    script = tmp_path / "authorize"
    script.write_text('#!/bin/bash\necho "POP=$EST_POP"; exit 77\n')
    script.chmod(0o755)
    env = {"EST_POP_LINKING": linking, "TLS_UNIQUE_SR": binding, "EST_TLS_BINDING": "tls-exporter"}
    env["EST_AUTHORIZE"] = str(script)
    reply = office.enrol(asked, by=Person(key), **env)
    if isinstance(outcome, str):
        assert reply.status.text == f"POP={outcome}"
    else:
        assert fails(reply, outcome, 1)
        assert reply.http == 403


# Names, extensions, templates, keys.


def test_the_csr_template_applies_to_inner_requests(office, tmp_path):
    template = tmp_path / "template.yaml"
    template.write_text("- key: ec:P-384\n- ecdsa-with-SHA384\n")
    env = {"EST_CSR_TEMPLATE": str(template)}
    key, strong = new_key(), ec.generate_private_key(ec.SECP384R1())
    reply = office.enrol(pkcs10(1, key=key), by=Person(key), **env)
    assert fails(reply, CMCFailInfo.BAD_REQUEST, 1)
    assert "insisted" in reply.status.text
    assert fails(office.enrol(pkcs10(1, key=strong), by=Person(strong), **env), CMCFailInfo.BAD_REQUEST, 1)
    assert office.enrol(crmf_request(1, key=strong), by=Person(strong), **env).status.status == CMCStatus.SUCCESS
    template.write_text("- key: [not, right\n")
    assert office.enrol(pkcs10(1, key=key), by=Person(key), **env).failure is CMCFailInfo.INTERNAL_CA_ERROR


def test_change_subject_name_needs_the_setting_and_the_holder(office):
    person = office.person("device-7")
    new = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device-70")])
    value = tlv(SEQUENCE, new.public_bytes())
    asked = PKCS10Request(1, csr("device-7", attribute("1.3.6.1.5.5.7.7.36", value), key=person.key))
    assert fails(office.enrol(asked, by=person), CMCFailInfo.BAD_REQUEST, 1)
    reply = office.enrol(asked, by=person, EST_MAY_CHANGE_SUBJECT="1")
    assert reply.status.status == CMCStatus.SUCCESS
    assert new in [each.subject for each in reply.issued]
    alone = office.enrol(asked, by=Person(person.key), EST_MAY_CHANGE_SUBJECT="1")
    assert fails(alone, CMCFailInfo.BAD_IDENTITY, 1)
    other = PKCS10Request(1, csr("device-9", attribute("1.3.6.1.5.5.7.7.36", value), key=person.key))
    assert fails(office.enrol(other, by=person, EST_MAY_CHANGE_SUBJECT="1"), CMCFailInfo.BAD_IDENTITY, 1)


def test_only_names_and_key_of_a_request_are_certified(office):
    key = new_key()
    wishes = [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.2.3.4")]),
    ]
    issued = office.enrol(pkcs10(1, "x", *wishes, key=key), by=Person(key)).certificate
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usages = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]


def test_an_unknown_extension_is_refused_if_critical(office):
    key = new_key()
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.5"), b"\x05\x00")
    assert fails(
        office.enrol(pkcs10(1, "x", odd, key=key, critical=True), by=Person(key)), CMCFailInfo.UNSUPPORTED_EXT, 1
    )
    assert office.enrol(pkcs10(1, "x", odd, key=key), by=Person(key)).status.status == CMCStatus.SUCCESS


def test_an_otp_that_nothing_verifies_is_refused(office):
    key = new_key()
    otp = attribute("1.2.840.113549.1.9.16.2.56", tlv(UTF8, b"123456"))
    reply = office.enrol(PKCS10Request(1, csr("x", otp, key=key)), by=Person(key))
    assert fails(reply, CMCFailInfo.BAD_REQUEST, 1)


def test_a_certified_key_is_refused_again_with_no_key_reuse(office):
    key = new_key()
    strict = office.allow(no_key_reuse=True)
    assert strict.enrol(pkcs10(1, "x", key=key), by=Person(key)).status.status == CMCStatus.SUCCESS
    assert fails(strict.enrol(pkcs10(1, "x", key=key), by=Person(key)), CMCFailInfo.NO_KEY_REUSE, 1)


def test_a_key_for_encryption_is_refused_where_keys_must_be_archived(office):
    key = rsa_key(2048)
    strict = office.allow(must_archive=True)
    reply = strict.enrol(pkcs10(1, "x", ENCRYPTS, key=key), by=Person(key))
    assert fails(reply, CMCFailInfo.MUST_ARCHIVE_KEYS, 1)
    assert strict.enrol(pkcs10(1, "x", SIGNS, key=key), by=Person(key)).status.status == CMCStatus.SUCCESS
    assert office.enrol(pkcs10(1, "x", ENCRYPTS, key=key), by=Person(key)).status.status == CMCStatus.SUCCESS
    options = crmf.TypeAndValue("1.3.6.1.5.5.7.5.1.4", b"\x81\x00")
    archive = crmf_request(1, key=key, controls=[options])
    assert fails(office.enrol(archive, by=Person(key)), CMCFailInfo.BAD_REQUEST, 1)


def test_a_busy_register_is_a_503_and_a_broken_one_a_500(shared, tmp_path):
    office = cmc.Office(shared.lab.copy(tmp_path), env={"EST_TIMEOUT": "1"})
    key = new_key()
    assert office.enrol(pkcs10(1, key=key), by=Person(key)).status.status == CMCStatus.SUCCESS
    with contextlib.closing(sqlite3.connect(office.ca / "certs.sqlite", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        reply = office.enrol(pkcs10(1, key=key), by=Person(key))
    assert fails(reply, CMCFailInfo.TRY_LATER)
    assert reply.http == 503
    assert 60 <= int(reply.headers["Retry-After"]) <= 120
    (office.ca / "certs.sqlite").write_bytes(b"no database")
    for name in ("certs.sqlite-wal", "certs.sqlite-shm"):
        (office.ca / name).unlink(missing_ok=True)
    reply = office.enrol(pkcs10(1, key=key), by=Person(key))
    assert fails(reply, CMCFailInfo.INTERNAL_CA_ERROR)
    assert reply.http == 500
    assert "certs.sqlite" in reply.log
    assert "sqlite" not in str(reply.status.text)
