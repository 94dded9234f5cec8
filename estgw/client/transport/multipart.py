"""A strict parser of multipart/mixed in a serverkeygen answer (RFC 7030 4.4.2, RFC 2046 5.1).

`email.parser` guesses charsets and repairs broken input, which would spoil a private key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.message import Message

from estgw.client.faults import InvalidAnswer, clean
from estgw.client.transport.wire import parameter
from estgw.est.operations import essence

_MAXIMUM_PARTS = 8
_MAXIMUM_HEAD = 4096
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
"""RFC 2046 5.1.1: bchars, and no space at the end."""
_HEAD_END = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True)
class Part:
    """One part: its media type in lower case, its smime-type in lower case or empty, and its body as it stands."""

    content_type: str
    smime_type: str
    body: bytes = field(repr=False)


def split(headers: Message, body: bytes) -> list[Part]:
    """The parts of a multipart body; preamble and epilogue are dropped.  Raises `InvalidAnswer`."""
    boundary = parameter(headers, "boundary")
    if boundary is None or not _BOUNDARY.fullmatch(boundary):
        raise InvalidAnswer("a multipart without a boundary")
    delimiter = re.compile(rb"(?:\A|\r?\n)--" + re.escape(boundary.encode()) + rb"(--)?[ \t]*(?=\r?\n|\Z)")
    found: list[Part] = []
    begin: int | None = None
    for match in delimiter.finditer(body):
        if begin is not None:
            found.append(_part(body[begin : match.start()]))
        if match[1] is not None:
            return found
        if len(found) >= _MAXIMUM_PARTS:
            raise InvalidAnswer(f"a multipart of more than {_MAXIMUM_PARTS} parts")
        begin = match.end()
    raise InvalidAnswer("a multipart that does not end")


def _part(section: bytes) -> Part:
    """A section between two delimiters; it begins with the line end of the first."""
    end = _HEAD_END.search(section)
    if end is None or end.start() > _MAXIMUM_HEAD:
        raise InvalidAnswer("a part of a multipart without headers")
    text = re.sub(r"\r?\n[ \t]+", " ", section[: end.start()].decode("latin-1"))
    message = Message()
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if not colon and line:
            raise InvalidAnswer(f"a part with a header line without a colon: {clean(line, 100)!r}")
        if name.strip().lower() == "content-type":
            message["Content-Type"] = value.strip()
    smime = parameter(message, "smime-type") or ""
    return Part(essence(message.get("Content-Type")), smime.lower(), section[end.end() :])
