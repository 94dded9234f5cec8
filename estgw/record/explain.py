"""Hints: from a refusal to a sentence that says what to do next, and where a wrong channel binding comes from."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from estgw.est.binding import Binding, BindingType
from estgw.record import redact
from estgw.record.gates import Gate
from estgw.record.hints import LOOK, NO_PASSWORDS, ROWS, Row

REMEMBERED = 1000
"""Connections whose channel bindings are remembered, as hashes."""
LONGEST = 600
"""Characters of a hint; a reason that it quotes may be long."""


@dataclass(frozen=True)
class Facts:
    """What a hint may name besides the reason."""

    operation: str = "the operation"
    offered: Sequence[str] = ()
    """The schemes of HTTP authentication that are offered."""
    provenance: str = ""
    """Where a wrong channel binding comes from."""


def hint(gate: Gate, reason: str, facts: Facts | None = None) -> str:
    """What to do next about a refusal; `reason` is the log's."""
    facts = facts or Facts()
    if not facts.offered and _is_about_passwords(gate, reason):
        return NO_PASSWORDS
    row, found = row_of(gate, reason)
    words = {
        "operation": facts.operation,
        "offered": " and ".join(facts.offered),
        "provenance": facts.provenance or _FOREIGN,
        "look": LOOK,
        **{name: text or "" for name, text in found.groupdict().items()},
    }
    text = row.hint.format(**words)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _is_about_passwords(gate: Gate, reason: str) -> bool:
    return (gate is Gate.REQUIRES and reason.startswith("no credentials")) or reason.startswith(_WRONG)


_WRONG = ("wrong user name or password", "Authorization scheme not offered")


def row_of(gate: Gate, reason: str) -> tuple[Row, re.Match[str]]:
    """The row of the table for a refusal, and what its pattern has found in the reason."""
    for row, pattern in _PATTERNS:
        if row.gate in (None, gate) and (found := pattern.search(reason)):
            return row, found
    raise AssertionError("the last row fits everything")


_PATTERNS = [(row, re.compile(row.reason)) for row in ROWS]


# Channel bindings.

_FOREIGN = (
    "The CSR was signed for another connection: a client connects first, then makes and signs the CSR with that "
    "connection's channel binding, and sends it there."
)


class Bindings:
    """The channel bindings of the last connections, as hashes."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._connections: OrderedDict[int, tuple[bytes, ...]] = OrderedDict()
        self._known: dict[bytes, tuple[int, BindingType, float]] = {}

    def add(self, connection: int, bindings: Iterable[Binding]) -> None:
        """Remember those of a connection whose handshake is over."""
        now = time.monotonic()
        hashes = []
        for binding in bindings:
            key = _hash(binding.value)
            hashes.append(key)
            self._known[key] = (connection, binding.type, now)
        self._connections[connection] = tuple(hashes)
        while len(self._connections) > self._most:
            _, gone = self._connections.popitem(last=False)
            for key in gone:
                self._known.pop(key, None)

    def find(self, value: bytes) -> tuple[int, BindingType, float] | None:
        """The connection that a value belongs to, its type, and the seconds since that handshake; None for nobody's."""
        known = self._known.get(_hash(value))
        return None if known is None else (known[0], known[1], time.monotonic() - known[2])


def provenance(claimed: str, own: Iterable[Binding], wanted: BindingType | None, known: Bindings | None) -> str:
    """Where a wrong channel binding comes from, as a hint.

    `claimed` is the CSR's text, `own` are the bindings of the connection it came on, `wanted` is the type that counts,
    and `known` has those of the last connections, if they are remembered.
    """
    try:
        value = base64.b64decode(claimed, validate=True)
    except (binascii.Error, ValueError):
        return (
            "The value is not base64, so it may be a password: a password belongs into HTTP authentication, and "
            "challengePassword has base64 of the channel binding or is left out."
        )
    for binding in own:
        if binding.value == value and wanted is not None:
            return f"That is {binding.type.value}, and here {wanted.value} counts: let the client use that one."
    if not redact.is_binding(claimed):
        return (
            f"The value has {len(value)} bytes, and no channel binding has so many: if it is a password, it belongs "
            "into HTTP authentication."
        )
    if known is None:
        return _FOREIGN
    if (found := known.find(value)) is None:
        return (
            "It is the channel binding of none of the last connections here: is there a TLS proxy in between, or was "
            "the CSR made for another server? TLS must end at the gateway, and the CSR is signed after connecting."
        )
    connection, kind, seconds = found
    return f"It was made for connection {connection}, {_ago(seconds)} ago ({kind.value}): sign after connecting."


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _hash(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
