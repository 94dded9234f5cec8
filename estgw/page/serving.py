"""Serve the page at an address: sockets, TLS beyond loopback, and bounds on what connects."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from estgw.logs import log
from estgw.page.site import Site, empty
from estgw.tls import sockets

CONNECTIONS = 64
"""Connections at once; further ones are closed at once.  A browser opens six, and a listener keeps one."""
HANDSHAKE = 10.0
"""Seconds for a TLS handshake."""
IDLE = 30.0
"""Seconds for which a connection may have no whole request."""
LINGER = 2.0
"""Seconds for which a refused body is read and dropped, so that the answer is not lost."""
LINE = 8190
"""Bytes of a request line, and of a header field."""
TRIES = 100
"""Ports that are tried for a page whose own port is taken."""


class _Protocol(RequestHandler):
    """aiohttp's protocol, with an empty answer to what is not HTTP."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer input that can't be parsed, or is too long; `Site` answers all requests."""
        response = empty(status)
        response.force_close()
        return response


class _Server(web.Server):
    """aiohttp's low-level server, making our protocols up to a number."""

    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()


@dataclass
class Served:
    """A page that is being served."""

    url: str
    """With the token behind `#`, to be opened in a browser."""
    tls: ssl.SSLContext | None

    def reload(self, certificate: Path, key: Path) -> None:
        """Use another certificate for the next connections; the token and open connections stay.

        Raises OSError if the files can't be used.
        """
        if self.tls is not None:
            self.tls.load_cert_chain(certificate, key)


@dataclass(frozen=True)
class Address:
    """Where to listen, and how."""

    host: str
    port: int
    next_free: bool = False
    """Whether a port that is taken is replaced by the next one that is free."""
    not_these: frozenset[int] = frozenset()
    """Ports that are left to others."""
    tls: tuple[Path, Path] | None = None
    """Certificate and key, for HTTPS."""

    @property
    def scheme(self) -> str:
        """The scheme of its URL."""
        return "https" if self.tls else "http"


@contextlib.asynccontextmanager
async def served(
    page: Site, sock: socket.socket, address: Address, shown_as: str | None, token: str
) -> AsyncIterator[Served]:
    """Serve a page on a socket from `bind` while the context lasts.  Raises OSError if the certificate can't be used.

    `shown_as` is the host name in the URL, if it is not the address.
    """
    tls = None
    if address.tls is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
        try:
            tls.load_cert_chain(*address.tls)
        except OSError:
            sock.close()
            raise
    host, port = sock.getsockname()[:2]
    # auto_decompress: a body is a text to save, and a compressed one would be a bomb.
    made = _Server(
        page,
        keepalive_timeout=IDLE,
        lingering_time=LINGER,
        max_line_size=LINE,
        max_field_size=LINE,
        access_log=None,
        auto_decompress=False,
    )
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        made, sock=sock, ssl=tls, ssl_handshake_timeout=HANDSHAKE if tls is not None else None
    )
    log.info("page", address=sockets.endpoint((host, port)))
    try:
        place = f"{shown_as}:{port}" if shown_as else sockets.endpoint((host, port))
        yield Served(f"{address.scheme}://{place}/#{token}", tls)
    finally:
        await sockets.close(listening)
        page.close()
        made.pre_shutdown()
        await made.shutdown(1.0)


def bind(address: Address) -> socket.socket:
    """Return a listening socket at the address or, if that is allowed, at the next free port.  Raises OSError."""
    for port in range(address.port, min(address.port + TRIES, 65536)):
        if port in address.not_these:
            continue
        sock = None
        try:
            sock = sockets.bind(address.host, port)
            sockets.listen(sock)
        except OSError as fault:
            if sock is not None:
                sock.close()
            if fault.errno != errno.EADDRINUSE or not address.next_free:
                raise
        else:
            return sock
    raise OSError(errno.EADDRINUSE, f"no port is free from {address.host}:{address.port} on")
