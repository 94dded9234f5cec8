"""/csrattrs (RFC 7030 4.5, RFC 9908)."""

from __future__ import annotations

from collections import Counter

from estgw.client import keys
from estgw.conform import checks, facts
from estgw.conform.case import Case
from estgw.conform.model import Level, failed, noted, skipped, warned
from estgw.conform.probe import Probe
from estgw.errors import Malformed
from estgw.est import csrattrs, oids
from estgw.est.csrattrs import EXTENSION_REQUEST, CsrAttrs
from estgw.est.der import SEQUENCE

TYPE = "application/csrattrs"
_NOTHING = (204, 404, 501)


def get(probe: Probe) -> str:
    """Q1."""
    reply = facts.attrs_reply(probe)
    if reply.status in (200, *_NOTHING):
        return str(reply.status)
    if reply.status in (401, 403):
        raise skipped(f"{reply}: see csrattrs.open")
    raise failed(f"{reply}; no attributes are 204 or 404")


def open_(probe: Probe) -> str:
    """Q2, Z6."""
    reply = probe.get("csrattrs")
    if reply.status in (401, 403):
        raise warned(f"{reply}: clients ask before they log in")
    return f"without credentials: {reply.status}"


def form(probe: Probe) -> str:
    """Q3."""
    found = _attributes(probe)
    return f"{len(found.items)} elements" + (", a template among them" if found.template is not None else "")


def nothing(probe: Probe) -> str:
    """Q4."""
    reply = facts.attrs_reply(probe)
    if reply.status == 204 and (reply.get("Content-Length") or "0") != "0":
        raise warned("204 with a Content-Length above 0; Bouncy Castle fails on it")
    if reply.status in (404, 501) and reply.body:
        raise warned(f"{reply.status} with a body; some clients want none here")
    if reply.status == 200:
        raise noted("the server has attributes")
    return f"{reply.status} and no body"


def extension_once(probe: Probe) -> str:
    """Q10."""
    requests = [each for each in _attributes(probe).attributes if each.oid == EXTENSION_REQUEST]
    if not requests:
        raise skipped("no extension is asked for outside a template")
    if len(requests) > 1:
        raise failed(f"{len(requests)} attributes of type extensionRequest")
    if len(requests[0].values) != 1 or requests[0].values[0][:1] != SEQUENCE:
        raise failed("the value set of extensionRequest is not one Extensions (RFC 7030's own example is wrong here)")
    try:
        counted = Counter(each.oid for each in csrattrs.extensions(requests))
    except Malformed as fault:
        raise failed(str(fault)) from None
    twice = [oids.name_of(oid) for oid, count in counted.items() if count > 1]
    if twice:
        raise failed(f"twice: {', '.join(twice)}")
    return f"one extensionRequest with {', '.join(map(oids.name_of, counted)) or 'nothing'}"


def key_once(probe: Probe) -> str:
    """Q11."""
    found = [each for each in _attributes(probe).attributes if each.oid in keys.KEY_OIDS]
    if not found:
        raise skipped("no kind of key is asked for outside a template")
    if len(found) > 1:
        raise failed(f"{len(found)} kinds of key: {', '.join(oids.name_of(each.oid) for each in found)}")
    if len(found[0].values) > 1:
        raise failed(f"{oids.name_of(found[0].oid)} with {len(found[0].values)} values")
    return f"one kind of key: {oids.name_of(found[0].oid)}"


def _attributes(probe: Probe) -> CsrAttrs:
    """The attributes of a 200; a FAIL when they are not what RFC 7030 4.5.2 says."""
    reply = facts.attrs_reply(probe)
    if reply.status != 200:
        raise skipped(f"the server has no CSR attributes: {reply.status}")
    if reply.type != TYPE:
        raise failed(f"Content-Type: {reply.get('Content-Type') or 'missing'}")
    try:
        found = csrattrs.decode_csrattrs(checks.der_of(reply))
        _ = found.template
    except Malformed as fault:
        raise failed(str(fault)) from None
    return found


CASES = (
    Case("get", "csrattrs", Level.MUST, "RFC 7030 4.5.2", ("Q1", "Q3", "Q4"),
         "GET /csrattrs is answered with 200, 204 or 404.", get),
    Case("open", "csrattrs", Level.SHOULD, "RFC 7030 4.5", ("Q2", "Z6"),
         "No credentials are needed.", open_),
    Case("form", "csrattrs", Level.MUST, "RFC 7030 4.5.2, RFC 8951 3.2.3", ("Q3", "Q12", "X1"),
         "A 200 is application/csrattrs, base64 of CsrAttrs in DER.", form),
    Case("nothing", "csrattrs", Level.SHOULD, "RFC 7030 4.5.2", ("Q4",),
         "A server without attributes answers 204 or 404 and no body.", nothing),
    Case("extension-once", "csrattrs", Level.MUST, "RFC 9908 3.2", ("Q10",),
         "One extensionRequest has one Extensions, with each extension once.", extension_once),
    Case("key-once", "csrattrs", Level.MUST, "RFC 9908 3.2", ("Q11",),
         "One kind of key is named, with at most one value.", key_once),
)  # fmt: skip
