"""Certificate requests in both formats: one view of them, and their proof of possession."""

from __future__ import annotations

import dataclasses

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from pyasn1.codec.der.encoder import encode as write_asn1
from pyasn1_alt_modules import rfc4211, rfc6402

from estgw.cmc import crmf, parts, requests
from estgw.cmc.crmf import (
    CHALLENGE,
    RA_VERIFIED,
    CertReqMsg,
    CertRequest,
    CertTemplate,
    OtherPop,
    PopKind,
    SignaturePop,
    TypeAndValue,
)
from estgw.cmc.requests import CRMFRequest, OtherRequest, PKCS10Request, Possession, decode_request, possession
from estgw.cms import algorithms
from estgw.cms.algorithms import Algorithm
from estgw.cms.faults import BadAlgorithm, BadSignature
from estgw.cms.fields import bits, integer, octets, oid, sequence, tagged, text
from estgw.errors import Malformed
from estgw.est import csr as csr_tools
from estgw.est import names
from tests.cmc.samples import EXTENSIONS, FULL_TEMPLATE, KEY_ID, SPKI, crmf_request, pkcs10
from tests.kit.ca import common_name, holder
from tests.kit.csr import csr
from tests.kit.keys import KEY, KEYS, OTHER, SHA1_ECDSA
from tests.kit.reference import reads

REG_TOKEN = TypeAndValue("1.3.6.1.5.5.7.5.1.1", text("token"))
SUBJECT = common_name("device").public_bytes()

POPS = [
    None,
    RA_VERIFIED,
    CHALLENGE,
    OtherPop(PopKind.KEY_AGREEMENT, CHALLENGE.value),
    OtherPop(PopKind.KEY_ENCIPHERMENT, b"\x80\x03\x00ab"),
    OtherPop(PopKind.KEY_AGREEMENT, tagged(3, Algorithm(algorithms.HMAC_SHA1).encode(), bits(b"mac"))),
    SignaturePop(Algorithm("1.2.840.10045.4.3.2"), b"signature"),
    SignaturePop(
        Algorithm("1.2.840.10045.4.3.2"),
        b"signature",
        sequence(sequence(Algorithm(algorithms.HMAC_SHA1).encode(), bits(b"mac")), SPKI),
    ),
]


# CRMF, encoded and decoded.


@pytest.mark.parametrize("pop", POPS)
def test_crmf_survives_encoding_with_every_kind_of_pop(pop):
    message = CertReqMsg(CertRequest(7, FULL_TEMPLATE, (REG_TOKEN,)), pop, (REG_TOKEN,))
    der = message.encode()
    again = CertReqMsg.decode(der)
    assert again == message
    assert again.encode() == der
    theirs = reads(der, rfc4211.CertReqMsg())
    assert ("raVerified" if pop is RA_VERIFIED else pop.kind.word if isinstance(pop, OtherPop) else "signature") == (
        theirs["popo"].getName() if pop else "signature"
    )
    request = CRMFRequest(message)
    assert decode_request(request.encode()) == request
    reads(request.encode(), rfc6402.TaggedRequest())


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(CertTemplate)])
def test_a_template_with_one_field_survives_encoding(field):
    template = CertTemplate(**{field: getattr(FULL_TEMPLATE, field)})
    assert CertTemplate.decode(template.encode()) == template
    reads(template.encode(), rfc4211.CertTemplate())


def test_crmf_written_by_pyasn1_is_read():
    theirs = rfc4211.CertReqMsg()
    theirs["certReq"]["certReqId"] = 9
    theirs["certReq"]["certTemplate"]["serialNumber"] = 5
    theirs["popo"]["signature"]["algorithmIdentifier"]["algorithm"] = "1.2.840.10045.4.3.2"
    theirs["popo"]["signature"]["signature"] = rfc4211.univ.BitString(hexValue="abcd")
    message = CertReqMsg.decode(write_asn1(theirs))
    assert (message.request.request_id, message.request.template) == (9, CertTemplate(serial=5))
    assert message.pop == SignaturePop(Algorithm("1.2.840.10045.4.3.2"), b"\xab\xcd")


