"""The listener: addresses, timeouts, the cap, failures and their reasons, reload and closing."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
import struct

import pytest

from estgw.tls.context import TLSSettings, server_context
from estgw.tls.info import TLSInfo
from estgw.tls.listener import Listener, Observer
from estgw.tls.sockets import bind, endpoint
from tests.kit.ca import pem
from tests.tls.serving import DEADLINE, Echo, exchange, run, serving, until


def connect(port: int, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, port), timeout=DEADLINE)


def address_of(sock: socket.socket) -> str:
    return endpoint(sock.getsockname())


def ended(sock: socket.socket) -> bool:
    """Whether the other side has closed, with an EOF or a reset."""
    try:
        return not sock.recv(100)
    except ConnectionError:
        return True


def test_two_addresses_share_a_port(world):
    async def scene() -> None:
        async with serving(world.context()) as gateway:
            # [::1] and 127.0.0.1 side by side: IPv6 sockets keep to IPv6.
            assert gateway.listener.take(bind("::1", gateway.port)) == gateway.port
            for host in ("127.0.0.1", "::1"):
                await asyncio.to_thread(exchange, gateway.port, world.client(), host=host)
            assert len(gateway.infos) == 2

    asyncio.run(scene())


def test_the_ipv6_wildcard_leaves_the_ipv4_port_free(world):
    async def scene() -> None:
        async with serving(world.context()) as gateway:
            gateway.listener.take(bind("::", gateway.port))

    asyncio.run(scene())


def test_an_address_that_cannot_be_bound_is_named_in_the_error(world):
    async def scene() -> None:
        async with serving(world.context()) as gateway:
            with pytest.raises(OSError, match=rf"can't listen on 127\.0\.0\.1:{gateway.port}: Address already"):
                gateway.listener.take(bind("127.0.0.1", gateway.port))
            with pytest.raises(OSError, match=r"can't listen on 192\.0\.2\.1:0: Cannot assign"):
                gateway.listener.take(bind("192.0.2.1", 0))

    asyncio.run(scene())


def test_a_restart_does_not_wait_for_old_connections(world):
    async def scene() -> None:
        async with serving(world.context()) as gateway:
            await asyncio.to_thread(exchange, gateway.port, world.client())
            plain = connect(gateway.port)
            await until(lambda: gateway.listener.connections)
        # The server closed first, so the kernel keeps the old connection in TIME_WAIT.
        with plain:
            assert ended(plain)
        listener = Listener(lambda: Echo([]), world.context(), Observer(lambda *_: None, lambda _: None))
        assert listener.take(bind("127.0.0.1", gateway.port)) == gateway.port
        await listener.close()

    asyncio.run(scene())


def test_stop_accepting_keeps_connections(world):
    async def scene() -> None:
        async with serving(world.context()) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=world.client())
            await until(lambda: gateway.infos)
            gateway.listener.stop_accepting()
            with pytest.raises(ConnectionRefusedError):
                connect(gateway.port)
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
            writer.close()
            await writer.wait_closed()
            await until(lambda: not gateway.listener.connections)

    asyncio.run(scene())


def test_connections_have_tcp_nodelay(world):
    options: list[int] = []

    class Look(Echo):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            sock = transport.get_extra_info("socket")
            options.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    async def scene() -> None:
        async with serving(world.context(), lambda: Look([])) as gateway:
            await asyncio.to_thread(exchange, gateway.port, world.client())

    asyncio.run(scene())
    assert options == [1]


def test_reload_changes_the_next_connection(world, tmp_path):
    files = world.other.server().write(tmp_path, "other")
    reloaded = server_context(TLSSettings(*files))
    before = world.client()
    after = ssl.create_default_context(cadata=pem(world.other.certificate).decode())

    async def scene() -> None:
        async with serving(world.context()) as gateway:

            def across_the_reload(tls: ssl.SSLSocket) -> None:
                gateway.listener.context = reloaded
                tls.sendall(b"on the old connection")
                assert tls.recv(100) == b"on the old connection"

            await asyncio.to_thread(exchange, gateway.port, before, then=across_the_reload)
            await asyncio.to_thread(exchange, gateway.port, after)
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.to_thread(exchange, gateway.port, before)

    asyncio.run(scene())


# Failures.


def test_each_failure_is_reported_once_with_the_peer(world):
    def talk(port: int, data: bytes, reset: bool = False) -> str:
        with connect(port) as sock:
            sock.sendall(data)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif data:
                sock.shutdown(socket.SHUT_WR)
                while not ended(sock):
                    pass
            return address_of(sock)

    hello = b"\x16\x03\x01\x02\x00\x01"

    async def scene() -> None:
        async with serving(world.context()) as gateway:
            for data, reset, reason in [
                (b"", False, "closed by the peer during the handshake"),
                (hello, False, "closed by the peer during the handshake"),
                (hello, True, "handshake failed: Connection reset by peer"),
                (b"GET / HTTP/1.0\r\n\r\n", False, "http request"),
                (b"\x00" * 300, False, "wrong version number"),
            ]:
                peer = await asyncio.to_thread(talk, gateway.port, data, reset)
                await until(lambda: not gateway.listener.connections)
                await until(lambda: gateway.failures)
                assert gateway.failures == [(peer, reason)]
                gateway.failures.clear()
        assert gateway.failures == []
        assert gateway.infos == []

    asyncio.run(scene())


def test_the_clients_own_alert_is_reported(world):
    async def scene() -> None:
        async with serving(world.context()) as gateway:
            output = await run("curl", "-sS", "--max-time", "5", f"https://localhost:{gateway.port}/")
            assert "unable to get local issuer certificate" in output
            await until(lambda: gateway.failures)
            assert gateway.reasons == ["tlsv1 alert unknown ca"]

    asyncio.run(scene())


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_a_silent_handshake_times_out(world, sent):
    async def scene() -> None:
        async with serving(world.context(), handshake_timeout=0.1) as gateway:
            with connect(gateway.port) as sock:
                sock.sendall(sent)
                await until(lambda: gateway.listener.connections)
                await until(lambda: gateway.failures)
                assert gateway.listener.connections == 0
                assert ended(sock)
                assert gateway.failures == [(address_of(sock), "handshake timed out")]

    asyncio.run(scene())


def test_a_refused_client_that_stays_is_cut_off(world):
    """The gateway waits for the client to read the alert, but no longer than for a handshake."""

    async def scene() -> None:
        async with serving(world.context(), handshake_timeout=0.2) as gateway:
            with connect(gateway.port) as sock:
                sock.sendall(b"\x16\x03\x01\x00\x05garbage")
                await until(lambda: not gateway.listener.connections and gateway.failures)
                assert sock.recv(2) == b"\x15\x03"  # an alert
                assert len(gateway.failures) == 1
                assert "timed out" not in gateway.reasons[0]

    asyncio.run(scene())


def test_a_failing_protocol_factory_fails_only_its_connection(world):
    made: list[str] = []
    problems: list[str] = []

    def factory() -> asyncio.BaseProtocol:
        made.append("one")
        if len(made) == 1:
            raise OSError(5, "no protocol today")
        return Echo([])

    async def scene() -> None:
        async with serving(world.context(), factory) as gateway:
            with pytest.raises(OSError):
                await asyncio.to_thread(exchange, gateway.port, world.client())
            await asyncio.to_thread(exchange, gateway.port, world.client())
            problems.extend(gateway.reasons)

    asyncio.run(scene())
    assert problems == ["handshake failed: no protocol today"]


# Limits.


def test_connections_beyond_the_cap_are_refused(world):
    async def scene() -> None:
        async with serving(world.context(), max_connections=3) as gateway:
            idle = [connect(gateway.port) for _ in range(3)]
            await until(lambda: gateway.listener.connections == 3)
            for _ in range(20):
                with connect(gateway.port) as extra:
                    assert await asyncio.to_thread(ended, extra)
            assert gateway.listener.connections == 3
            assert gateway.reasons == ["refused: 3 connections are open"]  # once in a second
            gateway.failures.clear()
            idle.pop().close()
            await until(lambda: gateway.listener.connections == 2)
            await asyncio.to_thread(exchange, gateway.port, world.client())
            for sock in idle:
                sock.close()

    asyncio.run(scene())


def test_accepting_goes_on_after_running_out_of_descriptors(world):
    """EMFILE: the connection waits in the kernel. The gateway reports it, pauses, and accepts later."""

    async def scene() -> None:
        async with serving(world.context()) as gateway:
            client = world.client()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            waiting = socket.socket()
            lowest_free = os.dup(0)
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
            try:
                waiting.connect(("127.0.0.1", gateway.port))
                await until(lambda: gateway.failures)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert gateway.failures == [("", "can't accept: Too many open files")]
            await until(lambda: gateway.listener.connections == 1)
            waiting.close()
            await asyncio.to_thread(exchange, gateway.port, client)

    asyncio.run(scene())


# Closing.


def test_a_connection_aborted_at_its_start_is_no_failure(world):
    class Abrupt(Echo):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self._transport.abort()

    async def scene() -> None:
        infos: list[TLSInfo] = []
        async with serving(world.context(), lambda: Abrupt(infos)) as gateway:
            with pytest.raises((OSError, AssertionError)):  # a reset or an EOF instead of the word
                await asyncio.to_thread(exchange, gateway.port, world.client())
            assert len(infos) == 1
            await until(lambda: not gateway.listener.connections)
            assert gateway.failures == []

    asyncio.run(scene())


def test_close_ends_connections_in_every_state(world):
    """The states: just accepted, in the handshake, open, not reading."""

    async def scene() -> None:
        async with serving(world.context()) as gateway:
            hello = connect(gateway.port)
            hello.sendall(b"\x16\x03\x01\x02\x00\x01")
            readers = [await asyncio.open_connection("127.0.0.1", gateway.port, ssl=world.client()) for _ in range(3)]
            for _, writer in readers:
                writer.write(bytes(300_000))
            await until(lambda: len(gateway.infos) == 3)
            fresh = connect(gateway.port)
            gateway.listener._accept(next(iter(gateway.listener._listening)))
            assert gateway.listener.connections == 5
            async with asyncio.timeout(5):  # less than the handshake timeout
                await gateway.listener.close()
            assert gateway.listener.connections == 0
            for sock in (hello, fresh):
                assert ended(sock)
                sock.close()
            for reader, writer in readers:
                with pytest.raises((OSError, asyncio.IncompleteReadError)):
                    await reader.readexactly(10_000_000)
                writer.transport.abort()
            await asyncio.sleep(0)
            await gateway.listener.close()  # a second call raises nothing

    asyncio.run(scene())
