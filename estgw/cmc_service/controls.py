"""Controls that ask for something themselves: certificates, lists, revocation, confirmation, what waits.

RFC 5272 6.9 to 6.15.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import ca
from cmc_ca import REFUSED, Books
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.cmc import parts
from estgw.cmc.controls import Control
from estgw.cmc.requests import OtherRequest, decode_request
from estgw.cmc.status import CMCFailInfo
from estgw.cmc.values import REASONS, PublishTrustAnchors
from estgw.cmc_service import inner_request, pending
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.exchange import Case
from estgw.cmc_service.state import Spent, mark
from estgw.cms.algorithms import SHA256, Algorithm, digest
from estgw.errors import Malformed


def handle(case: Case, control: Control) -> None:
    """Do what a control asks for, if it does; raises `Refused`."""
    service = SERVICES.get(control.name)
    if service is None:
        return
    if case.full is not None and control.name != "revokeRequest":
        raise case.full
    if time.monotonic() > case.deadline:
        raise Refused(CMCFailInfo.TRY_LATER, "no time left for this: ask for less in one message")
    try:
        service(case, control.body_part_id, control.value)
    except Malformed as fault:
        raise Refused.by(fault) from None


def is_open_to_all(control: Control) -> bool:
    """Whether somebody unknown may ask this: a revocation says who by its passphrase (RFC 5272 6.11)."""
    return control.name not in SERVICES or (control.name == "revokeRequest" and control.value.passphrase is not None)


def _get_cert(case: Case, part: int, wanted: Any) -> None:
    """6.9."""
    name = parts.read_general_name(wanted.issuer, "an issuer")
    if not isinstance(name, x509.DirectoryName):
        raise Refused(CMCFailInfo.BAD_CERT_ID, "the issuer is not named by a directory name")
    case.answer.good(part, _find(case, name.value.public_bytes(), wanted.serial))


def _get_crl(case: Case, part: int, wanted: Any) -> None:
    """6.10."""
    if not case.books.is_ours(wanted.issuer):
        raise Refused(CMCFailInfo.BAD_CERT_ID, "that is the name of another CA")
    case.answer.crls.extend(crl for crl in case.books.crls(wanted.time) if crl not in case.answer.crls)
    case.answer.good(part)


def _revoke(case: Case, part: int, wanted: Any) -> None:
    """6.11: who may is the policy's to say, or the passphrase's."""
    certificate = _find(case, wanted.issuer, wanted.serial)
    if wanted.passphrase is not None:
        _check_passphrase(case, certificate, wanted.passphrase)
    elif not (case.who.is_authenticated and case.policy.may_revoke(case.who, certificate)):
        raise Refused(CMCFailInfo.BAD_IDENTITY, "you may not revoke this certificate")
    if REASONS[wanted.reason] in REFUSED:
        raise Refused(CMCFailInfo.BAD_REQUEST, f"the reason {REASONS[wanted.reason]} can't be kept here")
    if not ca.is_revoked(certificate):
        case.books.revoke(certificate, wanted.reason)
    case.answer.good(part)


def _check_passphrase(case: Case, certificate: x509.Certificate, given: bytes) -> None:
    """What the certificate was asked for with, or the secret behind the identification; tries are few."""
    key, lasts, most = mark("revoke", certificate.serial_number), case.policy.tries_per, case.policy.tries
    kept = pending.passphrase(case.state, certificate)
    kind = "unknown" if kept is None else "wrong"
    try:
        if case.state.wrong(kind, key) >= most:
            raise Spent  # before the work; that is too much for a transaction, in which others would wait
        good = pending.is_passphrase(kept, given)
        if not case.state.judge(kind, key, lasts, most=most, is_right=good):
            raise Refused(CMCFailInfo.BAD_IDENTITY, "the passphrase is wrong")
    except Spent:
        raise Refused(CMCFailInfo.TRY_LATER, "too many wrong passphrases for this certificate") from None


def _query(case: Case, part: int, token: bytes) -> None:
    """6.13."""
    value = case.state.get("pending", token.hex())
    kept = pending.Kept.decode(value) if value is not None else None
    if kept is None or kept.owner != mark(case.who.name):
        raise Refused(CMCFailInfo.BAD_REQUEST, "nothing of yours waits under this token")
    request = decode_request(kept.request)
    assert not isinstance(request, OtherRequest)
    inner_request.resume(case, request, kept, part)


def _confirm(case: Case, part: int, wanted: Any) -> None:
    """6.14."""
    certificate = _find(case, wanted.issuer, wanted.serial)
    if not pending.confirm(case.state, certificate, case.who):
        raise Refused(CMCFailInfo.BAD_CERT_ID, "nobody waits for your confirmation of this certificate")
    case.answer.good(part)


def _find(case: Case, issuer: bytes, serial: int) -> x509.Certificate:
    if case.books.is_ours(issuer):
        found = case.books.find(serial)
        if found is not None:
            return found
    raise Refused(CMCFailInfo.BAD_CERT_ID, "there is no certificate of that issuer and serial number here")


SERVICES: Mapping[str, Callable[[Case, int, Any], None]] = {
    "getCert": _get_cert,
    "getCRL": _get_crl,
    "revokeRequest": _revoke,
    "queryPending": _query,
    "confirmCertAcceptance": _confirm,
}


def trust_anchors(books: Books) -> PublishTrustAnchors:
    """6.15: the roots; the certificates themselves are in the bag of every response."""
    used = Algorithm(SHA256)
    roots = [each for each in books.anchors if each.issuer == each.subject]
    number = max((int(each.not_valid_before_utc.timestamp()) for each in roots), default=0)
    return PublishTrustAnchors(number, used, tuple(digest(used, each.public_bytes(Encoding.DER)) for each in roots))
