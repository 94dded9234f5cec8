"""What the wire shows: handshakes and exchanges, and one step of a trial, which is what a judge looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from cryptography import x509

from estgw.est.binding import BindingType
from estgw.quirks.kept import Kept


class Place(Enum):
    """The port at which something happened."""

    MAIN = "main"
    OWN = "own"
    """The port of one quirk, for faults of TLS."""
    ASIDE = "aside"
    """Where a redirect leads."""


@dataclass(frozen=True)
class Handshake:
    """A connection at a port that belongs to a quirk."""

    quirk: str
    place: Place
    address: str
    connection: int
    fault: str = ""
    """Why the handshake failed, in OpenSSL's words; empty if it did not."""
    version: str = ""


@dataclass(frozen=True)
class Exchange:
    """A request and its answer."""

    quirk: str
    place: Place
    client: str
    """The name in the label; empty if there is none."""
    address: str
    agent: str
    """The User-Agent."""
    connection: int
    came: float
    """Seconds on the monotonic clock at which the request was complete."""
    left: float
    """The same for the moment before the answer was sent."""
    method: str
    operation: str
    status: int
    scheme: str = ""
    """The scheme of the Authorization header, in lower case; empty if there was none."""
    is_right: bool = False
    """Whether user and password were right."""
    key: bytes = field(default=b"", repr=False)
    """The SubjectPublicKeyInfo of the CSR, DER."""
    csr: bytes = field(default=b"", repr=False)
    """The CSR, DER."""
    link: BindingType | None = None
    """By which of the connection's bindings the CSR is linked."""
    claims_link: bool = False
    """Whether the CSR has a challengePassword or estIdentityLinking at all."""
    body: bytes = field(default=b"", repr=False)
    """The body of the answer."""
    certificate: x509.Certificate | None = None
    """The certificate in the answer, right or wrong."""

    @property
    def is_enrolment(self) -> bool:
        """Whether the client asked for a certificate for its key."""
        return self.operation in ("simpleenroll", "simplereenroll")


Event = Handshake | Exchange
Observer = Callable[[Event], None]


class Result(Enum):
    """What a judge says."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    UNCLEAR = "unclear"
    """The evidence allows both."""
    UNTRIED = "untried"
    """The client never met the quirk."""


@dataclass(frozen=True)
class Verdict:
    """A result and the sentences that it stands on."""

    result: Result
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One run of a client against a quirk, or all that a server has seen of the two."""

    operation: str
    """What the client was asked to do: a key of its template."""
    events: Sequence[Event]
    kept: Kept | None = None
    """What the command has left behind; None if nobody has watched it."""

    @property
    def exchanges(self) -> list[Exchange]:
        """Requests, in order."""
        return [event for event in self.events if isinstance(event, Exchange)]

    def at(self, *places: Place) -> list[Exchange]:
        """Requests at some ports."""
        return [one for one in self.exchanges if one.place in places]

    def handshakes(self, *places: Place) -> list[Handshake]:
        """Connections at some ports; those of the main port are not noted."""
        return [event for event in self.events if isinstance(event, Handshake) and event.place in places]

    @property
    def served(self) -> list[Exchange]:
        """Requests that got a certificate or another body that the quirk may have spoiled."""
        return [one for one in self.exchanges if one.status == 200 and one.operation == self.asks]

    @property
    def asks(self) -> str:
        """The EST operation of the step."""
        return OPERATION_OF[self.operation]


OPERATION_OF = {
    "enroll": "simpleenroll",
    "enroll-implicit": "simpleenroll",
    "cacerts": "cacerts",
    "serverkeygen": "serverkeygen",
    "serverkeygen-sealed": "serverkeygen",
}
"""The steps of a trial, which are the commands of a client's template, and the EST operation of each."""

Judge = Callable[[Sequence[Step]], Verdict]
"""Judges the steps of a trial; the first one has been done always."""


def passes(*evidence: str) -> Verdict:
    """A PASS."""
    return Verdict(Result.PASS, evidence)


def fails(*evidence: str) -> Verdict:
    """A FAIL."""
    return Verdict(Result.FAIL, evidence)


def unclear(*evidence: str) -> Verdict:
    """An UNCLEAR."""
    return Verdict(Result.UNCLEAR, evidence)


def untried(*evidence: str) -> Verdict:
    """An UNTRIED."""
    return Verdict(Result.UNTRIED, evidence)
