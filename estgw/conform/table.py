"""All cases in the order in which they run, and the choice of some of them."""

from __future__ import annotations

from collections.abc import Sequence

from estgw.client.faults import UsageError, clean
from estgw.conform import handshake
from estgw.conform.case import Case
from estgw.conform.cases import cacerts, cmc, core, csrattrs, enroll, hostile, http, keygen, pop, reenroll, tls
from estgw.conform.model import Need, Setup
from estgw.conform.probe import Probe

_GROUPS = (core, tls, http, cacerts, enroll, reenroll, pop, csrattrs, keygen, cmc, hostile)
CASES: tuple[Case, ...] = tuple(case for group in _GROUPS for case in group.CASES)
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(case.group for case in CASES))

UNTESTABLE = {
    "T9": "whether the server's anchors can be configured is not visible from outside",
    "POP8": "what the back end is told of the outcome is not visible from outside",
    "U5": "which labels a server refuses to be configured with is not visible from outside",
    "E23": "a request that waits, sent again with another signature, needs a person who approves it meanwhile",
    "F10": "a message that waits needs a person who approves it meanwhile",
    "POP10": "RFC 7894's other attributes need secrets that this CA has given out",
    "POP12": "RFC 7894's other attributes need secrets that this CA has given out",
    "POP13": "a binding in a serverkeygen request: nothing tells a server that ignores it from one that verifies it",
    "T15": "suites without certificates (TLS-SRP) are not offered by any library that this program can use",
    "Q7": "what a CA insists on can't be told from what it merely likes without knowing its policy",
    "E9": "an enrolment for new names needs a maker's certificate that the server trusts for it",
    "K14": "an order that means nothing can't be told from one that means something",
    "F9": "clients get the anchors from /cacerts; a server may publish them in CMC, and need not",
    "X4": "BRSKI has paths of its own",
    "Q13": "a server may refuse a CSR that follows its wishes, so a refusal proves nothing",
    "T14": "suites without certificates (TLS-SRP) are not offered by any library that this program can use",
    "Q9": "how a CA would like its wishes to be understood is not visible from outside",
}
"""Rows about servers that no case tests, and why."""


def select(only: Sequence[str], skip: Sequence[str]) -> list[Case]:
    """The cases that `--only` and `--skip` leave, in order; both take groups and cases.  Raises `UsageError`."""
    known = {*GROUPS, *(case.id for case in CASES)}
    for word in (*only, *skip):
        if word not in known:
            near = ", ".join(sorted(each for each in known if each.endswith(f".{word}")))
            raise UsageError(
                f"there is no group or case {clean(word, 80)!r}; {near or 'estgw conform --list'} names them all"
            )
    chosen = [case for case in CASES if not only or case.group in only or case.id in only]
    return [case for case in chosen if case.group not in skip and case.id not in skip]


def missing(need: Need, setup: Setup, probe: Probe) -> str | None:
    """What is missing for a case, in words that name the option; None when nothing is."""
    match need:
        case Need.ISSUE:
            return "it gets a certificate issued, and --read-only was given" if setup.is_read_only else None
        case Need.PASSWORD:
            return _password(probe)
        case Need.LOGIN:
            return None if setup.identity is not None else _password(probe)
        case Need.LABEL:
            return None if setup.label is not None else "it needs --label LABEL"
        case Need.RA:
            return None if setup.ra is not None else "it needs --ra-cert FILE --ra-key FILE"
        case Need.OTHER:
            return None if setup.other is not None else "it needs --other-cert FILE --other-key FILE, of another CA"
        case Need.SECRET:
            known = "it needs --decrypt-key or --decrypt-cert, with a key that the server can encrypt to"
            return None if setup.secret.is_wanted else known
    return _of_the_server(need, probe)


def _password(probe: Probe) -> str | None:
    if not probe.login.is_given:
        return "it needs -p USER:PASSWORD" + ("" if probe.setup.identity is None else "; --cert is not enough")
    return None if probe.login.is_usable else "the server has refused the password of -p"


def _of_the_server(need: Need, probe: Probe) -> str | None:
    """What the server itself lacks."""
    match need:
        case Need.DIGEST:
            return None if probe.login.offers_digest else "the server does not offer Digest"
        case Need.KEYGEN:
            return None if core.is_offered(probe, "serverkeygen") else "the server does not offer serverkeygen"
        case Need.CMC:
            return None if core.is_offered(probe, "fullcmc") else "the server does not offer fullcmc"
        case Need.TLS12:
            return None if "1.2" in handshake.versions(probe) else "the server does not speak TLS 1.2"
        case _:
            return None if "1.3" in handshake.versions(probe) else "the server does not speak TLS 1.3"
