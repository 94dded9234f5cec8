"""A record as a row of the list: what one line needs, bounded, so that thousands of them travel and fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estgw.record.ring import Record

NAME = 120
"""Characters of a user name, a subject or an operation in a row; the detail has the whole."""
REASON = 300
"""Characters of a reason in a row."""


def row(number: int, record: Record) -> dict[str, Any]:
    """Return the row of a record, JSON values throughout; `number` is the record's in the ring.

    Parts that a record lacks are null, as a failed handshake has neither request nor answer.
    """
    outcome, connection, auth = _part(record, "outcome"), _part(record, "connection"), _part(record, "auth")
    request, response, tls = _part(record, "request"), _part(record, "response"), _part(record, "tls")
    callouts = record.get("callouts") or ()
    issued, csr = _part(record, "issued"), _part(request, "csr")
    return {
        "n": number,
        "id": record["id"],
        "at": record.get("at"),
        "kind": record.get("kind"),
        "of": record.get("of"),
        "label": _cut(record.get("label"), NAME),
        "operation": _cut(record.get("operation"), NAME),
        "line": _cut(request.get("line"), NAME),
        "user": _cut(auth.get("user"), NAME),
        "verified": auth.get("verified"),
        "scheme": auth.get("scheme"),
        "certificate": _cut(tls.get("subject"), NAME),
        "tls": tls.get("version"),
        "peer": connection.get("peer"),
        "connection": connection.get("number"),
        "request": connection.get("request"),
        "status": outcome.get("status", response.get("status")),
        "gate": outcome.get("gate"),
        "reason": _cut(outcome.get("reason"), REASON),
        "subject": _cut(issued.get("subject") or csr.get("subject"), NAME),
        "issued": bool(issued),
        "scripts": round(sum(each.get("ran_ms") or 0 for each in callouts), 1) if callouts else None,
        "ms": record.get("ms"),
    }


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return record.get(name) or {}


def _cut(text: str | None, length: int) -> str | None:
    return text if text is None or len(text) <= length else f"{text[: length - 1]}…"
