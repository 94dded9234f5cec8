"""Mutations of bytes: blind, by line, and by the structure of DER, also inside PEM or base64.

A change to a DER tree corrects all lengths above it, so that only the changed element is wrong.

A `random.Random` in the same state makes the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

LONGEST = 100_000
"""Bytes of one input."""
LARGE = 10_000
"""Larger inputs are not changed any further: that takes long and adds little."""
DEEPEST = 60
"""Levels to which a tree is read. `_nest` makes deeper ones."""

_PEM = re.compile(rb"(-----BEGIN ([A-Z0-9 ]+)-----\n)([A-Za-z0-9+/=\s]+)(-----END \2-----)")
_PIECES = (
    b"\0", b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x1b[2J", b"\x7f", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xae",
    b"\xff", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"() { :;}", b"%00", b"%2f", b"%0a", b"../", b"${x}", b"`", b"'",
    b'"', b"\\", b",", b"=", b":", b";", b"-", b"*", b"&a ", b"*a", b"!!x ", b"{", b"[", b"-----BEGIN X-----", b"0",
    b"-1", b"99999999999999999999", b"1e9999", b"0x10", b"nan", b"~", b"<<", b"\x30\x80", b"\0\0", b"\x05\x00",
)  # fmt: skip
_CONTENTS = (
    b"", b"\0", b"\xff", b"\x7f", b"\x80" + bytes(20), b"\0" * 300, b"\xff" * 300, b"A" * 300, b"99991231235959Z",
    b"00000101000000Z", b"490230000000Z", b"20300102030405.5Z", b"\x80\x01", b"\x2a\x86\x48" + b"\xff" * 12, b"a\0b",
    b"\xc3\x28", b"\xd8\x00", b"\r\nX: y", b"\x07\x00\x01",
)  # fmt: skip
_TAGS = bytes.fromhex("01020304050607090a0c1213141516171819 1a1c1e24303160808182838687a0a1a2a3a4bfdf1f3f7f9fff")
_CHANGES = ("content", "content", "tag", "length", "delete", "twice", "swap", "other", "nest", "many", "ber")
_LENGTHS = (b"\x80", b"\x81\x05", b"\x84\x00\x00\x00\x01", b"\x84\xff\xff\xff\xff", b"\xff", b"\x88" + b"\x7f" * 8)


@dataclass
class Node:
    """One element. `content` is what precedes its children, or all of its content if it has none."""

    tag: bytes
    content: bytes
    children: list[Node]
    length: bytes = b""
    """If not empty, written in place of the right length."""

    @property
    def inside(self) -> bytes:
        """All of its content."""
        return self.content + b"".join(child.encode() for child in self.children)

    def encode(self) -> bytes:
        """As DER, apart from the parts that are wrong."""
        content = self.inside
        size = len(content)
        octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
        right = bytes([size]) if size < 0x80 else bytes([0x80 | len(octets)]) + octets
        return self.tag + (self.length or right) + content


def mutate(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """The bytes with one to four changes, at most `LONGEST` of them. Parts of `others` may be put in."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        if len(data) <= LARGE:
            data = _change(rng, data, rng.choice(others) if others else data)
    return data[:LONGEST]


def _change(rng: Random, data: bytes, other: bytes) -> bytes:
    if rng.random() < 0.6:
        if armoured := list(_PEM.finditer(data)):
            at = rng.choice(armoured)
            inner = _through_base64(rng, at[3], other)
            return data[: at.start(3)] + inner + data[at.end(3) :] if inner else data
        if nodes := read(data):
            return _change_tree(rng, nodes, other)
        if inner := _through_base64(rng, data, other):
            return inner
    return rng.choice(_BLIND)(rng, data, other)


def _through_base64(rng: Random, text: bytes, other: bytes) -> bytes:
    """The same change inside base64, with the same line length. Empty if the input is not base64."""
    der = _bare(text)
    nodes = read(der) if der != text else []
    return base64.encodebytes(_change_tree(rng, nodes, other)) if nodes else b""


