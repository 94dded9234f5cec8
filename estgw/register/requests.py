"""Requests that wait for a person (RFC 7030 4.2.3), in the table `requests` of a CA's register.

A request goes from state to state by one conditional statement, and it becomes `issued` in the transaction that enters
its certificate.  So of any number of processes that issue it at once one does, and one that is killed leaves it as it
was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509

from estgw.errors import Unusable
from estgw.est import certs
from estgw.register.engine import Engine

STATES = ("waiting", "approved", "issued", "refused")
MAY_BECOME: Mapping[str, frozenset[str]] = {
    "approved": frozenset({"waiting", "refused"}),
    "refused": frozenset({"waiting", "approved", "refused"}),
}
"""What a person may decide, and in which states of the request."""

_SHOWN = {"EST_OPERATION", "EST_LABEL", "EST_AUTH_METHODS", "REMOTE_USER", "REMOTE_ADDR", "SSL_CLIENT_S_DN"}
_HIDDEN = {"EST_CA_DIR", "EST_CONTRACT"}


class RequestError(Unusable):
    """A request can't be found, can't be moved, or has no room; the text says why."""


@dataclass(frozen=True)
class Room:
    """How many requests may wait, and how long one is remembered to which nothing happens."""

    each: int
    """Requests of one client that may wait."""
    total: int
    """Of all clients together."""
    lasts: timedelta


@dataclass(frozen=True)
class Request:
    """One request, in the state in which it was found.  Its facts came from a client: show them escaped."""

    id: str
    """EST_PENDING_ID."""
    state: str
    facts: Mapping[str, str]
    """Variables of the contract by name, as the script saw them."""
    csr: str
    """PEM, or the file that has it."""
    since: datetime
    changed: datetime
    reason: str | None = None
    certificate: x509.Certificate | None = None
    is_revoked: bool = False

    @property
    def can_be_given(self) -> bool:
        """Whether its certificate may be handed out again: it is neither revoked nor over."""
        found = self.certificate
        return found is not None and not self.is_revoked and found.not_valid_after_utc > datetime.now(UTC)

    @property
    def names(self) -> list[str]:
        """The subject alternative names asked for."""
        return [text for name, text in self.facts.items() if name.startswith("EST_CSR_SAN_")]

    @property
    def client(self) -> str:
        """The client: its verified user name, the subject of its TLS certificate, or both."""
        who = [self.facts.get("REMOTE_USER", ""), self.facts.get("SSL_CLIENT_S_DN", "")]
        return ", ".join(part for part in who if part) or "nobody"

    def describe(self) -> dict[str, str | list[str] | None]:
        """All facts that a person needs for a decision."""
        fact = self.facts.get
        return {
            "id": self.id,
            "state": self.state,
            "operation": fact("EST_OPERATION"),
            "label": fact("EST_LABEL"),
            "subject": fact("EST_CSR_SUBJECT"),
            "new subject": fact("EST_CHANGE_SUBJECT"),
            "names": self.names,
            "public key": fact("EST_CSR_SPKI_SHA256"),
            "client": self.client,
            "authenticated by": fact("EST_AUTH_METHODS"),
            "certificate": fact("EST_CLIENT_CERT_SHA256"),
            "address": fact("REMOTE_ADDR"),
            "since": self.since.isoformat(timespec="seconds"),
            "changed": self.changed.isoformat(timespec="seconds"),
            "reason": self.reason,
            "serial": certs.serial_hex(self.certificate) if self.certificate else None,
            "csr": self.csr,
        }


def facts(environment: Mapping[str, str]) -> dict[str, str]:
    """What of a script's environment a person sees."""
    return {
        name: value
        for name, value in environment.items()
        if name in _SHOWN or (name.startswith("EST_C") and name not in _HIDDEN and not name.endswith("_FILE"))
    }


