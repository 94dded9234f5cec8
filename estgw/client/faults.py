"""Every way a client's run can end but well; each class is one exit status.

Whatever a server said is in these texts only after `clean`: it goes to terminals and logs.
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
    """The EST operation that failed, such as `csrattrs`; empty when it was none."""
    url = ""
    """Where that operation was asked for, after redirects."""


class UsageError(ClientError):
    """The call makes no sense as it stands (status 2)."""

    status = Exit.USAGE


class TryLater(ClientError):
    """202, or 429 and 503 with a time: the server wants to see the same request again later (status 3)."""

    status = Exit.TRY_LATER

    def __init__(self, text: str, *, seconds: int, when: datetime, said: bool = True, answer: Any = None) -> None:
        super().__init__(text)
        self.seconds = seconds
        """Whole seconds from now on, at least 1."""
        self.when = when
        """The same as a UTC time."""
        self.said = said
        """False when the server named no time and `seconds` is our own guess."""
        self.answer = answer
        """The `wire.Answer` itself, for Full CMC, which may go on from what is inside."""


class Refused(ClientError):
    """The server understood and said no (status 4)."""

    status = Exit.REFUSED

    def __init__(self, text: str, *, http_status: int = 0, words: str = "", answer: Any = None) -> None:
        super().__init__(text)
        self.http_status = http_status
        self.words = words
        """What the server gave as its reason, cleaned; may be empty."""
        self.answer = answer
        """As in `TryLater`."""


class NotOffered(Refused):
    """404 or 501: the server does not have this operation (RFC 7030 4.3.2)."""


class ServerFailed(ClientError):
    """A 5xx: the fault is on the server's side (status 1)."""


class Untrusted(ClientError):
    """No TLS connection, or one to a server that must not be believed (status 5)."""

    status = Exit.UNTRUSTED


class NoConnection(ClientError):
    """The server can't be reached, or went away before it answered (status 6)."""

    status = Exit.NO_CONNECTION


class Dropped(NoConnection):
    """The connection ended before one byte of an answer had come."""


class InvalidAnswer(ClientError):
    """The server's answer is not what the protocol promises (status 7)."""

    status = Exit.INVALID_ANSWER


def clean(text: str, limit: int = MAXIMUM_WORDS) -> str:
    """Text from a peer, fit for a terminal: control and format characters escaped, length bounded.

    Line feeds stay, since reasons may have several lines; anything a terminal could obey does not.
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
