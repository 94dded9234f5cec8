"""Between a request as aiohttp has it and its record: the tape, the verdict, and the hint of a refusal."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from estgw.auth.pop import LINKING_ATTRIBUTES
from estgw.errors import Malformed
from estgw.gateway.pipeline import Pipeline
from estgw.record import explain as hints
from estgw.record.explain import Bindings, Facts
from estgw.record.gates import Gate
from estgw.record.recorder import Recorder
from estgw.record.tape import Connection, Head, Reply, Tape, Verdict
from estgw.tls.adapter import TLSObject, tls_object

_NOBODY = ("", 0)
SAID_BY_THE_ANSWER = "the answer of the script refuses"
"""The reason where a script has printed the whole answer, such as a PKI Response that rejects."""


def begin(request: web.BaseRequest, request_id: str) -> Tape:
    """The tape of a request that has just arrived."""
    tape = Tape(request_id, _connection(request.transport))
    tape.enter(Gate.TLS)
    return tape


def _head(request: web.BaseRequest) -> Head:
    return Head(
        method=request.method,
        target=request.raw_path,
        version=f"HTTP/{request.version.major}.{request.version.minor}",
        headers=tuple(request.headers.items()),
        length=request.content_length,
    )


def unreadable(recorder: Recorder, transport: asyncio.BaseTransport | None, request_id: str, said: Verdict) -> None:
    """Record input that is not HTTP."""
    tape = Tape(request_id, _connection(transport))
    tape.enter(Gate.TLS)
    tape.enter(Gate.PATH)
    recorder.keep(tape, lambda: said)


def _connection(transport: asyncio.BaseTransport | None) -> Connection:
    tls = tls_object(transport) if transport is not None else None
    if transport is None or tls is None:  # the client has gone
        return Connection(0, 0, *_NOBODY, at=time.time())
    tls.requests += 1
    peer = transport.get_extra_info("peername") or _NOBODY
    took = None if tls.established is None else tls.established - tls.began
    return Connection(tls.number, tls.requests, peer[0], peer[1], _began(tls), took)


def _began(tls: TLSObject) -> float:
    return time.time() - (time.monotonic() - tls.began)


def explain(exchange: Pipeline, reason: str, recorder: Recorder | None) -> None:
    """Put the reason of a refusal and the hint into the log line."""
    exchange.entry["reason"] = reason
    exchange.entry["hint"] = hint(exchange, reason, recorder.bindings if recorder else None)


def hint(exchange: Pipeline, reason: str, known: Bindings | None) -> str:
    """What to do next about the refusal of a request."""
    basic_only = exchange.route is not None and exchange.route.authenticate is not None
    offered = ("Basic",) if basic_only else exchange.state.passwords.schemes
    facts = Facts(exchange.entry.get("operation", "the operation"), offered, _provenance(exchange, known))
    return hints.hint(exchange.gate, reason, facts)


def _provenance(exchange: Pipeline, known: Bindings | None) -> str:
    """Where the channel binding in the CSR comes from, if it is refused."""
    call = exchange.call
    if exchange.gate is not Gate.LINKING or call is None or call.csr is None:
        return ""
    own, wanted = call.client.tls.bindings.values(), call.channel.binding
    for oid in LINKING_ATTRIBUTES:
        try:
            text = call.csr.pkcs10.text_attribute(oid)
        except Malformed:
            continue
        if text is not None and not (wanted and wanted.matches(text)):
            return hints.provenance(text, own, wanted.type if wanted else None, known)
    return ""


def keep(recorder: Recorder, exchange: Pipeline, request: web.BaseRequest, response: web.Response | None) -> None:
    """Record a request; no response means that the client has gone away."""
    tape = exchange.tape
    if tape is None:
        return

    def end() -> Verdict:
        tape.head = _head(request)
        tape.label, tape.operation = exchange.entry.get("label"), exchange.entry.get("operation")
        return verdict(exchange, response)

    recorder.keep(tape, end)


def verdict(exchange: Pipeline, response: web.Response | None) -> Verdict:
    """What came of a request."""
    reason, hint = exchange.entry.get("reason", ""), exchange.entry.get("hint")
    if response is None:
        return Verdict(None, None, "the client went away", None)
    refused = exchange.gate if reason or response.status >= 400 else None
    return Verdict(response.status, refused, reason, hint, reply(response), exchange.issued)


def reply(response: web.Response) -> Reply:
    """An answer as plain facts."""
    body = response.body if isinstance(response.body, bytes) else b""
    return Reply(response.status, response.reason or "", tuple(response.headers.items()), body)


def note_failure(recorder: Recorder | None, peer: str, reason: str, tls: TLSObject | None) -> str:
    """Record a failed handshake, if there is a recorder; returns the hint."""
    text = hints.hint(Gate.TLS, reason)
    if recorder is not None:
        host, _, port = peer.rpartition(":")
        number, at = (tls.number, _began(tls)) if tls else (0, time.time())
        recorder.failed(Connection(number, 0, host.strip("[]"), int(port), at), reason, text)
    return text


def remember_bindings(recorder: Recorder, tls: TLSObject) -> None:
    """Remember the channel bindings of a connection whose handshake is over."""
    recorder.bindings.add(tls.number, tls.info.bindings.values())
