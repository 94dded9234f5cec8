"""PNG (ISO/IEC 15948): the size of a picture, and a picture packed anew, as a browser packs screenshots in haste."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {2: 3, 6: 4}
"""Bytes of a pixel by colour type: RGB and RGBA with 8 bits each."""


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each chunk, whose checksum must be right."""
    assert png.startswith(SIGNATURE)
    place = len(SIGNATURE)
    while place < len(png):
        length = int.from_bytes(png[place : place + 4], "big")
        body = png[place + 4 : place + 8 + length]
        assert zlib.crc32(body) == int.from_bytes(png[place + 8 + length : place + 12 + length], "big")
        yield body[:4], body[4:]
        place += 12 + length


def size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels."""
    head = dict(chunks(png))[b"IHDR"]
    width, height = struct.unpack(">II", head[:8])
    return width, height


def packed(png: bytes) -> bytes:
    """The same picture without filters, which suit photographs: letters on one colour get a quarter smaller."""
    head = dict(chunks(png))[b"IHDR"]
    width, _ = size(png)
    lines = unfiltered(zlib.decompress(b"".join(content for kind, content in chunks(png) if kind == b"IDAT")),
                       width * CHANNELS[head[9]], CHANNELS[head[9]])  # fmt: skip
    image = zlib.compress(b"".join(b"\0" + line for line in lines), 9)
    made = ((b"IHDR", head), (b"IDAT", image), (b"IEND", b""))
    return SIGNATURE + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in made
    )


def unfiltered(data: bytes, width: int, step: int) -> Iterator[bytes]:
    """The lines of a picture, each `width` bytes, with the filters undone (9.2); `step` is the bytes of a pixel."""
    above = bytearray(width)
    for start in range(0, len(data), width + 1):
        kind, line = data[start], bytearray(data[start + 1 : start + 1 + width])
        for at in range(width):
            left = line[at - step] if at >= step else 0
            corner = above[at - step] if at >= step else 0
            line[at] = (line[at] + _predicted(kind, left, above[at], corner)) & 255
        yield bytes(line)
        above = line


def _predicted(kind: int, left: int, above: int, corner: int) -> int:
    match kind:
        case 1:
            return left
        case 2:
            return above
        case 3:
            return (left + above) // 2
        case 4:  # Paeth
            return min((left, above, corner), key=lambda each: abs(left + above - corner - each))
        case _:
            return 0
