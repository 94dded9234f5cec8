"""The header of the PROXY protocol, in which a load balancer says which client it has connected (versions 1 and 2).

Read it from the raw socket before TLS, to its last byte and no further.  A header is believed only from an address in
`server.proxies`; the listener checks that.  Source: haproxy.org/download/3.0/doc/proxy-protocol.txt
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""The first 12 bytes of version 2; no header of version 1 is shorter."""
LONGEST_LINE = 107
"""Bytes of the longest header of version 1, CRLF included (section 2.1)."""
LONGEST_BLOCK = 4096
"""Bytes of addresses and further values in version 2.  HAProxy sends less than 200; the format allows 65,535."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LINE = re.compile(rb"PROXY (TCP[46]) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})\r\n")
# Version 2 in the high half of a byte, the command in the low one.
_LOCAL, _PROXY = 0x20, 0x21
# Address family and transport, with the bytes of an address.
_TCP = {0x11: 4, 0x21: 16}
_UNSPECIFIED = 0x00


class HeaderError(Exception):
    """There is no header, or one that can't be read; the text is for the log."""


@dataclass(frozen=True)
class Ends:
    """The two ends of the connection between a client and a load balancer, each as `socket` gives an address."""

    client: tuple[str, int]
    server: tuple[str, int]


async def read_header(sock: socket.socket) -> Ends | None:
    """Read a header.  None: the load balancer speaks for itself, as in a health check.

    Raises `HeaderError`, or OSError when the connection is lost.  The caller bounds the time.
    """
    start = await _exactly(sock, len(SIGNATURE))
    if start == SIGNATURE:
        rest = await _exactly(sock, 4)
        length = int.from_bytes(rest[2:])
        if length > LONGEST_BLOCK:
            raise HeaderError(f"a PROXY header of {length} bytes; {LONGEST_BLOCK} are read")
        return _version_2(rest[0], rest[1], await _exactly(sock, length))
    if not start.startswith(b"PROXY "):
        raise HeaderError("no PROXY header")
    line = bytearray(start)
    while not line.endswith(b"\n"):
        if len(line) == LONGEST_LINE:
            raise HeaderError(f"a PROXY header without an end in {LONGEST_LINE} bytes")
        line += await _exactly(sock, 1)  # what follows belongs to TLS
    return _version_1(bytes(line))


async def _exactly(sock: socket.socket, number: int) -> bytes:
    loop, found = asyncio.get_running_loop(), b""
    while len(found) < number:
        more = await loop.sock_recv(sock, number - len(found))
        if not more:
            raise HeaderError("closed by the peer before its PROXY header was complete")
        found += more
    return found


def _version_1(line: bytes) -> Ends | None:
    if line.startswith(b"PROXY UNKNOWN") and line[13:14] in (b" ", b"\r") and line.endswith(b"\r\n"):
        return None
    found = _LINE.fullmatch(line)
    if found is None:
        raise HeaderError("a PROXY header that can't be read")
    kind, *addresses = found[1], found[2].decode(), found[3].decode()
    ports = int(found[4]), int(found[5])
    try:
        ends = [ipaddress.ip_address(text) for text in addresses]
    except ValueError:
        raise HeaderError("a PROXY header with an address that can't be read") from None
    if {f"TCP{end.version}".encode() for end in ends} != {kind} or max(ports) > 0xFFFF:
        raise HeaderError("a PROXY header with an address of another family, or a port above 65535")
    return Ends((_text(ends[0]), ports[0]), (_text(ends[1]), ports[1]))


def _version_2(command: int, kind: int, block: bytes) -> Ends | None:
    if command == _LOCAL:
        return None
    if command != _PROXY:
        raise HeaderError(f"a PROXY header of an unknown version or command: 0x{command:02x}")
    if kind == _UNSPECIFIED:
        return None
    size = _TCP.get(kind)
    if size is None:
        raise HeaderError(f"a PROXY header for something other than TCP: 0x{kind:02x}")
    if len(block) < 2 * size + 4:
        raise HeaderError("a PROXY header that ends before its addresses")
    # What follows the addresses, such as the name that the client asked for, is not needed.
    client, server = (ipaddress.ip_address(block[at : at + size]) for at in (0, size))
    ports = [int.from_bytes(block[at : at + 2]) for at in (2 * size, 2 * size + 2)]
    return Ends((_text(client), ports[0]), (_text(server), ports[1]))


def _text(address: Address) -> str:
    """An IPv4 client that reached an IPv6 socket counts as IPv4, so that rules and guesses find it."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