@pytest.mark.parametrize(
    ("der", "words"),
    [
        (sequence(), "without request"),
        (sequence(sequence()), "without id"),
        (sequence(sequence(integer(-1), sequence())), "out of range"),
        (sequence(sequence(integer(1))), "without template"),
        (sequence(sequence(integer(1), sequence(b"\xa4\x00"))), "validity of a CertTemplate without a time"),
        (sequence(sequence(integer(1), sequence(b"\xa5\x00"))), "not what its tag says"),
        (sequence(sequence(integer(1), sequence(b"\xaa\x00"))), "1 fields too many"),
        (sequence(sequence(integer(1), sequence(b"\xa9\x00", b"\x80\x01\x02"))), "1 fields too many"),
        (sequence(sequence(integer(1), sequence(), sequence())), "0 of them, not 1 to 20"),
        (sequence(sequence(integer(1), sequence(), sequence(*[REG_TOKEN.encode()] * 21))), "21 of them"),
        (sequence(sequence(integer(1), sequence()), b"\x80\x01\x00"), "raVerified with something in it"),
        (sequence(sequence(integer(1), sequence()), tagged(2, octets(b""))), "not what its tag says"),
        (sequence(sequence(integer(1), sequence()), tagged(1, octets(b""))), "tag 0x04 in place of algorithm"),
        (sequence(sequence(integer(1), sequence()), tagged(1, sequence(oid("1.2.3")), b"\x03\x01\x00")), None),
        (sequence(sequence(integer(1), sequence()), tagged(1, sequence(oid("1.2.3")), b"\x03\x02\x01\x00")), "whole"),
    ],
)
def test_a_malformed_crmf_is_refused_with_the_reason(der, words):
    if words is None:
        CertReqMsg.decode(der)
        return
    with pytest.raises(Malformed, match=words):
        CertReqMsg.decode(der)


# One view of both formats.


def test_both_formats_give_the_same_subject_key_and_names():
    for request in (pkcs10(), crmf_request()):
        assert names.dn_text(request.csr.subject) == "CN=device"
        assert request.csr.spki == SPKI
        assert requests.key_id(request) == KEY_ID
    san = crmf_request().csr.san
    assert san is not None
    assert san.get_values_for_type(x509.DNSName) == ["device.example"]


def test_the_csr_of_crmf_claims_the_proofs_algorithm_and_never_verifies():
    for key in (holder("rsa").key, holder("p384").key):
        request = crmf_request(7, key)
        assert isinstance(request.message.pop, SignaturePop)
        claimed = request.csr.request.signature_algorithm_oid.dotted_string
        assert claimed == request.message.pop.algorithm.oid
        with pytest.raises(Malformed, match=r"does not fit|can't be checked"):
            csr_tools.verify(request.csr)


def test_controls_of_crmf_become_attributes_of_the_csr():
    assert crmf_request(7, KEY, REG_TOKEN).csr.attributes.keys() >= {REG_TOKEN.oid}


def test_a_request_without_a_key_identifier_gives_none():
    request = crmf.prove(KEY, crmf.request_for(KEY.public_key(), 7, SUBJECT))
    assert requests.key_id(CRMFRequest(request)) is None


def test_crmf_needs_a_public_key_and_a_subject_that_may_be_empty():
    empty = CertRequest(7, CertTemplate(subject=parts.EMPTY_NAME, public_key=SPKI))
    assert not CRMFRequest(CertReqMsg(empty)).csr.subject.rdns
    for template in (CertTemplate(subject=SUBJECT), CertTemplate(public_key=SPKI)):
        request = CRMFRequest(CertReqMsg(CertRequest(7, template)))
        with pytest.raises(Malformed, match="without subject or public key"):
            _ = request.csr


def test_a_template_with_malformed_parts_is_refused():
    for template in (
        CertTemplate(subject=sequence(octets(b"x")), public_key=SPKI),
        CertTemplate(subject=SUBJECT, public_key=sequence()),
        CertTemplate(subject=SUBJECT, public_key=SPKI, extensions=sequence(octets(b"x"))),
    ):
        with pytest.raises(Malformed):
            _ = CRMFRequest(CertReqMsg(CertRequest(7, template))).csr


@pytest.mark.parametrize("request_", [pkcs10(), crmf_request(), OtherRequest(9, "1.2.3", octets(b"x"))])
def test_every_format_of_request_survives_encoding(request_):
    assert decode_request(request_.encode()) == request_
    reads(request_.encode(), rfc6402.TaggedRequest())


# Proof of possession.


@pytest.mark.parametrize("kind", KEYS)
def test_crmf_signed_by_another_key_is_refused(kind):
    key = holder(kind).key
    request = crmf_request(7, key)
    assert possession(request) is Possession.PROVED
    assert possession(decode_request(request.encode())) is Possession.PROVED  # type: ignore[arg-type]
    stranger = crmf.prove(holder(kind, "another").key, request.message.request)
    with pytest.raises(BadSignature, match="request 7: the signature does not fit"):
        possession(CRMFRequest(stranger))


def test_a_crmf_signature_of_another_request_is_refused():
    pop = crmf_request(7).message.pop
    other = crmf.request_for(KEY.public_key(), 8, SUBJECT, EXTENSIONS)
    with pytest.raises(BadSignature):
        possession(CRMFRequest(CertReqMsg(other, pop)))


def test_the_crmf_signature_is_verified_over_the_bytes_as_sent():
    """A default value that is written out is not DER, but it is part of what the client signed."""
    theirs = sequence(integer(7), sequence(tagged(5, SUBJECT), b"\xa6" + SPKI[1:]))
    signature = SignaturePop(algorithms.signature_for(KEY.public_key()), algorithms.sign(KEY, theirs))
    message = CertReqMsg.decode(sequence(theirs, signature.encode()))
    assert possession(CRMFRequest(message)) is Possession.PROVED


