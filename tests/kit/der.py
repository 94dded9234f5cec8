"""DER and PEM, written a second time so that the tests do not rely on the code that they test."""

from __future__ import annotations

import base64
from pathlib import Path

VECTORS = Path(__file__).resolve().parents[1] / "vectors"

CN = "2.5.4.3"

BOOLEAN, INTEGER, BIT_STRING, OCTETS = 0x01, 0x02, 0x03, 0x04
UTF8, PRINTABLE, T61, IA5, UNIVERSAL, BMP = 0x0C, 0x13, 0x14, 0x16, 0x1C, 0x1E
SEQUENCE, SET = 0x30, 0x31


def tlv(tag: int, *content: bytes) -> bytes:
    """One element: tag, length, content."""
    inner = b"".join(content)
    if len(inner) < 128:
        return bytes([tag, len(inner)]) + inner
    length = len(inner).to_bytes((len(inner).bit_length() + 7) // 8, "big")
    return bytes([tag, 128 + len(length)]) + length + inner


def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    return tlv(6, b"".join(_base128(number) for number in (40 * first + second, *rest)))


def _base128(number: int) -> bytes:
    digits = [number & 127]
    while number := number >> 7:
        digits.append(128 + (number & 127))
    return bytes(reversed(digits))


def dn(*rdns: tuple[str, int, bytes]) -> bytes:
    """A Name of single-valued RDNs: OID, string tag, bytes."""
    return tlv(SEQUENCE, *(tlv(SET, tlv(SEQUENCE, oid(kind), tlv(tag, text))) for kind, tag, text in rdns))


def attribute(kind: str, *values: bytes) -> bytes:
    """An Attribute with these values, or with none."""
    return tlv(SEQUENCE, oid(kind), tlv(SET, *values))


def extension(kind: str, value: bytes, *, critical: bool = False) -> bytes:
    """An Extension; `value` is its DER."""
    return tlv(SEQUENCE, oid(kind), *([tlv(BOOLEAN, b"\xff")] if critical else []), tlv(OCTETS, value))


def element(der: bytes, index: int) -> bytes:
    """The element with that index in a DER sequence, header included."""
    position = _header(der, 0)[0]
    while True:
        start, length = _header(der, position)
        if index == 0:
            return der[position : start + length]
        index, position = index - 1, start + length


def _header(der: bytes, position: int) -> tuple[int, int]:
    """Where the content of the element at that position starts, and how long it is."""
    length = der[position + 1]
    if length < 0x80:
        return position + 2, length
    start = position + 2 + (length & 0x7F)
    return start, int.from_bytes(der[position + 2 : start])


def armoured(der: bytes, label: str = "CERTIFICATE REQUEST") -> bytes:
    """PEM."""
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(der) + f"-----END {label}-----\n".encode()


def vector(file: str) -> bytes:
    """A published message, as it stands."""
    return (VECTORS / file).read_bytes()
