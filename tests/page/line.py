"""A line between browser and page that can be cut, or fall silent as it does when a computer sleeps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

from estgw.tls import sockets
from tests.page.shown import Shown


class _End(asyncio.Protocol):
    """One end of a connection through the line; what comes in goes out of the other."""

    def __init__(self, line: Line, other: _End | None = None) -> None:
        self.line, self.other = line, other
        self.transport: asyncio.Transport | None = None
        self.held = b""
        self.silent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.line.ends.add(self)
        if self.other is not None:
            self.other.other = self
            transport.write(self.other.held)
        elif self.line.refuses:
            transport.abort()
        else:
            self.line.opened += 1
            self.line.connect(self)

    def data_received(self, data: bytes) -> None:
        if self.silent:
            return
        if self.other is None or self.other.transport is None:
            self.held += data
        else:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.line.ends.discard(self)
        if not self.silent and self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class Line:
    """A forwarder in front of a page; all runs in the thread of the page's server."""

    def __init__(self, page: Shown) -> None:
        self._page = page
        self._tasks: set[asyncio.Task[object]] = set()
        self.ends: set[_End] = set()
        self.refuses = False
        self.opened = 0
        """Connections that were made through it."""
        self._server = page.start(self._listen())
        self.base = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self.url = f"{self.base}/#{page.token}"

    async def _listen(self) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(lambda: _End(self), "127.0.0.1", 0)

    def connect(self, end: _End) -> None:
        """Make the other half of a connection."""
        place = urlsplit(self._page.base)
        loop = asyncio.get_running_loop()
        host, port = place.hostname or "", place.port or 0
        task = loop.create_task(loop.create_connection(lambda: _End(self, end), host, port))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cut(self) -> None:
        """Break all connections, and refuse new ones."""

        async def cut() -> None:
            self.refuses = True
            for end in list(self.ends):
                if end.transport is not None:
                    end.transport.abort()

        self._page.start(cut())

    def sleep(self) -> None:
        """Let open connections be silent for ever: neither an end nor a byte comes through.  New ones work."""

        async def sleep() -> None:
            for end in self.ends:
                end.silent = True

        self._page.start(sleep())

    def mend(self) -> None:
        """Accept connections again."""
        self.refuses = False

    def close(self) -> None:
        """Cut the line for good."""

        async def close() -> None:
            await sockets.close(self._server)
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for end in list(self.ends):
                if end.transport is not None:
                    end.transport.abort()
            await asyncio.sleep(0.05)  # the loop closes an aborted transport in its next turn

        self.cut()
        self._page.start(close())


@contextlib.contextmanager
def line(page: Shown) -> Iterator[Line]:
    """A line to a page."""
    made = Line(page)
    try:
        yield made
    finally:
        made.close()
