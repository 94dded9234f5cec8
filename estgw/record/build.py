"""From a draft to a record: JSON values in the form of `docs/records.md`."""

from __future__ import annotations

import base64
import time
from typing import Any

from estgw.est import certs
from estgw.est import csr as csrs
from estgw.record import describe
from estgw.record.describe import milliseconds, moment, pem
from estgw.record.draft import Draft, Packed, connection
from estgw.record.folder import FORMAT
from estgw.record.gates import GATES, Gate
from estgw.record.ring import Record
from estgw.record.tape import Connection
from estgw.tls.info import TLSInfo


def record(draft: Draft) -> Record:
    """The record of a request."""
    values = draft.values
    request, response = values["request"], values["response"]
    if request is not None:
        body = draft.body
        shown = body if isinstance(body, str) else _base64(body)
        described = request["csr"]
        if draft.csr is not None:
            described = describe.csr(csrs.parse(draft.csr), is_secret=False)
        request = {**request, "body": shown, "csr": described}
    return {
        **values,
        "tls": _tls(draft.tls, values["tls"]),
        "request": request,
        "response": response and {**response, "body": _base64(draft.answer)},
        "gates": _gates(draft),
        "issued": describe.issued(draft.issued) if draft.issued else None,
    }


_BRIEF = ("id", "at", "kind", "of", "label", "operation", "connection", "auth", "outcome", "ms")
"""The keys that an outline has as the record has them."""


def outline(draft: Draft) -> Record:
    """The record without what takes time to describe, and room to keep: enough for a row of a list."""
    values, tls, request, response = draft.values, draft.tls, draft.values["request"], draft.values["response"]
    csr = request and request["csr"]
    if draft.csr is not None and draft.issued is None:
        csr = {"subject": csrs.parse(draft.csr).subject_text}
    return {
        **{key: values[key] for key in _BRIEF if key in values},
        "tls": {"version": tls.version, "subject": _subject(tls)} if tls else {},
        "request": request and {"line": request["line"], "csr": csr and {"subject": csr["subject"]}},
        "response": response and {"status": response["status"]},
        "callouts": [{"ran_ms": ran["ran_ms"]} for ran in values["callouts"]],
        "issued": {"subject": describe.subject(draft.issued)} if draft.issued else None,
    }


def handshake(identifier: str, found: Connection, reason: str, hint: str | None) -> Record:
    """The record of a handshake that failed, or of a connection that was refused."""
    gates = [{"name": gate, "result": "skip", "reason": "", "ms": 0.0} for gate in GATES]
    gates[0] |= {"result": "refuse", "reason": reason}
    return {
        "format": FORMAT,
        "id": identifier,
        "at": moment(found.at),
        "kind": "handshake",
        "label": None,
        "operation": None,
        "profile": None,
        "connection": connection(found),
        "tls": {},
        "binding": None,
        "auth": None,
        "request": None,
        "response": None,
        "gates": gates,
        "callouts": [],
        "outcome": {"status": None, "gate": Gate.TLS, "reason": reason, "hint": hint},
        "issued": None,
        "ms": milliseconds(time.time() - found.at),
    }


def _base64(content: bytes | None) -> str | None:
    return base64.b64encode(content).decode() if content else None


def _tls(info: TLSInfo | None, known: dict[str, Any]) -> dict[str, Any]:
    if info is None:
        return {}
    return {
        "version": info.version,
        "cipher": info.cipher,
        "server_name": info.server_name,
        "handshake_ms": known["handshake_ms"],
        "certificate": pem(info.certificate) if info.certificate else None,
        "chain": [pem(each) for each in info.chain],
        "subject": _subject(info),
        "verify": _verify(info),
        "trust": known["trust"],
        "is_ra": known["is_ra"],
        "bindings": {kind.value: binding.text for kind, binding in info.bindings.items()},
    }


def _subject(info: TLSInfo) -> str | None:
    return describe.subject(info.certificate) if info.certificate else None


def _verify(info: TLSInfo) -> str:
    """The result for the certificate that was sent, whether scripts may see it or not."""
    if info.verify_error:
        return f"FAILED:{info.verify_error}"
    return "NONE" if info.certificate is None else "SUCCESS"


def _gates(draft: Draft) -> list[dict[str, Any]]:
    outcome = draft.values["outcome"]
    reached: dict[str, float] = {}
    following = [*draft.marks[1:], ("", draft.ended)]
    for (gate, at), (_, until) in zip(draft.marks, following, strict=True):
        reached[gate] = reached.get(gate, 0.0) + until - at
    found = []
    for gate in GATES:
        is_refused = gate == outcome["gate"]
        passed = gate in reached and not is_refused and gate not in draft.idle
        found.append(
            {
                "name": gate,
                "result": "refuse" if is_refused else "pass" if passed else "skip",
                "reason": outcome["reason"] if is_refused else "",
                "ms": milliseconds(reached.get(gate, 0.0)),
            }
        )
    return found


OUTLINE = 6 << 10
"""Bytes of an outline and of what belongs to one record besides."""


class Kept:
    """A request in memory, described when somebody looks.  On the event loop, as cryptography parses meanwhile."""

    __slots__ = ("_outline", "_packed", "id", "label", "size")

    def __init__(self, packed: Packed) -> None:
        self._packed = packed
        self._outline: Record | None = None
        self.id, self.label = packed.id, packed.label
        self.size = len(packed.content) + OUTLINE + (packed.tls.size if packed.tls is not None else 0)

    def outline(self) -> Record:
        """As `outline`, made once."""
        if self._outline is None:
            with certs.without_warnings():
                self._outline = outline(self._packed.unpack())
        return self._outline

    def record(self) -> Record:
        """As `record`."""
        with certs.without_warnings():
            return record(self._packed.unpack())
