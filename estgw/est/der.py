"""Helpers for DER that the other packages share, on top of cryptography's decoder.

The gateway's process does not use pyasn1, which had five reports of denial of service by decoding in one year.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from cryptography import x509
from cryptography.hazmat import asn1

from estgw.errors import Malformed

T = TypeVar("T")

SEQUENCE = b"\x30"


@asn1.sequence
class Attribute:
    """Attribute (X.501): a type and a set of values."""

    type: x509.ObjectIdentifier
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class ContentInfo:
    """ContentInfo (RFC 5652 3)."""

    content_type: x509.ObjectIdentifier
    content: Annotated[asn1.TLV, asn1.Explicit(0)]


@asn1.sequence
class _Elements:
    items: list[asn1.TLV]


def decode(kind: type[T], der: bytes, what: str) -> T:
    """Return the value of a type in DER, decoded strictly.  Raises `Malformed` with `what`, the name of the thing."""
    try:
        return asn1.decode_der(kind, der)
    except ValueError as fault:
        raise Malformed(f"not {what}: {fault}") from None


def elements(der: bytes, what: str) -> list[asn1.TLV]:
    """Return the elements of a SEQUENCE in DER, of any type.  Raises `Malformed` with `what`, the name of the thing."""
    return decode(_Elements, wrap(SEQUENCE, der), what).items


def wrap(tag: bytes, content: bytes) -> bytes:
    """Return one TLV with a definite length (X.690 8.1.3)."""
    if len(content) < 0x80:
        return tag + bytes([len(content)]) + content
    octets = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return tag + bytes([0x80 | len(octets)]) + octets + content


def length(der: bytes) -> int | None:
    """The length in bytes that the first element's header gives, header included.

    None if the header is incomplete, has the indefinite form, or needs more than four bytes (X.690 8.1.3).
    """
    if len(der) < 2 or der[1] == 0x80 or der[1] > 0x84:
        return None
    octets = der[1] & 0x7F if der[1] & 0x80 else 0
    return 2 + octets + (int.from_bytes(der[2 : 2 + octets], "big") if octets else der[1])


def whole(tlv: asn1.TLV) -> bytes:
    """Return the bytes of a whole TLV: tag, length and content."""
    return wrap(bytes(tlv.tag_bytes), bytes(tlv.data))


def encode_oid(oid: str) -> bytes:
    """Return the DER of an OBJECT IDENTIFIER (dotted).  Raises `Malformed` when the text is not one."""
    try:
        return asn1.encode_der(x509.ObjectIdentifier(oid))
    except ValueError:
        raise Malformed(f"not an object identifier: {oid[:80]!r}") from None


def decode_oid(der: bytes) -> str:
    """Return the dotted form of an OBJECT IDENTIFIER in DER.  Raises `Malformed`."""
    return decode(x509.ObjectIdentifier, der, "an object identifier").dotted_string
