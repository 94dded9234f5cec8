"""Read the Authorization header (RFC 7616, RFC 7617, RFC 7030 3.2.3)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from estgw.auth import digest
from estgw.auth.credentials import Credentials
from estgw.errors import Unauthenticated

MAXIMUM_HEADER = 4096
_FOREIGN_SCHEMES = {"bearer", "negotiate", "ntlm"}


def parse(headers: Sequence[str]) -> Credentials | None:
    """Return the credentials in the Authorization headers of a request, or None if it has no such header.

    Raises `Unauthenticated` for a header that can't be read: it must neither satisfy a requirement nor let a client
    skip one.
    """
    if not headers:
        return None
    if len(headers) > 1 or len(headers[0]) > MAXIMUM_HEADER:
        raise Unauthenticated(log="more than one Authorization header, or a very long one")
    scheme, _, rest = headers[0].strip().partition(" ")
    match scheme.lower():
        case "basic":
            return _basic(rest.strip())
        case "digest":
            response = digest.parse(rest)
            return Credentials("Digest", response.username, response=response)
    # Any other first word may be a password that was sent without a scheme; it must not reach the log.
    named = f": {scheme}" if scheme.lower() in _FOREIGN_SCHEMES else ""
    raise Unauthenticated(log=f"Authorization scheme not offered{named}")


def _basic(token: str) -> Credentials:
    """Read base64 of user, colon, password (RFC 7617 2).  The first colon divides; both parts may be empty."""
    try:
        raw = base64.b64decode(token, validate=True)
    except (binascii.Error, ValueError):
        raise Unauthenticated(log="the Basic credentials are not base64") from None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # older clients send it for passwords that are not ASCII
    user, colon, password = text.partition(":")
    if not colon or any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise Unauthenticated(log="the Basic credentials have no colon, or a control character")
    return Credentials("Basic", user, password)


def basic_challenge(realm: str) -> str:
    """Return one Basic challenge with the realm alone (RFC 7617 2): two real clients read only the first header."""
    return f'Basic realm="{realm}"'
