"""Accept connections, with a timeout for handshakes, a limit of connections, and the reason for a failed handshake."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from estgw.tls import proxy, sockets
from estgw.tls.adapter import TLSContext, TLSObject
from estgw.tls.sockets import endpoint

_ACCEPT_BATCH = 32
"""Connections accepted in one turn of the event loop, so that a flood leaves time for open connections."""
_ACCEPT_PAUSE = 0.25
"""Seconds of pause after a failed accept, during which the kernel would report the connection again and again."""
_SHORTEST = 0.001
"""Seconds for TLS when a PROXY header has used up the time; asyncio takes no 0."""
_CLOSED = "closed by the peer during the handshake"
_FULL_REPORT_INTERVAL = 1.0
"""Seconds between two reports that the limit of connections is reached."""


@dataclass(frozen=True)
class Observer:
    """The functions that are called with news about connections."""

    on_failure: Callable[[str, str, TLSObject | None], None]
    """Gets the peer's address, a reason and what there is of TLS, once for each connection that fails or is refused."""
    on_exhausted: Callable[[OSError], None]
    """Gets the fault repeatedly while the machine can't accept connections, which then wait in the kernel."""
    on_count: Callable[[int], None] = lambda _: None
    """Gets the number of open connections whenever it changes."""
    on_open: Callable[[TLSObject], None] | None = None
    """Gets each connection whose handshake is over."""


class Listener:
    """The listening sockets of one server, and the connections that it accepted from them."""

    def __init__(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        context: TLSContext,
        observer: Observer,
        *,
        handshake_timeout: float = 10.0,
        max_connections: int = 1000,
        proxies: Sequence[proxy.Network] = (),
    ) -> None:
        self.context = context
        """Used by the next handshake: assign a new one to reload."""
        self.proxies = proxies
        """Load balancers.  If there are any, every connection comes from one, and begins with a PROXY header."""
        self._protocol_factory = protocol_factory
        self._handshake_timeout = handshake_timeout
        self._max_connections = max_connections
        self._observer = observer
        self._listening: set[socket.socket] = set()
        self._open: dict[_Socket, asyncio.Transport | None] = {}
        self._handshakes: set[asyncio.Task[None]] = set()
        self._emptied = asyncio.Event()
        self._full_reported = -_FULL_REPORT_INTERVAL

    @property
    def connections(self) -> int:
        """Open connections, those in their handshake included."""
        return len(self._open)

    def take(self, sock: socket.socket) -> int:
        """Accept connections from a bound socket too, and own that socket.  Returns its port.

        Raises `OSError` with the address in its text.
        """
        try:
            sockets.listen(sock)
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        self._listening.add(sock)
        asyncio.get_running_loop().add_reader(sock, self._accept, sock)
        return int(sock.getsockname()[1])

    def stop_accepting(self) -> None:
        """Close the listening sockets.  Open connections stay."""
        loop = asyncio.get_running_loop()
        for sock in self._listening:
            loop.remove_reader(sock)
            sock.close()
        self._listening.clear()

    async def close(self) -> None:
        """Stop accepting and reset all open connections.  Returns when none is left."""
        self.stop_accepting()
        for sock, transport in self._open.items():
            if transport is None:
                # An EOF ends a handshake properly; cancelling its task in its first moments would not.
                sock.shut_down()
        if self._handshakes:
            await asyncio.wait(self._handshakes)
        for transport in list(self._open.values()):
            if transport is not None:
                transport.abort()
        if self._open:  # asyncio closes the socket of an aborted transport one turn later
            self._emptied.clear()
            await self._emptied.wait()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                plain, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:  # out of file descriptors or memory
                self._observer.on_exhausted(exc)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                loop.call_later(_ACCEPT_PAUSE, self._resume, listening)
                return
            if len(self._open) >= self._max_connections:
                plain.close()
                self._report_full(endpoint(address))
                continue
            sock = _Socket(plain, self._forget)
            self._open[sock] = None
            self._observer.on_count(len(self._open))
            task = asyncio.create_task(self._handshake(sock, endpoint(address)))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._listening:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _report_full(self, peer: str) -> None:
        if time.monotonic() - self._full_reported >= _FULL_REPORT_INTERVAL:
            self._full_reported = time.monotonic()
            self._observer.on_failure(peer, f"refused: {self._max_connections} connections are open", None)

    async def _handshake(self, sock: _Socket, peer: str) -> None:
        attempt = _Attempt(self.context)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._handshake_timeout
        is_own = False
        try:
            if self.proxies:
                async with asyncio.timeout_at(deadline):
                    is_own = not await self._read_header(sock)
                peer = endpoint(sock.getpeername())
            transport, _ = await loop.connect_accepted_socket(
                self._protocol_factory,
                sock,
                ssl=cast(ssl.SSLContext, attempt),
                ssl_handshake_timeout=max(deadline - loop.time(), _SHORTEST),
            )
        except (OSError, proxy.HeaderError) as exc:
            sock.close()
            made = attempt.made
            reason = (made and made.failure) or _reason(exc)
            if not (is_own and reason == _CLOSED):  # the health check of a load balancer
                self._observer.on_failure(peer, reason, made)
        except BaseException:
            sock.close()
            raise
        else:
            if sock in self._open:  # the connection may have ended already
                self._open[sock] = transport
            if self._observer.on_open is not None and attempt.made is not None:
                self._observer.on_open(attempt.made)

    async def _read_header(self, sock: _Socket) -> bool:
        """Whether the header names a client, whose addresses are the socket's from now on.

        Raises `HeaderError` or OSError.
        """
        host = ipaddress.ip_address(sock.getpeername()[0])
        if not any(host in network for network in self.proxies):
            raise proxy.HeaderError("refused: it does not come from a load balancer in server.proxies")
        sock.setblocking(False)
        sock.ends = await proxy.read_header(sock)
        return sock.ends is not None

    def _forget(self, sock: _Socket) -> None:
        self._open.pop(sock, None)
        self._observer.on_count(len(self._open))
        if not self._open:
            self._emptied.set()


