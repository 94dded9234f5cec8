"""Clients that are slow, huge, cut off or no clients at all: each is answered or dropped, and the next is served."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from estgw.quirks import wire
from tests.kit.connection import EST

POST = f"POST {EST}/quirk-none/simpleenroll HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/pkcs10\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param("GET / HTTP/1.1\r\nX: " + "a" * 20_000, b"413", id="a long line"),
        pytest.param("GET / HTTP/1.1\r\n" + "X: y\r\n" * 4000, b"413", id="many lines"),
        pytest.param("GET /" + "a" * 20_000, b"413", id="a long target"),
        pytest.param("GET / HTTP/1.1\r\n" + "X: y\r\n" * 150 + "\r\n", b"400", id="too many lines for the parser"),
        pytest.param("EHLO\r\n\r\n", b"400", id="no HTTP"),
        pytest.param("GET / HTTP/2.0\r\n\r\n", b"400", id="another version"),
        pytest.param("GET /\0 HTTP/1.1 x\r\n\r\n", b"400", id="four words"),
        pytest.param("GET /\xff HTTP/1.1\r\n\r\n", b"400", id="no ASCII"),
        pytest.param(POST + "Content-Length: 999999999\r\n\r\n", b"413", id="a large length"),
        pytest.param(POST + f"Content-Length: {'9' * 5000}\r\n\r\n", b"413", id="a length of 5000 digits"),
        pytest.param(POST + "Content-Length: -1\r\n\r\n", b"400", id="a length below zero"),
        pytest.param(POST + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"400", id="two lengths"),
        pytest.param(POST + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400", id="both"),
        pytest.param(POST + "Transfer-Encoding: gzip\r\n\r\n", b"400", id="another coding"),
        pytest.param(POST + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"400", id="a chunk without a length"),
        pytest.param(POST + "Transfer-Encoding: chunked\r\n\r\nfffff\r\n", b"413", id="a large chunk"),
        pytest.param(POST + "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", b"400", id="a chunk that is longer"),
        pytest.param(POST + "Transfer-Encoding: chunked\r\n\r\n" + "1" * 500, b"400", id="an endless line of a chunk"),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_ends(fresh, data, status):
    with fresh.peer() as peer:
        answer = peer.raw(data.encode("latin-1"))
        assert answer.startswith(b"HTTP/1.1 " + status), answer
        assert b"\r\nConnection: close\r\n" in answer
        with contextlib.suppress(OSError):
            assert peer.http.sock.recv(65536) == b"" or peer.http.sock.recv(1) == b""
    assert fresh.is_alive()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(POST + "Content-Length: 100\r\n\r\nabc", id="in the body"),
        pytest.param(POST[:40], id="in the first line"),
        pytest.param(POST, id="in the head"),
        pytest.param(POST + "Transfer-Encoding: chunked\r\n\r\n5\r\nab", id="in a chunk"),
    ],
)
def test_a_request_that_is_cut_off_is_not_taken_for_a_whole_one(fresh, data):
    with fresh.peer() as peer:
        peer.http.sock.sendall(data.encode())
        with contextlib.suppress(OSError):
            peer.http.sock.unwrap()  # an orderly end of TLS
    assert fresh.is_alive()
    assert [one.operation for one in fresh.exchanges] == ["cacerts"]


def test_endless_trailers_end_at_the_bound(fresh):
    with fresh.peer() as peer:
        answer = peer.raw((POST + "Transfer-Encoding: chunked\r\n\r\n0\r\n").encode() + b"X: y\r\n" * 200_000)
    assert b"HTTP/1.1 200" not in answer
    assert fresh.is_alive()
    assert wire.MAXIMUM_REQUEST < 6 * 200_000


def test_many_small_chunks_are_read_quickly(fresh):
    body = b"1\r\na\r\n" * 80_000 + b"0\r\n\r\n"
    with fresh.peer() as peer:
        began = time.thread_time()
        answer = peer.raw((POST + "Transfer-Encoding: chunked\r\n\r\n").encode() + body)
    assert answer.startswith((b"HTTP/1.1 401", b"HTTP/1.1 400"))
    assert time.thread_time() - began < 5


def test_a_slow_head_is_a_408(hurried):
    with hurried.peer() as peer:
        peer.http.sock.sendall(b"GET / HT")
        assert peer.raw(b"").startswith(b"HTTP/1.1 408")
    assert hurried.is_alive()


def test_a_body_that_drips_ends_at_the_bound(hurried):
    with hurried.peer() as peer:
        peer.http.sock.sendall((POST + "Content-Length: 1000\r\n\r\n").encode())
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for _ in range(100):
                peer.http.sock.sendall(b"a")
                time.sleep(0.05)
        assert time.monotonic() - began < 4.5
    assert hurried.is_alive()


def test_a_silent_connection_is_closed(hurried):
    with hurried.peer() as peer:
        assert peer.http.sock.recv(10) == b""
    assert hurried.exchanges == []


def test_a_handshake_that_never_comes_is_closed_and_noted(hurried, plain):
    raw = plain(hurried.server.ports["expired"])
    assert raw.recv(10) == b""
    hurried.wait(lambda: hurried.handshakes)
    assert hurried.handshakes[-1].fault == "not complete after 0.5 s"


def test_bytes_that_are_no_tls_are_noted(fresh, plain):
    raw = plain(fresh.server.ports["expired"])
    raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with contextlib.suppress(OSError):
        while raw.recv(100):
            pass
    fresh.wait(lambda: fresh.handshakes)
    assert fresh.handshakes[-1].fault == "http request"


def test_one_address_can_not_take_all_connections(hurried, plain):
    taken = [plain(hurried.server.port) for _ in range(4)]
    refused = plain(hurried.server.port)
    assert refused.recv(1) == b""  # at once, before the handshake is over time
    for raw in taken:
        raw.close()
    hurried.wait(hurried.is_alive)


def test_a_connection_ends_after_its_last_request(hurried):
    with hurried.peer() as peer:
        sock = peer.http.sock
        for _ in range(3):
            assert peer.raw(f"GET {EST}/quirk-none/csrattrs HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert sock.recv(10) == b""


def test_a_client_that_does_not_read_its_answer_holds_no_thread_for_long(hurried):
    with hurried.peer() as peer:
        for _ in range(3):
            with contextlib.suppress(OSError):
                peer.http.sock.sendall(f"GET {EST}/quirk-nosuch/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        hurried.wait(lambda: hurried.server._listeners[0].busy == 0)


def test_closing_the_server_ends_its_connections_and_threads(serving):
    served = serving()
    before, port = threading.active_count(), served.server.port
    with served.peer() as peer:
        served.server.close()
        assert peer.raw(b"GET / HTTP/1.1\r\n\r\n") == b""
    assert threading.active_count() < before
    with pytest.raises(OSError, match="refused"):
        served.peer(port)
