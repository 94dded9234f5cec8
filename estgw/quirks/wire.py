"""HTTP/1.1 from the server's side, by hand: requests are read strictly and within bounds, answers may be broken."""

from __future__ import annotations

import base64
import http.client
import io
from dataclasses import dataclass, field, replace
from email.message import Message

from cryptography import x509
from OpenSSL import SSL

from estgw.client.transport.stream import Stream
from estgw.errors import BadRequest, RequestError, RequestTimedOut, TooLarge
from estgw.est.binding import EXPORTER_CONTEXT, EXPORTER_LABEL, EXPORTER_LENGTH, Binding, BindingType

MAXIMUM_HEAD = 16 * 1024
MAXIMUM_BODY = 256 * 1024
MAXIMUM_REQUEST = MAXIMUM_HEAD + 2 * MAXIMUM_BODY
"""Bytes on the wire, with the framing of chunks."""
_MAXIMUM_CHUNK_LINE = 256


@dataclass(frozen=True)
class Link:
    """One connection: its number on its port, the peer, and what the handshake has established."""

    number: int
    address: str
    port: int
    version: str = ""
    """`TLSv1.2` and so on."""
    bindings: tuple[Binding, ...] = ()
    """All values by which a CSR may be linked to it, the standard's first."""


def described(link: Link, connection: SSL.Connection) -> Link:
    """A connection whose handshake is done."""
    version = connection.get_protocol_version_name()
    finished = connection.get_peer_finished() or b""
    if version == "TLSv1.3":
        exported = connection.export_keying_material(EXPORTER_LABEL, EXPORTER_LENGTH, EXPORTER_CONTEXT)
        known = [Binding(BindingType.TLS_EXPORTER, exported), Binding(BindingType.TLS13_FINISHED, finished)]
    else:
        # Full handshakes only (no tickets, no cache), so the first Finished is the client's: RFC 5929 3.1.
        known = [Binding(BindingType.TLS_UNIQUE, finished)]
    return replace(link, version=version, bindings=tuple(known))


@dataclass(frozen=True)
class Request:
    """One request."""

    link: Link
    method: str
    target: str
    headers: Message
    body: bytes = field(repr=False)

    @property
    def closes(self) -> bool:
        """Whether the client wants the connection to end with the answer (RFC 9112 9.3)."""
        return self.headers.get("Connection", "").strip().lower() == "close"


@dataclass(frozen=True)
class Reply:
    """One answer, well formed unless `pieces` say otherwise."""

    status: int = 200
    body: bytes = field(default=b"", repr=False)
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    is_base64: bool = False
    """Whether the head says `Content-Transfer-Encoding: base64`, as several clients need."""
    pieces: tuple[bytes, ...] | None = field(default=None, repr=False)
    """The bytes on the wire in place of these fields; the connection ends behind them."""
    certificate: x509.Certificate | None = None
    """The certificate in the body, right or wrong."""

    def encode(self) -> bytes | tuple[bytes, ...]:
        """The bytes on the wire."""
        return self.head() + self.body if self.pieces is None else self.pieces

    def head(self, *framing: tuple[str, str], lower: bool = False) -> bytes:
        """The head; `framing` replaces Content-Length."""
        fields = [("Content-Type", self.content_type)] if self.content_type else []
        fields += [("Content-Transfer-Encoding", "base64")] if self.is_base64 else []
        fields += [*self.headers, *(framing or (("Content-Length", str(len(self.body))),))]
        lines = [f"HTTP/1.1 {self.status} {http.client.responses.get(self.status, 'Quirk')}"]
        lines += [f"{name.lower() if lower else name}: {value}" for name, value in fields]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def sentence(fault: RequestError, *, closes: bool = False) -> Reply:
    """A refusal in words."""
    text = (fault.public + "\n").encode() if fault.public else b""
    kind = "text/plain; charset=utf-8" if text else None
    ending = (("Connection", "close"),) if fault.close or closes else ()
    return Reply(fault.status, text, kind, (*fault.headers.items(), *ending))


