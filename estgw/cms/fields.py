"""Read and write ASN.1 structures field by field.  Reading uses cryptography's decoder, which accepts strict DER only.

In `estgw.cms` and `estgw.cmc`, a field is the DER of one whole element, as `bytes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat import asn1

from estgw.errors import Malformed
from estgw.est.der import SEQUENCE, encode_oid, whole, wrap

T = TypeVar("T")

BOOLEAN, INTEGER, BIT_STRING, OCTETS, NULL, OID, UTF8 = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"\x06", b"\x0c"
SET, UTC_TIME, GENERALIZED_TIME = b"\x31", b"\x17", b"\x18"
A_NULL = b"\x05\x00"

MAXIMUM_ITEMS = 1000
"""Elements of one SEQUENCE OF or SET OF; an RA's largest batch has 100."""

MAXIMUM_INTEGER = 256
"""Octets of an INTEGER.  Serial numbers have 20; Python refuses to print more than about 1,700."""


def context(number: int, *, constructed: bool = True) -> bytes:
    """Return the tag `[number]`; the number is below 31."""
    return bytes([(0xA0 if constructed else 0x80) | number])


class Fields:
    """The fields of a SEQUENCE in order.

    Each method raises `Malformed` with `what`, the structure's name, in its text.
    """

    def __init__(self, der: bytes, what: str, tag: bytes = SEQUENCE) -> None:
        self.what = what
        self._left = items(der, what, tag)[::-1]

    def take(self, name: str, *tags: bytes) -> bytes:
        """Return the next field as DER.  It must have one of `tags`, if any are given."""
        if not self._left:
            raise Malformed(f"{self.what} without {name}")
        if tags and self._left[-1][:1] not in tags:
            raise Malformed(f"{self.what} with tag 0x{self._left[-1][:1].hex()} in place of {name}")
        return self._left.pop()

    def maybe(self, *tags: bytes) -> bytes | None:
        """Return the next field if it has one of these tags, or None."""
        return self._left.pop() if self._left and self._left[-1][:1] in tags else None

    @property
    def left(self) -> int:
        """The number of fields that are not taken yet."""
        return len(self._left)

    def end(self) -> None:
        """Raise `Malformed` unless all fields are taken."""
        if self._left:
            raise Malformed(f"{self.what} with {len(self._left)} fields too many")

    def integer(self, name: str) -> int:
        """Return the next field, an INTEGER."""
        return read_integer(self.take(name, INTEGER), self.of(name))

    def octets(self, name: str) -> bytes:
        """Return the next field, an OCTET STRING."""
        return read_octets(self.take(name, OCTETS), self.of(name))

    def oid(self, name: str) -> str:
        """Return the next field, an OBJECT IDENTIFIER, dotted."""
        return read_oid(self.take(name, OID), self.of(name))

    def maybe_octets(self, name: str) -> bytes | None:
        """Return the next field if it is an OCTET STRING, or None."""
        found = self.maybe(OCTETS)
        return None if found is None else read_octets(found, self.of(name))

    def maybe_text(self, name: str) -> str | None:
        """Return the next field if it is a UTF8String, or None."""
        found = self.maybe(UTF8)
        return None if found is None else read_text(found, self.of(name))

    def maybe_time(self, name: str) -> datetime | None:
        """Return the next field if it is a GeneralizedTime, or None."""
        found = self.maybe(GENERALIZED_TIME)
        return None if found is None else read_time(found, self.of(name))

    def of(self, name: str) -> str:
        """The name of one of the fields, for an error text."""
        return f"the {name} of {self.what}"


# Reading one field.


@asn1.sequence
class _Items:
    items: list[asn1.TLV]


def _decode(kind: type[T], der: bytes, what: str) -> T:
    try:
        return asn1.decode_der(kind, der)
    except ValueError as fault:
        reason = re.search(r"kind: (\w+)", str(fault))
        raise Malformed(f"{what} can't be read{f': {_REASONS.get(reason[1], reason[1])}' if reason else ''}") from None


_REASONS = {
    "ExtraData": "bytes too many", "InvalidLength": "a bad length", "InvalidTag": "a bad tag",
    "InvalidValue": "a bad value", "ShortData": "it is cut off", "UnexpectedTag": "it is of another type",
}  # fmt: skip
"""Plain words for the decoder's names of faults."""


def items(der: bytes, what: str, tag: bytes = SEQUENCE) -> list[bytes]:
    """Return the elements of a SEQUENCE OF, a SET OF, or of either under an implicit `tag`.  Raises `Malformed`."""
    if der[:1] != tag:
        raise Malformed(f"{what} with tag 0x{der[:1].hex()} in place of 0x{tag.hex()}")
    found = _elements(der, what)
    if len(found) > MAXIMUM_ITEMS:
        raise Malformed(f"{what} with {len(found)} elements; {MAXIMUM_ITEMS} are the most here")
    return [whole(each) for each in found]


