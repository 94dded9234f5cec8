"""Many clients at once, slow clients and clients that break off, against aiohttp behind the listener.

Run this module on every Python version: the adapter depends on which calls asyncio's TLS transport makes,
and in which order.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from itertools import product

import pytest
from aiohttp import web

from tests.tls.serving import DEADLINE, VERSIONS, Serving, World, serving, until

pytestmark = pytest.mark.slow

LARGE = random.Random(1).randbytes(5 << 20)
LARGE_DIGEST = hashlib.sha256(LARGE).hexdigest()


@pytest.fixture(scope="module")
def clients(world: World) -> list[ssl.SSLContext]:
    return [world.client(v, name) for v, name in product(VERSIONS.values(), (None, "valid", "stranger"))]


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    if request.path == "/down":
        return web.Response(body=LARGE)
    try:
        body = await request.read()
    except ConnectionResetError:
        return web.Response(status=400)
    return web.Response(text=hashlib.sha256(body).hexdigest())


@asynccontextmanager
async def gateway(world: World) -> AsyncIterator[Serving]:
    server = web.Server(answer)
    async with serving(world.context(), server) as state:
        try:
            yield state
            await until(lambda: not state.listener.connections)
        finally:
            await server.shutdown(DEADLINE)


def post(body: bytes) -> bytes:
    return b"POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


GET = b"GET /down HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def connect(port: int, client: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(
        "127.0.0.1", port, ssl=client, server_hostname="localhost", ssl_handshake_timeout=DEADLINE
    )


async def visit(port: int, client: ssl.SSLContext, body: bytes, piece: int) -> None:
    """Three POSTs of `body` on one connection, in pieces of `piece` bytes."""
    reader, writer = await connect(port, client)
    expected = hashlib.sha256(body).hexdigest().encode()
    for _ in range(3):
        request = post(body)
        for start in range(0, len(request), piece):
            writer.write(request[start : start + piece])
            await asyncio.sleep(0.005 if piece < len(request) else 0)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(64) == expected
    writer.close()
    await writer.wait_closed()


async def download_slowly(port: int, client: ssl.SSLContext) -> None:
    reader, writer = await connect(port, client)
    writer.write(GET)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(LARGE) in head
    digest = hashlib.sha256()
    while data := await reader.read(1 << 18):
        digest.update(data)
        await asyncio.sleep(0.001)
    assert digest.hexdigest() == LARGE_DIGEST
    writer.close()
    await writer.wait_closed()


def test_200_clients_at_once_are_answered(world, clients):
    body = os.urandom(20_000)

    async def scene() -> None:
        async with gateway(world) as state, asyncio.timeout(30):
            await asyncio.gather(
                *(visit(state.port, clients[i % len(clients)], body, len(body) * 2) for i in range(200))
            )
        assert state.failures == []

    asyncio.run(scene())


def test_slow_senders_and_slow_readers_are_answered(world, clients):
    async def scene() -> None:
        async with gateway(world) as state, asyncio.timeout(30):
            await asyncio.gather(
                *(visit(state.port, clients[i % len(clients)], os.urandom(20_000), 997) for i in range(60)),
                *(download_slowly(state.port, clients[i % len(clients)]) for i in range(12)),
            )
        assert state.failures == []

    asyncio.run(scene())


def upload(port: int, client: ssl.SSLContext) -> str:
    """Send 5 MB at once, so that the server's reads are paused and resumed."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as plain,
        client.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.sendall(post(LARGE))
        answer = b""
        while not answer.partition(b"\r\n\r\n")[2]:
            answer += tls.recv(1000)
        return answer[-64:].decode()


def test_a_large_upload_arrives_unchanged(world, clients):
    async def large(request: web.BaseRequest) -> web.Response:
        digest = hashlib.sha256()
        async for data in request.content.iter_chunked(1 << 16):
            digest.update(data)
        return web.Response(text=digest.hexdigest())

    async def scene() -> None:
        server = web.Server(large)
        async with serving(world.context(), server) as state:
            for client in (clients[0], clients[-1]):
                assert await asyncio.to_thread(upload, state.port, client) == LARGE_DIGEST
            await server.shutdown(DEADLINE)

    asyncio.run(scene())


# Clients that break off.


def reset(sock: socket.socket) -> None:
    """Make the next close a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def break_off(port: int, kind: int, client: ssl.SSLContext) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as plain, suppress(OSError):
        match kind:
            case 0:  # nothing at all
                return
            case 1:  # half a hello
                plain.sendall(b"\x16\x03\x01\x02\x00\x01")
                return
            case 2:  # garbage, and waiting for an answer
                plain.sendall(os.urandom(300))
                plain.recv(100)
                return
            case 3:  # a reset in the hello
                plain.sendall(b"\x16\x03\x01\x00\x50\x01")
                reset(plain)
                return
        with client.wrap_socket(plain, server_hostname="localhost") as tls:
            match kind:
                case 4:  # a FIN without close_notify
                    return
                case 5:  # a reset in the body
                    tls.sendall(post(bytes(100_000))[:200])
                    reset(tls)
                case 6:  # in the middle of a download
                    tls.sendall(GET)
                    tls.recv(1000)
                case 7:  # close_notify instead of the rest of a download
                    tls.sendall(GET)
                    tls.recv(1000)
                    tls.unwrap()


def test_clients_that_break_off_leave_no_descriptor_and_no_task(world, clients):
    async def scene() -> None:
        async with gateway(world) as state:
            loop = asyncio.get_running_loop()
            with ThreadPoolExecutor(4) as pool:
                await visit(state.port, clients[0], b"warm-up", 1000)
                await until(lambda: not state.listener.connections)
                files, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
                async with asyncio.timeout(30):
                    await asyncio.gather(
                        *(
                            loop.run_in_executor(pool, break_off, state.port, i % 8, clients[i // 8 % len(clients)])
                            for i in range(800)
                        )
                    )
                await until(lambda: not state.listener.connections)
                await until(lambda: len(asyncio.all_tasks()) <= tasks)
                assert len(os.listdir("/proc/self/fd")) == files
            # In TLS 1.3 a reset right after the handshake can hit the server's half of it.
            reported = Counter(state.reasons)
            assert reported["closed by the peer during the handshake"] >= 200
            assert 400 <= len(state.failures) <= 600
            await visit(state.port, clients[0], b"alive", 1000)

    asyncio.run(scene())
