"""Base64, PEM and DER: tell them apart, decode and encode them.

By RFC 7030 as corrected by RFC 8951 3, each body is base64 (RFC 4648 4) of DER, regardless of a
Content-Transfer-Encoding header, and receivers accept white space in it.  NULs after base64 are dropped too, since
libest's server sends the NUL at the end of a C string as part of the body.
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
    """One PEM block (RFC 7468): its label and its DER."""

    label: str
    der: bytes


def decode_base64(text: bytes) -> bytes:
    """Return the bytes of base64, decoded strictly except for white space (RFC 8951 3.1).  Raises `Malformed`."""
    stripped = text.translate(None, _WHITE)
    if wrong := _NOT_BASE64.search(stripped):
        raise Malformed(f"not base64: byte 0x{wrong[0][0]:02x} at offset {wrong.start()}, white space aside")
    try:
        return base64.b64decode(stripped, validate=True)
    except binascii.Error:
        raise Malformed("truncated base64: the length does not fit, or padding stands in the middle") from None


def pem_blocks(text: bytes) -> list[PEMBlock]:
    """Return all PEM blocks of a text in order (RFC 7468).  Text around them is ignored.  Raises `Malformed`."""
    blocks = []
    begin = None
    # Each line is matched once.  A pattern from BEGIN to END would take quadratic time where the ENDs are missing.
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
    """Return the DER of a body in PEM, DER or base64.

    The content decides: PEM begins with dashes, DER with 0x30, base64 of DER with M.  `pem_labels` are the PEM labels
    to accept; if empty, each label except a private key's.  Raises `Malformed` for a body that is empty, not base64,
    truncated, base64 of something else, or a PEM block of another kind.
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
    """Whether a body that begins with 0x30 is base64, which may begin with the digit 0, and not a SEQUENCE in DER."""
    return not _NOT_BASE64.search(text.translate(None, _WHITE))


def _strip_line_end(data: bytes) -> bytes:
    """Return DER without the CR LF that one client appends.  The parser reports any other surplus byte.

    The length is checked, since one signature in 65,536 ends in these two bytes.
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
    """Return base64 in lines of `columns` characters with LF after each, or one unbroken line if `columns` is None."""
    text = base64.b64encode(der)
    if columns is None:
        return text
    return b"".join(text[at : at + columns] + b"\n" for at in range(0, len(text), columns))


def encode_pem(der: bytes, label: str) -> bytes:
    """Return a PEM block (RFC 7468)."""
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label.encode(), encode_base64(der), label.encode())
