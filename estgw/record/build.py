"""From a tape to a record: JSON values without secrets, in the form of `docs/records.md`."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from estgw.auth import http
from estgw.auth.credentials import Credentials
from estgw.callout.interpreter import Stamp
from estgw.callout.observer import Ran, version_of
from estgw.callout.verdicts import Kind
from estgw.errors import Malformed, Unauthenticated
from estgw.est.csr import ATTRIBUTE_NAMES, CHALLENGE_PASSWORD, CSR, EST_IDENTITY_LINKING
from estgw.est.operations import OPERATIONS, Body, Requires
from estgw.record import describe, redact
from estgw.record.describe import CUT, moment, pem
from estgw.record.folder import FORMAT
from estgw.record.gates import GATES, Gate
from estgw.record.redact import REMOVED, Redactor, Sent
from estgw.record.ring import Record
from estgw.record.tape import Connection, Reply, Tape, Verdict
from estgw.tls.info import TLSInfo

_SCHEMES = ("Basic", "Digest", "Bearer", "Negotiate", "NTLM")
"""The schemes whose names are recorded: any other first word of an Authorization header may be a password."""


@dataclass
class Digests:
    """Names and SHA-256 of scripts, each file read once for each of its versions."""

    _known: dict[Path, tuple[Stamp, str]] = field(default_factory=dict)
    _names: dict[Path, str] = field(default_factory=dict)

    def name(self, script: Path, folder: Path) -> str:
        """A script's path as seen from conf.yaml's folder, or whole if it lies elsewhere."""
        if script not in self._names:
            self._names[script] = str(script.relative_to(folder) if script.is_relative_to(folder) else script)
        return self._names[script]

    def of(self, script: Path, stamp: Stamp | None) -> str | None:
        """The digest of that version; None if the file is another one by now."""
        known = self._known.get(script)
        if stamp is not None and known is not None and known[0] == stamp:
            return known[1]
        try:
            digest = hashlib.sha256(script.read_bytes()).hexdigest()
        except OSError:
            return None
        if stamp is None or version_of(script) != stamp:
            return None
        self._known[script] = (stamp, digest)
        return digest


def record(tape: Tape, verdict: Verdict, folder: Path, digests: Digests, ended: float | None = None) -> Record:
    """The record of a request.

    `folder` is that of conf.yaml: scripts are named as seen from there.  `ended` is when the answer was ready, by the
    monotonic clock.
    """
    end = time.monotonic() if ended is None else ended
    head, call = tape.head, tape.call
    given = tuple(head.headers) if head else ()
    sent = Sent(head.target if head else "", given, call.http.body if call else b"", is_csr=tape.csr is not None)
    redactor = Redactor(call, sent, (ran.environment for ran in tape.callouts))
    # Words of a script may quote a secret.  Our own do not, and a password may be a word in them, such as "wrong".
    reason, hint = verdict.reason, verdict.hint
    if tape.callouts:
        reason, hint = redactor.text(reason), redactor.text(hint) if hint else None
    return {
        "format": FORMAT,
        "id": tape.id,
        "at": moment(tape.at),
        "kind": tape.kind,
        **({"of": tape.of} if tape.of is not None else {}),
        "label": tape.label,
        "operation": tape.operation,
        "profile": call.profile.value if call else None,
        "connection": _connection(tape.connection),
        "tls": _tls(tape),
        "binding": _binding(tape, verdict),
        "auth": _auth(tape, verdict, given),
        "request": _request(tape, given, redactor) if head else None,
        "response": _response(tape, verdict.reply, redactor) if verdict.reply else None,
        "gates": _gates(tape, verdict, reason, end),
        "callouts": [_callout(tape, ran, folder, digests, redactor) for ran in tape.callouts],
        "outcome": {
            "status": verdict.status,
            "gate": verdict.gate,
            "reason": reason,
            "hint": hint,
        },
        "issued": describe.issued(verdict.issued) if verdict.issued else None,
        "ms": _ms(end - tape.began),
    }


def handshake(identifier: str, connection: Connection, reason: str, hint: str | None) -> Record:
    """The record of a handshake that failed, or of a connection that was refused."""
    gates = [{"name": gate, "result": "skip", "reason": "", "ms": 0.0} for gate in GATES]
    gates[0] |= {"result": "refuse", "reason": reason}
    return {
        "format": FORMAT,
        "id": identifier,
        "at": moment(connection.at),
        "kind": "handshake",
        "label": None,
        "operation": None,
        "profile": None,
        "connection": _connection(connection),
        "tls": {},
        "binding": None,
        "auth": None,
        "request": None,
        "response": None,
        "gates": gates,
        "callouts": [],
        "outcome": {"status": None, "gate": Gate.TLS, "reason": reason, "hint": hint},
        "issued": None,
        "ms": _ms(time.time() - connection.at),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _connection(connection: Connection) -> dict[str, Any]:
    return {
        "number": connection.number,
        "request": connection.request,
        "peer": connection.peer,
        "port": connection.port,
        "at": moment(connection.at),
    }


def _tls(tape: Tape) -> dict[str, Any]:
    info, client, handshake = tape.tls, tape.client, tape.connection.handshake
    if info is None:
        return {}
    return {
        "version": info.version,
        "cipher": info.cipher,
        "server_name": info.server_name,
        "handshake_ms": None if handshake is None else _ms(handshake),
        "certificate": pem(info.certificate) if info.certificate else None,
        "chain": [pem(each) for each in info.chain],
        "subject": tape.subject,
        "verify": _verify(info),
        "trust": client.trust.value if client else "none",
        "is_ra": client.is_ra if client else False,
        "bindings": {kind.value: binding.text for kind, binding in info.bindings.items()},
    }


def _verify(info: TLSInfo) -> str:
    """The result for the certificate that was sent, whether scripts may see it or not."""
    if info.verify_error:
        return f"FAILED:{info.verify_error}"
    return "NONE" if info.certificate is None else "SUCCESS"


def _binding(tape: Tape, verdict: Verdict) -> dict[str, Any]:
    call = tape.call
    binding = call.channel.binding if call else None
    csr = tape.csr
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
    scheme, claimed = _scheme(values), call.client.claimed if call else None
    claimed = claimed or _claimed(values)
    user = call.client.user if call else None
    refused = verdict.gate is Gate.PASSWORD
    verified = True if user is not None else False if refused and values else None
    offered = verdict.reply.headers if verdict.reply else ()
    digest = claimed.response if claimed else None
    found: dict[str, Any] = {
        "requires": call.route.requires.value if call else None,
        "scheme": scheme,
        "user": user if user is not None else claimed.username if claimed else None,
        "verified": verified,
        "challenges": [value for name, value in offered if name.lower() == "www-authenticate"],
        "methods": call.client.methods if call else "",
    }
    if digest is not None:
        found["digest"] = {name: part for name, part in dataclasses.asdict(digest).items() if name != "response"}
    return found


def _scheme(values: list[str]) -> str | None:
    word = values[0].strip().partition(" ")[0].lower() if values else None
    return next((known for known in _SCHEMES if known.lower() == word), None)


def _claimed(values: list[str]) -> Credentials | None:
    """What an Authorization header claims, if it can be read."""
    try:
        return http.parse(values)
    except Unauthenticated:
        return None


def _request(tape: Tape, given: tuple[tuple[str, str], ...], redactor: Redactor) -> dict[str, Any]:
    head, call = tape.head, tape.call
    assert head is not None
    arrived = tape.arrived is not None
    body = call.http.body if call and arrived and call.http.body else None
    shown = REMOVED if redactor.has_secret_body else None if body is None else _base64(body[:CUT])
    return {
        "line": f"{head.method} {redact.target(head.target)} {head.version}",
        "headers": redact.headers(given),
        "body": shown,
        "length": len(body) if body is not None else head.length or 0,
        "cut": body is not None and len(body) > CUT,
        "ms": _ms((tape.arrived or tape.began) - tape.began),
        "csr": describe.csr(tape.csr, is_secret=redactor.has_secret_body) if tape.csr else None,
    }


def _response(tape: Tape, reply: Reply, redactor: Redactor) -> dict[str, Any]:
    body = reply.body
    if _makes_keys(tape):
        body = redact.keygen_body(body) if reply.status == 200 else redact.without_base64(body)
    body = redactor.bytes(body)
    return {
        "status": reply.status,
        "reason": reply.reason,
        "headers": redact.headers(reply.headers),
        "body": _base64(body[:CUT]) if body else None,
        "length": len(reply.body),
        "cut": len(body) > CUT,
    }


def _makes_keys(tape: Tape) -> bool:
    operation = tape.call.route.operation if tape.call else OPERATIONS.get(tape.operation or "")
    return operation is not None and operation.body is Body.KEYGEN


def _gates(tape: Tape, verdict: Verdict, reason: str, end: float) -> list[dict[str, Any]]:
    reached: dict[Gate, float] = {}
    following = [*tape.marks[1:], (Gate.HANDLER, end)]
    for (gate, at), (_, until) in zip(tape.marks, following, strict=True):
        reached[gate] = reached.get(gate, 0.0) + until - at
    found = []
    for gate in GATES:
        is_refused = gate is verdict.gate
        passed = gate in reached and not is_refused and _applies(gate, tape)
        found.append(
            {
                "name": gate,
                "result": "refuse" if is_refused else "pass" if passed else "skip",
                "reason": reason if is_refused else "",
                "ms": _ms(reached.get(gate, 0.0)),
            }
        )
    return found


def _applies(gate: Gate, tape: Tape) -> bool:
    """Whether a gate that was reached had anything to decide."""
    call = tape.call
    if call is None or gate in (Gate.TLS, Gate.PATH, Gate.HANDLER):
        return True
    match gate:
        case Gate.PASSWORD:
            return call.client.claimed is not None and call.route.requires is not Requires.NONE
        case Gate.REQUIRES:
            return call.route.requires is not Requires.NONE
        case Gate.CSR | Gate.LINKING:
            return tape.csr is not None
        case _:
            return call.route.authorize is not None and not call.route.operation.holds_requests


def _callout(tape: Tape, ran: Ran, folder: Path, digests: Digests, redactor: Redactor) -> dict[str, Any]:
    outcome, call = ran.outcome, tape.call
    stdout = outcome.stdout if outcome else b""
    stderr = outcome.stderr if outcome else ran.fault.encode()
    is_key = _makes_keys(tape) and ran.kind is Kind.HANDLER and bool(stdout)
    environment = redact.environment(call, ran.environment) if call else {}
    return {
        "kind": ran.kind.value,
        "script": digests.name(ran.script, folder),
        "sha256": digests.of(ran.script, ran.stamp),
        "runner": ran.runner,
        "environment": _without_body(environment, redactor),
        "exit": outcome.exit if outcome else None,
        "signal": outcome.signal if outcome else None,
        "timed_out": outcome.timed_out if outcome else False,
        "flooded": outcome.flooded if outcome else False,
        "stdout": REMOVED if is_key else redactor.text(_text(stdout)),
        "stdout_length": len(stdout),
        "stdout_cut": len(stdout) > CUT,
        "stderr": redactor.text(_text(stderr)),
        "waited_ms": _ms(ran.waited),
        "ran_ms": _ms(ran.ran),
        "cached": ran.cached,
    }


def _without_body(environment: Mapping[str, str], redactor: Redactor) -> dict[str, str]:
    """The variables without the request's body, if that is secret."""
    found = dict(environment)
    if redactor.has_secret_body and "EST_REQUEST" in found:
        found["EST_REQUEST"] = REMOVED
    return found


def _text(content: bytes) -> str:
    return content[:CUT].decode("utf-8", "backslashreplace")