def _bare(data: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        return data


# Trees.


def read(data: bytes, depth: int = 0) -> list[Node]:
    """The elements in some bytes. Empty unless the bytes consist of elements up to the last byte."""
    nodes, at = [], 0
    while at < len(data) and depth < DEEPEST:
        end = at + 1
        if data[at] & 0x1F == 0x1F:
            while end < len(data) and data[end] & 0x80:
                end += 1
            end += 1
        tag, first = data[at:end], data[end : end + 1]
        octets = first[0] & 0x7F if first and first[0] & 0x80 else 0
        start = end + 1 + octets
        size = int.from_bytes(data[end + 1 : start], "big") if octets else first[0] if first else 0
        if not first or first == b"\x80" or start + size > len(data):
            return []
        nodes.append(_node(tag, data[start : start + size], depth))
        at = start + size
    return nodes if at == len(data) else []


def _node(tag: bytes, content: bytes, depth: int) -> Node:
    """Look into octet strings and bit strings, because extensions and keys have DER in them."""
    before = content[:1] if tag == b"\x03" else b""
    nests = tag[0] & 0x20 or tag in (b"\x03", b"\x04")
    children = read(content[len(before) :], depth + 1) if nests else []
    return Node(tag, before, children) if children else Node(tag, content, [])


def _places(nodes: list[Node]) -> Iterator[tuple[list[Node], int]]:
    for at, node in enumerate(nodes):
        yield nodes, at
        yield from _places(node.children)


def _change_tree(rng: Random, nodes: list[Node], other: bytes) -> bytes:
    siblings, at = rng.choice(list(_places(nodes)))
    node = siblings[at]
    match rng.choice(_CHANGES):
        case "content":
            node.content, node.children = _change_content(rng, node.inside), []
        case "tag":
            node.tag = bytes([rng.choice(_TAGS)]) if rng.random() < 0.8 else rng.randbytes(rng.randint(1, 6))
        case "length":
            node.length = rng.choice(_LENGTHS)
        case "delete":
            del siblings[at]
        case "twice":
            siblings.insert(at, node)
        case "swap":
            to = rng.randrange(len(siblings))
            siblings[at], siblings[to] = siblings[to], siblings[at]
        case "other":
            donors, which = rng.choice(list(_places(read(_bare(other)) or nodes)))
            donor = donors[which]
            siblings[at] = Node(donor.tag, donor.inside, [])  # a copy: the donor may come from the same tree
        case "nest":
            tag = rng.choice((b"\x30", b"\x31", b"\x24", b"\xa0", node.tag[:1]))
            for _ in range(rng.choice((1, 1, 2, 2, 31, 33, 70, 1500))):
                node = Node(tag, node.encode(), [])  # flat: `encode` could not write a tree this deep
            siblings[at] = node
        case "many":
            times = min(rng.choice((2, 2, 20, 20, 200, 2000, 30_000)), LONGEST // (len(node.encode()) or 1))
            siblings[at:at] = [node] * times
        case "ber":
            node.tag, node.length = bytes([node.tag[0] | 0x20]) + node.tag[1:], b"\x80"
            pieces = node.children or [Node(b"\x04", node.content, [])]
            node.content, node.children = b"", [*pieces, Node(b"\0", b"", [])]
    return b"".join(each.encode() for each in nodes)


def _change_content(rng: Random, content: bytes) -> bytes:
    if rng.random() < 0.5:
        return rng.choice(_CONTENTS)
    return rng.choice(_BLIND)(rng, content, content)


# Bytes and lines.


def _slice(rng: Random, data: bytes, most: int = 64) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.randint(0, most))


def _flip(rng: Random, data: bytes, other: bytes) -> bytes:
    if not data:
        return rng.randbytes(4)
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _put(rng: Random, data: bytes, other: bytes) -> bytes:
    start, end = _slice(rng, data, 8)
    piece = rng.choice(_PIECES) if rng.random() < 0.7 else rng.randbytes(rng.randint(1, 8))
    return data[:start] + piece + data[rng.choice((start, end)) :]


def _cut(rng: Random, data: bytes, other: bytes) -> bytes:
    start, end = _slice(rng, data)
    return data[:start] + data[end:]


def _end(rng: Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randint(0, len(data))]


def _splice(rng: Random, data: bytes, other: bytes) -> bytes:
    (start, end), (first, last) = _slice(rng, data), _slice(rng, other, 200)
    return data[:start] + other[first:last] + data[end:]


def _repeat(rng: Random, data: bytes, other: bytes) -> bytes:
    """Repetition reveals code that takes more than linear time."""
    start, end = _slice(rng, data, rng.choice((1, 4, 64, len(data))))
    piece = data[start:end] or rng.choice(_PIECES)
    times = min(rng.choice((2, 3, 10, 300, 300, LONGEST)), max(0, LONGEST - len(data)) // len(piece))
    return data[:start] + piece * times + data[start:]


def _lines(rng: Random, data: bytes, other: bytes) -> bytes:
    lines, more = data.splitlines(keepends=True), other.splitlines(keepends=True)
    if len(lines) < 2 or not more:
        return _splice(rng, data, other)
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[to])
        case 2:
            lines[at], lines[to] = lines[to], lines[at]
        case _:
            lines.insert(at, rng.choice(more))
    return b"".join(lines)


_BLIND: tuple[Callable[[Random, bytes, bytes], bytes], ...] = (
    _flip, _put, _put, _cut, _end, _splice, _repeat, _lines,
)  # fmt: skip
