"""A request without its secrets, before anybody has looked at it.

A draft is made when the answer is ready, on the event loop, so it does little: it leaves the secrets out, and holds as
it is what takes time to describe.  `build` makes the record of it when somebody wants to see that.  A draft refers to
nothing that has a secret, such as a `Call`, a `Route` or the credentials that a client claims.
"""

from __future__ import annotations

import dataclasses
import marshal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.auth import http
from estgw.auth.credentials import Credentials
from estgw.callout.call import Call
from estgw.callout.observer import Ran
from estgw.callout.verdicts import Kind
from estgw.errors import Malformed, Unauthenticated
from estgw.est.csr import ATTRIBUTE_NAMES, CHALLENGE_PASSWORD, CSR, EST_IDENTITY_LINKING
from estgw.est.operations import OPERATIONS, Body, Requires
from estgw.record import describe, redact
from estgw.record.describe import CUT, milliseconds, moment
from estgw.record.digests import Digests
from estgw.record.folder import FORMAT
from estgw.record.gates import Gate
from estgw.record.redact import REMOVED, Redactor, Sent
from estgw.record.tape import Connection, Reply, Tape, Verdict
from estgw.tls.info import TLSInfo

_SCHEMES = {name.lower(): name for name in ("Basic", "Digest", "Bearer", "Negotiate", "NTLM")}
"""The schemes whose names are recorded: any other first word of an Authorization header may be a password."""


@dataclass(slots=True)
class Draft:
    """One request.  `values` are those of the record, without those that another field stands for."""

    id: str
    label: str | None
    values: dict[str, Any]
    tls: TLSInfo | None
    body: bytes | str | None
    """The request's, as much as a record has of it, or the text in its place."""
    csr: bytes | None
    """The CSR as DER; None if there is none, or it is described already."""
    answer: bytes
    """The body of the response, as much as a record has of it."""
    issued: x509.Certificate | None
    marks: list[tuple[str, float]]
    """When each gate was reached, by the monotonic clock."""
    idle: list[str]
    """Gates that had nothing to decide."""
    ended: float
    """When the answer was ready, by the monotonic clock."""

    def pack(self) -> Packed:
        """The same as one object."""
        issued = self.issued.public_bytes(Encoding.DER) if self.issued is not None else None
        parts = (self.values, self.body, self.csr, self.answer, issued, self.marks, self.idle, self.ended)
        return Packed(self.id, self.label, marshal.dumps(parts), self.tls)


class Packed(NamedTuple):
    """A draft in memory: one run of bytes, whose length is known, and which the collector of cycles need not visit."""

    id: str
    label: str | None
    content: bytes
    tls: TLSInfo | None

    def unpack(self) -> Draft:
        """The draft."""
        values, body, csr, answer, issued, marks, idle, ended = marshal.loads(self.content)  # noqa: S302 - our own
        certificate = x509.load_der_x509_certificate(issued) if issued is not None else None
        return Draft(
            id=self.id,
            label=self.label,
            values=values,
            tls=self.tls,
            body=body,
            csr=csr,
            answer=answer,
            issued=certificate,
            marks=marks,
            idle=idle,
            ended=ended,
        )