def test_a_popo_signing_key_input_beside_subject_and_key_is_refused():
    """RFC 5272 3.2.1.2.2: POPOSigningKeyInput must be absent, since the template has subject and key."""
    given = sequence(sequence(Algorithm(algorithms.HMAC_SHA1).encode(), bits(b"mac")), SPKI)
    method = algorithms.signature_for(KEY.public_key())
    pop = SignaturePop(method, algorithms.sign(KEY, given), given)
    with pytest.raises(Malformed, match="POPOSigningKeyInput beside its subject and key"):
        possession(CRMFRequest(CertReqMsg(crmf_request().message.request, pop)))


@pytest.mark.parametrize(
    ("pop", "expected"),
    [
        (None, Possession.ABSENT),
        (RA_VERIFIED, Possession.RA_VERIFIED),
        (CHALLENGE, Possession.CHALLENGE),
        (OtherPop(PopKind.KEY_AGREEMENT, CHALLENGE.value), Possession.CHALLENGE),
        (OtherPop(PopKind.KEY_ENCIPHERMENT, b"\x81\x01\x00"), Possession.ABSENT),  # encrCert: RFC 5272 3.2.1.2.2
        (OtherPop(PopKind.KEY_ENCIPHERMENT, b"\x80\x02\x00a"), Possession.ABSENT),
    ],
)
def test_a_pop_without_a_signature_is_a_challenge_or_absent(pop, expected):
    message = CertReqMsg(crmf_request().message.request, pop)
    assert possession(CRMFRequest(message)) is expected
    with pytest.raises(BadSignature, match="without a signature"):
        crmf.verify_pop(message)


def test_a_weak_signature_on_crmf_is_refused():
    pop = SignaturePop(Algorithm("1.2.840.10045.4.1"), b"x")
    with pytest.raises(BadAlgorithm, match="ecdsa-with-SHA1"):
        possession(CRMFRequest(CertReqMsg(crmf_request().message.request, pop)))


@pytest.mark.parametrize("kind", ["rsa", "p256", "p384"])
def test_a_pkcs10_signed_by_its_key_proves_possession(kind):
    assert possession(pkcs10(key=holder(kind).key)) is Possession.PROVED


def test_a_changed_pkcs10_is_refused():
    der = bytearray(pkcs10().der)
    der[der.index(b"device")] ^= 1
    with pytest.raises(BadSignature, match="request 5: the CSR's signature does not fit its key"):
        possession(PKCS10Request(5, bytes(der)))


def test_a_pkcs10_signed_with_sha_1_is_refused():
    with pytest.raises(BadAlgorithm, match="request 5: a signature by ecdsa-with-SHA1 is not taken"):
        possession(PKCS10Request(5, csr(key=OTHER, algorithm=SHA1_ECDSA)))


def test_a_pkcs10_with_a_weak_key_is_refused():
    builder = x509.CertificateSigningRequestBuilder().subject_name(common_name("device"))
    der = builder.sign(_small(), hashes.SHA256()).public_bytes(Encoding.DER)
    with pytest.raises(Malformed, match="request 5: an RSA key of 1024 bits") as caught:
        possession(PKCS10Request(5, der))
    assert type(caught.value) is Malformed


def _small():
    return rsa.generate_private_key(65537, 1024)


def test_a_pkcs10_with_a_digest_for_a_signature_proves_nothing():
    """RFC 5272 C.1: keys that can only decrypt put a digest in place of the signature."""
    info = parts.carrier(SUBJECT, SPKI, EXTENSIONS)
    body = x509.load_der_x509_csr(info).tbs_certrequest_bytes
    der = sequence(body, Algorithm(algorithms.NO_SIGNATURE, b"\x05\x00").encode(), bits(octets(bytes(20))))
    assert possession(PKCS10Request(5, der)) is Possession.ABSENT
    assert requests.key_id(PKCS10Request(5, der)) == KEY_ID


def test_a_malformed_pkcs10_is_refused():
    with pytest.raises(Malformed, match="request 5: not a PKCS#10 CSR"):
        possession(PKCS10Request(5, sequence()))


# Names and extensions.


def test_names_and_extensions_are_read_or_malformed():
    assert parts.read_name(SUBJECT) == common_name("device")
    assert [each.oid.dotted_string for each in parts.read_extensions(EXTENSIONS)] == ["2.5.29.14", "2.5.29.17"]
    assert parts.read_extensions(EXTENSIONS)[1].critical
    assert parts.read_general_name(b"\x82\x01a") == x509.DNSName("a")
    assert parts.read_general_name(tagged(4, SUBJECT)) == x509.DirectoryName(common_name("device"))
    assert parts.read_general_names(sequence(b"\x82\x01a", b"\x82\x01b")) == x509.SubjectAlternativeName(
        [x509.DNSName("a"), x509.DNSName("b")]
    )
    for read in (parts.read_name, parts.read_extensions, parts.read_general_name, parts.load_key):
        with pytest.raises(Malformed, match="that can't be"):
            read(b"\x30\x01\x00")
