"""What one request notes while it is served.

A tape holds references to what the pipeline has anyway, so that noting costs little.  It holds secrets, and ends with
its request: what is kept is a `draft.Draft`, without secrets.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography import x509

from estgw.auth.identity import Client
from estgw.callout.call import Call
from estgw.callout.observer import Ran
from estgw.config.route import Linking
from estgw.est.csr import CSR
from estgw.record.gates import Gate
from estgw.tls.info import TLSInfo


@dataclass(frozen=True)
class Connection:
    """The connection of a request, or of a handshake that failed."""

    number: int
    """Of all connections of this process, from 1."""
    request: int
    """Of the requests on it, from 1; 0: the handshake failed."""
    peer: str
    port: int
    at: float
    """When it began, in seconds since the epoch."""
    handshake: float | None = None
    """Seconds that the handshake took; None if that is unknown."""


@dataclass(frozen=True)
class Head:
    """The head of an HTTP request."""

    method: str
    target: str
    version: str = "HTTP/1.1"
    headers: Iterable[tuple[str, str]] = ()
    length: int | None = None
    """The announced bytes of the body."""


@dataclass(frozen=True)
class Reply:
    """The answer, as it was sent."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Verdict:
    """What came of a request."""

    status: int | None
    """None: no answer was sent."""
    gate: Gate | None = None
    """The gate that refused it."""
    reason: str = ""
    hint: str | None = None
    reply: Reply | None = None
    issued: x509.Certificate | None = None


@dataclass
class Tape:
    """The notes about one request; also a `callout.observer.Observer`."""

    id: str
    connection: Connection
    head: Head | None = None
    kind: str = "request"
    of: str | None = None
    """A replay: the id of the record that it repeats."""
    at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)
    """By the monotonic clock."""
    label: str | None = None
    operation: str | None = None
    marks: list[tuple[Gate, float]] = field(default_factory=list)
    """When each gate was reached, by the monotonic clock."""
    arrived: float | None = None
    """When the whole request had arrived, by the monotonic clock."""
    tls: TLSInfo | None = None
    client: Client | None = None
    call: Call | None = None
    """The facts as the last gate that was reached had them."""
    csr: CSR | None = None
    linking: Linking | None = None
    callouts: list[Ran] = field(default_factory=list)

    def enter(self, gate: Gate, call: Call | None = None, ago: float = 0.0) -> None:
        """The request has reached a gate, so many seconds ago, with these facts."""
        self.marks.append((gate, time.monotonic() - ago))
        if call is not None:
            self.call = call

    def identified(self, tls: TLSInfo, client: Client | None = None) -> None:
        """What TLS has established."""
        self.tls, self.client = tls, client

    def clear(self) -> None:
        """Let go of what leads back here: memory is free at once then, and not when the collector of cycles comes."""
        self.head = self.call = self.csr = None
        self.marks, self.callouts = [], []

    def callout(self, ran: Ran) -> None:
        """A callout has ended."""
        self.callouts.append(ran)