def draft(
    tape: Tape, verdict: Verdict, digests: Digests, ended: float | None = None, *, for_thread: bool = False
) -> Draft:
    """What a request leaves.

    `ended` is when the answer was ready, by the monotonic clock.  A thread must not parse: cryptography warns of odd
    names, and warnings are silenced for all threads.  So `for_thread` the CSR is described now, and the certificate in
    the answer is read.
    """
    end = time.monotonic() if ended is None else ended
    head, call, csr, client = tape.head, tape.call, tape.csr, tape.client
    given = tuple(head.headers) if head else ()
    sent = Sent(head.target if head else "", given, call.http.body if call else b"", csr.der if csr else None)
    redactor = Redactor(call, sent, [ran.environment for ran in tape.callouts])
    # Words of a script may quote a secret.  Our own do not, and a password may be a word in them, such as "wrong".
    reason, hint = verdict.reason, verdict.hint
    if tape.callouts:
        reason, hint = redactor.text(reason), redactor.text(hint) if hint else None
    is_described = for_thread or redactor.has_secret_body
    if for_thread and verdict.issued is not None:
        describe.read(verdict.issued)
    request = _request(tape, given, redactor, is_described=is_described) if head else None
    answer = _answer(tape, verdict.reply, redactor) if verdict.reply else b""
    return Draft(
        id=tape.id,
        label=tape.label,
        values={
            "format": FORMAT,
            "id": tape.id,
            "at": moment(tape.at),
            "kind": tape.kind,
            **({"of": tape.of} if tape.of is not None else {}),
            "label": tape.label,
            "operation": tape.operation,
            "profile": call.profile.value if call else None,
            "connection": connection(tape.connection),
            "tls": {
                "handshake_ms": milliseconds(tape.connection.handshake),
                "trust": client.trust.value if client else "none",
                "is_ra": client.is_ra if client else False,
            },
            "binding": _binding(tape, verdict),
            "auth": _auth(tape, verdict, given),
            "request": request,
            "response": _response(verdict.reply, answer) if verdict.reply else None,
            "gates": None,
            "callouts": [_callout(tape, ran, digests, redactor) for ran in tape.callouts],
            "outcome": {
                "status": verdict.status,
                "gate": verdict.gate.value if verdict.gate else None,
                "reason": reason,
                "hint": hint,
            },
            "issued": None,
            "ms": milliseconds(end - tape.began),
        },
        tls=tape.tls,
        body=_body(tape, redactor) if head else None,
        csr=csr.der if csr is not None and not is_described else None,
        answer=answer[:CUT],
        issued=verdict.issued,
        marks=[(gate.value, at) for gate, at in tape.marks],
        idle=_idle(tape),
        ended=end,
    )


def connection(found: Connection) -> dict[str, Any]:
    """A connection as a record has it."""
    return {
        "number": found.number,
        "request": found.request,
        "peer": found.peer,
        "port": found.port,
        "at": moment(found.at),
    }


def _binding(tape: Tape, verdict: Verdict) -> dict[str, Any]:
    call, csr = tape.call, tape.csr
    binding = call.channel.binding if call else None
    attribute, found = _claim(csr) if csr else (None, None)
    result = call.csr.pop.value if call and call.csr and call.csr.pop else None
    required = tape.linking == "required" if tape.linking else bool(call and call.channel.pop_required)
    return {
        "type": binding.type.value if binding else None,
        "expected": binding.text if binding else None,
        "found": found if found is None or redact.is_binding(found) else REMOVED,
        "attribute": attribute,
        "required": required,
        "result": "refused" if verdict.gate is Gate.LINKING else result,
    }


def _claim(csr: CSR) -> tuple[str | None, str | None]:
    """The attribute for a channel binding that the CSR has, by name, and its text."""
    for oid in (CHALLENGE_PASSWORD, EST_IDENTITY_LINKING):
        if oid in csr.attributes:
            try:
                return ATTRIBUTE_NAMES[oid], csr.text_attribute(oid)
            except Malformed:
                return ATTRIBUTE_NAMES[oid], REMOVED
    return None, None


def _auth(tape: Tape, verdict: Verdict, given: Iterable[tuple[str, str]]) -> dict[str, Any]:
    call = tape.call
    values = [value for name, value in given if name.lower() == "authorization"]
    claimed = (call.client.claimed if call else None) or _claimed(values)
    user = call.client.user if call else None
    refused = verdict.gate is Gate.PASSWORD
    digest = claimed.response if claimed else None
    found: dict[str, Any] = {
        "requires": call.route.requires.value if call else None,
        "scheme": _scheme(values),
        "user": user if user is not None else claimed.username if claimed else None,
        "verified": True if user is not None else False if refused and values else None,
        "challenges": _challenges(verdict.reply) if verdict.status == 401 and verdict.reply else [],
        "methods": call.client.methods if call else "",
    }
    if digest is not None:
        found["digest"] = {name: part for name, part in dataclasses.asdict(digest).items() if name != "response"}
    return found


def _challenges(reply: Reply) -> list[str]:
    return [value for name, value in reply.headers if name.lower() == "www-authenticate"]


