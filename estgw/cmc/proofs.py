"""Proofs of identity and possession by a shared secret or a decrypted challenge (RFC 5272 6.2, 6.3, 6.7).

All functions are pure.  Secrets and identities are texts, hashed as UTF-8.  Comparisons take constant time.  Functions
that check a proof raise `BadAlgorithm` for an algorithm that is not in `estgw.cms.algorithms`.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from cryptography.hazmat import asn1

from estgw.cmc.controls import BY_NAME
from estgw.cmc.requests import CRMFRequest, PKCS10Request, TaggedRequest
from estgw.cmc.values import DecryptedPOP, EncryptedPOP, Witness
from estgw.cms.algorithms import HMAC_SHA1, HMAC_SHA256, SHA1, SHA256, Algorithm, digest, mac
from estgw.cms.faults import within
from estgw.cms.fields import read_octets
from estgw.errors import Malformed
from estgw.est.der import whole

MINIMUM_RANDOM = 64
"""The least octets of popLinkRandom that RFC 5272 6.3.1.1 requires from clients."""
CHALLENGE_LENGTH = 64
"""Octets of a POP proof value; RFC 5272 6.7 uses no more of it."""

_SHA1, _SHA256 = Algorithm(SHA1), Algorithm(SHA256)
_HMAC_SHA1, _HMAC_SHA256 = Algorithm(HMAC_SHA1), Algorithm(HMAC_SHA256)
_LINK, _LINK_V2 = BY_NAME["popLinkWitness"].oid, BY_NAME["popLinkWitnessV2"].oid


# Identity (RFC 5272 6.2): a MAC over the requests, with a key derived from the secret and the identification.


def identity_proof_v2(
    request_sequence: bytes,
    secret: str,
    identification: str | None = None,
    hash: Algorithm = _SHA256,  # noqa: A002 - the standard's word
    mac_algorithm: Algorithm = _HMAC_SHA256,
) -> Witness:
    """Return the value of identityProofV2 over `PKIData.request_sequence` (RFC 5272 6.2.1).

    `identification` is the text of the identification control, if the message has one.
    """
    key = digest(hash, _secret(secret, identification))
    return Witness(hash, mac_algorithm, mac(mac_algorithm, key, request_sequence))


def identity_proof(request_sequence: bytes, secret: str, identification: str | None = None) -> bytes:
    """Return the value of identityProof, the older control, with SHA-1 and HMAC-SHA1 (RFC 5272 6.2.2)."""
    return identity_proof_v2(request_sequence, secret, identification, _SHA1, _HMAC_SHA1).witness


def is_identity_proof_v2(
    given: Witness, request_sequence: bytes, secret: str, identification: str | None = None
) -> bool:
    """Whether an identityProofV2 was made with this secret.  Raises `BadAlgorithm`."""
    own = identity_proof_v2(request_sequence, secret, identification, given.hash, given.mac)
    return hmac.compare_digest(own.witness, given.witness)


def is_identity_proof(given: bytes, request_sequence: bytes, secret: str, identification: str | None = None) -> bool:
    """Whether an identityProof was made with this secret."""
    return hmac.compare_digest(identity_proof(request_sequence, secret, identification), given)


def _secret(secret: str, identification: str | None) -> bytes:
    return (secret + (identification or "")).encode()


# Link of identity and possession (RFC 5272 6.3.1): a MAC over popLinkRandom in each request, which the key signs.


def pop_link_witness_v2(
    random: bytes,
    secret: str,
    hash: Algorithm = _SHA256,  # noqa: A002
    mac_algorithm: Algorithm = _HMAC_SHA256,
) -> Witness:
    """Return the value of popLinkWitnessV2 for this popLinkRandom (RFC 5272 6.3.1.1)."""
    return Witness(hash, mac_algorithm, mac(mac_algorithm, digest(hash, secret.encode()), random))


def pop_link_witness(random: bytes, secret: str) -> bytes:
    """Return the value of popLinkWitness, the older attribute, with SHA-1 and HMAC-SHA1 (RFC 5272 6.3.1.2)."""
    return pop_link_witness_v2(random, secret, _SHA1, _HMAC_SHA1).witness


def link_witness(request: TaggedRequest) -> Witness | None:
    """Return the popLinkWitnessV2 of a request, or its popLinkWitness with the algorithms filled in, or None.

    It is among the attributes of a PKCS#10 or the controls of a CRMF request.  Raises `Malformed`.
    """
    found = _link_values(request)
    with within(f"request {request.body_part_id}"):
        if _LINK_V2 in found:
            return Witness.decode(found[_LINK_V2], "a popLinkWitnessV2")
        if _LINK in found:
            return Witness(_SHA1, _HMAC_SHA1, read_octets(found[_LINK], "a popLinkWitness"))
    return None


def is_linked(request: TaggedRequest, random: bytes, secret: str) -> bool:
    """Whether a request holds a witness made with this secret.  Raises `BadAlgorithm`, `Malformed`."""
    given = link_witness(request)
    if given is None:
        return False
    own = pop_link_witness_v2(random, secret, given.hash, given.mac)
    return hmac.compare_digest(own.witness, given.witness)


def _link_values(request: TaggedRequest) -> Mapping[str, bytes]:
    match request:
        case PKCS10Request():
            attributes = request.csr.attributes
            return {oid: _one(attributes[oid], request) for oid in (_LINK, _LINK_V2) if oid in attributes}
        case CRMFRequest():
            return {each.oid: each.value for each in request.message.request.controls}
    return {}


def _one(values: object, request: PKCS10Request) -> bytes:
    match values:
        case [asn1.TLV() as value]:
            return whole(value)
    raise Malformed(f"request {request.body_part_id}: a POP link witness with no value or several")


# Possession of a key that can't sign (RFC 5272 6.7): decrypt a challenge, and MAC the request with it.


def challenge(request: TaggedRequest, enveloped: bytes, proof_value: bytes) -> EncryptedPOP:
    """Return the encryptedPOP for a proof value; `enveloped` is its ContentInfo of EnvelopedData, as DER."""
    return EncryptedPOP(request, enveloped, _HMAC_SHA256, _SHA256, digest(_SHA256, proof_value))


def answer(sent: EncryptedPOP, proof_value: bytes, body_part_id: int) -> DecryptedPOP:
    """Return the decryptedPOP for a challenge; `proof_value` is its decrypted content.

    `body_part_id` is the id of the request in the new message.  Raises `Malformed` when the value does not fit the
    witness; the client must then stop (RFC 5272 6.7).
    """
    if not hmac.compare_digest(digest(sent.hash, proof_value), sent.witness):
        raise Malformed("the decrypted challenge does not fit its witness")
    return DecryptedPOP(body_part_id, sent.mac, decrypted_pop(sent.request, proof_value, sent.mac))


def is_decrypted_pop(given: DecryptedPOP, request: TaggedRequest, proof_value: bytes) -> bool:
    """Whether a decryptedPOP was made with this value for this request.  Raises `BadAlgorithm`."""
    return hmac.compare_digest(decrypted_pop(request, proof_value, given.mac), given.proof)


def decrypted_pop(request: TaggedRequest, proof_value: bytes, algorithm: Algorithm = _HMAC_SHA256) -> bytes:
    """Return thePOP: a MAC over the DER of the TaggedRequest; its key is the first 64 octets of the proof value.

    Raises `BadAlgorithm`.
    """
    return mac(algorithm, proof_value[:CHALLENGE_LENGTH], request.encode())