class _Socket(socket.socket):
    """An accepted connection that calls `on_close` when its file descriptor is closed, by any caller.

    Behind a load balancer its addresses are those of the PROXY header, for asyncio and all that asks asyncio.
    """

    def __init__(self, plain: socket.socket, on_close: Callable[[_Socket], None]) -> None:
        super().__init__(plain.family, plain.type, plain.proto, fileno=plain.detach())
        self._on_close = on_close
        self.ends: proxy.Ends | None = None

    def getpeername(self) -> Any:
        return super().getpeername() if self.ends is None else self.ends.client

    def getsockname(self) -> Any:
        return super().getsockname() if self.ends is None else self.ends.server

    def close(self) -> None:
        super().close()
        self._on_close(self)

    def shut_down(self) -> None:
        with suppress(OSError):  # the peer has closed it already
            self.shutdown(socket.SHUT_RDWR)


class _Attempt:
    """Replaces the context during one handshake, to keep the TLS object that was made for it.

    asyncio calls only `wrap_bio`, and reports a failed handshake as a lost connection.  The TLS object has the reason.
    """

    def __init__(self, context: TLSContext) -> None:
        self._context = context
        self.made: TLSObject | None = None

    def wrap_bio(self, *args: Any, **kwargs: Any) -> TLSObject:
        self.made = self._context.wrap_bio(*args, **kwargs)
        return self.made


def _reason(exc: OSError | proxy.HeaderError) -> str:
    """The reason for a failed handshake for which TLS has none."""
    if isinstance(exc, proxy.HeaderError):
        return str(exc)
    if isinstance(exc, ConnectionAbortedError | TimeoutError) and exc.errno is None:
        return "handshake timed out"
    if exc.errno is None:
        return _CLOSED
    return f"handshake failed: {exc.strerror}"
