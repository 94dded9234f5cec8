"""An indented tree of lines that describe a peer's message.

Lines have no control characters and a bound.  A value that can't be described in words is shown as hex.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from estgw.cmc import parts
from estgw.cmc.controls import BY_OID
from estgw.cms import enveloped, signed
from estgw.cms.fields import INTEGER, OCTETS, content, items, read_integer, read_octets, read_oid
from estgw.cms.identifiers import Identifier, IssuerAndSerial
from estgw.errors import Malformed
from estgw.est import certs, names, oids
from estgw.est.csrattrs_values import CODECS, write_value
from estgw.est.printable import printable

MAXIMUM_LINES = 2000
MAXIMUM_WIDTH = 300
"""Characters of one line without its indentation."""
MAXIMUM_HEX = 32
"""Octets of a value that are shown as hex."""


class Outline:
    """Lines, each indented once for each `deeper` block around it."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 0

    def add(self, line: str) -> None:
        """Add one line.  After `MAXIMUM_LINES` lines nothing is added."""
        if len(self._lines) < MAXIMUM_LINES:
            self._lines.append("  " * self._depth + printable(line, MAXIMUM_WIDTH))
        elif len(self._lines) == MAXIMUM_LINES:
            self._lines.append("... and so on")

    @contextmanager
    def deeper(self, headline: str = "") -> Iterator[None]:
        """Add a headline and indent the lines of the block.  A `Malformed` in the block becomes a line."""
        if headline:
            self.add(headline)
        self._depth += 1
        try:
            yield
        except Malformed as fault:
            self.add(f"! {fault}")
        finally:
            self._depth -= 1

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)


# Words for single values.  A value that can't be read is shown as hex.


def octets_words(data: bytes) -> str:
    """Octets as hex, shortened to `MAXIMUM_HEX` octets."""
    if len(data) <= MAXIMUM_HEX:
        return data.hex() or "empty"
    return f"{data[:MAXIMUM_HEX].hex()}... ({len(data)} octets)"


def number_words(number: int) -> str:
    """A number; in hex if it has more than 64 bits."""
    return str(number) if abs(number) < 1 << 64 else f"0x{number:x}" if number > 0 else f"-0x{-number:x}"


_TYPES = {
    signed.DATA: "data", signed.SIGNED_DATA: "SignedData", enveloped.ENVELOPED_DATA: "EnvelopedData",
    enveloped.AUTH_ENVELOPED_DATA: "AuthEnvelopedData", "1.2.840.113549.1.9.16.1.2": "AuthenticatedData",
    "1.3.6.1.5.5.7.12.2": "PKIData", "1.3.6.1.5.5.7.12.3": "PKIResponse",
    "1.2.840.113549.1.9.16.2.34": "cmcUnsignedData",
}  # fmt: skip


def type_words(oid: str) -> str:
    """The name of a content type, an attribute or a control, or its dotted form."""
    return _TYPES.get(oid) or (BY_OID[oid].name if oid in BY_OID else oids.name_of(oid))


def der_words(der: bytes) -> str:
    """A value of any type, given as DER."""
    with suppress(Malformed):
        if der[:1] == INTEGER:
            return number_words(read_integer(der, "a number"))
        if der[:1] == OCTETS:
            return octets_words(content(der))
    words: Any = write_value(der)
    if isinstance(words, dict):
        ((kind, words),) = words.items()
        if kind == "hex":
            return octets_words(der)
    return str(words)


def name_words(der: bytes) -> str:
    """A Name, given as DER."""
    try:
        return names.dn_text(parts.read_name(der)) or "(empty)"
    except Malformed:
        return octets_words(der)


def general_name_words(der: bytes) -> str:
    """A GeneralName, given as DER."""
    try:
        return names.san_text(parts.read_general_name(der))
    except Malformed:
        return octets_words(der)


def identifier_words(identifier: Identifier | None) -> str:
    """The identifier of a key; None if the message has none."""
    match identifier:
        case IssuerAndSerial():
            return f"issuer {name_words(identifier.issuer)}, serial number {number_words(identifier.serial)}"
        case None:
            return "an unnamed recipient"
    return f"key identifier {octets_words(identifier)}"


def key_words(public: Any) -> str:
    """A public key, by its kind and size."""
    match public:
        case rsa.RSAPublicKey():
            return f"RSA of {public.key_size} bits"
        case ec.EllipticCurvePublicKey():
            return f"EC on {public.curve.name}"
    return type(public).__name__.removesuffix("PublicKey")


def spki_words(der: bytes) -> str:
    """A SubjectPublicKeyInfo, given as DER."""
    try:
        return key_words(parts.load_key(der))
    except Malformed:
        return f"unknown, {octets_words(der)}"


def certificate_words(der: bytes) -> str:
    """A certificate, given as DER, in one line."""
    try:
        with certs.without_warnings():
            found = certs.load(der)
            subject, issuer = names.dn_text(found.subject) or "(empty)", names.dn_text(found.issuer) or "(empty)"
            serial, until = certs.serial_hex(found), found.not_valid_after_utc.date().isoformat()
    except (*certs.UNREADABLE, Malformed):
        return f"a certificate that can't be read: {octets_words(der)}"
    return f"{subject}, serial number {serial}, issued by {issuer}, valid until {until}"


def crl_words(der: bytes) -> str:
    """A CRL, given as DER, in one line."""
    try:
        with certs.without_warnings():
            found = x509.load_der_x509_crl(der)
            issuer, since = names.dn_text(found.issuer), found.last_update_utc.date().isoformat()
            return f"{issuer}, of {since}, {len(found)} entries"
    except certs.UNREADABLE:
        return f"a CRL that can't be read: {octets_words(der)}"


def extension_words(oid: str, value: bytes) -> str:
    """The value of an extension, in the words of csrattrs.yaml if it has some.  `oid` is dotted, `value` is DER."""
    with suppress(Malformed, ValueError):
        if oid in CODECS:
            return ", ".join(CODECS[oid][1](value))
    return der_words(value)


def extensions_lines(out: Outline, der: bytes) -> None:
    """Add one line for each extension in the DER of Extensions.  Raises `Malformed`."""
    for each in items(der, "extensions"):
        fields = items(each, "an extension")
        if len(fields) not in (2, 3):
            raise Malformed("an extension that can't be read")
        kind = read_oid(fields[0], "an extension")
        critical = " (critical)" if len(fields) == 3 else ""
        out.add(f"{oids.name_of(kind)}{critical}: {extension_words(kind, read_octets(fields[-1], 'an extension'))}")
