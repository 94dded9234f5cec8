from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.quirks.listener import Bounds
from estgw.quirks.material import USER
from estgw.quirks.seen import Exchange, Handshake
from estgw.quirks.server import QuirkServer, Settings
from tests.kit.connection import EST, PKCS10, basic
from tests.kit.csr import csr


class Peer:
    """A client without any check of its own: one connection to a port of a quirk server."""

    def __init__(self, server, port=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.http = http.client.HTTPSConnection("localhost", port or server.port, context=context, timeout=20)
        self.http.connect()
        self.right = basic(f"{USER}:{server.material.password}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()

    def ask(self, method, path, body=None, **headers):
        """Status, headers and body of one exchange; `path` is below /.well-known/est unless it begins with a slash."""
        target = path if path.startswith("/") else f"{EST}/{path}"
        self.http.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = self.http.getresponse()
        return answer.status, answer.headers, answer.read()

    def enrol(self, quirk, body=None, operation="simpleenroll", **headers):
        headers = {"Authorization": self.right, "Content_Type": PKCS10, **headers}
        return self.ask("POST", f"quirk-{quirk}/{operation}", body or csr("device"), **headers)

    def raw(self, data):
        """Send bytes, and read until the server has said something whole or has closed."""
        with contextlib.suppress(OSError):
            self.http.sock.sendall(data)
        received = b""
        with contextlib.suppress(OSError):
            while b"\r\n\r\n" not in received and (more := self.http.sock.recv(65536)):
                received += more
        return received


class Served:
    """A running quirk server and everything that it has noted."""

    def __init__(self, server, events):
        self.server = server
        self.events = events

    def peer(self, port=None):
        return Peer(self.server, port)

    @property
    def exchanges(self):
        return [event for event in self.events if isinstance(event, Exchange)]

    @property
    def handshakes(self):
        return [event for event in self.events if isinstance(event, Handshake)]

    def is_alive(self):
        """Whether a good client still gets the CA's certificate."""
        try:
            with self.peer() as peer:
                return peer.ask("GET", "quirk-none/cacerts")[0] == 200
        except OSError:
            return False

    def wait(self, found, seconds=20.0):
        end = time.monotonic() + seconds
        while not found():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)


@pytest.fixture
def serving():
    """Start a quirk server; the arguments are those of `Settings`."""
    with contextlib.ExitStack() as stack:

        def start(pages=None, **settings):
            events: list[object] = []
            server = stack.enter_context(QuirkServer(Settings(**settings), events.append, pages))
            return Served(server, events)

        yield start


@pytest.fixture(scope="module")
def served():
    """One for all tests of a module; each takes the events that are its own."""
    events: list[object] = []
    with QuirkServer(Settings(), events.append) as server:
        yield Served(server, events)


@pytest.fixture
def fresh(served):
    served.events.clear()
    return served


@pytest.fixture
def hurried(serving):
    """A server whose bounds end soon."""
    return serving(bounds=Bounds(connections=6, per_address=4, handshake=0.5, request=0.5, send=2.0, requests=3))


@pytest.fixture
def plain():
    """Connect without TLS."""
    with contextlib.ExitStack() as stack:
        yield lambda port: stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))


def pem(certificate):
    return certificate.public_bytes(Encoding.PEM)
