"""The wanted kind of key in the words of csrattrs.yaml and `estclient --new-key`: ec:P-256, rsa:3072.

The two forms of CSR attributes encode it differently.  The classic form has an attribute whose type is the algorithm
and whose value is a curve or an INTEGER size (RFC 9908 3.2).  The template has an AlgorithmIdentifier, and for the size
of an RSA key a dummy public key of that size (RFC 9908 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cryptography.hazmat import asn1

from estgw.errors import Malformed
from estgw.est import oids
from estgw.est.csrattrs import EC_PUBLIC_KEY, RSA_ENCRYPTION, AttributeWish, KeyWish, encode_oid
from estgw.est.csrattrs_values import at, read_hex, read_value, write_value
from estgw.est.der import SEQUENCE, decode, wrap

_NULL = b"\x05\x00"
_LEAST_BITS, _MOST_BITS = 1024, 16384
_FIELDS = ("algorithm", "parameters", "public_key")


class Kind(NamedTuple):
    """A kind of key: the OID of the algorithm, and the OID of a curve or the bits of an RSA modulus, where given."""

    oid: str
    curve: str | None = None
    bits: int | None = None

    def __str__(self) -> str:
        if self.oid == EC_PUBLIC_KEY:
            return f"ec:{oids.name_of(self.curve)}" if self.curve else "ec"
        if self.oid == RSA_ENCRYPTION:
            return f"rsa:{self.bits}" if self.bits else "rsa"
        return oids.name_of(self.oid)


def read_kind(text: Any) -> Kind:
    """Return the kind for a text such as `ec:P-256`.  Raises `Malformed`."""
    if not isinstance(text, str):
        raise Malformed("a kind of key is wanted, such as ec:P-256 or rsa:3072")
    name, colon, detail = text.partition(":")
    for oid, plain in oids.PLAIN_KEYS.items():
        if text == plain:
            return Kind(oid)
    if name == "ec":
        return Kind(EC_PUBLIC_KEY, oids.curve_of(detail) if colon else None)
    if name != "rsa":
        plain = ", ".join(oids.PLAIN_KEYS.values())
        raise Malformed(f"{text[:80]!r} is no kind of key; there are ec:P-256 and other curves, rsa:3072, {plain}")
    sound = detail.isascii() and detail.isdigit() and len(detail) < 6 and _LEAST_BITS <= int(detail) <= _MOST_BITS
    if colon and not sound:
        raise Malformed(f"an RSA key has {_LEAST_BITS} to {_MOST_BITS} bits, not {detail[:80]!r}")
    return Kind(RSA_ENCRYPTION, bits=int(detail) if colon else None)


def kind_of(wish: KeyWish) -> Kind:
    """Return the kind of a wanted key, of either form.  Raises `Malformed` when it can't be read."""
    return Kind(wish.oid, wish.curve, wish.bits)


# The classic form.


def read_classic(text: Any) -> AttributeWish:
    """Return the classic form: an attribute whose type is the algorithm.  Raises `Malformed`."""
    kind = read_kind(text)
    if kind.curve:
        return AttributeWish(kind.oid, (encode_oid(kind.curve),))
    return AttributeWish(kind.oid, (read_value({"integer": kind.bits}),) if kind.bits else ())


def write_classic(attribute: AttributeWish) -> list[str]:
    """Return the words that may describe the attribute; empty if none do."""
    try:
        return [str(kind_of(KeyWish(attribute.oid, *attribute.values[:1])))]
    except Malformed:
        return []


# The template's form.


def read_template_key(data: Any) -> KeyWish:
    """Return the key of a template from a text such as `ec:P-256`, or from a mapping with `_FIELDS` as keys.

    Raises `Malformed`.
    """
    if not isinstance(data, Mapping):
        kind = read_kind(data)
        parameters = _NULL if kind.oid == RSA_ENCRYPTION else encode_oid(kind.curve) if kind.curve else None
        return KeyWish(kind.oid, parameters, _dummy(kind.bits) if kind.bits else None)
    if unknown := data.keys() - set(_FIELDS):
        raise Malformed(f"{min(unknown)[:80]!r} is no part of a key; there are {', '.join(_FIELDS)}")
    with at("algorithm"):
        if not isinstance(data.get("algorithm"), str):
            raise Malformed("the name or number of an algorithm is wanted")
        oid = oids.oid_of(data["algorithm"])
    parameters, public = data.get("parameters"), data.get("public_key")
    with at("parameters"):
        given = None if parameters is None else read_value(parameters)
    with at("public_key"):
        return KeyWish(oid, given, None if public is None else wrap(b"\x03", read_hex(public)))


def write_template_key(wish: KeyWish) -> Any:
    """Return the words for the key of a template, or a mapping of its fields where no words fit."""
    try:
        words = str(kind_of(wish))
        if read_template_key(words) == wish:
            return words
    except Malformed:
        pass
    fields = {
        "algorithm": oids.name_of(wish.oid),
        "parameters": None if wish.parameters is None else write_value(wish.parameters),
        "public_key": None
        if wish.public_key is None
        else bytes(decode(asn1.TLV, wish.public_key, "a BIT STRING").data).hex(),
    }
    return {name: words for name, words in fields.items() if words is not None}


def _dummy(bits: int) -> bytes:
    """A BIT STRING with an RSA public key of this length.  Its modulus is all ones, which no real key has."""
    modulus = ((1 << bits) - 1).to_bytes((bits + 8) // 8, "big")
    return wrap(b"\x03", b"\0" + wrap(SEQUENCE, wrap(b"\x02", modulus) + b"\x02\x03\x01\x00\x01"))
