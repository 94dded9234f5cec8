"""GET /metrics, /healthz and /readyz over plain HTTP, for Prometheus and load balancers on an internal network.

The endpoint serves these paths and authenticates no client.  A connection gets one answer and ends within a few
seconds.  Neither health path asks a CA or a database: if one of those fails, clients are to get a 503 with Retry-After
from a gateway, and not a reset because all gateways have been taken out of service.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from http import HTTPStatus
from pathlib import Path

from estgw import __version__
from estgw.config.fields import split_address
from estgw.logs import log
from estgw.metrics.meter import meter
from estgw.metrics.table import BUILD, CONFIGURED, Metric
from estgw.tls import sockets

SECONDS = 5.0
"""The longest time of a connection, from its first byte to its last."""
CONNECTIONS = 16
"""Connections at once; further ones are closed at once."""
HEAD = 8192
"""The largest head of a request, in bytes."""

TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""The format that every version of Prometheus reads.  The Accept header is ignored."""


@contextlib.asynccontextmanager
async def exposed(
    listen: str | None, metrics: Iterable[Metric], is_ready: Callable[[], bool], view: Path | None = None
) -> AsyncIterator[None]:
    """Count `metrics` from now on, and serve them and `is_ready` at an address while the context lasts.

    Without an address (None) this counts and serves nothing.  `view` is the directory into which other processes write
    their counts.  Raises OSError when the address can't be listened on.
    """
    if listen is None:
        yield
        return
    with meter.switched_on(metrics, view=view):
        meter.set(BUILD, 1, __version__)
        meter.set(CONFIGURED, time.time())
        endpoint = _Endpoint(meter.text, is_ready)
        sock = sockets.bind(*split_address(listen))
        port = sock.getsockname()[1]
        try:
            server = await asyncio.start_server(endpoint.accept, sock=sock, limit=HEAD)
        except OSError as fault:
            sock.close()
            raise OSError(fault.errno, f"can't listen on {listen}: {fault.strerror}") from None
        log.info("metrics", address=listen, port=port)
        try:
            yield
        finally:
            await sockets.close(server)
            endpoint.close()


class _Endpoint:
    def __init__(self, text: Callable[[], bytes], is_ready: Callable[[], bool]) -> None:
        self._text, self._is_ready = text, is_ready
        self._answers = {b"/metrics": self._metrics, b"/healthz": self._health, b"/readyz": self._readiness}
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a new connection, in a task of ours: streams log one that is cancelled at a stop as an exception."""
        if len(self._open) >= CONNECTIONS:
            writer.transport.abort()
        else:
            self._open[writer] = asyncio.create_task(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client may ask again
        finally:
            writer.transport.abort()
            self._open.pop(writer, None)

    def close(self) -> None:
        """Reset all connections."""
        for writer in self._open:
            writer.transport.abort()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        target, _, version = rest.partition(b" ")
        if not version.startswith(b"HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST)
        answer = self._answers.get(target.partition(b"?")[0])
        if answer is None:
            return _response(HTTPStatus.NOT_FOUND)
        if method == b"GET":
            return answer()
        if method == b"HEAD":  # some load balancers check so
            return answer().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        return _response(HTTPStatus.METHOD_NOT_ALLOWED, b"Allow: GET, HEAD\r\n")

    def _metrics(self) -> bytes:
        try:
            return _response(HTTPStatus.OK, body=self._text(), kind=TEXT)
        except Exception:  # noqa: BLE001 - another process may be writing its file; the next scrape will work
            log.exception("the metrics could not be read")
            return _response(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _health(self) -> bytes:
        """The event loop turns."""
        return _response(HTTPStatus.OK)

    def _readiness(self) -> bytes:
        return _response(HTTPStatus.OK if self._is_ready() else HTTPStatus.SERVICE_UNAVAILABLE)


def _response(status: HTTPStatus, more: bytes = b"", *, body: bytes = b"", kind: str = "text/plain") -> bytes:
    body = body or f"{status.phrase}\n".encode()
    head = f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + more + b"Connection: close\r\n\r\n" + body
