"""/fullcmc (RFC 7030 4.3, RFC 5272)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from estgw.client.transport import pki_response
from estgw.client.transport.pki_response import Response
from estgw.cmc.controls import Control
from estgw.cmc.messages import PKI_DATA, PKIData
from estgw.cmc.requests import PKCS10Request
from estgw.cmc.status import CMCStatus
from estgw.cms import signed
from estgw.cms.identifiers import key_id_of
from estgw.cms.signed import Signer
from estgw.conform import checks, facts
from estgw.conform.case import Case
from estgw.conform.cases import core
from estgw.conform.http import Reply
from estgw.conform.model import Level, Need, failed, noted, skipped, warned
from estgw.conform.probe import Form, Probe
from estgw.errors import Malformed
from estgw.est.binding import Binding
from estgw.est.csrattrs import ExtensionWish
from estgw.est.der import wrap

_REQUEST = "application/pkcs7-mime; smime-type=CMC-request"
_TYPE = "application/pkcs7-mime"
_KINDS = ("cmc-response", "certs-only")
_SUBJECT_KEY_ID = "2.5.29.14"


@dataclass(frozen=True)
class Sent:
    """A Full PKI Request and its answer."""

    reply: Reply
    transaction: int
    nonce: bytes


def off_or_on(probe: Probe) -> str:
    """F1."""
    raise noted("on" if core.is_offered(probe, "fullcmc") else "off: 404 or 501")


def junk(probe: Probe) -> str:
    """F3."""
    seen = []
    bodies: dict[str, Callable[[], Reply]] = {
        "a PKCS#10": lambda: probe.post(facts.maker(probe, facts.wish(probe)), _FORM),
        "DER of something else": lambda: probe.post(lambda _: b"\x30\x03\x02\x01\x07", _FORM),
        "a wrong signature": lambda: _refusal(probe).reply,
    }
    for what, ask in bodies.items():
        seen.append(f"{what}: {checks.refused(ask(), f'{what} is no valid Full PKI Request').partition(':')[0]}")
    return "; ".join(seen)


def form(probe: Probe) -> str:
    """F4."""
    reply = _good(probe).reply
    kind = reply.answer.headers.get_param("smime-type")
    if reply.type != _TYPE or not isinstance(kind, str) or kind.lower() not in _KINDS:
        raise failed(f"Content-Type: {reply.get('Content-Type') or 'missing'}")
    checks.der_of(reply)
    _response(reply)
    return f"Content-Type: {reply.get('Content-Type')}"


def error_body(probe: Probe) -> str:
    """F5."""
    reply = _refusal(probe).reply
    if reply.status < 400:
        raise failed(f"a message with a wrong signature: {reply}")
    if reply.type != _TYPE:
        raise failed(f"{reply.status} of type {reply.type or 'none'}, without a CMC response in it")
    found = _response(reply)
    if found.worst is None or found.worst.status == CMCStatus.SUCCESS:
        raise failed(f"{reply.status} with a CMC response that names no failure")
    if found.content is None or not found.content.find("statusInfoV2"):
        raise warned("the old CMCStatusInfo alone; RFC 5272 6.1 wants CMCStatusInfoV2")
    return f"{reply.status}, {pki_response.said(found.worst)}"


def status(probe: Probe) -> str:
    """F6, F7."""
    found = _response(_good(probe).reply)
    if found.content is None:
        raise skipped("a Simple PKI Response has no status")
    worst = found.worst
    if worst is None:
        raise failed("a CMC response without any status")
    if not found.content.find("statusInfoV2"):
        raise failed("the old CMCStatusInfo alone; RFC 5272 6.1 wants CMCStatusInfoV2")
    if worst.status != CMCStatus.SUCCESS:
        raise failed(f"HTTP 200 around {pki_response.said(worst)}")
    return pki_response.said(worst)


def nonces(probe: Probe) -> str:
    """F8."""
    sent = _good(probe)
    found = _response(sent.reply)
    if found.content is None:
        raise skipped("a Simple PKI Response has no controls")
    try:
        transaction, nonce = found.content.value("transactionId"), found.content.value("recipientNonce")
    except Malformed as fault:
        raise failed(str(fault)) from None
    if transaction != sent.transaction:
        raise failed("our transactionId does not come back")
    if nonce != sent.nonce:
        raise failed("our senderNonce does not come back as recipientNonce")
    return "transactionId and nonce come back"


_FORM = Form("fullcmc", headers={"Content-Type": _REQUEST})


def _first(probe: Probe) -> Sent:
    return probe.once("fullcmc", lambda probe: _send(probe))


def _refusal(probe: Probe) -> Sent:
    """A message that can be read, and whose signature is wrong."""
    return probe.once("fullcmc refused", lambda probe: _send(probe, lambda der: der[:-1] + bytes([der[-1] ^ 1])))


def _good(probe: Probe) -> Sent:
    sent = _first(probe)
    if sent.reply.status in (202, 401, 403):
        raise skipped(f"the server's policy: {sent.reply}")
    if sent.reply.status != 200:
        words = pki_response.words(sent.reply.body)
        raise skipped(f"an enrolment by CMC with a password alone is refused: {sent.reply} {words}".rstrip())
    return sent


def _send(probe: Probe, change: Callable[[bytes], bytes] = lambda der: der) -> Sent:
    """An enrolment: a PKCS#10 in a message that its own key signs (RFC 5272 3.2)."""
    wish = facts.wish(probe)
    key_id = key_id_of(wish.key.public_key())
    named = ExtensionWish(_SUBJECT_KEY_ID, value=wrap(b"\x04", key_id))
    make = facts.maker(probe, replace(wish, extensions=(named,)))
    transaction, nonce = secrets.randbits(63) | 1, secrets.token_bytes(16)
    signer = Signer(wish.key, key_id)  # type: ignore[arg-type]  # signing says which kinds it takes

    def message(binding: Binding | None) -> bytes:
        controls = (Control.make(2, "transactionId", transaction), Control.make(3, "senderNonce", nonce))
        data = PKIData(controls, (PKCS10Request(1, make(binding)),))
        return signed.sign(PKI_DATA, data.encode(), [signer], signing_time=datetime.now(UTC))

    return Sent(probe.post(message, replace(_FORM, change=change)), transaction, nonce)


