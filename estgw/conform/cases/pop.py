"""Linking identity and proof of possession (RFC 7030 3.5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from estgw.client.request import string
from estgw.conform import checks, csrs, facts
from estgw.conform.case import Case
from estgw.conform.csrs import Linking
from estgw.conform.http import Reply
from estgw.conform.model import Level, Need, failed, noted, skipped, warned
from estgw.conform.probe import Form, Probe
from estgw.errors import Malformed
from estgw.est import csr, csrattrs, encoding
from estgw.est.binding import Binding
from estgw.est.csrattrs import AttributeWish
from estgw.est.der import wrap

_MUST_READ = {"PrintableString": (b"\x13", "ascii"), "UTF8String": (b"\x0c", "utf-8")}
_MAY_READ = {
    "TeletexString": (b"\x14", "latin-1"),
    "BMPString": (b"\x1e", "utf-16-be"),
    "UniversalString": (b"\x1c", "utf-32-be"),
    "IA5String": (b"\x16", "ascii"),
}


def right_12(probe: Probe) -> str:
    """POP1, POP5."""
    reply = _right(probe)
    if reply.status != 200:
        raise failed(f"tls-unique of this connection in challengePassword: {reply}")
    return "tls-unique of this connection: 200"


def right_13(probe: Probe) -> str:
    """RFC 9266: no RFC names a binding for EST over HTTPS with TLS 1.3."""
    reply = _send(probe, None, "1.3")
    if reply.status != 200:
        raise noted(f"tls-exporter (RFC 9266) of this connection: {reply}")
    return "tls-exporter of this connection: 200"


def one_off(probe: Probe) -> str:
    """POP3."""
    return _refused(
        probe, lambda text: ("B" if text[0] == "A" else "A") + text[1:], "one character of the binding is off"
    )


def other_connection(probe: Probe) -> str:
    """POP3."""
    with probe.line("1.2") as other:
        foreign = other.binding
    assert foreign is not None
    return _refused(probe, lambda _: foreign.text, "the binding is another connection's")


def empty(probe: Probe) -> str:
    """POP3."""
    return _refused(probe, lambda _: "", "the challengePassword is empty")


def not_base64(probe: Probe) -> str:
    """POP3."""
    return _refused(probe, lambda _: "estgw-conform: no base64", "the challengePassword is no base64")


def string_types(probe: Probe) -> str:
    """POP6."""
    replies = {name: _send(probe, _as(tag, codec), "1.2") for name, (tag, codec) in _MUST_READ.items()}
    wrong = [f"the right binding as {name}: {reply}" for name, reply in replies.items() if reply.status != 200]
    if len(wrong) == len(replies):
        raise skipped("the right binding is not taken: see pop.right-1.2")
    if wrong:
        raise failed("; ".join(wrong))
    found = []
    for name, (tag, codec) in _MAY_READ.items():
        reply = _send(probe, _as(tag, codec), "1.2")
        if reply.status >= 500 or (reply.status != 200 and name != "IA5String"):
            found.append(f"the right binding as {name}: {reply}")
    return checks.faults(found, "read in every DirectoryString form")


def advertised(probe: Probe) -> str:
    """POP4, POP7."""
    alone = facts.enrol(probe, replace(facts.wish(probe), linking=csrs.unlinked), Form(version="1.2"))
    if alone.reply.status in (200, 202):
        raise skipped("linking is optional here: a CSR without it is taken")
    _require_right(probe)
    reply = facts.attrs_reply(probe)
    try:
        found = csrattrs.decode_csrattrs(encoding.decode(reply.body, ())) if reply.status == 200 else None
        wanted = () if found is None else found.attributes if found.template is None else found.template.attributes
        listed = {*(() if found is None else found.oids), *(each.oid for each in wanted)}
    except Malformed as fault:
        raise failed(f"linking is required, and /csrattrs can't be read: {fault}") from None
    if not listed & {csr.CHALLENGE_PASSWORD, csr.EST_IDENTITY_LINKING}:
        raise failed("linking is required, and /csrattrs lists neither challengePassword nor estIdentityLinking")
    if not alone.reply.answer.words:
        raise warned(f"a CSR without the binding: {alone.reply.status}, without a reason")
    return f"required and advertised; without it: {alone.reply}"


def foreign_by_ra(probe: Probe) -> str:
    """POP9, Z5."""
    identity = probe.setup.ra
    assert identity is not None
    with probe.line(probe.way.version) as other:
        foreign = other.binding
    assert foreign is not None
    wish = replace(facts.wish(probe), linking=csrs.challenge(string(foreign.text)))
    reply = facts.enrol(probe, wish, Form(identity=identity)).reply
    if reply.status != 200:
        raise noted(f"an RA's request with another connection's binding: {reply}")
    return "an RA's request with another connection's binding: 200"


def _send(probe: Probe, linking: Linking | None, version: str) -> Reply:
    return facts.enrol(probe, replace(facts.wish(probe), linking=linking), Form(version=version)).reply


def _right(probe: Probe) -> Reply:
    return probe.once("right binding", lambda probe: _send(probe, None, "1.2"))


def _require_right(probe: Probe) -> None:
    """A refusal of a wrong binding proves nothing where the right one is refused too."""
    if _right(probe).status != 200:
        raise skipped("the right binding is not taken: see pop.right-1.2")


def _refused(probe: Probe, change: Callable[[str], str], what: str) -> str:
    _require_right(probe)

    def linking(binding: Binding | None) -> AttributeWish | None:
        assert binding is not None
        return AttributeWish(csr.CHALLENGE_PASSWORD, (string(change(binding.text)),))

    return checks.refused(_send(probe, linking, "1.2"), what)


def _as(tag: bytes, codec: str) -> Linking:
    def linking(binding: Binding | None) -> AttributeWish | None:
        assert binding is not None
        return AttributeWish(csr.CHALLENGE_PASSWORD, (wrap(tag, binding.text.encode(codec)),))

    return linking


_ALL = (Need.ISSUE, Need.LOGIN, Need.TLS12)
CASES = (
    Case("right-1.2", "pop", Level.MUST, "RFC 7030 3.5, RFC 5929 3.1", ("POP1", "POP3", "POP5"),
         "A CSR with tls-unique of its connection is answered with a certificate.", right_12, _ALL),
    Case("right-1.3", "pop", Level.INFO, "RFC 9266 2", ("POP1",),
         "What a CSR with tls-exporter of its connection gets is the server's choice.", right_13,
         (Need.ISSUE, Need.LOGIN, Need.TLS13)),
    Case("one-off", "pop", Level.MUST, "RFC 7030 3.5", ("POP3",),
         "A CSR whose binding is off by one character is refused.", one_off, _ALL),
    Case("other-connection", "pop", Level.MUST, "RFC 7030 3.5", ("POP3",),
         "A CSR with the binding of another connection is refused.", other_connection, _ALL),
    Case("empty", "pop", Level.MUST, "RFC 7030 3.5", ("POP3",),
         "A CSR with an empty challengePassword is refused.", empty, _ALL),
    Case("not-base64", "pop", Level.MUST, "RFC 7030 3.5", ("POP3",),
         "A CSR whose challengePassword is no base64 is refused.", not_base64, _ALL),
    Case("string-types", "pop", Level.MUST, "RFC 2985 5.4.1", ("POP6",),
         "The right binding is taken as PrintableString and as UTF8String.", string_types, _ALL),
    Case("advertised", "pop", Level.MUST, "RFC 7030 4.5.2", ("POP4", "POP7", "Q8"),
         "Where linking is required, /csrattrs says so.", advertised, _ALL),
    Case("foreign-by-ra", "pop", Level.INFO, "RFC 7030 3.7", ("POP9", "Z5"),
         "An RA may send CSRs that were linked to its own connections.", foreign_by_ra, (Need.ISSUE, Need.RA)),
)  # fmt: skip
