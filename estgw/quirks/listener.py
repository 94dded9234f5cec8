"""A TLS port: one thread for each connection, bounded in number, in time and in bytes.

It knows nothing of EST.  `answer` turns a request into the bytes that go out; the listener reads the request and sends
the bytes.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from OpenSSL import SSL

from estgw.client.faults import ClientError, Untrusted
from estgw.client.transport.stream import Stream, reason
from estgw.errors import RequestError
from estgw.quirks import wire
from estgw.quirks.material import Face, Pair
from estgw.quirks.wire import Link, Request


@dataclass(frozen=True)
class Bounds:
    """What a peer may use."""

    connections: int = 64
    """At once; one more is closed at once."""
    per_address: int = 32
    """At once, so that one address leaves room for others."""
    handshake: float = 10.0
    """Seconds."""
    request: float = 20.0
    """Seconds from the wish for a request to its last byte."""
    send: float = 20.0
    """Seconds for an answer to go out."""
    requests: int = 200
    """On one connection, which is closed after that."""


Pieces = bytes | Iterable[bytes] | None
"""What goes out: at once, or piece by piece and then the end of the connection, or nothing but that end."""


class Handler(Protocol):
    """What a port does with its connections.  Its methods are called in many threads."""

    def answer(self, request: Request) -> Pieces:
        """The answer to a request."""

    def refuse(self, fault: RequestError) -> bytes:
        """The answer to what is no request, after which the connection ends."""

    def opened(self, link: Link, fault: str) -> None:
        """A connection was made; `fault` says why its handshake failed, and is empty if it did not."""


class Listener:
    """One port.  `close` ends it and its connections."""

    def __init__(self, address: tuple[str, int], context: SSL.Context, handler: Handler, bounds: Bounds) -> None:
        """Listen at once; raises `OSError` when the address can't be had."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.create_server(address, family=family)
        self._context = context
        self._handler = handler
        self._bounds = bounds
        self._lock = threading.Lock()
        self._open: dict[socket.socket, str] = {}
        self._threads: set[threading.Thread] = set()
        self._count = 0
        self._is_open = True
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def port(self) -> int:
        """The port number."""
        return int(self._socket.getsockname()[1])

    @property
    def busy(self) -> int:
        """Connections that are open."""
        with self._lock:
            return len(self._open)

    def close(self) -> None:
        """Stop listening, end all connections, and wait for their threads for a few seconds."""
        self._is_open = False
        with self._lock:
            ending = [self._socket, *self._open]
            threads = [self._acceptor, *self._threads]
        for one in ending:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
        self._socket.close()

    def _accept(self) -> None:
        while self._is_open:
            try:
                raw, peer = self._socket.accept()
            except OSError:
                time.sleep(0.05)  # closed, or out of descriptors until a connection ends
                continue
            address = str(peer[0])
            with self._lock:
                mine = sum(other == address for other in self._open.values())
                if len(self._open) >= self._bounds.connections or mine >= self._bounds.per_address:
                    raw.close()
                    continue
                self._open[raw] = address
                self._count += 1
                link = Link(self._count, address, self.port)
                thread = threading.Thread(target=self._serve, args=(raw, link), daemon=True)
                self._threads.add(thread)
            try:
                thread.start()
            except RuntimeError:  # no more threads
                self._forget(raw, thread)

    def _forget(self, raw: socket.socket, thread: threading.Thread) -> None:
        raw.close()
        with self._lock:
            self._open.pop(raw, None)
            self._threads.discard(thread)

    def _serve(self, raw: socket.socket, link: Link) -> None:
        try:
            raw.setblocking(False)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = SSL.Connection(self._context, raw)
            connection.set_accept_state()
            stream = Stream(raw, connection)
            fault = self._shake(stream)
            self._handler.opened(link if fault else wire.described(link, connection), fault)
            if not fault:
                self._talk(stream, wire.described(link, connection))
                with contextlib.suppress(SSL.Error):
                    connection.shutdown()
        except (OSError, SSL.Error, ClientError):
            pass  # the peer has gone
        finally:
            self._forget(raw, threading.current_thread())

    def _shake(self, stream: Stream) -> str:
        """Why the handshake failed; empty if it did not."""
        stream.start_clock(self._bounds.handshake, 0)
        try:
            stream.handshake()
        except TimeoutError:
            return f"not complete after {self._bounds.handshake:g} s"
        except SSL.SysCallError:
            return "the peer closed the connection"
        except SSL.Error as fault:
            return reason(fault)
        except OSError as fault:
            return fault.strerror or "the connection broke off"
        return ""

    def _talk(self, stream: Stream, link: Link) -> None:
        reader = wire.Reader(stream, link)
        for _ in range(self._bounds.requests):
            try:
                stream.start_clock(self._bounds.request, wire.MAXIMUM_REQUEST)
                request = reader.request()
            except RequestError as fault:
                self._send(stream, self._handler.refuse(fault))
                return
            except Untrusted as fault:  # an alert in place of a request, as a TLS 1.3 client may send
                self._handler.opened(link, str(fault))
                return
            if request is None or not self._is_open:
                return
            answer = self._handler.answer(request)
            if answer is None:
                return
            self._send(stream, answer)
            if not isinstance(answer, bytes) or b"\r\nConnection: close\r\n" in answer or request.closes:
                return

    def _send(self, stream: Stream, answer: bytes | Iterable[bytes]) -> None:
        stream.start_clock(self._bounds.send, 0)
        for piece in [answer] if isinstance(answer, bytes) else answer:
            stream.sendall(piece)
            if not self._is_open:
                return


def context_of(face: Face, pair: Pair) -> SSL.Context:
    """The TLS of a port: its certificate, its versions, and the wish for a client certificate, any or none."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(face.version or SSL.TLS1_2_VERSION)
    context.set_max_proto_version(face.version or SSL.TLS1_3_VERSION)
    if face.version is not None and face.version < SSL.TLS1_2_VERSION:
        context.set_cipher_list(b"ALL:@SECLEVEL=0")  # OpenSSL signs with SHA-1 at level 0 only, as TLS 1.1 must
    context.use_certificate(pair.certificate)
    context.use_privatekey(pair.key)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    return context
