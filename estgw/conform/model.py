"""How a case can end, what it can need, and what a user gives for a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from cryptography import x509

from estgw.client.sealing import Secret
from estgw.client.transport.challenge import Credentials
from estgw.client.transport.tls import Identity
from estgw.client.transport.trust import Trust
from estgw.client.transport.url import Place

DEFAULT_SUBJECT = "CN=estgw-conform-{n}"
"""The subject of the CSRs; {n} is a number."""


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
    subject: str = DEFAULT_SUBJECT
    is_read_only: bool = False
    timeout: float = 10.0
    """Seconds for TCP, TLS and each answer."""

    def name(self, number: int) -> x509.Name:
        """The subject of the CSR with that number; raises `ValueError` for what is no RFC 4514 name."""
        return x509.Name.from_rfc4514_string(self.subject.replace("{n}", str(number)))
