"""Convert BER to DER, as far as certificates and CMS need it (X.690 8.1.3.6, 8.7; RFC 5967 2.1 asks receivers for it).

Only the forms that CMS writers really use are converted: indefinite lengths and strings in pieces.  DER comes back byte
for byte, so signatures inside it stay valid.
"""

from __future__ import annotations

from estgw.errors import Malformed
from estgw.est.der import wrap

MAXIMUM_DEPTH = 32
"""Levels; a certificate in a CMS message has about 15."""
MAXIMUM_ELEMENTS = 100_000
"""A message with 100 certificates has about 10,000."""

_CONSTRUCTED = 0x20
_OCTET_STRING = 0x24
_INDEFINITE = 0x80
_END = b"\0\0"


def to_der(data: bytes) -> bytes:
    """Return one BER value with definite, minimal lengths and octet strings in one piece.  Raises `Malformed`."""
    reader = _Reader(data)
    der, end = reader.element(0, 0)
    if end != len(data):
        raise Malformed(f"{len(data) - end} bytes too many after the end of the BER value")
    return der


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._count = 0

    def element(self, at: int, depth: int) -> tuple[bytes, int]:
        """Return the element at an offset as DER, and the offset behind it.  Raises `Malformed`."""
        self._count += 1
        if depth > MAXIMUM_DEPTH or self._count > MAXIMUM_ELEMENTS:
            raise Malformed("BER nested too deeply or with too many elements")
        tag, at = self._tag(at)
        length, at = self._length(at)
        end = None if length is None else at + length
        if end is not None and end > len(self._data):
            raise Malformed("BER that is cut off")
        if not tag[0] & _CONSTRUCTED:
            if end is None:
                raise Malformed("a primitive BER value of indefinite length")
            return wrap(tag, self._data[at:end]), end
        parts, at = self._children(at, end, depth)
        if tag[0] == _OCTET_STRING:
            return wrap(b"\x04", b"".join(_content(part) for part in parts)), at
        return wrap(tag, b"".join(parts)), at

    def _children(self, at: int, end: int | None, depth: int) -> tuple[list[bytes], int]:
        parts: list[bytes] = []
        while at != end:
            if end is None and self._data[at : at + 2] == _END:
                return parts, at + 2
            part, at = self.element(at, depth + 1)
            if end is not None and at > end:
                raise Malformed("a BER value that is longer than the one around it")
            parts.append(part)
        return parts, at

    def _tag(self, at: int) -> tuple[bytes, int]:
        start, at = at, at + 1
        if start >= len(self._data):
            raise Malformed("BER that is cut off")
        if self._data[start] & 0x1F == 0x1F:
            while at < len(self._data) and self._data[at] & 0x80:
                at += 1
            at += 1
        return self._data[start:at], at

    def _length(self, at: int) -> tuple[int | None, int]:
        first = self._data[at : at + 1]
        if not first:
            raise Malformed("BER that is cut off")
        if first[0] < _INDEFINITE:
            return first[0], at + 1
        octets = first[0] & 0x7F
        if not octets:
            return None, at + 1
        return int.from_bytes(self._data[at + 1 : at + 1 + octets], "big"), at + 1 + octets


def _content(primitive: bytes) -> bytes:
    """The content of an OCTET STRING of definite length, as `_Reader.element` returns it.  Raises `Malformed`."""
    if primitive[:1] != b"\x04":
        raise Malformed("a BER octet string with something else in it")
    return primitive[2 + (primitive[1] & 0x7F if primitive[1] & 0x80 else 0) :]
