"""Lab 6: an RA enrols two devices, and a person approves."""

from __future__ import annotations

from estgw.labs import facts
from estgw.labs.evidence import Evidence
from estgw.labs.step import Finding, Lab, Step, done, judged, not_yet, wrong
from estgw.record.ring import Record

PREFIX = "CN=lab6-"
DEVICES = 2


def _requests(evidence: Evidence) -> list[Record]:
    return [each for each in evidence.of("simpleenroll") if facts.subject(each).startswith(PREFIX)]


def _is_ra(record: Record) -> bool:
    return bool((record.get("tls") or {}).get("is_ra"))


def _ra(evidence: Evidence) -> Finding:
    def fault(record: Record) -> str:
        if _is_ra(record):
            return ""
        shown = facts.tls_subject(record)
        if not shown:
            return "The request came without a certificate in TLS: the RA logs in with its own."
        return f"{shown} is no RA here ({record['tls']['verify']}): its certificate has to be made with --profile ra."

    return judged(
        [each for each in _requests(evidence) if facts.gate(each) != "requires"] or _requests(evidence),
        fault,
        "An RA has sent a request.",
        f"Nobody has sent a request for {PREFIX}… yet.",
    )


def _by_device(evidence: Evidence, status: int) -> dict[str, set[str]]:
    """The keys that each device of an RA has asked with, where the answer had that status."""
    found: dict[str, set[str]] = {}
    for record in _requests(evidence):
        sent = facts.asked(record)
        if sent and _is_ra(record) and facts.status(record) == status:
            found.setdefault(facts.subject(record), set()).add(sent.spki_sha256)
    return found


def _waits(evidence: Evidence) -> Finding:
    waiting = _by_device(evidence, 202)
    if len(waiting) >= DEVICES:
        return done("The requests of two devices were told to come back (202).")
    if not waiting and _by_device(evidence, 200):
        return wrong("The request was issued at once: this label has no handler that waits for a person.")
    return not_yet(f"{len(waiting)} of {DEVICES} devices wait for a person or did.")


def _issued(evidence: Evidence) -> Finding:
    waiting, issued = _by_device(evidence, 202), _by_device(evidence, 200)
    whole = [device for device, used in issued.items() if used & waiting.get(device, set())]
    if len(whole) >= DEVICES:
        return done("Both devices have a certificate for the key that a person approved.")
    for device, used in waiting.items():
        if device not in whole and len(used) > 1:
            return wrong(f"{device} came back with another key, which is another request: send the same file again.")
    refused = [each for each in _requests(evidence) if _is_ra(each) and facts.status(each) == 403]
    if refused and facts.subject(refused[-1]) not in whole:
        return wrong(f"{facts.subject(refused[-1])} was refused: {facts.words(refused[-1])}")
    return not_yet(f"{len(whole)} of {DEVICES} devices have their certificate.")


LAB = Lab(6, (Step("RA", _ra), Step("waiting", _waits), Step("issued", _issued)))
