"""Lab 5: a stolen request is accepted until requests are linked to their connections."""

from __future__ import annotations

from estgw.est.csr import CHALLENGE_PASSWORD
from estgw.labs import facts
from estgw.labs.evidence import Evidence
from estgw.labs.step import Finding, Lab, Step, done, judged, not_yet, wrong
from estgw.record.ring import Record

VICTIM = "CN=lab5-victim"


def _digest(record: Record) -> str:
    sent = facts.asked(record)
    return sent.sha256 if sent else ""


def _is_linked(record: Record) -> bool:
    """Whether the request has a channel binding, right or wrong."""
    sent = facts.asked(record)
    return sent is not None and CHALLENGE_PASSWORD in sent.attributes


def _connection(record: Record) -> object:
    return record["connection"].get("number"), record["connection"].get("at")


def _stolen(evidence: Evidence) -> Finding:
    sent = [
        each
        for each in evidence.of("simpleenroll")
        if facts.issued(each) and facts.subject(each) == VICTIM and not _is_linked(each)
    ]
    for number, first in enumerate(sent):
        for second in sent[number + 1 :]:
            if _digest(first) == _digest(second) and _connection(first) != _connection(second):
                return done("The same request was accepted on two connections: nobody noticed the thief.")
    if len({_digest(each) for each in sent}) > 1:
        return wrong("The thief has made a request of his own; he has to send the file of the victim.")
    if len(sent) > 1:
        return wrong("Both went through one connection; the thief has one of his own.")
    return not_yet(f"Nobody has sent the request for {VICTIM} twice yet.")


def _own(evidence: Evidence) -> list[Record]:
    """Requests that were linked to their own connection."""
    return [each for each in evidence.of("simpleenroll") if (each.get("binding") or {}).get("result") == "linked"]


def _linked(evidence: Evidence) -> Finding:
    return done("A linked request was accepted on its own connection.") if _own(evidence) else not_yet(
        "No request with the binding of its own connection has come yet."
    )  # fmt: skip


def _thief(evidence: Evidence) -> Finding:
    own = {_digest(each): _connection(each) for each in _own(evidence)}
    tries = [
        each for each in evidence.of("simpleenroll") if _digest(each) in own and _connection(each) != own[_digest(each)]
    ]
    return judged(
        tries,
        lambda each: "" if facts.gate(each) == "linking" else f"It did not come to linking: {facts.refusal(each)}",
        "The linked request was refused on the thief's connection.",
        "Nobody has sent the linked request on another connection yet.",
    )


def _required(evidence: Evidence) -> Finding:
    tries = [
        each
        for each in evidence.of("simpleenroll")
        if (each.get("binding") or {}).get("required") and facts.asked(each) and not _is_linked(each)
    ]
    return judged(
        tries,
        lambda each: "" if facts.gate(each) == "linking" else f"It did not come to linking: {facts.refusal(each)}",
        "A request without a binding is refused where linking is required.",
        "Nobody has sent a request without a binding where linking is required yet.",
    )


LAB = Lab(
    5,
    (
        Step("theft", _stolen),
        Step("linked", _linked),
        Step("theft refused", _thief),
        Step("required", _required),
    ),
)
