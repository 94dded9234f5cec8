"""The PROXY protocol: which headers are read, what each says, and that not one byte of TLS is taken with them."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estgw.tls import proxy
from estgw.tls.proxy import Ends, HeaderError
from tests.tls.serving import Serving, exchange, serving, until

V4 = Ends(("192.0.2.1", 56324), ("198.51.100.1", 443))
V6 = Ends(("2001:db8::1", 56324), ("2001:db8::2", 443))
LINE_4 = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"
LINE_6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n"
LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]


def block(command: int, kind: int, body: bytes, *, length: int | None = None) -> bytes:
    """A header of version 2."""
    return proxy.SIGNATURE + bytes((command, kind)) + (len(body) if length is None else length).to_bytes(2) + body


def addresses(ends: Ends) -> bytes:
    hosts = [ipaddress.ip_address(host).packed for host in (ends.client[0], ends.server[0])]
    return b"".join(hosts) + ends.client[1].to_bytes(2) + ends.server[1].to_bytes(2)


BLOCK_4, BLOCK_6 = block(0x21, 0x11, addresses(V4)), block(0x21, 0x21, addresses(V6))
MAPPED = bytes(10) + b"\xff\xff" + bytes((192, 0, 2, 1))
VALUE = b"\x02\x00\x09localhost"  # PP2_TYPE_AUTHORITY


def read(sent: bytes, *, ends: bool = True) -> tuple[Ends | None, bytes]:
    """What a header says, and the bytes that are left behind it."""

    async def main() -> tuple[Ends | None, bytes]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.sendall(sent)
            if ends:
                theirs.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(5):
                found = await proxy.read_header(ours)
            return found, ours.recv(65536)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (LINE_4, V4),
        (LINE_6, V6),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
        (BLOCK_4, V4),
        (BLOCK_6, V6),
        (block(0x21, 0x11, addresses(V4) + VALUE), V4),
        (block(0x21, 0x11, addresses(V4) + bytes(proxy.LONGEST_BLOCK - 12)), V4),
        (block(0x20, 0x00, b""), None),
        (block(0x20, 0x11, addresses(V4)), None),
        (block(0x21, 0x00, VALUE), None),
        (block(0x21, 0x21, MAPPED * 2 + bytes(4)), Ends(("192.0.2.1", 0), ("192.0.2.1", 0))),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", Ends(("192.0.2.1", 1), ("::1", 2))),
    ],
)  # fmt: skip
def test_a_header_is_read_to_its_last_byte_and_no_further(header, said):
    assert read(header + b"\x16\x03\x01TLS") == (said, b"\x16\x03\x01TLS")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00", "no PROXY header"),
        (b"GET / HTTP/1.1\r\n\r\n", "no PROXY header"),
        (b"PROXY TCP4 1", "before its PROXY header was complete"),
        (b"", "before its PROXY header was complete"),
        (LINE_4[:-1], "before its PROXY header was complete"),
        (LINE_4[:-2] + b"\n", "can't be read"),
        (LINE_4.replace(b" 443", b" 443 "), "can't be read"),
        (LINE_4.replace(b"443", b"-443"), "can't be read"),
        (LINE_4.replace(b"443", b"66000"), "a port above"),
        (LINE_4.replace(b"TCP4", b"TCP6"), "another family"),
        (LINE_4.replace(b"192.0.2.1", b"192.0.2.300"), "an address that can't be read"),
        (LINE_4.replace(b"192.0.2.1", b"est.example"), "can't be read"),
        (LINE_4.replace(b"TCP4", b"UDP4"), "can't be read"),
        (b"PROXY UNKNOWNS\r\n", "can't be read"),
        (b"PROXY TCP4 " + b"1" * 200, "without an end in 107 bytes"),
        (b"PROXY UNKNOWN " + b"x" * 200, "without an end in 107 bytes"),
        (BLOCK_4[:20], "before its PROXY header was complete"),
        (block(0x21, 0x11, addresses(V4)[:11]), "ends before its addresses"),
        (block(0x21, 0x21, addresses(V4)), "ends before its addresses"),
        (block(0x22, 0x11, addresses(V4)), "unknown version or command: 0x22"),
        (block(0x11, 0x11, addresses(V4)), "unknown version or command: 0x11"),
        (block(0x21, 0x12, addresses(V4)), "other than TCP: 0x12"),
        (block(0x21, 0x31, bytes(216)), "other than TCP: 0x31"),
        (block(0x21, 0x11, b"", length=0xFFFF), "a PROXY header of 65535 bytes; 4096 are read"),
    ],
)  # fmt: skip
def test_a_header_with_a_fault_is_refused_with_its_reason(header, reason):
    with pytest.raises(HeaderError, match=reason):
        read(header)


def test_a_header_that_arrives_in_single_bytes_is_read():
    async def main() -> Ends | None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            reading = asyncio.create_task(proxy.read_header(ours))
            for byte in BLOCK_4:
                theirs.send(bytes((byte,)))
                await asyncio.sleep(0)
            return await reading

    assert asyncio.run(main()) == V4


@settings(max_examples=300)
@given(st.sampled_from([LINE_4, LINE_6, BLOCK_4, BLOCK_6]), st.data())
def test_a_mutated_header_is_read_or_refused(header, data):
    """The end of the input never lets the reader wait or loop, and an address is always one that `ipaddress` knows."""
    spoilt = bytearray(header)
    for _ in range(data.draw(st.integers(1, 3))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    try:
        said, _ = read(bytes(spoilt[: data.draw(st.integers(0, len(spoilt)))]))
    except HeaderError:
        return
    for host, port in (said.client, said.server) if said else ():
        assert str(ipaddress.ip_address(host)) == host
        assert 0 <= port <= 0xFFFF


# A listener behind a load balancer.


def behind(world: Any, *, header: bytes, **limits: Any) -> Serving:
    """One connection with this header; what the listener saw."""

    async def scene() -> Serving:
        async with serving(world.context(), proxies=LOOPBACK, **limits) as gateway:
            await asyncio.to_thread(exchange, gateway.port, world.client(), header=header)
            return gateway

    return asyncio.run(scene())


@pytest.mark.parametrize("header", [LINE_4, LINE_6, BLOCK_4, BLOCK_6], ids=["v1 IPv4", "v1 IPv6", "v2 IPv4", "v2 IPv6"])
def test_both_ends_of_the_clients_connection_are_those_of_the_header(world, header):
    gateway = behind(world, header=header)
    expected = V6 if header in (LINE_6, BLOCK_6) else V4
    assert gateway.ends == [(expected.client, expected.server)]
    assert gateway.failures == []


def test_a_failed_handshake_is_reported_with_the_clients_address(world):
    async def scene() -> None:
        async with serving(world.context(), proxies=LOOPBACK) as gateway:
            with socket.create_connection(("127.0.0.1", gateway.port)) as plain:
                plain.sendall(BLOCK_6 + b"no TLS at all\r\n")
                await until(lambda: gateway.failures)
            assert gateway.failures[0][0] == "[2001:db8::1]:56324"

    asyncio.run(scene())


def test_a_connection_without_a_header_is_refused_behind_a_load_balancer(world):
    async def scene() -> None:
        async with serving(world.context(), proxies=LOOPBACK) as gateway:
            with pytest.raises(OSError):
                await asyncio.to_thread(exchange, gateway.port, world.client())
            assert gateway.reasons == ["no PROXY header"]

    asyncio.run(scene())


def test_a_header_from_another_address_is_refused(world):
    """It is the client that says so, not a load balancer, and the header is not even read."""

    async def scene() -> None:
        async with serving(world.context(), proxies=[ipaddress.ip_network("192.0.2.0/24")]) as gateway:
            with pytest.raises(OSError):
                await asyncio.to_thread(exchange, gateway.port, world.client(), header=LINE_4)
            assert gateway.reasons == ["refused: it does not come from a load balancer in server.proxies"]

    asyncio.run(scene())


def test_a_header_is_a_fault_where_no_load_balancer_is_configured(world):
    async def scene() -> None:
        async with serving(world.context()) as gateway:
            for header in (LINE_4, BLOCK_4):
                with pytest.raises(OSError):
                    await asyncio.to_thread(exchange, gateway.port, world.client(), header=header)
            assert gateway.reasons == ["wrong version number"] * 2
            assert gateway.infos == []

    asyncio.run(scene())


@pytest.mark.parametrize("sent", [b"", LINE_4[:10], BLOCK_4[:-1], LINE_4], ids=["none", "v1", "v2", "whole"])
def test_header_and_handshake_share_one_timeout(world, sent):
    async def scene() -> None:
        async with serving(world.context(), proxies=LOOPBACK, handshake_timeout=0.3) as gateway:
            began = time.monotonic()
            with socket.create_connection(("127.0.0.1", gateway.port)) as plain:
                plain.sendall(sent)
                await until(lambda: gateway.failures)
            assert gateway.reasons == ["handshake timed out"]
            assert 0.25 < time.monotonic() - began < 3

    asyncio.run(scene())


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", block(0x20, 0x00, b"")], ids=["v1", "v2"])
def test_the_health_check_of_a_load_balancer_is_no_failure(world, header):
    async def scene() -> None:
        async with serving(world.context(), proxies=LOOPBACK) as gateway:
            with socket.create_connection(("127.0.0.1", gateway.port)) as plain:
                plain.sendall(header)
            await until(lambda: gateway.counts[-1:] == [0])
            assert gateway.failures == []
            # What is no mere test of the port is told.
            with socket.create_connection(("127.0.0.1", gateway.port)) as plain:
                plain.sendall(header + b"no TLS at all\r\n")
                await until(lambda: gateway.failures)

    asyncio.run(scene())


def test_closing_ends_connections_whose_header_has_not_come(world):
    async def scene() -> None:
        async with serving(world.context(), proxies=LOOPBACK) as gateway:
            plain = socket.create_connection(("127.0.0.1", gateway.port))
            await until(lambda: gateway.listener.connections)
        plain.close()
        assert gateway.reasons == ["closed by the peer before its PROXY header was complete"]

    asyncio.run(scene())
