"""One connection to the server, and the transcript of what went over it."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from estgw import __version__
from estgw.client.commands import trace
from estgw.client.faults import clean
from estgw.client.transport.tls import Connected
from estgw.client.transport.wire import Exchange
from estgw.conform import http
from estgw.conform.http import Reply
from estgw.est.binding import Binding

_MAXIMUM_LINES = 400
"""Lines of one case's transcript; the first ones stay, since the later ones repeat them."""
_MAXIMUM_LINE = 2000


class Transcript:
    """Requests and answers of one case as lines of text, without credentials and private keys."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, *lines: str) -> None:
        """Add lines; past a bound they are left out, and the last line says so."""
        for line in lines:
            if len(self.lines) < _MAXIMUM_LINES:
                self.lines.append(clean(line, _MAXIMUM_LINE))
            elif len(self.lines) == _MAXIMUM_LINES:
                self.lines.append("[further lines are left out]")

    def exchange(self, exchange: Exchange) -> None:
        """Add a request, or its answer when there is one."""
        trace.tracer(self.add)(exchange)


class Line:
    """A connection whose server is trusted: requests go out, answers come in, and all of it is noted."""

    def __init__(self, connected: Connected, transcript: Transcript, timeout: float) -> None:
        self.connected = connected
        self._transcript = transcript
        self._timeout = timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connected.stream.close()

    @property
    def binding(self) -> Binding | None:
        """The channel binding of this connection."""
        return self.connected.binding

    def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        """Send a request and read the answer; raises the exceptions of `http.read` and `Untrusted` for an alert."""
        sent = {"Host": self.connected.place.authority, "User-Agent": f"estgw-conform/{__version__}", "Accept": "*/*"}
        sent |= headers
        data = http.request(method, target, sent, body)
        exchange = Exchange(self.connected, method, target, sent, body or b"")
        return self._send(data, exchange)

    def ask_raw(self, data: bytes, exchange_note: str, method: str = "POST") -> Reply:
        """Send bytes that are no ordinary request; the note stands for them in the transcript."""
        http.start_clock(self.connected.stream, self._timeout)
        self._transcript.add(f"* {self.connected.version} to {self.connected.place.authority}", f"> {exchange_note}")
        self.connected.stream.sendall(data)
        return self.read(method)

    def read(self, method: str = "POST") -> Reply:
        """Read one more answer."""
        reply = http.read(self.connected.stream, method)
        self._note(Exchange(self.connected, method, "", {}, b"", reply.answer))
        return reply

    def restart_clock(self, seconds: float) -> None:
        """Give the next sending or reading that many seconds."""
        http.start_clock(self.connected.stream, seconds)

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.connected.stream.sendall(data)

    def _send(self, data: bytes, exchange: Exchange) -> Reply:
        http.start_clock(self.connected.stream, self._timeout)
        self._note(exchange)
        self.connected.stream.sendall(data)
        return self.read(exchange.method)

    def _note(self, exchange: Exchange) -> None:
        self._transcript.exchange(exchange)
