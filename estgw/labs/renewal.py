"""Lab 4: a password that works once, then renewals with the certificate."""

from __future__ import annotations

from estgw.labs import facts
from estgw.labs.evidence import Evidence
from estgw.labs.step import Finding, Lab, Step, done, judged, not_yet, wrong
from estgw.record.ring import Record

PREFIX = "CN=lab4-"


def _enrolments(evidence: Evidence) -> list[Record]:
    return [each for each in evidence.of("simpleenroll") if facts.subject(each).startswith(PREFIX)]


def _user(record: Record) -> str:
    return str((record.get("auth") or {}).get("user") or "")


def _firsts(evidence: Evidence) -> list[Record]:
    return [each for each in _enrolments(evidence) if facts.issued(each) and _user(each)]


def _first(evidence: Evidence) -> Finding:
    return judged(
        [each for each in _enrolments(evidence) if _user(each)],
        lambda each: "" if facts.issued(each) else f"The password got no certificate: {facts.refusal(each)}",
        "The password has got a certificate.",
        f"Nobody has enrolled {PREFIX}… with a password yet.",
    )


def _second(evidence: Evidence) -> Finding:
    twice = ""
    for first in _firsts(evidence):
        later = evidence.records[evidence.records.index(first) + 1 :]
        again = [each for each in later if _user(each) == _user(first) and each.get("label") == first.get("label")]
        if any(facts.gate(each) == "password" for each in again):
            return done("The second try with the same password was refused.")
        if any(facts.issued(each) for each in again):
            twice = _user(first)
    if twice:
        return wrong(f"The password of {twice} worked twice: this label asks no one-time-password script.")
    return not_yet("Nobody has used the same password again yet.")


def _renewals(evidence: Evidence) -> list[Record]:
    return [
        each
        for each in evidence.of("simplereenroll")
        if facts.subject(each).startswith(PREFIX) or facts.tls_subject(each).startswith(PREFIX)
    ]


def _kinds(evidence: Evidence) -> list[str]:
    """`renew` or `rekey` for each that got a certificate."""
    return [facts.handler_variable(each, "EST_REENROLL") for each in _renewals(evidence) if facts.issued(each)]


def _refused(evidence: Evidence) -> Finding | None:
    tries = _renewals(evidence)
    if not tries or facts.issued(tries[-1]):
        return None
    return wrong(f"The last renewal got no certificate: {facts.refusal(tries[-1])}")


def _renew(evidence: Evidence) -> Finding:
    if "renew" in _kinds(evidence):
        return done("The certificate was renewed with the same key.")
    return _refused(evidence) or not_yet("Nobody has renewed the certificate with its own key yet.")


def _rekey(evidence: Evidence) -> Finding:
    kinds = _kinds(evidence)
    if "rekey" in kinds:
        return done("A new key got the names of the old certificate.")
    if kinds.count("renew") > 1:
        return wrong("The request has the old key again: make a new one, and log in with the old certificate.")
    return _refused(evidence) or not_yet("Nobody has asked for a certificate for a new key yet.")


LAB = Lab(
    4,
    (
        Step("password", _first),
        Step("second use", _second),
        Step("renew", _renew),
        Step("rekey", _rekey),
    ),
)
