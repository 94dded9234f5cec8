"""What a client claims to be by HTTP authentication, not verified: facts alone."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DigestResponse:
    """A client's answer to a Digest challenge; nothing in it is verified."""

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
    """What a client claims; nothing here is verified.  Secrets never appear in a repr."""

    scheme: str
    """`Basic` or `Digest`."""
    username: str
    password: str | None = field(default=None, repr=False)
    """None with Digest, which never shows it."""
    response: DigestResponse | None = None
