"""Proof of possession of the key in a request, and its link to the client (RFC 5272 6.3, 6.7; RFC 7030 3.5)."""

from __future__ import annotations

import secrets
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.x509.oid import PublicKeyAlgorithmOID

from estgw.auth import pop as tls_pop
from estgw.auth.pop import POP
from estgw.cmc import proofs
from estgw.cmc.requests import CRMFRequest, PKCS10Request, Possession, decode_request, key_id, possession
from estgw.cmc.status import CMCFailInfo, CMCStatus
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.exchange import Exchange
from estgw.cmc_service.state import mark
from estgw.cms.algorithms import SHA1
from estgw.cms.identifiers import IssuerAndSerial
from estgw.errors import BadRequest
from estgw.est import certs
from estgw.est import csr as csrs
from estgw.est.csr import CSR


def require_key(csr: CSR) -> Any:
    """The key, if it is of a kind that is certified here; raises `Refused`."""
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


def possession_of(exchange: Exchange, request: PKCS10Request | CRMFRequest, public: Any) -> Possession | None:
    """How possession is proved; None when the client gets a challenge instead.  Raises `Refused`, `Malformed`."""
    found = possession(request)
    if found is Possession.PROVED:
        return found
    is_claimed = found is Possession.RA_VERIFIED
    if request.body_part_id in exchange.statements.possession or (is_claimed and exchange.is_by_ra):
        return Possession.RA_VERIFIED
    if is_claimed:
        raise Refused(CMCFailInfo.POP_FAILED, "only an RA can say that possession has been verified")
    answers = [each.value for each in exchange.data.find("decryptedPOP") if each.value.request == request.body_part_id]
    if answers:
        _check_answer(exchange, request, answers[0])
        return Possession.CHALLENGE
    if found is Possession.ABSENT and isinstance(request, CRMFRequest):
        raise Refused(CMCFailInfo.POP_REQUIRED, "the request has no proof of possession that is taken here")
    if not exchange.service.policy.challenges:
        raise Refused(CMCFailInfo.POP_REQUIRED, "the request proves no possession, and nobody is challenged here")
    _challenge(exchange, request, public)
    return None


def _challenge(exchange: Exchange, request: PKCS10Request | CRMFRequest, public: Any) -> None:
    """Answer with encryptedPOP (RFC 5272 6.7): a client that can decrypt it has the key."""
    from estgw.cms import enveloped
    from estgw.cms.faults import BadAlgorithm

    value = secrets.token_bytes(proofs.CHALLENGE_LENGTH)
    whom = key_id(request) or IssuerAndSerial(b"\x30\x00", request.body_part_id)
    try:
        sealed = enveloped.encrypt(value, public, whom)
    except BadAlgorithm:
        raise Refused(CMCFailInfo.POP_REQUIRED, "nothing can be encrypted to this key: it must sign") from None
    service, key = exchange.service, _challenge_key(exchange, request)
    service.state.drop("challenge", key)
    owner = mark(exchange.signer.name)
    service.state.put("challenge", key, value + request.encode(), service.policy.remember, owner)
    exchange.answer.good(request.body_part_id, status=CMCStatus.POP_REQUIRED)
    exchange.answer.extra.append(("encryptedPOP", proofs.challenge(request, sealed, value)))


def _check_answer(exchange: Exchange, request: PKCS10Request | CRMFRequest, answer: Any) -> None:
    """decryptedPOP (RFC 5272 6.7); raises `Refused`."""
    key = _challenge_key(exchange, request)
    kept = exchange.service.state.get("challenge", key)
    if kept is None or not exchange.service.state.drop("challenge", key):  # each challenge is for one try
        raise Refused(CMCFailInfo.POP_FAILED, "no challenge is open for this key")
    value, sent = kept[: proofs.CHALLENGE_LENGTH], decode_request(kept[proofs.CHALLENGE_LENGTH :])
    if not proofs.is_decrypted_pop(answer, sent, value):
        raise Refused(CMCFailInfo.POP_FAILED, "the challenge was not decrypted")


def _challenge_key(exchange: Exchange, request: PKCS10Request | CRMFRequest) -> str:
    return mark(exchange.signer.name, request.csr.spki_sha256)


def link(exchange: Exchange, request: PKCS10Request | CRMFRequest) -> POP:
    """Linking identity and POP, by a witness of the identity's secret (RFC 5272 6.3) or by TLS (RFC 7030 3.5).

    Every link that is there must be good; only `waived` lets a foreign one pass.
    """
    is_witnessed = _is_witnessed(exchange, request)
    linking, outer, csr = exchange.service.rules.linking, exchange.service.outer, request.csr
    is_linked = any(csr.text_attribute(oid) is not None for oid in tls_pop.LINKING_ATTRIBUTES)
    if is_witnessed and not is_linked:
        return POP.LINKED
    try:
        attribute = csrs.ATTRIBUTE_NAMES[csrs.CHALLENGE_PASSWORD]
        return tls_pop.link(csr, outer.channel.binding, linking, outer.client.tls.version, attribute)
    except BadRequest as refusal:
        failure = CMCFailInfo.POP_FAILED if is_linked else CMCFailInfo.POP_REQUIRED
        raise Refused(failure, refusal.public.removesuffix(".")) from None


def _is_witnessed(exchange: Exchange, request: PKCS10Request | CRMFRequest) -> bool:
    """Whether a popLinkWitness is there, and right (RFC 5272 6.3); raises `Refused`, `Malformed`."""
    witness = proofs.link_witness(request)
    if witness is None:
        return False
    random, secret = exchange.data.value("popLinkRandom"), exchange.signer.secret
    if random is None or secret is None:
        words = "a POP link witness without popLinkRandom, or without an identity proof"
        raise Refused(CMCFailInfo.POP_FAILED, words)
    if witness.hash.oid == SHA1 and not exchange.service.policy.old_proofs:
        raise Refused(CMCFailInfo.BAD_ALG, "popLinkWitness rests on SHA-1; use popLinkWitnessV2")
    if not proofs.is_linked(request, random, secret):
        raise Refused(CMCFailInfo.POP_FAILED, "the POP link witness is wrong")
    return True
