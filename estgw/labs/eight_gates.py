"""Lab 2: a refusal by each of the eight gates."""

from __future__ import annotations

from functools import partial

from estgw.errors import Malformed
from estgw.est import csr
from estgw.labs import facts
from estgw.labs.evidence import Evidence
from estgw.labs.step import Finding, Lab, Step, judged
from estgw.record.gates import GATES, Gate
from estgw.record.ring import Record

_TODO = {
    Gate.TLS: "No handshake has failed yet.",
    Gate.PATH: "Nobody has asked for a path that does not exist yet.",
    Gate.PASSWORD: "Nobody has tried a wrong password yet.",
    Gate.REQUIRES: "Nobody has asked for a certificate without credentials yet.",
    Gate.CSR: "Nobody has sent a request that was changed after it was signed yet.",
    Gate.LINKING: "Nobody has sent a request with the binding of another connection yet.",
    Gate.AUTHORIZE: "The script authorize has refused nobody yet.",
    Gate.HANDLER: "The policy of the CA has refused nobody yet.",
}


def _is_meant_for(record: Record, wanted: Gate) -> bool:
    """Whether a request looks as if this gate was to refuse it."""
    sent = facts.asked(record) if record.get("operation") == "simpleenroll" else None
    if sent is None:
        return False
    match wanted:
        case Gate.CSR:
            return not _is_sound(sent)
        case Gate.LINKING:
            return csr.CHALLENGE_PASSWORD in sent.attributes
        case Gate.HANDLER:
            return "CN=" not in facts.subject(record)
        case _:
            return False


def _is_sound(sent: csr.CSR) -> bool:
    try:
        csr.verify(sent)
    except Malformed:
        return False
    return True


def _refused(wanted: Gate, evidence: Evidence) -> Finding:
    def fault(record: Record) -> str:
        found = facts.gate(record)
        if found == wanted.value:
            return ""
        return f"The request was not refused by the gate {wanted.value}: {facts.refusal(record)}"

    tries = [each for each in evidence.records if facts.gate(each) == wanted.value or _is_meant_for(each, wanted)]
    return judged(tries, fault, f"The gate {wanted.value} has refused.", _TODO[wanted])


LAB = Lab(2, tuple(Step(gate.value, partial(_refused, gate)) for gate in GATES))
