"""The credentials that a client sends by HTTP authentication, not verified, as plain facts."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DigestResponse:
    """A client's answer to a Digest challenge (RFC 7616 3.4).  Nothing in it is verified."""

    username: str
    realm: str
    nonce: str
    uri: str
    algorithm: str
    nc: str
    cnonce: str
    response: str = field(repr=False)


@dataclass(frozen=True)
class Credentials:
    """The credentials of one request.  Nothing in them is verified.  Secrets never appear in a repr."""

    scheme: str
    """`Basic` or `Digest`."""
    username: str
    password: str | None = field(default=None, repr=False)
    """None with Digest, which does not send it."""
    response: DigestResponse | None = None
