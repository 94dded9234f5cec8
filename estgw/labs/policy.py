"""Lab 3: a policy of one's own; recorded requests are replayed with it."""

from __future__ import annotations

from estgw.est import names
from estgw.labs import facts
from estgw.labs.evidence import Evidence
from estgw.labs.step import Finding, Lab, Step, done, not_yet, wrong
from estgw.record.folder import RecordError
from estgw.record.ring import Record

INSIDE, OUTSIDE = "lab3.example.org", "lab3.example.net"
SHIPPED = "not ours to certify"
"""How the words of the shipped line begin."""

_YES, _NO, _HIDDEN = "a name inside", "a name outside", "a name outside, beside one inside"
_WANTED = {
    _YES: (f"CN={INSIDE}", ()),
    _NO: (f"CN={OUTSIDE}", ()),
    _HIDDEN: (f"CN={INSIDE}", (f"DNS:{OUTSIDE}",)),
}


def _given(evidence: Evidence) -> dict[str, Record]:
    """The last request of each kind that got as far as the scripts."""
    found = {}
    for record in evidence.of("simpleenroll"):
        sent = facts.asked(record)
        if sent is None or facts.gate(record) not in ("", "authorize", "handler"):
            continue
        asked = (names.dn_text(sent.subject), tuple(names.san_text(each) for each in sent.san or ()))
        found.update({kind: record for kind, wanted in _WANTED.items() if asked == wanted})
    return found


def _requests(evidence: Evidence) -> Finding:
    missing = [kind for kind in _WANTED if kind not in _given(evidence)]
    return not_yet(f"Not sent yet: {'; '.join(missing)}.") if missing else done("All three requests were sent.")


def _outcome(evidence: Evidence, kind: str) -> Record | Finding:
    """The replay of that request, or why there is none."""
    record = _given(evidence).get(kind)
    if record is None:
        return not_yet("The request for this was not sent yet.")
    try:
        made = evidence.replay(record)
    except RecordError as fault:
        return not_yet(f"The request can't be replayed; send it again: {fault}.")
    if (facts.status(made) or 500) >= 500:
        return wrong(f"The script fails: {made['outcome'].get('reason') or facts.refusal(made)}".splitlines()[0])
    return made


def _allowed(evidence: Evidence) -> Finding:
    made = _outcome(evidence, _YES)
    if isinstance(made, Finding):
        return made
    if facts.status(made) != 200:
        return wrong(f"{INSIDE} is refused as well: {facts.words(made) or facts.refusal(made)}")
    if _is_open(evidence):
        return not_yet("The policy refuses nothing yet.")
    return done(f"{INSIDE} gets a certificate.")


def _is_open(evidence: Evidence) -> bool:
    """Whether today's scripts still let a name outside pass."""
    made = _outcome(evidence, _NO)
    return not isinstance(made, Finding) and facts.status(made) == 200


def _outside(evidence: Evidence) -> Finding:
    made = _outcome(evidence, _NO)
    if isinstance(made, Finding):
        return made
    return not_yet(f"{OUTSIDE} still gets a certificate.") if _is_open(evidence) else done(f"{OUTSIDE} is refused.")


def _hidden(evidence: Evidence) -> Finding:
    made = _outcome(evidence, _HIDDEN)
    if isinstance(made, Finding):
        return made
    if facts.status(made) != 200:
        return done(f"{OUTSIDE} is refused as an alternative name, too.")
    if _is_open(evidence):
        return not_yet("The policy refuses nothing yet.")
    return wrong(f"{OUTSIDE} still gets a certificate as an alternative name: the policy looks at the subject alone.")


def _words(evidence: Evidence) -> Finding:
    made = _outcome(evidence, _NO)
    if isinstance(made, Finding):
        return made
    if facts.status(made) == 200:
        return not_yet("Nobody was refused yet.")
    words = facts.words(made)
    if not words:
        return wrong("The client reads nothing: print a sentence, or call refuse with one.")
    if words.startswith(SHIPPED):
        return wrong("Those are the words of the shipped line; write your own.")
    return done(f"The client reads: {words.splitlines()[0][:200]}")


LAB = Lab(
    3,
    (
        Step("requests", _requests),
        Step("inside", _allowed),
        Step("outside", _outside),
        Step("alternative name", _hidden),
        Step("own words", _words),
    ),
)
