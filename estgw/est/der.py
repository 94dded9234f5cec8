"""The little DER that the other rooms share, on top of cryptography's own decoder.

pyasn1 stays out of the gateway's process: five decoding denial-of-service reports in one year.
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
    """Decode strictly; raises `Malformed` with `what` in its text."""
    try:
        return asn1.decode_der(kind, der)
    except ValueError as fault:
        raise Malformed(f"not {what}: {fault}") from None


def elements(der: bytes, what: str) -> list[asn1.TLV]:
    """The elements of a SEQUENCE, whatever they are; raises `Malformed` with `what` in its text."""
    return decode(_Elements, wrap(SEQUENCE, der), what).items


def wrap(tag: bytes, content: bytes) -> bytes:
    """One TLV with a definite length (X.690 8.1.3)."""
    if len(content) < 0x80:
        return tag + bytes([len(content)]) + content
    octets = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return tag + bytes([0x80 | len(octets)]) + octets + content


def length(der: bytes) -> int | None:
    """How long the first element says it is, header included; None when it does not say (X.690 8.1.3)."""
    if len(der) < 2 or der[1] == 0x80 or der[1] > 0x84:
        return None
    octets = der[1] & 0x7F if der[1] & 0x80 else 0
    return 2 + octets + (int.from_bytes(der[2 : 2 + octets], "big") if octets else der[1])


def whole(tlv: asn1.TLV) -> bytes:
    """A TLV's own bytes: tag, length and content."""
    return wrap(bytes(tlv.tag_bytes), bytes(tlv.data))