def _response(reply: Reply) -> Response:
    try:
        return pki_response.response(reply.body)
    except Malformed as fault:
        raise failed(f"the CMC response can't be read: {fault}") from None


_ALL = (Need.ISSUE, Need.LOGIN, Need.CMC)
CASES = (
    Case("off-or-on", "cmc", Level.INFO, "RFC 7030 4.3", ("F1",),
         "fullcmc is the server's choice.", off_or_on),
    Case("junk", "cmc", Level.MUST, "RFC 7030 4.3.1", ("F3",),
         "A PKCS#10, other DER and a wrong signature are refused.", junk, _ALL),
    Case("form", "cmc", Level.MUST, "RFC 7030 4.3.2, RFC 8951 3.2.2", ("F4", "X1"),
         "A 200 is application/pkcs7-mime, certs-only or CMC-response.", form, _ALL),
    Case("error-body", "cmc", Level.MUST, "RFC 7030 4.3.2", ("F5",),
         "A refusal is a 4xx or 5xx with a CMC response that names the failure.", error_body, _ALL),
    Case("status", "cmc", Level.MUST, "RFC 5272 6.1", ("F6", "F7"),
         "A Full PKI Response has CMCStatusInfoV2, and a 200 means success.", status, _ALL),
    Case("nonces", "cmc", Level.MUST, "RFC 5272 6.6", ("F8",),
         "transactionId and nonce come back.", nonces, _ALL),
)  # fmt: skip
