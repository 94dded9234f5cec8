"""Base64, PEM and DER: telling them apart, taking them off and putting them on.

RFC 7030 as corrected by RFC 8951 3: every body is base64 (RFC 4648 4) of DER, whatever a
Content-Transfer-Encoding header says; receivers put up with white space.  libest's server counts the NUL at the
end of a C string as part of the body, so NULs after base64 are dropped too.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from estgw.errors import Malformed
from estgw.est.der import length

_WHITE = b" \t\r\n\f\v"
_ARMOUR = re.compile(rb"-----(BEGIN|END) ([A-Z0-9 ]{1,64})-----")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]")
_HEADER_LINE = re.compile(rb"^[A-Za-z0-9-]+:", re.MULTILINE)


@dataclass(frozen=True)
class PEMBlock:
    """One armoured object: the label between BEGIN and the dashes, and the DER."""

    label: str
    der: bytes


def decode_base64(text: bytes) -> bytes:
    """Strictly decode base64 with any white space in it (RFC 8951 3.1); raises `Malformed`."""
    stripped = text.translate(None, _WHITE)
    if wrong := _NOT_BASE64.search(stripped):
        raise Malformed(f"not base64: byte 0x{wrong[0][0]:02x} at offset {wrong.start()}, white space aside")
    try:
        return base64.b64decode(stripped, validate=True)
    except binascii.Error:
        raise Malformed("truncated base64: the length does not fit, or padding stands in the middle") from None


def pem_blocks(text: bytes) -> list[PEMBlock]:
    """All PEM blocks of a text in order (RFC 7468); text around them is ignored.  Raises `Malformed`."""
    blocks = []
    begin = None
    # One look at each line: a pattern from BEGIN to END would take quadratic time where the ENDs are missing.
    for line in _ARMOUR.finditer(text):
        if line[1] == b"BEGIN":
            begin = line
            continue
        if begin is None or begin[2] != line[2]:
            continue
        label, inner = line[2].decode(), text[begin.end() : line.start()]
        begin = None
        if _HEADER_LINE.search(inner):
            raise Malformed(f"the PEM block {label} is encrypted or has headers")
        try:
            blocks.append(PEMBlock(label, decode_base64(inner)))
        except Malformed as fault:
            raise Malformed(f"PEM block {label}: {fault}") from None
    return blocks


def outside_pem(text: bytes) -> bytes:
    """The part of a text that is in no PEM block, such as messages before one."""
    parts, at, begin = [], 0, None
    for line in _ARMOUR.finditer(text):
        if line[1] == b"BEGIN":
            begin = line
        elif begin is not None and begin[2] == line[2]:
            parts.append(text[at : begin.start()])
            at, begin = line.end(), None
    return b"".join([*parts, text[at:]])


def decode(body: bytes, pem_labels: tuple[str, ...]) -> bytes:
    """Bring a body to DER, told apart by content: PEM begins with dashes, DER with 0x30, base64 of DER with M.

    `pem_labels` are the PEM labels that will do; none at all means any but a private key's.  Raises `Malformed`
    with the fault: empty, not base64, truncated, base64 of something else, or a PEM block of another kind.
    """
    start = body.lstrip(_WHITE)
    text = start.rstrip(_WHITE + b"\0")
    if not text:
        raise Malformed("the body is empty")
    if b"-----BEGIN" in start[:4096] and not start.startswith(b"0"):
        return _decode_pem(body, pem_labels)
    der = _strip_line_end(start) if start[0] == 0x30 and not _is_base64(start) else decode_base64(text)
    if der[:1] != b"\x30":
        raise Malformed("base64 of something that is not a DER SEQUENCE")
    return der


def _is_base64(text: bytes) -> bool:
    """Whether a body that begins with the digit 0 (0x30, like a SEQUENCE) is text all the same."""
    return not _NOT_BASE64.search(text.translate(None, _WHITE))


def _strip_line_end(data: bytes) -> bytes:
    """DER without the CR LF that one client puts after it; the parser reports any other byte too many.

    The length tells: one signature in 65,536 ends in these two bytes.
    """
    return data[:-2] if data.endswith(b"\r\n") and length(data) == len(data) - 2 else data


def _decode_pem(body: bytes, labels: tuple[str, ...]) -> bytes:
    blocks = pem_blocks(body)
    if not blocks:
        raise Malformed("a PEM block that does not end")
    found = [block for block in blocks if (block.label in labels if labels else "PRIVATE KEY" not in block.label)]
    if len(found) != 1:
        seen = ", ".join(block.label for block in blocks)
        wanted = f"block {labels[0]}" if labels else "block, and no key,"
        raise Malformed(f"exactly one PEM {wanted} is wanted; the body has: {seen[:200]}")
    return found[0].der


def encode_base64(der: bytes, *, columns: int | None = 64) -> bytes:
    """Base64 in lines of `columns` characters with LF after each, or unbroken when `columns` is None."""
    text = base64.b64encode(der)
    if columns is None:
        return text
    return b"".join(text[at : at + columns] + b"\n" for at in range(0, len(text), columns))


def encode_pem(der: bytes, label: str) -> bytes:
    """A PEM block (RFC 7468)."""
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label.encode(), encode_base64(der), label.encode())