def _scheme(values: list[str]) -> str | None:
    return _SCHEMES.get(values[0].strip().partition(" ")[0].lower()) if values else None


def _claimed(values: list[str]) -> Credentials | None:
    """What an Authorization header claims, if it can be read."""
    try:
        return http.parse(values)
    except Unauthenticated:
        return None


def _body(tape: Tape, redactor: Redactor) -> bytes | str | None:
    if redactor.has_secret_body:
        return REMOVED
    return tape.call.http.body[:CUT] if tape.call and tape.arrived is not None else None


def _request(
    tape: Tape, given: tuple[tuple[str, str], ...], redactor: Redactor, *, is_described: bool
) -> dict[str, Any]:
    head, call, csr = tape.head, tape.call, tape.csr
    assert head is not None
    length = len(call.http.body) if call and tape.arrived is not None else 0
    return {
        "line": f"{head.method} {redact.target(head.target)} {head.version}",
        "headers": redact.headers(given),
        "body": None,
        "length": length or head.length or 0,
        "cut": length > CUT,
        "ms": milliseconds((tape.arrived or tape.began) - tape.began),
        "csr": describe.csr(csr, is_secret=redactor.has_secret_body) if csr is not None and is_described else None,
    }


def _answer(tape: Tape, reply: Reply, redactor: Redactor) -> bytes:
    body = reply.body
    if _makes_keys(tape):
        body = redact.keygen_body(body) if reply.status == 200 else redact.without_base64(body)
    return redactor.bytes(body)


def _response(reply: Reply, answer: bytes) -> dict[str, Any]:
    return {
        "status": reply.status,
        "reason": reply.reason,
        "headers": redact.headers(reply.headers),
        "body": None,
        "length": len(reply.body),
        "cut": len(answer) > CUT,
    }


def _makes_keys(tape: Tape) -> bool:
    operation = tape.call.route.operation if tape.call else OPERATIONS.get(tape.operation or "")
    return operation is not None and operation.body is Body.KEYGEN


def _idle(tape: Tape) -> list[str]:
    """The gates that had nothing to decide if they were reached."""
    call = tape.call
    if call is None:
        return []
    route = call.route
    is_open, asks = route.requires is Requires.NONE, route.authorize is not None and not route.operation.holds_requests
    idle = [] if call.client.claimed is not None and not is_open else [Gate.PASSWORD.value]
    idle += [Gate.REQUIRES.value] if is_open else []
    idle += [Gate.CSR.value, Gate.LINKING.value] if tape.csr is None else []
    return idle if asks else [*idle, Gate.AUTHORIZE.value]


def _callout(tape: Tape, ran: Ran, digests: Digests, redactor: Redactor) -> dict[str, Any]:
    outcome, call = ran.outcome, tape.call
    stdout = outcome.stdout if outcome else b""
    stderr = outcome.stderr if outcome else ran.fault.encode()
    is_key = bool(stdout) and ran.kind is Kind.HANDLER and _makes_keys(tape)
    return {
        "kind": ran.kind.value,
        "script": digests.name(ran.script),
        "sha256": digests.of(ran.script, ran.stamp),
        "runner": ran.runner,
        "environment": _environment(call, ran.environment, redactor) if call else {},
        "exit": outcome.exit if outcome else None,
        "signal": outcome.signal if outcome else None,
        "timed_out": outcome.timed_out if outcome else False,
        "flooded": outcome.flooded if outcome else False,
        "stdout": REMOVED if is_key else redactor.text(_text(stdout)),
        "stdout_length": len(stdout),
        "stdout_cut": len(stdout) > CUT,
        "stderr": redactor.text(_text(stderr)) if stderr else "",
        "waited_ms": milliseconds(ran.waited),
        "ran_ms": milliseconds(ran.ran),
        "cached": ran.cached,
    }


def _environment(call: Call, given: Mapping[str, str], redactor: Redactor) -> Mapping[str, str]:
    """The variables without secrets, and without the request's body if that is one."""
    found = redact.environment(call, given)
    if redactor.has_secret_body and "EST_REQUEST" in found:
        return {**found, "EST_REQUEST": REMOVED}
    return found


def _text(content: bytes) -> str:
    return content[:CUT].decode("utf-8", "backslashreplace")
