"""Requests that wait, in the register: the client comes back with a token (RFC 5272 6.13, queryPending)."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from estgw.auth.pop import POP
from estgw.cmc import parts
from estgw.cmc.status import CMCFailInfo
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.state import State
from estgw.est.csr import NewNames


@dataclass(frozen=True)
class PendingRequest:
    """A request that waits, and what its proofs have shown."""

    owner: str
    request: bytes
    """A TaggedRequest as DER."""
    pop: POP
    """The outcome of linking."""
    signs: bool
    """Whether the client has proved that the key signs."""
    changes: NewNames | None
    """The names that an RA gave to it."""

    def encode(self) -> bytes:
        """Its row in the register."""
        san = self.changes.san.public_bytes().hex() if self.changes and self.changes.san else None
        subject = self.changes.subject.public_bytes().hex() if self.changes else None
        data = {"owner": self.owner, "request": base64.b64encode(self.request).decode(), "pop": self.pop.value}
        return json.dumps({**data, "signs": self.signs, "subject": subject, "san": san}).encode()

    @classmethod
    def decode(cls, value: bytes) -> PendingRequest:
        data = json.loads(value)
        changes = None
        if data["subject"] is not None:
            san = bytes.fromhex(data["san"]) if data["san"] else None
            changes = parts.read_new_names(bytes.fromhex(data["subject"]), san)
        request = base64.b64decode(data["request"])
        return cls(data["owner"], request, POP(data["pop"]), data["signs"], changes)


def by_token(state: State, token: bytes) -> PendingRequest | None:
    """The request that waits under this token."""
    value = state.get("pending", token.hex())
    return None if value is None else PendingRequest.decode(value)


def wait(state: State, request: PendingRequest, pending_id: str, lasts: timedelta) -> bytes:
    """Let a request wait under its EST_PENDING_ID.  A repeat gets the token that there is.  Raises `Full`."""
    if (known := state.get("waiting", pending_id)) is not None:
        return known
    token = os.urandom(16)
    state.put("pending", token.hex(), request.encode(), lasts, request.owner)
    state.put("waiting", pending_id, token, lasts)
    return token


def forget(state: State, pending_id: str) -> None:
    """The request waits no longer."""
    if (token := state.get("waiting", pending_id)) is not None:
        state.drop("pending", token.hex())
        state.drop("waiting", pending_id)


@contextlib.contextmanager
def issuing(state: State, request: PendingRequest, pending_id: str, lasts: timedelta, timeout: int) -> Iterator[None]:
    """Hold the request while it is issued, so that two clients that ask at once get one certificate.

    If issuing fails, the request waits on.  If this process is killed, another may try after `timeout` seconds.
    """
    token = state.get("waiting", pending_id)
    if token is None:
        yield  # it never had to wait
        return
    if not state.drop("pending", token.hex()):
        raise Refused(CMCFailInfo.TRY_LATER, "it is being issued at this moment")
    state.drop("waiting", pending_id)
    state.put("waiting", pending_id, token, timedelta(seconds=timeout))
    try:
        yield
    except BaseException:
        state.drop("waiting", pending_id)
        state.put("waiting", pending_id, token, lasts)
        state.put("pending", token.hex(), request.encode(), lasts, request.owner, is_bounded=False)
        raise
    state.drop("waiting", pending_id)
