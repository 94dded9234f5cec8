"""What proves identity and possession by a shared secret or a decrypted challenge (RFC 5272 6.2, 6.3, 6.7).

Pure functions.  Secrets and identities are texts, hashed as UTF-8; comparisons take constant time.  The functions
that check raise `BadAlgorithm` where the peer has named an algorithm that is not in `estgw.cms.algorithms`.
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
"""Octets of popLinkRandom that RFC 5272 6.3.1.1 asks clients for."""
CHALLENGE_LENGTH = 64
"""Octets of a POP proof value: the most that RFC 5272 6.7 uses of it."""

_SHA1, _SHA256 = Algorithm(SHA1), Algorithm(SHA256)
_HMAC_SHA1, _HMAC_SHA256 = Algorithm(HMAC_SHA1), Algorithm(HMAC_SHA256)
_LINK, _LINK_V2 = BY_NAME["popLinkWitness"].oid, BY_NAME["popLinkWitnessV2"].oid


# Identity (RFC 5272 6.2): a MAC over the requests, by a key made of the secret and the identification.


def identity_proof_v2(
    request_sequence: bytes,
    secret: str,
    identification: str | None = None,
    hash: Algorithm = _SHA256,  # noqa: A002 - the standard's word
    mac_algorithm: Algorithm = _HMAC_SHA256,
) -> Witness:
    """The value of identityProofV2 over `PKIData.request_sequence`; `identification` is that control's text, if any."""
    key = digest(hash, _secret(secret, identification))
    return Witness(hash, mac_algorithm, mac(mac_algorithm, key, request_sequence))


def identity_proof(request_sequence: bytes, secret: str, identification: str | None = None) -> bytes:
    """The value of identityProof, the older one: SHA-1 and HMAC-SHA1 (RFC 5272 6.2.2)."""
    return identity_proof_v2(request_sequence, secret, identification, _SHA1, _HMAC_SHA1).witness


def is_identity_proof_v2(
    given: Witness, request_sequence: bytes, secret: str, identification: str | None = None
) -> bool:
    """Whether an identityProofV2 was made with this secret; raises `BadAlgorithm`."""
    own = identity_proof_v2(request_sequence, secret, identification, given.hash, given.mac)
    return hmac.compare_digest(own.witness, given.witness)


def is_identity_proof(given: bytes, request_sequence: bytes, secret: str, identification: str | None = None) -> bool:
    """Whether an identityProof was made with this secret."""
    return hmac.compare_digest(identity_proof(request_sequence, secret, identification), given)


def _secret(secret: str, identification: str | None) -> bytes:
    return (secret + (identification or "")).encode()


# Linking identity and possession (RFC 5272 6.3.1): a MAC over popLinkRandom, in each request that its key signs.


def pop_link_witness_v2(
    random: bytes,
    secret: str,
    hash: Algorithm = _SHA256,  # noqa: A002
    mac_algorithm: Algorithm = _HMAC_SHA256,
) -> Witness:
    """The value of popLinkWitnessV2 for this popLinkRandom."""
    return Witness(hash, mac_algorithm, mac(mac_algorithm, digest(hash, secret.encode()), random))


def pop_link_witness(random: bytes, secret: str) -> bytes:
    """The value of popLinkWitness, the older one: SHA-1 and HMAC-SHA1."""
    return pop_link_witness_v2(random, secret, _SHA1, _HMAC_SHA1).witness


def link_witness(request: TaggedRequest) -> Witness | None:
    """What a request has of popLinkWitnessV2 or the older form, whose algorithms are filled in; None when neither.

    It stands among the attributes of a PKCS#10 and the controls of a CRMF request.  Raises `Malformed`.
    """
    found = _link_values(request)
    with within(f"request {request.body_part_id}"):
        if _LINK_V2 in found:
            return Witness.decode(found[_LINK_V2], "a popLinkWitnessV2")
        if _LINK in found:
            return Witness(_SHA1, _HMAC_SHA1, read_octets(found[_LINK], "a popLinkWitness"))
    return None


def is_linked(request: TaggedRequest, random: bytes, secret: str) -> bool:
    """Whether a request holds a witness made with this secret; raises `BadAlgorithm`, `Malformed`."""
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
    """The encryptedPOP that sends `proof_value`; `enveloped` is its ContentInfo of EnvelopedData, as DER."""
    return EncryptedPOP(request, enveloped, _HMAC_SHA256, _SHA256, digest(_SHA256, proof_value))


def answer(sent: EncryptedPOP, proof_value: bytes, body_part_id: int) -> DecryptedPOP:
    """The decryptedPOP for a challenge that has been decrypted; `body_part_id` is the request's in the new message.

    Raises `Malformed` when the witness says that this is another value: the client must stop then.
    """
    if not hmac.compare_digest(digest(sent.hash, proof_value), sent.witness):
        raise Malformed("the decrypted challenge does not fit its witness")
    return DecryptedPOP(body_part_id, sent.mac, decrypted_pop(sent.request, proof_value, sent.mac))


def is_decrypted_pop(given: DecryptedPOP, request: TaggedRequest, proof_value: bytes) -> bool:
    """Whether a decryptedPOP was made with this value for this request; raises `BadAlgorithm`."""
    return hmac.compare_digest(decrypted_pop(request, proof_value, given.mac), given.proof)


def decrypted_pop(request: TaggedRequest, proof_value: bytes, algorithm: Algorithm = _HMAC_SHA256) -> bytes:
    """thePOP: a MAC over the DER of the TaggedRequest, by the first 64 octets of the proof value."""
    return mac(algorithm, proof_value[:CHALLENGE_LENGTH], request.encode())
