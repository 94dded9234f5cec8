"""Proof of possession of the key in a request, and its link to the client (RFC 5272 6.3, 6.7; RFC 7030 3.5)."""

import base64
import os
import secrets
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.x509.oid import PublicKeyAlgorithmOID

from estgw.cmc import proofs
from estgw.cmc.requests import CRMFRequest, PKCS10Request, Possession, decode_request, key_id, possession
from estgw.cmc.status import CMCFailInfo, CMCStatus
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.exchange import Case
from estgw.cmc_service.state import mark
from estgw.cms.algorithms import SHA1
from estgw.cms.identifiers import IssuerAndSerial
from estgw.est import certs
from estgw.est import csr as csrs
from estgw.est.binding import Binding, BindingType
from estgw.est.csr import CSR

_LINKING = (csrs.CHALLENGE_PASSWORD, csrs.EST_IDENTITY_LINKING)


def require_key(csr: CSR) -> Any:
    """The key, if it is one that is certified here; raises `Refused`."""
    if csr.request.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:  # type: ignore[attr-defined]
        raise Refused(CMCFailInfo.BAD_ALG, "keys for RSASSA-PSS alone are not certified here")
    try:
        public = csr.request.public_key()
    except certs.UNREADABLE:
        raise Refused(CMCFailInfo.BAD_ALG, "the public key is of a kind that is not certified here") from None
    match public:
        case rsa.RSAPublicKey() if csrs.MINIMUM_RSA_BITS <= public.key_size <= csrs.MAXIMUM_RSA_BITS:
            return public
        case ec.EllipticCurvePublicKey() if public.key_size >= csrs.MINIMUM_EC_BITS:
            return public
        case (
            ed25519.Ed25519PublicKey() | mldsa.MLDSA44PublicKey() | mldsa.MLDSA65PublicKey() | mldsa.MLDSA87PublicKey()
        ):
            return public
    raise Refused(CMCFailInfo.BAD_ALG, "the public key is too weak, or of a kind that is not certified here")


def possession_of(case: Case, request: PKCS10Request | CRMFRequest, public: Any) -> Possession | None:
    """How possession is proved; None when the client has been challenged instead.  Raises `Refused`, `Malformed`."""
    found = possession(request)
    if found is Possession.PROVED:
        return found
    if request.body_part_id in case.said.possession or (found is Possession.RA_VERIFIED and case.ra):
        return Possession.RA_VERIFIED
    if found is Possession.RA_VERIFIED:
        raise Refused(CMCFailInfo.POP_FAILED, "only an RA can say that possession has been verified")
    answers = [each.value for each in case.data.find("decryptedPOP") if each.value.request == request.body_part_id]
    if answers:
        _check_answer(case, request, answers[0])
        return Possession.CHALLENGE
    if found is Possession.ABSENT and isinstance(request, CRMFRequest):
        raise Refused(CMCFailInfo.POP_REQUIRED, "the request has no proof of possession that is taken here")
    if not case.policy.challenges:
        raise Refused(CMCFailInfo.POP_REQUIRED, "the request proves no possession, and nobody is challenged here")
    _challenge(case, request, public)
    return None


def _challenge(case: Case, request: PKCS10Request | CRMFRequest, public: Any) -> None:
    """encryptedPOP (RFC 5272 6.7): who can decrypt has the key."""
    from estgw.cms import enveloped
    from estgw.cms.faults import BadAlgorithm

    value = secrets.token_bytes(proofs.CHALLENGE_LENGTH)
    whom = key_id(request) or IssuerAndSerial(b"\x30\x00", request.body_part_id)
    try:
        sealed = enveloped.encrypt(value, public, whom)
    except BadAlgorithm:
        raise Refused(CMCFailInfo.POP_REQUIRED, "nothing can be encrypted to this key: it must sign") from None
    key = _challenge_key(case, request)
    case.state.drop("challenge", key)
    case.state.put("challenge", key, value + request.encode(), case.policy.remember, mark(case.who.name))
    case.answer.good(request.body_part_id, status=CMCStatus.POP_REQUIRED)
    case.answer.extra.append(("encryptedPOP", proofs.challenge(request, sealed, value)))


def _check_answer(case: Case, request: PKCS10Request | CRMFRequest, answer: Any) -> None:
    key = _challenge_key(case, request)
    kept = case.state.get("challenge", key)
    if kept is None or not case.state.drop("challenge", key):  # each challenge is for one try
        raise Refused(CMCFailInfo.POP_FAILED, "no challenge is open for this key")
    value, sent = kept[: proofs.CHALLENGE_LENGTH], decode_request(kept[proofs.CHALLENGE_LENGTH :])
    if not proofs.is_decrypted_pop(answer, sent, value):
        raise Refused(CMCFailInfo.POP_FAILED, "the challenge was not decrypted")


def _challenge_key(case: Case, request: PKCS10Request | CRMFRequest) -> str:
    return mark(case.who.name, request.csr.spki_sha256)


# Linking.


def link(case: Case, request: PKCS10Request | CRMFRequest, csr: CSR) -> str:
    """Linking identity and POP, by a witness of the identity's secret (RFC 5272 6.3) or by TLS (RFC 7030 3.5).

    The words are those of EST_POP.  Every link that is there must be good; only `waived` lets a foreign one pass.
    """
    linking, linked = os.environ["EST_POP_LINKING"], False
    if (witness := proofs.link_witness(request)) is not None:
        random = case.data.value("popLinkRandom")
        if random is None or case.who.secret is None:
            words = "a POP link witness without popLinkRandom, or without an identity proof"
            raise Refused(CMCFailInfo.POP_FAILED, words)
        if witness.hash.oid == SHA1 and not case.policy.old_proofs:
            raise Refused(CMCFailInfo.BAD_ALG, "popLinkWitness rests on SHA-1; use popLinkWitnessV2")
        if not proofs.is_linked(request, random, case.who.secret):
            raise Refused(CMCFailInfo.POP_FAILED, "the POP link witness is wrong")
        linked = True
    given = [text for oid in _LINKING if (text := csr.text_attribute(oid)) is not None]
    if not given:
        if linking == "required" and not linked:
            words = "linking is required: base64 of the channel binding in the CSR, or popLinkWitnessV2"
            raise Refused(CMCFailInfo.POP_REQUIRED, words)
        return "linked" if linked else "absent"
    if all(map(_is_this_connection, given)):
        return "linked"
    if linking == "waived":
        return "waived"
    raise Refused(CMCFailInfo.POP_FAILED, "the channel binding in the CSR is not this connection's")


def _is_this_connection(text: str) -> bool:
    ours = os.environ.get("TLS_UNIQUE_SR")
    return ours is not None and Binding(BindingType.TLS_UNIQUE, base64.b64decode(ours)).matches(text)
