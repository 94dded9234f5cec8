"""Connections that stay idle, trickle or lie do not delay an ordinary enrolment."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kit.clients import digest_answer, digest_challenge, digest_file
from tests.kit.connection import EST, V12, request
from tests.kit.csr import CHALLENGE_PASSWORD, csr
from tests.kit.der import BOOLEAN, attribute, tlv
from tests.kit.gateway import Gateway, running_gateway
from tests.kit.workspace import Workspace

CROWD = 500
SOON = 5.0
"""Seconds that the ordinary client may wait. The promise is one, on a machine that does nothing else."""


@pytest.fixture(scope="module")
def gateway(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    own = lab.copy(tmp_path_factory.mktemp("denial"))
    digest = {"digest": ["MD5"], "digest_users": str(digest_file(own, "estuser:estpwd"))}
    # All connections come from one address; other tests cover the delay of guesses.
    with running_gateway(own, {"client_auth": {**digest, "guess_delay": 0}}) as running:
        running.post("simpleenroll", csr())  # the first password takes the longest
        yield running


def enrolled(gateway: Gateway, what: str) -> None:
    """An ordinary enrolment, with everything real: TLS, a password, `openssl ca`."""
    started = time.monotonic()
    assert gateway.post("simpleenroll", csr("ordinary")).status == 200
    seconds = time.monotonic() - started
    print(f"{what}: an enrolment beside it took {seconds * 1000:.0f} ms")
    assert seconds < SOON
    assert gateway.process.poll() is None


def client_context(gateway: Gateway) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(gateway.lab.anchor))


def plain(gateway: Gateway) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.port), timeout=20)


@contextlib.contextmanager
def crowd() -> Iterator[list[Any]]:
    """Sockets that are closed at the end."""
    sockets: list[Any] = []
    try:
        yield sockets
    finally:
        for each in sockets:
            each.close()


def test_an_enrolment_alone_is_prompt(gateway):
    enrolled(gateway, "nothing")


def test_500_idle_tcp_connections_do_not_delay_an_enrolment(gateway):
    with crowd() as sockets:
        sockets += [plain(gateway) for _ in range(CROWD)]
        enrolled(gateway, f"{CROWD} idle TCP connections")
    enrolled(gateway, "and after they went")


def test_500_idle_tls_connections_do_not_delay_an_enrolment(gateway):
    context = client_context(gateway)
    with crowd() as sockets:
        for _ in range(CROWD):
            sockets.append(context.wrap_socket(plain(gateway), server_hostname="localhost"))
        enrolled(gateway, f"{CROWD} idle TLS connections")
        sockets[0].sendall(request("GET", "cacerts"))
        assert sockets[0].recv(12) == b"HTTP/1.1 200"  # an idle connection is still served
    enrolled(gateway, "and after they went")


class Trickle(threading.Thread):
    """Sends a byte every 100 ms on each of its connections, until told to stop or all are gone."""

    def __init__(self, sockets: list[Any], data: bytes) -> None:
        super().__init__(daemon=True)
        self.sockets, self.data = sockets, data
        self.done = threading.Event()
        self.sent = 0

    def run(self) -> None:
        for at in range(len(self.data)):
            for each in list(self.sockets):
                try:
                    each.sendall(self.data[at : at + 1])
                except OSError:
                    self.sockets.remove(each)
            self.sent = at + 1
            if not self.sockets or self.done.wait(0.1):
                return


@pytest.mark.parametrize("where", ["handshake", "head", "body"])
def test_50_trickling_connections_do_not_delay_an_enrolment(gateway, where):
    context = client_context(gateway)
    body = csr("slow")
    whole = request("POST", "simpleenroll", body, login="estuser:estpwd")
    head = whole.index(b"\r\n\r\n") + 4
    with crowd() as sockets:
        if where == "handshake":
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            half = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
            with contextlib.suppress(ssl.SSLWantReadError):
                half.do_handshake()
            sockets += [plain(gateway) for _ in range(50)]
            trickle = Trickle(list(sockets), outgoing.read())
        else:
            sockets += [context.wrap_socket(plain(gateway), server_hostname="localhost") for _ in range(50)]
            if where == "body":
                for each in sockets:
                    each.sendall(whole[:head])
            trickle = Trickle(list(sockets), whole if where == "head" else body)
        trickle.start()
        for _ in range(3):
            time.sleep(0.25)
            enrolled(gateway, f"50 connections that trickle their {where}")
        trickle.done.set()
        trickle.join()
        assert trickle.sent > 3
        assert len(trickle.sockets) == 50


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_trickling_request_times_out(own_lab, where):
    """A byte now and then does not restart the timeout."""
    whole = request("POST", "simpleenroll", csr("slow"), login="estuser:estpwd")
    head = whole.index(b"\r\n\r\n") + 4
    with running_gateway(own_lab, {"server": {"idle_timeout": 1, "body_timeout": 1}}) as gateway:
        context = client_context(gateway)
        with context.wrap_socket(plain(gateway), server_hostname="localhost") as tls:
            if where == "body":
                tls.sendall(whole[:head])
            trickle = Trickle([tls], whole if where == "head" else whole[head:])
            started = time.monotonic()
            trickle.start()
            with contextlib.suppress(OSError):
                answer = tls.recv(100)
                assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
            assert time.monotonic() - started < SOON
            trickle.done.set()
            trickle.join()


def test_digest_headers_without_a_response_are_refused_with_401(gateway):
    with gateway.connect() as connection:
        body = csr()
        given = digest_challenge(connection.ask("POST", "simpleenroll", body))
        for number in range(1, 21):
            header = digest_answer(given, "estuser:estpwd", nc=number, drop=["response"])
            answer = connection.ask("POST", "simpleenroll", body, headers={"Authorization": header})
            assert (answer.status, answer.body) == (401, b"")
        enrolled(gateway, "Digest headers without a response")
        header = digest_answer(given, "estuser:estpwd", nc=21)
        assert connection.ask("POST", "simpleenroll", body, headers={"Authorization": header}).status == 200


def test_a_challenge_password_typed_boolean_is_a_bad_request(gateway):
    """Another EST server is known to crash on such a value."""
    with gateway.connect(version=V12) as connection:
        for content in (b"\xff", b"\0", b"", b"\1\2\3", bytes(200)):
            body = csr("odd", attribute(CHALLENGE_PASSWORD, tlv(BOOLEAN, content)))
            answer = connection.ask("POST", "simpleenroll", body, login="estuser:estpwd")
            assert answer.status == 400, content
            assert answer.words
        enrolled(gateway, "challengePassword typed BOOLEAN")


@pytest.mark.parametrize(
    "path", [EST, f"{EST}/", f"{EST}//", f"{EST}/x/y/z", "/", "/.well-known", "*", "/" + "x" * 7000]
)
def test_a_path_that_names_no_operation_is_refused(gateway, path):
    with gateway.connect() as connection:
        connection.send(request("GET", path).replace(f"{EST}/*".encode(), b"*"))
        answer = connection.response()
        assert 400 <= answer.status < 500
        assert answer.words
        enrolled(gateway, f"GET {path[:30]}")