class Requests:
    """The requests in a register.  Each method raises `RegisterError` for a fault of the register."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> list[Request]:
        """All requests."""
        return [_read(row) for row in self._engine.rows(_ALL)]

    def find(self, request_id: str) -> Request | None:
        """The request with this EST_PENDING_ID."""
        found = self._engine.rows(f"{_ALL} WHERE r.id = :id", {"id": request_id})
        return _read(found[0]) if found else None

    def put(self, request: Request, owner: str, room: Room) -> bool:
        """Let a request of the client `owner` wait; False if it is there already.

        Requests to which nothing has happened for `room.lasts` are forgotten.  Raises `RequestError` without room.
        """
        with self._engine.exclusive("requests"):  # so that the bounds hold whatever number comes at once
            self._engine.rows(
                "DELETE FROM requests WHERE changed < :end", {"end": _text(datetime.now(UTC) - room.lasts)}
            )
            if self.find(request.id) is not None:
                return False
            waiting = "SELECT count(*) FROM requests WHERE state = 'waiting'"
            if self._engine.rows(f"{waiting} AND owner = :owner", {"owner": owner})[0][0] >= room.each:
                raise RequestError("too many of your requests wait for approval")
            if self._engine.rows(waiting)[0][0] >= room.total:
                raise RequestError("too many requests wait for approval")
            return self.enter(request, owner)

    def enter(self, request: Request, owner: str) -> bool:
        """Enter a request as it is; False if there is one of its id, which stays."""
        row = {
            "id": request.id, "state": request.state, "facts": json.dumps(dict(request.facts)), "csr": request.csr,
            "owner": owner, "reason": request.reason, "since": _text(request.since), "changed": _text(request.changed),
            "serial": certs.serial_hex(request.certificate) if request.certificate else None,
        }  # fmt: skip
        return bool(self._engine.rows(_INSERT, row))

    def touch(self, request_id: str) -> None:
        """Somebody still wants it."""
        self._engine.rows("UPDATE requests SET changed = :now WHERE id = :id", {"id": request_id, "now": _now()})

    def decide(self, request_id: str, state: str, reason: str | None = None) -> Request:
        """Approve or refuse it, for a `reason` that the client reads; raises `RequestError`."""
        values = {"id": request_id, "state": state, "reason": reason, "now": _now()}
        before = ", ".join(f"'{each}'" for each in sorted(MAY_BECOME[state]))
        change = "UPDATE requests SET state = :state, reason = :reason, changed = :now"
        done = self._engine.rows(f"{change} WHERE id = :id AND state IN ({before}) RETURNING 1", values)
        found = self.find(request_id)
        if found is None or not done:
            raise RequestError(f"{request_id[:12]}: it is {found.state if found else 'gone'} already")
        return found

    def close(self, request_id: str, serial: str) -> bool:
        """An approved request got this certificate; False if it is not approved, or not any more.

        In the transaction that enters the certificate, which is to be undone if this is False.
        """
        change = "UPDATE requests SET state = 'issued', serial = :serial, changed = :now"
        values = {"id": request_id, "serial": serial, "now": _now()}
        return bool(self._engine.rows(f"{change} WHERE id = :id AND state = 'approved' RETURNING 1", values))

    def wait_again(self, request_id: str) -> None:
        """An issued request whose certificate can't be handed out again waits for a new decision."""
        change = (
            "UPDATE requests SET state = 'waiting', serial = NULL, changed = :now WHERE id = :id AND state = 'issued'"
        )
        self._engine.rows(change, {"id": request_id, "now": _now()})


def new(environment: Mapping[str, str], csr: str) -> Request:
    """The request that a script serves, as it begins to wait."""
    now = datetime.now(UTC)
    return Request(environment["EST_PENDING_ID"], "waiting", facts(environment), csr, now, now)


_ALL = """
SELECT r.id, r.state, r.facts, r.csr, r.since, r.changed, r.reason, c.der, c.status
    FROM requests r LEFT JOIN certificates c ON c.serial = r.serial
"""
_INSERT = """
INSERT INTO requests (id, state, facts, csr, owner, reason, serial, since, changed)
    VALUES (:id, :state, :facts, :csr, :owner, :reason, :serial, :since, :changed)
    ON CONFLICT (id) DO NOTHING RETURNING 1
"""


def _read(row: tuple[object, ...]) -> Request:
    request_id, state, found, csr, since, changed, reason, der, status = row
    return Request(
        id=str(request_id),
        state=str(state),
        facts=json.loads(str(found)),
        csr=str(csr),
        since=datetime.fromisoformat(str(since)),
        changed=datetime.fromisoformat(str(changed)),
        reason=str(reason) if reason is not None and state == "refused" else None,
        certificate=x509.load_der_x509_certificate(bytes(der)) if isinstance(der, bytes | memoryview) else None,
        is_revoked=status == "revoked",
    )


def _now() -> str:
    return _text(datetime.now(UTC))


def _text(moment: datetime) -> str:
    """UTC with microseconds always, so that texts compare as moments do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
