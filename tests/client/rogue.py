"""A small TLS server whose answers a test decides, right or wrong.

One thread per connection over pyOpenSSL, which has the exporter.  A test gives a function from a request to
the bytes that go out; `reply` makes well-formed ones.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from OpenSSL import SSL

from estgw.est import certs
from estgw.est.binding import EXPORTER_CONTEXT, EXPORTER_LABEL, EXPORTER_LENGTH

CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    binding: str
    finished: str
    connection: int
    peer: Any = None

    @property
    def operation(self):
        return self.target.rsplit("/", 1)[-1].lower()

    @property
    def der(self):
        return base64.b64decode(self.body)


def reply(status=200, body=b"", content_type="application/pkcs7-mime", **headers):
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def bag(*certificates):
    return base64.encodebytes(certs.pack(certificates))


@dataclass
class Server:
    """Use as a context manager; `answer(request)` returns bytes, or an iterable of pieces, or None to hang up."""

    holder: Any
    answer: Callable[[Request], Any]
    version: int | None = None
    requests: list[Request] = field(default_factory=list)
    handshakes: int = 0
    failures: list[SSL.Error] = field(default_factory=list)
    host: str = "127.0.0.1"

    def __enter__(self):
        self._listener = socket.create_server(
            (self.host, 0), family=socket.AF_INET6 if ":" in self.host else socket.AF_INET
        )
        self._open = True
        self._sockets = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        self._open = False
        for one in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    @property
    def port(self):
        return self._listener.getsockname()[1]

    @property
    def url(self):
        return f"https://localhost:{self.port}"

    def _context(self):
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        if self.version:
            context.set_min_proto_version(self.version)
            context.set_max_proto_version(self.version)
        context.use_certificate(self.holder.certificate)
        context.use_privatekey(self.holder.key)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        return context

    def _accept(self):
        while self._open:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(raw)
            thread = threading.Thread(target=self._serve, args=(raw, len(self._sockets)), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, raw, number):
        connection = SSL.Connection(self._context(), raw)
        connection.set_accept_state()
        try:
            connection.do_handshake()
            self.handshakes += 1
            self._talk(connection, number)
        except SSL.Error as fault:
            self.failures.append(fault)
        except OSError:
            pass
        finally:
            with contextlib.suppress(SSL.Error):
                connection.shutdown()
            raw.close()

    def _talk(self, connection, number):
        binding, finished = bindings(connection)
        peer = connection.get_peer_certificate(as_cryptography=True)
        buffered = b""
        while True:
            while b"\r\n\r\n" not in buffered:
                buffered += connection.recv(65536)
            head, _, buffered = buffered.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            method, target, _ = first.split(" ")
            headers = dict(line.split(": ", 1) for line in lines)
            length = int(headers.get("Content-Length", 0))
            while len(buffered) < length:
                buffered += connection.recv(65536)
            body, buffered = buffered[:length], buffered[length:]
            request = Request(method, target, headers, body, binding, finished, number, peer)
            if not self._give(connection, request):
                return

    def _give(self, connection, request):
        """Answer a request; False if the connection ends with that."""
        self.requests.append(request)
        answer = self.answer(request)
        for piece in [answer] if isinstance(answer, bytes) else answer or ():
            connection.sendall(piece)
            if not self._open:
                return False
        return isinstance(answer, bytes) and b"\r\nConnection: close\r\n" not in answer


def bindings(connection):
    """Base64 of the binding that a standard defines, and of the client's Finished message."""
    finished = base64.b64encode(connection.get_peer_finished()).decode()
    if connection.get_protocol_version_name() == "TLSv1.2":
        return finished, finished
    exported = connection.export_keying_material(EXPORTER_LABEL, EXPORTER_LENGTH, EXPORTER_CONTEXT)
    return base64.b64encode(exported).decode(), finished


def endless(first, piece, seconds=20.0):
    """An answer that lasts longer than any test."""
    yield first
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield piece
