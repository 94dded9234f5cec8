"""Tapes of requests that never were: what the pipeline would have noted."""

from __future__ import annotations

from pathlib import Path

from estgw.callout.call import Call
from estgw.callout.environment import environment_of
from estgw.callout.observer import Ran
from estgw.callout.process import Outcome
from estgw.callout.sources import version_of
from estgw.callout.verdicts import Kind
from estgw.record.gates import GATES
from estgw.record.tape import Connection, Head, Reply, Tape, Verdict
from tests.callout.calls import CERTIFICATE

HERE = Path(__file__)


def taped(call: Call, stdout: bytes = b"", stderr: bytes = b"") -> Tape:
    """The tape of a request that went through all gates, with the output of its handler."""
    http = call.http
    head = Head(http.method, http.target, headers=http.headers, length=len(http.body))
    connection = Connection(17, 2, call.client.address, call.client.port, at=1_790_000_000.25, handshake=0.0015)
    tape = Tape("0123456789", connection, head, at=1_790_000_001.125, began=100.0, label=call.route.label)
    tape.operation = call.route.operation.name
    tape.identified(call.client.tls, call.client)
    tape.marks = [(gate, 100.0 + number / 1000) for number, gate in enumerate(GATES)]
    tape.arrived = 100.0005
    tape.call = call
    tape.csr = call.csr.pkcs10 if call.csr else None
    for kind in (Kind.AUTHORIZE, Kind.HANDLER):
        outcome = Outcome(0, None, stdout if kind is Kind.HANDLER else b"", stderr)
        tape.callout(Ran(kind, HERE, "pool", environment_of(call), version_of(HERE), outcome, 0.0, 0.003))
    return tape


def verdict(body: bytes = b"MIIB") -> Verdict:
    """An answer with a certificate."""
    headers = (("Content-Type", "application/pkcs7-mime"), ("Server", "estgw"))
    return Verdict(200, reply=Reply(200, "OK", headers, body), issued=CERTIFICATE)
