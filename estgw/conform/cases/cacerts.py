"""/cacerts (RFC 7030 4.1)."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509

from estgw.client import bag as bags
from estgw.client.bag import Entry
from estgw.client.transport import trust
from estgw.cms import signed
from estgw.conform import checks, facts
from estgw.conform.case import Case
from estgw.conform.http import Reply
from estgw.conform.model import Level, Need, failed, noted, skipped, warned
from estgw.conform.probe import Probe
from estgw.errors import Malformed
from estgw.est import ber, names

TYPE = "application/pkcs7-mime"


def status(probe: Probe) -> str:
    """K2."""
    reply = facts.cacerts(probe)
    checks.no_redirect(reply)
    if reply.status != 200:
        raise failed(str(reply))
    return "200"


def form(probe: Probe) -> str:
    """K3."""
    der = checks.der_of(_good(probe))
    return certs_only(der)


def certs_only(der: bytes) -> str:
    """Judge a certs-only SignedData (RFC 5272 4.1, RFC 5652 5.1)."""
    try:
        message = signed.parse(der)
    except Malformed as fault:
        raise failed(f"no SignedData: {fault}") from None
    if message.content is not None:
        raise failed("the SignedData has content; a Simple PKI Response has none (RFC 5272 4.1)")
    if message.signers:
        raise failed("the SignedData has signers; a Simple PKI Response has none (RFC 5272 4.1)")
    if not message.certificates:
        raise failed("the SignedData holds no certificate")
    if len(message.bag) < len(message.certificates):
        raise failed(f"{len(message.certificates) - len(message.bag)} of the certificates can't be read")
    if ber.to_der(der) != der:
        raise warned("the SignedData is BER; senders should write DER (RFC 5967 2.1)")
    count = len(message.bag)
    return f"a certs-only SignedData with {count} certificate{'' if count == 1 else 's'}"


def type_(probe: Probe) -> str:
    """K4."""
    reply = _good(probe)
    if reply.type != TYPE:
        raise failed(f"Content-Type: {reply.get('Content-Type') or 'missing'}")
    return f"Content-Type: {reply.get('Content-Type')}"


def root(probe: Probe) -> str:
    """K5."""
    newest = next((each for each in _entries(probe) if each.is_newest), None)
    if newest is None:
        raise failed("no self-signed CA certificate that is valid today")
    return f"{names.dn_text(newest.certificate.subject)}, until {newest.certificate.not_valid_after_utc:%Y-%m-%d}"


def chain(probe: Probe) -> str:
    """K6."""
    entries = _entries(probe)
    roots = [each.certificate for each in entries if each.role in ("root", "NewWithNew", "OldWithOld")]
    bag = [each.certificate for each in entries]
    issued = facts.own(probe).certificate
    fault = trust.path_fault(issued, roots, [each for each in bag if each not in roots])
    if fault is not None:
        raise failed(f"an issued certificate ({names.dn_text(issued.subject)}) has no path to the root: {fault}")
    return "an issued certificate leads to the root by these certificates alone"


def rollover(probe: Probe) -> str:
    """K7, K8."""
    entries = _entries(probe)
    roles = {each.role for each in entries}
    if "NewWithNew" not in roles:
        raise noted("one root for each name: no change of key is under way")
    missing = [role for role in ("OldWithOld", "OldWithNew", "NewWithOld") if role not in roles]
    if missing:
        raise warned(f"two keys of one CA, and no {', '.join(missing)}")
    for each in entries:
        if each.role in ("OldWithNew", "NewWithOld") and not trust.is_ca(each.certificate):
            raise warned(f"{each.role} is no CA's certificate")
    return "OldWithOld, OldWithNew and NewWithOld beside the new root"


def open_(probe: Probe) -> str:
    """Z6."""
    reply = probe.get("cacerts")
    if reply.status in (401, 403):
        raise warned(f"{reply}: a client that has nothing yet can't fetch its anchors")
    return f"without credentials: {reply.status}"


def _good(probe: Probe) -> Reply:
    reply = facts.cacerts(probe)
    if reply.status != 200:
        raise skipped(f"/cacerts answers {reply.status}: see cacerts.status")
    return reply


def _entries(probe: Probe) -> list[Entry]:
    """The bag judged under its own roots: who is one, and which role the others have."""
    _good(probe)
    bag: list[x509.Certificate] = facts.bag(probe)
    return bags.examine(bag, bags.roots_of(bag), now=datetime.now(UTC))


CASES = (
    Case("status", "cacerts", Level.MUST, "RFC 7030 4.1.3", ("K2", "K1"),
         "GET /cacerts is answered with 200.", status),
    Case("form", "cacerts", Level.MUST, "RFC 7030 4.1.3, RFC 8951 3.2.1", ("K3", "X1"),
         "The body is base64 of a certs-only SignedData in DER.", form),
    Case("type", "cacerts", Level.MUST, "RFC 7030 4.1.3", ("K4", "U10"),
         "The type is application/pkcs7-mime.", type_),
    Case("root", "cacerts", Level.MUST, "RFC 7030 4.1.3", ("K5",),
         "The current root is among the certificates.", root),
    Case("chain", "cacerts", Level.MUST, "RFC 7030 4.1.3", ("K6",),
         "Every certificate between an issued one and the root is there.", chain, (Need.ISSUE, Need.LOGIN)),
    Case("rollover", "cacerts", Level.SHOULD, "RFC 7030 4.1.3, RFC 4210 4.4", ("K7", "K8"),
         "After a change of the CA's key, the three rollover certificates are there.", rollover),
    Case("open", "cacerts", Level.SHOULD, "RFC 7030 4.1.2", ("Z6",),
         "No credentials are needed.", open_),
)  # fmt: skip
