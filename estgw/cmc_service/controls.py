"""Controls that ask for something themselves (RFC 5272 6.9 to 6.15).

They ask for a certificate, CRLs, revocation, confirmation, or for a request that waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.cmc import parts
from estgw.cmc.controls import Control
from estgw.cmc.requests import OtherRequest, decode_request
from estgw.cmc.status import CMCFailInfo
from estgw.cmc.values import REASONS, PublishTrustAnchors
from estgw.cmc_service import confirmation, inner_request, issuers, passphrase, pending
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.ca import CA
from estgw.cmc_service.exchange import Exchange
from estgw.cmc_service.state import mark
from estgw.cms.algorithms import SHA256, Algorithm, digest
from estgw.errors import Malformed


def handle(exchange: Exchange, control: Control) -> None:
    """Do what a control asks for, if it asks for something; raises `Refused`."""
    do = ASKING.get(control.name)
    if do is None:
        return
    if exchange.full is not None and control.name != "revokeRequest":
        raise exchange.full
    if time.monotonic() > exchange.service.deadline:
        raise Refused(CMCFailInfo.TRY_LATER, "no time left for this: ask for less in one message")
    try:
        do(exchange, control.body_part_id, control.value)
    except Malformed as fault:
        raise Refused.by(fault) from None


def is_open_to_all(control: Control) -> bool:
    """Whether an unknown client may ask for this: a revocation with a passphrase needs no signature (RFC 5272 6.11)."""
    return control.name not in ASKING or (control.name == "revokeRequest" and control.value.passphrase is not None)


def _get_cert(exchange: Exchange, part: int, wanted: Any) -> None:
    """6.9."""
    name = parts.read_general_name(wanted.issuer, "an issuer")
    if not isinstance(name, x509.DirectoryName):
        raise Refused(CMCFailInfo.BAD_CERT_ID, "the issuer is not named by a directory name")
    exchange.answer.good(part, _find(exchange, name.value.public_bytes(), wanted.serial))


def _get_crl(exchange: Exchange, part: int, wanted: Any) -> None:
    """6.10."""
    if not issuers.have_name(exchange.service.ca.issuers, wanted.issuer):
        raise Refused(CMCFailInfo.BAD_CERT_ID, "that is the name of another CA")
    exchange.answer.crls.extend(crl for crl in exchange.service.ca.crls(wanted.time) if crl not in exchange.answer.crls)
    exchange.answer.good(part)


def _revoke(exchange: Exchange, part: int, wanted: Any) -> None:
    """6.11: allowed by the policy, or by the passphrase."""
    certificate = _find(exchange, wanted.issuer, wanted.serial)
    if wanted.passphrase is not None:
        passphrase.require(exchange.service.state, exchange.service.policy, certificate, wanted.passphrase)
    elif not (exchange.signer.is_authenticated and exchange.service.policy.may_revoke(exchange.signer, certificate)):
        raise Refused(CMCFailInfo.BAD_IDENTITY, "you may not revoke this certificate")
    reason = REASONS[wanted.reason]
    if reason in REFUSED_REASONS:
        raise Refused(CMCFailInfo.BAD_REQUEST, f"the reason {reason} can't be kept here")
    if not exchange.service.ca.is_revoked(certificate):
        exchange.service.ca.revoke(certificate, reason)
    exchange.answer.good(part)


def _query(exchange: Exchange, part: int, token: bytes) -> None:
    """6.13."""
    kept = pending.by_token(exchange.service.state, token)
    if kept is None or kept.owner != mark(exchange.signer.name):
        raise Refused(CMCFailInfo.BAD_REQUEST, "nothing of yours waits under this token")
    request = decode_request(kept.request)
    assert not isinstance(request, OtherRequest)
    inner_request.decide(exchange, request, kept, part)


def _confirm(exchange: Exchange, part: int, wanted: Any) -> None:
    """6.14."""
    certificate = _find(exchange, wanted.issuer, wanted.serial)
    if not confirmation.confirm(exchange.service.state, certificate, exchange.signer):
        raise Refused(CMCFailInfo.BAD_CERT_ID, "nobody waits for your confirmation of this certificate")
    exchange.answer.good(part)


def _find(exchange: Exchange, issuer: bytes, serial: int) -> x509.Certificate:
    if issuers.have_name(exchange.service.ca.issuers, issuer):
        found = exchange.service.ca.find(serial)
        if found is not None:
            return found
    raise Refused(CMCFailInfo.BAD_CERT_ID, "there is no certificate of that issuer and serial number here")


REFUSED_REASONS = ("certificateHold", "removeFromCRL", "privilegeWithdrawn", "aACompromise")
"""Reasons that a register of certificates does not keep, or that a client may not give (RFC 5280 5.3.1)."""

ASKING: Mapping[str, Callable[[Exchange, int, Any], None]] = {
    "getCert": _get_cert,
    "getCRL": _get_crl,
    "revokeRequest": _revoke,
    "queryPending": _query,
    "confirmCertAcceptance": _confirm,
}


def trust_anchors(ca: CA) -> PublishTrustAnchors:
    """6.15: the roots; the certificates themselves are in the bag of every response."""
    used = Algorithm(SHA256)
    roots = [each for each in ca.anchors if each.issuer == each.subject]
    number = max((int(each.not_valid_before_utc.timestamp()) for each in roots), default=0)
    return PublishTrustAnchors(number, used, tuple(digest(used, each.public_bytes(Encoding.DER)) for each in roots))
