"""The errors of the client; each class is one exit status.

Text from a server passes through `clean` before it gets into an error, since errors go to terminals and logs.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime
from enum import IntEnum
from typing import Any

MAXIMUM_WORDS = 2048
"""Characters of a server's reason that are shown."""


class Exit(IntEnum):
    """The exit status of `estclient`."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    TRY_LATER = 3
    REFUSED = 4
    UNTRUSTED = 5
    NO_CONNECTION = 6
    INVALID_ANSWER = 7


class ClientError(Exception):
    """The run failed for a reason of the client's own, such as a file that can't be written (status 1)."""

    status = Exit.FAILED
    operation = ""
    """The EST operation that failed, such as `csrattrs`; empty for other failures."""
    url = ""
    """The URL of that operation, after redirects."""


class UsageError(ClientError):
    """The options contradict each other, or one is wrong (status 2)."""

    status = Exit.USAGE


class TryLater(ClientError):
    """202, or 429 and 503 with a time: the server wants to see the same request again later (status 3)."""

    status = Exit.TRY_LATER

    def __init__(self, text: str, *, seconds: int, when: datetime, said: bool = True, answer: Any = None) -> None:
        super().__init__(text)
        self.seconds = seconds
        """Whole seconds from now on, at least 1."""
        self.when = when
        """The UTC time at which to try again."""
        self.said = said
        """False when the server named no time and `seconds` is a default."""
        self.answer = answer
        """The `wire.Answer` itself: Full CMC may continue with the message in it."""


class Refused(ClientError):
    """The server understood the request and refused it (status 4)."""

    status = Exit.REFUSED

    def __init__(self, text: str, *, http_status: int = 0, words: str = "", answer: Any = None) -> None:
        super().__init__(text)
        self.http_status = http_status
        self.words = words
        """The server's reason, cleaned; may be empty."""
        self.answer = answer
        """As in `TryLater`."""


class NotOffered(Refused):
    """404 or 501: the server does not have this operation (RFC 7030 4.3.2)."""


class ServerFailed(ClientError):
    """A 5xx: the server failed (status 1)."""


class Untrusted(ClientError):
    """The TLS handshake failed, or the server's certificate is not to be trusted (status 5)."""

    status = Exit.UNTRUSTED


class NoConnection(ClientError):
    """The server can't be reached, or the connection ended before the answer (status 6)."""

    status = Exit.NO_CONNECTION


class Dropped(NoConnection):
    """The connection ended before the first byte of an answer."""


class InvalidAnswer(ClientError):
    """The server's answer breaks the protocol (status 7)."""

    status = Exit.INVALID_ANSWER


def clean(text: str, limit: int = MAXIMUM_WORDS) -> str:
    """Text from a peer, made safe for a terminal: control and format characters escaped, length bounded.

    Line feeds stay, since reasons may have several lines.
    """
    shown = text[:limit].replace("\r\n", "\n")
    safe = "".join(char if char == "\n" or not _is_unsafe(char) else _escape(char) for char in shown)
    return safe.strip("\n") + ("..." if len(text) > limit else "")


def _is_unsafe(char: str) -> bool:
    # Cf holds the bidirectional overrides, which can make a line read as another one.
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
