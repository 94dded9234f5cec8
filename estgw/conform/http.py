"""HTTP/1.1 as bytes: requests of any form, and answers as the server has sent them.

`http.client` hides what this project judges: the version, chunks, the case of header names, headers that come twice.
Everything is bounded: a server may close, flood, drip or speak HTTP/1.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message

from estgw.client.faults import Dropped, InvalidAnswer, NoConnection, clean
from estgw.client.transport.stream import Stream
from estgw.client.transport.wire import MAXIMUM_ANSWER, MAXIMUM_BODY, Answer

MAXIMUM_HEAD = 65_536
_MAXIMUM_INTERIM = 10
_MAXIMUM_FIELDS = 200
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")


@dataclass(frozen=True)
class Reply:
    """One complete answer as it came."""

    version: str
    answer: Answer
    fields: tuple[tuple[str, str], ...]
    head: bytes = field(repr=False)
    is_chunked: bool = False
    ended_by_close: bool = False
    """The end of the connection is the end of the body."""

    @property
    def status(self) -> int:
        """The status code."""
        return self.answer.status

    @property
    def body(self) -> bytes:
        """The body, without chunk framing."""
        return self.answer.body

    @property
    def type(self) -> str:
        """The media type in lower case without parameters; empty when there is none."""
        return self.answer.content_type

    def all(self, name: str) -> list[str]:
        """The values of all headers of that name."""
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The first value of a header, or None."""
        return next(iter(self.all(name)), None)

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def is_refusal(self) -> bool:
        """Whether the status is 4xx."""
        return 400 <= self.status < 500

    def __str__(self) -> str:
        """Status and words for a person, cleaned."""
        words = clean(self.answer.words, 200).replace("\n", " ")
        return f"{self.status} {self.answer.reason}".rstrip() + (f": {words}" if words else "")


def request(method: str, target: str, headers: Mapping[str, str], body: bytes | None = None) -> bytes:
    """The bytes of a request; Content-Length comes from `body` unless `headers` have their own framing."""
    fields = dict(headers)
    if body is not None and "Transfer-Encoding" not in fields:
        fields.setdefault("Content-Length", str(len(body)))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + (body or b"")


def read(stream: Stream, method: str) -> Reply:
    """The next answer.

    `stream.start_clock` bounds time and bytes.  Raises `Dropped` when the server closes before the first byte,
    `NoConnection` when it stays silent, `InvalidAnswer` for what is no HTTP.
    """
    reader = _Reader(stream)
    for _ in range(_MAXIMUM_INTERIM):
        version, status, reason, fields, head = _head(reader)
        if status >= 200 or status == 101:
            break
    else:
        raise InvalidAnswer("interim answers without an end")
    chunked, by_close, body = False, False, b""
    if method != "HEAD" and status not in (101, 204, 304):
        chunked, by_close, body = _body(reader, fields)
    message = Message()
    for name, value in fields:
        message[name] = value
    return Reply(version, Answer(status, clean(reason, 200), message, body), tuple(fields), head, chunked, by_close)


def start_clock(stream: Stream, seconds: float) -> None:
    """Bound the next exchange in time and bytes."""
    stream.start_clock(seconds, MAXIMUM_ANSWER)


class _Reader:
    """Bytes from a stream, with the faults of the connection in words."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    def more(self) -> bool:
        """Read some; False at the end of the connection."""
        try:
            data = self._stream.receive(65_536)
        except TimeoutError:
            if self._stream.received:
                raise InvalidAnswer("the answer was not complete in time") from None
            raise NoConnection("no answer in time") from None
        except OSError as fault:
            if not self._stream.received:
                raise Dropped("the server closed the connection without an answer") from None
            raise InvalidAnswer(f"the connection broke off in the middle of the answer ({fault.strerror})") from None
        self._buffer += data
        return bool(data)

    def until(self, mark: bytes, limit: int, what: str) -> bytes:
        """The bytes up to a mark and with it."""
        searched = 0
        while (at := self._buffer.find(mark, searched)) < 0:
            searched = max(0, len(self._buffer) - len(mark))
            if len(self._buffer) > limit:
                raise InvalidAnswer(f"{what} of more than {limit} bytes")
            if not self.more():
                if not self._buffer:
                    raise Dropped("the server closed the connection without an answer")
                shown = clean(bytes(self._buffer[:80]).decode("latin-1"), 80)
                raise InvalidAnswer(f"{what} that does not end, but begins with {shown!r}")
        return self.exactly(at + len(mark))

    def exactly(self, size: int) -> bytes:
        """That many bytes."""
        while len(self._buffer) < size:
            if not self.more():
                raise InvalidAnswer(f"the answer is cut off: {len(self._buffer)} of {size} bytes")
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    def rest(self, limit: int) -> bytes:
        """Everything up to the end of the connection."""
        while self.more():
            if len(self._buffer) > limit:
                raise InvalidAnswer(f"an answer of more than {limit} bytes")
        return bytes(self._buffer)


def _head(reader: _Reader) -> tuple[str, int, str, list[tuple[str, str]], bytes]:
    head = reader.until(b"\r\n\r\n", MAXIMUM_HEAD, "a head")
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    version, _, rest = first.partition(" ")
    code, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or len(code) != 3 or not (code.isascii() and code.isdigit()):
        raise InvalidAnswer(f"not an HTTP answer: it begins with {clean(first, 80)!r}")
    if len(lines) > _MAXIMUM_FIELDS:
        raise InvalidAnswer(f"an answer with more than {_MAXIMUM_FIELDS} headers")
    fields = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise InvalidAnswer(f"a header line that is none: {clean(line, 80)!r}")
        fields.append((name, value.strip(" \t")))
    return version, int(code), reason, fields, head


def _body(reader: _Reader, fields: list[tuple[str, str]]) -> tuple[bool, bool, bytes]:
    """Whether it was chunked, whether the end of the connection ended it, and the body."""
    found = {name.lower(): value for name, value in fields}
    if "chunked" in found.get("transfer-encoding", "").lower():
        return True, False, _chunks(reader)
    lengths = {value for name, value in fields if name.lower() == "content-length"}
    if not lengths:
        return False, True, reader.rest(MAXIMUM_BODY)
    text = lengths.pop()
    if lengths or not (text.isascii() and text.isdigit()) or len(text) > 12:
        raise InvalidAnswer(f"a Content-Length that is none: {clean(text, 80)!r}")
    if int(text) > MAXIMUM_BODY:
        raise InvalidAnswer(f"an answer of {text} bytes; {MAXIMUM_BODY} is the maximum")
    return False, False, reader.exactly(int(text))


def _chunks(reader: _Reader) -> bytes:
    parts: list[bytes] = []
    total = 0
    while True:
        line = reader.until(b"\r\n", 1024, "the size of a chunk").partition(b";")[0].strip()
        if not _SIZE.fullmatch(line):
            raise InvalidAnswer(f"a chunk whose size is {clean(line[:40].decode('latin-1'), 40)!r}")
        size = int(line, 16)
        total += size
        if total > MAXIMUM_BODY:
            raise InvalidAnswer(f"an answer of more than {MAXIMUM_BODY} bytes")
        if not size:
            while reader.until(b"\r\n", 4096, "a trailer") != b"\r\n":
                pass
            return b"".join(parts)
        parts.append(reader.exactly(size))
        if reader.exactly(2) != b"\r\n":
            raise InvalidAnswer("a chunk that is longer than its size")
