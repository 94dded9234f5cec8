"""A ClientHello made by hand, for versions and cipher suites that OpenSSL no longer offers (RFC 5246 7.4.1.2).

The answer is read as far as the first message: a ServerHello, an alert, or the end.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from dataclasses import dataclass

from estgw.client.transport.url import Place

TLS10, TLS11, TLS12 = 0x0301, 0x0302, 0x0303
NAMES = {TLS10: "TLS 1.0", TLS11: "TLS 1.1", TLS12: "TLS 1.2", 0x0300: "SSL 3.0"}

WEAK_SUITES = {
    0x0001: "RSA_WITH_NULL_MD5",
    0x0002: "RSA_WITH_NULL_SHA",
    0x003B: "RSA_WITH_NULL_SHA256",
    0xC006: "ECDHE_ECDSA_WITH_NULL_SHA",
    0xC010: "ECDHE_RSA_WITH_NULL_SHA",
    0x0018: "DH_anon_WITH_RC4_128_MD5",
    0x001A: "DH_anon_WITH_DES_CBC_SHA",
    0x001B: "DH_anon_WITH_3DES_EDE_CBC_SHA",
    0x0034: "DH_anon_WITH_AES_128_CBC_SHA",
    0x003A: "DH_anon_WITH_AES_256_CBC_SHA",
    0x006C: "DH_anon_WITH_AES_128_CBC_SHA256",
    0x00A6: "DH_anon_WITH_AES_128_GCM_SHA256",
    0x00A7: "DH_anon_WITH_AES_256_GCM_SHA384",
    0xC015: "ECDH_anon_WITH_NULL_SHA",
    0xC018: "ECDH_anon_WITH_AES_128_CBC_SHA",
    0xC019: "ECDH_anon_WITH_AES_256_CBC_SHA",
    0x0003: "RSA_EXPORT_WITH_RC4_40_MD5",
    0x0008: "RSA_EXPORT_WITH_DES40_CBC_SHA",
    0x0014: "DHE_RSA_EXPORT_WITH_DES40_CBC_SHA",
    0x0009: "RSA_WITH_DES_CBC_SHA",
    0x0015: "DHE_RSA_WITH_DES_CBC_SHA",
}
"""NULL, anonymous, EXPORT and single DES: never in EST (RFC 7030 3.2.3, 6)."""
USUAL_SUITES = (0xC02B, 0xC02F, 0xC02C, 0xC030, 0xC009, 0xC013, 0xC00A, 0xC014, 0x009E, 0x0033, 0x0039, 0x002F, 0x0035)
"""ECDHE, DHE and RSA with AES, as far back as TLS 1.0."""

_RENEGOTIATION_INFO = 0xFF01
_MAXIMUM = 65_536


@dataclass(frozen=True)
class Heard:
    """The first message of a server's answer."""

    version: int | None = None
    """The version of the ServerHello; None without one."""
    suite: int | None = None
    extensions: tuple[int, ...] = ()
    words: str = ""
    """What came in place of a ServerHello."""


def say(place: Place, version: int, suites: tuple[int, ...], seconds: float) -> Heard:
    """Send a ClientHello of at most that version and read the first message; raises `OSError` without a connection."""
    with socket.create_connection(place.origin, timeout=seconds) as raw:
        try:
            raw.sendall(_client_hello(place, version, suites))
            return _read(raw, time.monotonic() + seconds)
        except TimeoutError:
            return Heard(words="nothing")
        except OSError as fault:
            return Heard(words=f"the end of the connection ({fault.strerror})")


def plain_http(place: Place, target: str, seconds: float) -> bytes:
    """The first bytes of what the port answers to HTTP without TLS; empty for the end of the connection."""
    with socket.create_connection(place.origin, timeout=seconds) as raw, contextlib.suppress(OSError):
        raw.sendall(f"GET {target} HTTP/1.1\r\nHost: {place.authority}\r\nConnection: close\r\n\r\n".encode())
        return raw.recv(4096)
    return b""


def _client_hello(place: Place, version: int, suites: tuple[int, ...]) -> bytes:
    extensions = [
        (0x000A, _counted(struct.pack(">4H", 29, 23, 24, 25))),  # supported_groups
        (0x000B, b"\x01\x00"),  # ec_point_formats
        (0x000D, _counted(struct.pack(">8H", 0x0403, 0x0503, 0x0603, 0x0804, 0x0401, 0x0501, 0x0203, 0x0201))),
        (_RENEGOTIATION_INFO, b"\x00"),
    ]
    if not place.is_address:
        extensions.insert(0, (0x0000, _counted(b"\x00" + _counted(place.host.encode()))))
    encoded = b"".join(struct.pack(">H", kind) + _counted(value) for kind, value in extensions)
    body = struct.pack(">H", version) + os.urandom(32) + b"\x00"
    body += _counted(struct.pack(f">{len(suites)}H", *suites)) + b"\x01\x00" + _counted(encoded)
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16" + struct.pack(">HH", TLS10, len(message)) + message


def _counted(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _read(raw: socket.socket, end: float) -> Heard:
    data = b""
    while len(data) < _MAXIMUM and time.monotonic() < end:
        raw.settimeout(max(0.1, end - time.monotonic()))
        more = raw.recv(8192)
        data += more
        heard = _heard(data)
        if heard is not None:
            return heard
        if not more:
            return Heard(words="the end of the connection" if not data else "something that is no TLS")
    return Heard(words="too much, or too slowly")


def _heard(data: bytes) -> Heard | None:
    """The first message, or None while it is not complete."""
    if data and data[0] not in (0x15, 0x16):
        return Heard(words="something that is no TLS")
    if len(data) < 7:
        return None
    if data[0] == 0x15:
        return Heard(words=f"alert {data[6]}")
    payload, at = b"", 0
    while at + 5 <= len(data) and data[at] == 0x16:
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        payload += data[at + 5 : at + 5 + size]
        at += 5 + size
    if len(payload) < 4 or len(payload) < 4 + int.from_bytes(payload[1:4], "big"):
        return None
    if payload[0] != 2:
        return Heard(words=f"a handshake message of type {payload[0]}")
    return _server_hello(payload[4 : 4 + int.from_bytes(payload[1:4], "big")])


def _server_hello(body: bytes) -> Heard:
    try:
        version = int.from_bytes(body[:2], "big")
        at = 35 + body[34]
        suite = int.from_bytes(body[at : at + 2], "big")
        at += 5
        kinds = []
        while at + 4 <= len(body):
            kinds.append(int.from_bytes(body[at : at + 2], "big"))
            at += 4 + int.from_bytes(body[at + 2 : at + 4], "big")
    except IndexError:
        return Heard(words="a ServerHello that is cut off")
    return Heard(version, suite, tuple(kinds))


def has_secure_renegotiation(heard: Heard) -> bool:
    """Whether a ServerHello has the extension of RFC 5746."""
    return _RENEGOTIATION_INFO in heard.extensions