class Reader:
    """The requests of one connection, whose clock and allowance its owner sets for each."""

    def __init__(self, stream: Stream, link: Link) -> None:
        self._stream = stream
        self._file = stream.makefile("rb")
        self._link = link

    def request(self) -> Request | None:
        """The next request; None if the client has ended the connection, or sends nothing.

        Raises `RequestError` for one that is too large, too slow or no HTTP.
        """
        first = b""
        try:
            while first in (b"", b"\r\n", b"\n"):  # libest sends a CRLF behind its body
                first = self._file.readline(MAXIMUM_HEAD)
                if not first:
                    return None
            _require_end(first, len(first))
            head = first + self._fields(len(first))
            method, target = _request_line(first)
            headers = _headers(head[len(first) :])
            if headers.get("Expect", "").strip().lower() == "100-continue":
                self._stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            return Request(self._link, method, target, headers, self._body(headers))
        except TimeoutError:
            if not first.strip() and not self._stream.received:
                return None
            raise RequestTimedOut("The request took too long.") from None

    def _fields(self, length: int) -> bytes:
        """The header lines, with the empty line behind them."""
        lines: list[bytes] = []
        while not lines or lines[-1] not in (b"\r\n", b"\n"):
            line = self._file.readline(MAXIMUM_HEAD)
            length += len(line)
            _require_end(line, length)
            lines.append(line)
        return b"".join(lines)

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise BadRequest("The request is cut off.")
        return data

    def _body(self, headers: Message) -> bytes:
        coding, lengths = headers.get_all("Transfer-Encoding", []), headers.get_all("Content-Length", [])
        if coding:
            if [each.strip().lower() for each in coding] != ["chunked"] or lengths:
                raise BadRequest("Transfer-Encoding is chunked and nothing else, and excludes Content-Length.")
            return self._chunks()
        if not lengths:
            return b""
        length = lengths[0].strip()
        if len(lengths) > 1 or not (length.isascii() and length.isdigit()):
            raise BadRequest("Content-Length is one number.")
        if len(length) > 9 or int(length) > MAXIMUM_BODY:
            raise TooLarge(f"A body of more than {MAXIMUM_BODY} bytes.")
        return self._take(int(length))

    def _chunks(self) -> bytes:
        parts: list[bytes] = []
        left = MAXIMUM_BODY
        while size := self._chunk_size():
            left -= size
            if left < 0:
                raise TooLarge(f"A body of more than {MAXIMUM_BODY} bytes.")
            parts.append(self._take(size))
            if self._take(2) != b"\r\n":
                raise BadRequest("A chunk does not end where its length says.")
        while self._line() != b"\r\n":
            pass  # trailers; the allowance bounds them
        return b"".join(parts)

    def _chunk_size(self) -> int:
        digits = self._line().partition(b";")[0].strip()
        if not 0 < len(digits) <= 6 or digits.translate(None, b"0123456789abcdefABCDEF"):
            raise BadRequest("A chunk without a length.")
        return int(digits, 16)

    def _line(self) -> bytes:
        line = self._file.readline(_MAXIMUM_CHUNK_LINE)
        if not line.endswith(b"\r\n"):
            raise BadRequest("The line of a chunk does not end.")
        return line


def _require_end(line: bytes, length: int) -> None:
    """Raise `RequestError` for a head of that `length` so far that is too long or does not go on."""
    if length > MAXIMUM_HEAD or (length == MAXIMUM_HEAD and not line.endswith(b"\n")):
        raise TooLarge(f"The head of the request is longer than {MAXIMUM_HEAD} bytes.")
    if not line.endswith(b"\n"):
        raise BadRequest("The request is cut off.")


def _request_line(line: bytes) -> tuple[str, str]:
    words = line.rstrip(b"\r\n").split(b" ")
    is_sound = len(words) == 3 and words[2] in (b"HTTP/1.1", b"HTTP/1.0") and words[0].isalpha() and words[1]
    if not is_sound or not line.isascii():
        raise BadRequest("Not an HTTP/1.1 request.")
    return words[0].decode(), words[1].decode()


def _headers(lines: bytes) -> Message:
    try:
        return http.client.parse_headers(io.BytesIO(lines))
    except (http.client.HTTPException, ValueError):
        raise BadRequest("The header lines can't be read.") from None


def basic_credentials(header: str) -> tuple[str, str] | None:
    """User and password of a Basic Authorization header (RFC 7617 2), or None."""
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(token.strip(), validate=True).decode().partition(":")
    except ValueError:
        return None
    return (user, password) if colon else None