def inside(der: bytes, what: str, *tags: bytes) -> bytes:
    """Return the element inside an explicit tag.  It must have one of `tags`, if any are given.  Raises `Malformed`."""
    found = _elements(der, what)
    if len(found) != 1 or (tags and bytes(found[0].tag_bytes) not in tags):
        raise Malformed(f"{what} is not what its tag says")
    return whole(found[0])


def _elements(der: bytes, what: str) -> list[asn1.TLV]:
    return _decode(_Items, wrap(SEQUENCE, SEQUENCE + der[1:]), what).items


def content(der: bytes) -> bytes:
    """Return the content octets of an element.  Raises `Malformed`."""
    return bytes(_decode(asn1.TLV, der, "an element").data)


def read_integer(der: bytes, what: str) -> int:
    """Return an INTEGER.  Raises `Malformed`, also for one of more than `MAXIMUM_INTEGER` octets."""
    if len(der) > MAXIMUM_INTEGER:
        raise Malformed(f"{what} is a number of more than {MAXIMUM_INTEGER} octets")
    return _decode(int, der, what)


def read_octets(der: bytes, what: str) -> bytes:
    """Return the octets of an OCTET STRING.  Raises `Malformed`."""
    return _decode(bytes, der, what)


def read_text(der: bytes, what: str) -> str:
    """Return the text of a UTF8String.  Raises `Malformed`."""
    return _decode(str, der, what)


def read_oid(der: bytes, what: str) -> str:
    """Return an OBJECT IDENTIFIER, dotted.  Raises `Malformed`."""
    return _decode(x509.ObjectIdentifier, der, what).dotted_string


def read_boolean(der: bytes, what: str) -> bool:
    """Return a BOOLEAN.  Raises `Malformed`."""
    return _decode(bool, der, what)


def read_bits(der: bytes, what: str) -> bytes:
    """Return the octets of a BIT STRING of whole octets.  Raises `Malformed`."""
    string = _decode(asn1.BitString, der, what)
    if string.padding_bits():
        raise Malformed(f"{what} does not consist of whole octets")
    return string.as_bytes()


def read_time(der: bytes, what: str) -> datetime:
    """Return a GeneralizedTime or UTCTime, which is UTC.  Raises `Malformed`."""
    if der[:1] == UTC_TIME:
        return _decode(asn1.UTCTime, der, what).as_datetime()
    return _decode(asn1.GeneralizedTime, der, what).as_datetime()


# Writing one field.


def sequence(*fields: bytes) -> bytes:
    """Return a SEQUENCE, or a SEQUENCE OF."""
    return wrap(SEQUENCE, b"".join(fields))


def set_of(values: Iterable[bytes]) -> bytes:
    """Return a SET OF in DER's order (X.690 11.6)."""
    return wrap(SET, b"".join(sorted(values)))


def tagged(number: int, *fields: bytes) -> bytes:
    """Return a constructed `[number]`: explicit around one field, or an implicit SEQUENCE or SET of several."""
    return wrap(context(number), b"".join(fields))


def retag(tag: bytes, der: bytes) -> bytes:
    """Return the same element under another tag, for IMPLICIT."""
    return tag + der[1:]


def integer(value: int) -> bytes:
    """Return an INTEGER of any size.  `value` may be a member of an enum."""
    return asn1.encode_der(int(value))


def octets(value: bytes) -> bytes:
    """Return an OCTET STRING."""
    return wrap(OCTETS, value)


def text(value: str) -> bytes:
    """Return a UTF8String."""
    return asn1.encode_der(value)


def oid(dotted: str) -> bytes:
    """Return an OBJECT IDENTIFIER.  Raises `Malformed`."""
    return encode_oid(dotted)


def bits(value: bytes) -> bytes:
    """Return a BIT STRING of whole octets."""
    return wrap(BIT_STRING, b"\0" + value)


def generalized_time(moment: datetime) -> bytes:
    """Return a GeneralizedTime in whole seconds of UTC (RFC 5280 4.1.2.5.2).  `moment` has a time zone."""
    return asn1.encode_der(asn1.GeneralizedTime(moment.astimezone(UTC).replace(microsecond=0)))


def time(moment: datetime) -> bytes:
    """Return Time of CMS and X.509 (RFC 5652 11.3): UTCTime from 1950 to 2049, else GeneralizedTime."""
    if not 1950 <= moment.astimezone(UTC).year < 2050:
        return generalized_time(moment)
    return asn1.encode_der(asn1.UTCTime(moment.astimezone(UTC).replace(microsecond=0)))


def integers(values: Sequence[int]) -> bytes:
    """Return a SEQUENCE OF INTEGER."""
    return sequence(*map(integer, values))
