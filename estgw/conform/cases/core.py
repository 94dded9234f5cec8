"""Paths, methods and labels (RFC 7030 3.2.2)."""

from __future__ import annotations

from estgw.client.transport import url
from estgw.conform import checks, facts
from estgw.conform.case import Case
from estgw.conform.http import Reply
from estgw.conform.model import Level, Need, failed, noted, skipped, warned
from estgw.conform.probe import JUNK, Form, Probe
from estgw.est.operations import PREFIX

_ABSENT = (404, 501)
_MANDATORY = ("simpleenroll", "simplereenroll")


def prefix(probe: Probe) -> str:
    """U1."""
    reply = facts.cacerts(probe)
    checks.no_redirect(reply)
    if reply.status != 200:
        raise failed(f"GET {probe.target('cacerts')}: {reply}")
    return f"GET {probe.target('cacerts')}: 200"


def mandatory(probe: Probe) -> str:
    """U2."""
    missing = [] if facts.cacerts(probe).status not in _ABSENT else ["cacerts"]
    seen = []
    for operation in _MANDATORY:
        reply = _junk(probe, operation)
        seen.append(f"{operation}: {reply.status}")
        if reply.status in (*_ABSENT, 405):
            missing.append(f"{operation} ({reply.status})")
    if missing:
        raise failed(f"not there: {', '.join(missing)}")
    return ", ".join(["cacerts", *seen])


def optional(probe: Probe) -> str:
    """U3."""
    offered = {"csrattrs": facts.attrs_reply(probe).status not in _ABSENT}
    offered |= {each: is_offered(probe, each) for each in ("serverkeygen", "fullcmc")}
    there = [each for each, is_there in offered.items() if is_there]
    absent = [each for each, is_there in offered.items() if not is_there]
    raise noted(f"offered: {', '.join(there) or 'none'}; not offered: {', '.join(absent) or 'none'}")


def is_offered(probe: Probe, operation: str) -> bool:
    """Whether an optional operation answers anything but 404 and 501 (RFC 7030 4.3.2)."""
    return probe.once(f"offers {operation}", lambda probe: _junk(probe, operation)).status not in _ABSENT


def label(probe: Probe) -> str:
    """U4."""
    reply = facts.cacerts(probe)
    if reply.status != 200:
        raise failed(f"GET {probe.target('cacerts')}: {reply}")
    other = _unlabelled(probe, "estgw-conform-no-such-label")
    if other.is_success:
        raise warned(f"a label that should not exist is served too: {other.status}")
    return f"the label is served; an unknown one is {other.status}"


def no_label(probe: Probe) -> str:
    """U6."""
    reply = _unlabelled(probe, None)
    if reply.status in (200, 401, 403):
        return f"GET {PREFIX}/cacerts: {reply.status}"
    raise failed(f"GET {PREFIX}/cacerts, without a label: {reply}")


def methods(probe: Probe) -> str:
    """U7."""
    with probe.line() as line:
        got = line.ask("GET", probe.target("simpleenroll"), {})
    with probe.line() as line:
        posted = line.ask("POST", probe.target("cacerts"), {"Content-Type": "application/pkcs10"}, b"MAA=")
    for what, reply in (("GET simpleenroll", got), ("POST cacerts", posted)):
        if reply.is_success:
            raise failed(f"{what}: {reply}")
    for what, reply in (("GET simpleenroll", got), ("POST cacerts", posted)):
        if reply.status == 401:
            continue  # authentication before all else is the server's right
        if reply.status != 405:
            raise warned(f"{what}: {reply}; 405 says what is wrong")
        if not reply.get("Allow"):
            raise warned(f"{what}: 405 without the Allow header that RFC 9110 15.5.6 wants")
    return f"GET simpleenroll: {got.status}, POST cacerts: {posted.status}"


def unknown(probe: Probe) -> str:
    """U12."""
    with probe.line() as line:
        reply = line.ask("GET", f"{probe.setup.place.base}/estgw-conform-no-such-operation", {})
    if reply.status not in (404, 501, 401):
        raise warned(f"an operation that does not exist: {reply}; clients read 404 or 501 as not implemented")
    return f"an operation that does not exist: {reply.status}"


def _junk(probe: Probe, operation: str) -> Reply:
    """What an operation answers to an empty SEQUENCE; with a login, since a 401 hides whether it exists."""
    types = {"fullcmc": {"Content-Type": "application/pkcs7-mime; smime-type=CMC-request"}}
    return probe.post(lambda _: JUNK, Form(operation, headers=types.get(operation, {})))


def _unlabelled(probe: Probe, other: str | None) -> Reply:
    """GET /cacerts without the label, or with another one."""
    place = url.parse(f"https://{probe.setup.place.authority}", other)
    with probe.line() as line:
        reply = line.ask("GET", place.path("cacerts"), {})
    if reply.status in (301, 302, 307, 308):
        raise skipped(f"a redirect to {reply.get('Location')}")
    return reply


CASES = (
    Case("prefix", "core", Level.MUST, "RFC 7030 3.2.2", ("U1",),
         "GET /.well-known/est/cacerts is answered with 200.", prefix),
    Case("mandatory", "core", Level.MUST, "RFC 7030 3.2.2", ("U2", "E1", "K1"),
         "cacerts, simpleenroll and simplereenroll exist: they answer neither 404, 405 nor 501.", mandatory),
    Case("optional", "core", Level.INFO, "RFC 7030 3.2.2", ("U3",),
         "csrattrs, serverkeygen and fullcmc are the server's choice; absent means 404 or 501.", optional),
    Case("label", "core", Level.MUST, "RFC 7030 3.2.2", ("U4",),
         "The operations are served under the label, and an unknown label is not.", label, (Need.LABEL,)),
    Case("no-label", "core", Level.MUST, "RFC 7030 3.2.2", ("U6",),
         "Requests without a label are answered beside those with one.", no_label, (Need.LABEL,)),
    Case("methods", "core", Level.MUST, "RFC 7030 3.2.2", ("U7",),
         "GET of simpleenroll and POST to cacerts are refused, with 405 and Allow.", methods),
    Case("unknown", "core", Level.SHOULD, "RFC 7030 3.2.2, 4.3.2", ("U12", "U11"),
         "An operation that does not exist is a 404.", unknown),
)  # fmt: skip
