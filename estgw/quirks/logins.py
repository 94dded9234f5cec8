"""How the quirks treat a login: each function returns a 401, or None when the client may go on."""

from __future__ import annotations

from collections.abc import Callable

from estgw.quirks.desk import Asked, Desk, basic_challenge, digest_challenge
from estgw.quirks.wire import Reply

Check = Callable[[Asked, Desk], Reply | None]


def basic(asked: Asked, desk: Desk) -> Reply | None:
    """The right way: Basic over TLS (RFC 7030 3.2.3)."""
    del desk
    return None if asked.login.is_right else basic_challenge()


def endless_401(asked: Asked, desk: Desk) -> Reply | None:
    """Never be content."""
    del asked, desk
    return basic_challenge()


def basic_then_digest(asked: Asked, desk: Desk) -> Reply | None:
    """Offer Basic, and Digest to a client that has sent it."""
    if asked.login.scheme == "digest" and asked.login.is_right:
        return None
    return digest_challenge(desk.nonce, "") if asked.login.scheme else basic_challenge()


def digest_sha256(asked: Asked, desk: Desk) -> Reply | None:
    """Offer Digest with SHA-256 and nothing else (RFC 7616 3.7)."""
    if asked.login.scheme == "digest" and asked.login.is_right:
        return None
    return digest_challenge(desk.nonce, "SHA-256")
