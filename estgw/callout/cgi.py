"""Read a handler's stdout: the CGI form with headers, or the raw form without (RFC 3875 6)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from estgw.errors import Malformed

MAXIMUM_HEADERS = 8 * 1024
"""Bytes of a header block."""
WORDS = 2 * 1024
"""Characters of a script's words that reach the client."""
MAXIMUM_KEEP = 24 * 3600
"""The longest time, in seconds, for which an answer may be kept."""

_FIRST_LINE = re.compile(rb"(status|content-type)[ \t]*:", re.IGNORECASE)
_NAME = re.compile(rb"[A-Za-z0-9-]+")
_BLANK = b" \t"
_PASSED = {"content-type": "Content-Type", "retry-after": "Retry-After", "location": "Location"}


@dataclass(frozen=True)
class Output:
    """The parts of a handler's stdout."""

    body: bytes
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    """Names of headers that the contract does not pass on, for the log."""
    keep: int = 0
    """Seconds for which the answer may be repeated without running the handler (`X-EST-Cache`)."""


def read(stdout: bytes) -> Output:
    """Read either form, told apart by the first line.  Raises `Malformed` for an invalid header block."""
    if not _FIRST_LINE.match(stdout):
        return Output(stdout)
    head, divider, body = _divide(stdout)
    if not divider:
        raise Malformed(f"no empty line ends the header block within {MAXIMUM_HEADERS} bytes")
    status: int | None = None
    headers: dict[str, str] = {}
    keep = 0
    dropped = []
    for line in head.splitlines():
        before, colon, after = line.partition(b":")
        if not colon or not _NAME.fullmatch(before.rstrip(_BLANK)):
            raise Malformed(f"not a header line: {line[:80]!r}")
        name, value = before.rstrip(_BLANK).decode().lower(), _text(after.strip(_BLANK), line)
        if name == "status":
            status = _status(value)
        elif name == "x-est-cache":
            keep = _seconds(value)
        elif name in _PASSED:
            headers[_PASSED[name]] = value
        elif name.startswith("x-"):
            headers[name.title()] = value
        else:
            dropped.append(name)
    _check(status, headers)
    return Output(body, status, headers, tuple(dropped), keep)


def words(text: bytes) -> str:
    """A script's words for the client: printable, bounded."""
    decoded = text.decode("utf-8", "replace")
    kept = "".join(char if char.isprintable() or char == "\n" else "?" for char in decoded.replace("\r", ""))
    return kept[:WORDS].strip()


def _divide(stdout: bytes) -> tuple[bytes, bytes, bytes]:
    found = re.search(rb"\r?\n\r?\n", stdout[: MAXIMUM_HEADERS + 2])
    if not found:
        return stdout, b"", b""
    return stdout[: found.start()], found[0], stdout[found.end() :]


def _text(value: bytes, line: bytes) -> str:
    try:
        text = value.decode("ascii")
    except UnicodeDecodeError:
        raise Malformed(f"a header line that is not ASCII: {line[:80]!r}") from None
    if not text.isprintable():
        raise Malformed(f"a control character in a header line: {line[:80]!r}")
    return text


def _status(value: str) -> int:
    code = value.split(" ", 1)[0]
    if not re.fullmatch(r"[2-5]\d\d", code):
        raise Malformed(f"Status is {value[:40]!r}, not a number from 200 to 599")
    return int(code)


def _seconds(value: str) -> int:
    if not re.fullmatch(r"\d{1,5}", value) or int(value) > MAXIMUM_KEEP:
        raise Malformed(f"X-EST-Cache is {value[:40]!r}, not whole seconds from 0 to {MAXIMUM_KEEP}")
    return int(value)


def _check(status: int | None, headers: Mapping[str, str]) -> None:
    retry = headers.get("Retry-After")
    if retry is not None and not re.fullmatch(r"\d{1,9}", retry):
        raise Malformed("Retry-After must be whole seconds: two real clients read nothing else")
    location = headers.get("Location")
    if location is not None:
        try:
            parts = urlsplit(location)
        except ValueError as fault:
            raise Malformed(f"Location is {location[:80]!r}, which is no URL: {fault}") from None
        if parts.scheme != "https" or not parts.netloc or status is None or not 300 <= status < 400:
            raise Malformed("Location must be an absolute https URL, with a Status of 3xx")
    elif status is not None and 300 <= status < 400:
        raise Malformed(f"Status {status} without a Location")
