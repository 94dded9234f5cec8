"""Proofs of identity and possession, against computations that follow RFC 5272 6.2, 6.3 and 6.7."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography import x509

from estgw.cmc import crmf, proofs
from estgw.cmc.controls import BY_NAME, Control
from estgw.cmc.crmf import TypeAndValue
from estgw.cmc.messages import PKIData
from estgw.cmc.requests import OtherRequest, PKCS10Request, decode_request
from estgw.cmc.values import Witness
from estgw.cms import enveloped
from estgw.cms.algorithms import HMAC_SHA1, HMAC_SHA512, SHA1, SHA512, Algorithm
from estgw.cms.faults import BadAlgorithm
from estgw.cms.fields import octets
from estgw.cms.identifiers import IssuerAndSerial
from estgw.errors import Malformed
from tests.cmc.samples import HMAC, KEY_ID, SECRET, SHA, WHO, crmf_request, pkcs10
from tests.kit.ca import holder
from tests.kit.csr import csr
from tests.kit.der import attribute
from tests.kit.keys import KEY

DATA = PKIData(requests=(pkcs10(), crmf_request()))
REQUESTS = DATA.request_sequence
MD5 = Algorithm("1.2.840.113549.2.5")


def test_identity_proof_v2_is_the_hmac_of_rfc_5272():
    key = hashlib.sha256((SECRET + WHO).encode()).digest()
    expected = Witness(SHA, HMAC, hmac.digest(key, REQUESTS, "sha256"))
    assert proofs.identity_proof_v2(REQUESTS, SECRET, WHO) == expected
    assert proofs.is_identity_proof_v2(expected, REQUESTS, SECRET, WHO)


def test_identity_proof_v2_without_identification_uses_the_secret_alone():
    expected = hmac.digest(hashlib.sha256(SECRET.encode()).digest(), REQUESTS, "sha256")
    assert proofs.identity_proof_v2(REQUESTS, SECRET).witness == expected


def test_identity_proof_v2_uses_other_algorithms():
    proof = proofs.identity_proof_v2(REQUESTS, SECRET, WHO, Algorithm(SHA1), Algorithm(HMAC_SHA512))
    assert proof.witness == hmac.digest(hashlib.sha1((SECRET + WHO).encode()).digest(), REQUESTS, "sha512")
    assert proofs.is_identity_proof_v2(proof, REQUESTS, SECRET, WHO)


def test_identity_proof_is_the_hmac_with_sha_1():
    expected = hmac.digest(hashlib.sha1((SECRET + WHO).encode()).digest(), REQUESTS, "sha1")
    assert proofs.identity_proof(REQUESTS, SECRET, WHO) == expected
    assert proofs.is_identity_proof(expected, REQUESTS, SECRET, WHO)


@pytest.mark.parametrize(
    ("requests", "secret", "who"),
    [
        (PKIData(requests=(pkcs10(),)).request_sequence, SECRET, WHO),
        (REQUESTS[2:], SECRET, WHO),
        (REQUESTS, "another", WHO),
        (REQUESTS, SECRET, "another"),
        (REQUESTS, SECRET, None),
        (REQUESTS, "", ""),
    ],
)
def test_a_proof_for_other_requests_secret_or_identity_fails(requests, secret, who):
    assert not proofs.is_identity_proof_v2(proofs.identity_proof_v2(REQUESTS, SECRET, WHO), requests, secret, who)
    assert not proofs.is_identity_proof(proofs.identity_proof(REQUESTS, SECRET, WHO), requests, secret, who)


@pytest.mark.parametrize("witness", [b"", b"\x00" * 32, b"\x00" * 33])
def test_a_wrong_witness_of_any_length_fails(witness):
    assert not proofs.is_identity_proof_v2(Witness(SHA, HMAC, witness), REQUESTS, SECRET, WHO)
    assert not proofs.is_identity_proof(witness, REQUESTS, SECRET, WHO)


@pytest.mark.parametrize("given", [Witness(MD5, HMAC, b""), Witness(SHA, MD5, b"")])
def test_md5_is_refused_in_an_identity_proof(given):
    with pytest.raises(BadAlgorithm, match="MD5 is not taken"):
        proofs.is_identity_proof_v2(given, REQUESTS, SECRET)


def test_an_identity_proof_survives_encoding():
    proof = proofs.identity_proof_v2(REQUESTS, SECRET, WHO)
    controls = (Control.make(1, "identification", WHO), Control.make(2, "identityProofV2", proof))
    found = PKIData.decode(PKIData(controls, DATA.requests).encode())
    given, who = found.value("identityProofV2"), found.value("identification")
    assert proofs.is_identity_proof_v2(given, found.request_sequence, SECRET, who)


# Linking.

RANDOM = b"r" * proofs.MINIMUM_RANDOM
V1, V2 = BY_NAME["popLinkWitness"], BY_NAME["popLinkWitnessV2"]


def linked(number, row, value):
    """A request of each format with a witness, decoded from its encoding."""
    der = row.kind.encode(value)
    yield PKCS10Request(number, csr("device", attribute(row.oid, der)))
    yield decode_request(crmf_request(number, KEY, TypeAndValue(row.oid, der)).encode())


def test_pop_link_witnesses_are_the_hmacs_of_rfc_5272():
    expected = hmac.digest(hashlib.sha256(SECRET.encode()).digest(), RANDOM, "sha256")
    assert proofs.pop_link_witness_v2(RANDOM, SECRET) == Witness(SHA, HMAC, expected)
    expected = hmac.digest(hashlib.sha1(SECRET.encode()).digest(), RANDOM, "sha1")
    assert proofs.pop_link_witness(RANDOM, SECRET) == expected


@pytest.mark.parametrize(
    ("row", "value", "algorithms"),
    [
        (V1, proofs.pop_link_witness(RANDOM, SECRET), (SHA1, HMAC_SHA1)),
        (V2, proofs.pop_link_witness_v2(RANDOM, SECRET), (SHA.oid, HMAC.oid)),
        (V2, proofs.pop_link_witness_v2(RANDOM, SECRET, Algorithm(SHA512), Algorithm(HMAC_SHA512)),
         (SHA512, HMAC_SHA512)),
    ],
)  # fmt: skip
def test_a_pop_link_witness_links_only_with_its_random_and_secret(row, value, algorithms):
    for request in linked(5, row, value):
        found = proofs.link_witness(request)
        assert found is not None
        assert (found.hash.oid, found.mac.oid) == algorithms
        assert proofs.is_linked(request, RANDOM, SECRET)
        assert not proofs.is_linked(request, RANDOM, "another")
        assert not proofs.is_linked(request, b"another", SECRET)


def test_a_request_without_a_witness_is_not_linked():
    for request in (pkcs10(), crmf_request(), OtherRequest(5, "1.2.3", octets(b""))):
        assert proofs.link_witness(request) is None
        assert not proofs.is_linked(request, RANDOM, SECRET)


def test_a_malformed_witness_is_refused():
    wrong = octets(b"x")
    for request in (
        PKCS10Request(5, csr("device", attribute(V2.oid, wrong))),
        PKCS10Request(5, csr("device", attribute(V1.oid))),
        PKCS10Request(5, csr("device", attribute(V1.oid, octets(b"a"), octets(b"b")))),
        crmf_request(5, KEY, TypeAndValue(V2.oid, wrong)),
    ):
        with pytest.raises(Malformed, match="request 5: "):
            proofs.is_linked(request, RANDOM, SECRET)


# The encrypted challenge.


@pytest.mark.parametrize("kind", ["rsa", "p256"])
@pytest.mark.parametrize("length", [16, 64, 100])
def test_a_challenge_is_answered_and_verified(kind, length):
    key = holder(kind).key
    request = crmf_request(102, key)
    value = bytes(range(length))
    sent = proofs.challenge(request, enveloped.encrypt(value, key.public_key(), KEY_ID), value)
    assert sent.witness == hashlib.sha256(value).digest()

    received = Control.decode(Control.make(1, "encryptedPOP", sent).encode()).value
    _, opened = enveloped.decrypt(received.cms, key, KEY_ID)
    answer = proofs.answer(received, opened, 102)
    assert answer.request == 102
    assert answer.proof == hmac.digest(value[:64], request.encode(), "sha256")

    returned = Control.decode(Control.make(1, "decryptedPOP", answer).encode()).value
    assert proofs.is_decrypted_pop(returned, request, value)
    assert not proofs.is_decrypted_pop(returned, request, bytes(length))
    assert not proofs.is_decrypted_pop(returned, pkcs10(), value)


def test_a_challenge_to_a_key_without_an_identifier_is_decrypted():
    """RFC 5272 6.7: without a key identifier, the issuer is empty and the serial number is the body part id."""
    whom = IssuerAndSerial(b"\x30\x00", 102)
    sealed = enveloped.encrypt(b"y" * 64, KEY.public_key(), whom)
    assert enveloped.decrypt(sealed, KEY, whom)[1] == b"y" * 64


def test_a_client_refuses_a_challenge_with_a_wrong_witness():
    sent = proofs.challenge(crmf_request(), b"\x30\x00", b"y" * 64)
    with pytest.raises(Malformed, match="does not fit its witness"):
        proofs.answer(sent, b"z" * 64, 102)


def test_md5_is_refused_in_a_decrypted_pop():
    answer = proofs.answer(proofs.challenge(crmf_request(), b"\x30\x00", b"y"), b"y", 102)
    with pytest.raises(BadAlgorithm):
        proofs.is_decrypted_pop(type(answer)(answer.request, MD5, answer.proof), crmf_request(), b"y")


def test_a_crmf_request_for_a_challenge_survives_encoding():
    request = crmf.request_for(KEY.public_key(), 7, x509.Name([]).public_bytes())
    assert crmf.CertReqMsg.decode(crmf.CertReqMsg(request, crmf.CHALLENGE).encode()).pop == crmf.CHALLENGE
