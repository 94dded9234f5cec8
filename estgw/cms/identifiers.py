"""Identifiers of keys, SignerIdentifier and RecipientIdentifier (RFC 5652 5.3, 6.2), and attributes (5.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from estgw.cms.fields import (
    SET,
    Fields,
    content,
    context,
    integer,
    items,
    oid,
    retag,
    sequence,
    set_of,
)
from estgw.cms.fields import octets as octet_string
from estgw.errors import Malformed
from estgw.est import certs
from estgw.est.der import SEQUENCE

MAXIMUM_KEY_ID = 128
"""Octets of a key identifier; it is a digest or a short name."""
KEY_ID = context(0, constructed=False)


@dataclass(frozen=True)
class IssuerAndSerial:
    """IssuerAndSerialNumber (RFC 5652 10.2.4): `issuer` is the DER of a Name."""

    issuer: bytes
    serial: int

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(self.issuer, integer(self.serial))

    @classmethod
    def decode(cls, der: bytes, what: str = "an IssuerAndSerialNumber") -> IssuerAndSerial:
        """Return the identifier from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        issuer, serial = fields.take("issuer", SEQUENCE), fields.integer("serial number")
        fields.end()
        return cls(issuer, serial)

    @classmethod
    def of(cls, certificate: x509.Certificate) -> IssuerAndSerial:
        """Return the identifier of this certificate."""
        with certs.without_warnings():
            return cls(certificate.issuer.public_bytes(), certificate.serial_number)


Identifier: TypeAlias = "IssuerAndSerial | bytes"
"""Issuer and serial number of a certificate, or the octets of a subject key identifier."""


def encode_identifier(identifier: Identifier) -> bytes:
    """Return the DER."""
    return identifier.encode() if isinstance(identifier, IssuerAndSerial) else retag(KEY_ID, octet_string(identifier))


def decode_identifier(der: bytes, what: str) -> Identifier:
    """Return the identifier from DER.  Raises `Malformed`."""
    if der[:1] != KEY_ID:
        return IssuerAndSerial.decode(der, what)
    found = content(der)
    if not 0 < len(found) <= MAXIMUM_KEY_ID:
        raise Malformed(f"{what} with a key identifier of {len(found)} octets, not 1 to {MAXIMUM_KEY_ID}")
    return found


def is_named(certificate: x509.Certificate, identifier: Identifier) -> bool:
    """Whether the identifier is that certificate's.  Issuers are compared byte for byte, as DER."""
    if isinstance(identifier, IssuerAndSerial):
        return IssuerAndSerial.of(certificate) == identifier
    return subject_key_id(certificate) == identifier


def subject_key_id(certificate: x509.Certificate) -> bytes | None:
    """The subject key identifier in a certificate, or None if it is absent or the extensions can't be read."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (x509.ExtensionNotFound, *certs.UNREADABLE):
        return None


def key_of(holder: x509.Certificate | x509.CertificateSigningRequest) -> Any:
    """Return the public key of a certificate or a CSR.  Raises `Malformed` for a kind that can't be used."""
    try:
        return holder.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("a public key that can't be used") from None


def key_id_of(public: Any) -> bytes:
    """The usual identifier of a public key, 20 octets: SHA-1 of its bits (RFC 5280 4.2.1.2, method 1)."""
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    fields = Fields(spki, "a SubjectPublicKeyInfo")
    fields.take("algorithm")
    return hashlib.sha1(content(fields.take("key"))[1:], usedforsecurity=False).digest()


@dataclass(frozen=True)
class Attribute:
    """Attribute (RFC 5652 5.3): a dotted OID, and the DER of each value."""

    oid: str
    values: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(oid(self.oid), set_of(self.values))

    @classmethod
    def decode(cls, der: bytes, what: str = "an Attribute") -> Attribute:
        """Return the attribute from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        name, values = fields.oid("type"), items(fields.take("values", SET), what, SET)
        fields.end()
        return cls(name, tuple(values))


def decode_attributes(der: bytes, what: str, tag: bytes) -> tuple[Attribute, ...]:
    """Return the attributes of a SET OF.  Raises `Malformed`, also for a type that occurs twice (RFC 5652 5.3)."""
    found = tuple(Attribute.decode(each, what) for each in items(der, what, tag))
    if len({each.oid for each in found}) < len(found):
        raise Malformed(f"{what} with the same attribute twice")
    return found


def single(attributes: Iterable[Attribute], name: str, what: str) -> bytes | None:
    """Return the one value of an attribute, or None if it is absent.

    Raises `Malformed` for another number of values.
    """
    values: Sequence[bytes] | None = next((each.values for each in attributes if each.oid == name), None)
    if values is not None and len(values) != 1:
        raise Malformed(f"{what} with {len(values)} values, not one")
    return values[0] if values else None
