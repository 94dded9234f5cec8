"""What a case is, how it can end, and what a user gives for a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from cryptography import x509

from estgw.client.sealing import Secret
from estgw.client.transport.challenge import Credentials
from estgw.client.transport.tls import Identity
from estgw.client.transport.trust import Trust
from estgw.client.transport.url import Place

if TYPE_CHECKING:
    from estgw.conform.probe import Probe


class Level(Enum):
    """How strongly the standard asks for something (RFC 2119)."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    """A SHOULD, or something that real clients need."""
    INFO = "INFO"
    """A choice that the standard leaves to the server."""


class Status(Enum):
    """How a case ended."""

    PASS = "PASS"  # noqa: S105 - a word, no password
    FAIL = "FAIL"
    """A MUST is broken."""
    WARN = "WARN"
    """A SHOULD is not followed, or real clients fail on this."""
    INFO = "INFO"
    """The server's choice, for the reader to know."""
    SKIP = "SKIP"
    """Not tested; the result says what is missing."""
    ERROR = "ERROR"
    """No judgement, because the case itself could not be carried out."""


class Finding(Exception):
    """The end of a case other than PASS, with what was seen."""

    def __init__(self, status: Status, seen: str) -> None:
        super().__init__(seen)
        self.status = status
        self.seen = seen


def failed(seen: str) -> Finding:
    """A MUST is broken."""
    return Finding(Status.FAIL, seen)


def warned(seen: str) -> Finding:
    """A SHOULD is not followed, or real clients fail on this."""
    return Finding(Status.WARN, seen)


def noted(seen: str) -> Finding:
    """A choice of the server's."""
    return Finding(Status.INFO, seen)


def skipped(missing: str) -> Finding:
    """Nothing can be said, because something is missing."""
    return Finding(Status.SKIP, missing)


class Need(Enum):
    """What a case needs: a run without it skips the case and says so."""

    ISSUE = "issue"
    """The case gets a certificate issued, so `--read-only` leaves it out."""
    PASSWORD = "password"  # noqa: S105 - a name
    LOGIN = "login"
    """A password or a certificate."""
    LABEL = "label"
    RA = "ra"
    OTHER = "other"
    SECRET = "secret"  # noqa: S105 - a name
    """A key that the server can encrypt other keys to."""
    DIGEST = "digest"
    """The server offers Digest."""
    KEYGEN = "keygen"
    CMC = "cmc"
    TLS12 = "tls12"
    TLS13 = "tls13"


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    """Unique within its group."""
    group: str
    level: Level
    clause: str
    """Where the requirement stands, such as `RFC 7030 4.2.3`."""
    rows: tuple[str, ...]
    """The requirements that it tests, by the ids of tests/rfc_coverage.md; empty for what no RFC asks."""
    expected: str
    """What is sent and what a good server answers, in a sentence."""
    run: Callable[[Probe], str]
    """Returns what was seen when the server is right, and raises a `Finding` otherwise."""
    needs: tuple[Need, ...] = ()

    @property
    def id(self) -> str:
        """Such as `enroll.issue`."""
        return f"{self.group}.{self.name}"


@dataclass
class Result:
    """How one case ended."""

    case: Case
    status: Status
    seen: str
    """What the server did, or what is missing."""
    exchange: list[str] = field(default_factory=list)
    """Requests and answers without credentials, one line each."""
    command: str = ""
    """The command that runs this case alone."""
    seconds: float = 0.0
    reason: str | None = None
    """Why the user expects it to fail; None if the user does not."""

    @property
    def is_bad(self) -> bool:
        """Whether it is a FAIL that nobody expected."""
        return self.status is Status.FAIL and self.reason is None

    @property
    def is_surprise(self) -> bool:
        """Whether the user expects it to fail, and it passes."""
        return self.status is Status.PASS and self.reason is not None


@dataclass(frozen=True)
class Setup:
    """Server, anchors, credentials and limits of a run."""

    place: Place
    """The server, with the label if there is one."""
    trust: Trust
    label: str | None = None
    credentials: Credentials | None = None
    identity: Identity | None = None
    """A certificate of the server's own CA."""
    ra: Identity | None = None
    other: Identity | None = None
    """A certificate of a CA that the server must not trust."""
    secret: Secret = field(default_factory=Secret)
    subject: str = "CN=estgw-conform-{n}"
    is_read_only: bool = False
    timeout: float = 10.0
    """Seconds for TCP, TLS and each answer."""

    def name(self, number: int) -> x509.Name:
        """The subject of the CSR with that number; raises `ValueError` for what is no RFC 4514 name."""
        return x509.Name.from_rfc4514_string(self.subject.replace("{n}", str(number)))


@dataclass(frozen=True)
class Counts:
    """How many cases ended how."""

    of: dict[Status, int]
    passed: int
    """MUST cases that passed, those with a warning among them."""
    failed: int
    untested: int

    @classmethod
    def count(cls, results: Iterable[Result]) -> Counts:
        """Count results."""
        found = list(results)
        of = {status: sum(each.status is status for each in found) for status in Status}
        must = [each.status for each in found if each.case.level is Level.MUST]
        passed = sum(status in (Status.PASS, Status.WARN) for status in must)
        bad = must.count(Status.FAIL)
        return cls(of, passed, bad, len(must) - passed - bad)

    @property
    def line(self) -> str:
        """The last line of a report."""
        return f"MUST: {self.passed} passed, {self.failed} failed, {self.untested} not tested"
