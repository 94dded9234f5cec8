"""Whose key it is: SignerIdentifier and RecipientIdentifier (RFC 5652 5.3, 6.2), and attributes (5.3)."""

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
    """IssuerAndSerialNumber (RFC 5652 10.2.4): the issuer is the DER of its Name."""

    issuer: bytes
    serial: int

    def encode(self) -> bytes:
        """As DER."""
        return sequence(self.issuer, integer(self.serial))

    @classmethod
    def decode(cls, der: bytes, what: str = "an IssuerAndSerialNumber") -> IssuerAndSerial:
        """From DER; raises `Malformed`."""
        fields = Fields(der, what)
        issuer, serial = fields.take("issuer", SEQUENCE), fields.integer("serial number")
        fields.end()
        return cls(issuer, serial)

    @classmethod
    def of(cls, certificate: x509.Certificate) -> IssuerAndSerial:
        """The one that names this certificate."""
        with certs.without_warnings():
            return cls(certificate.issuer.public_bytes(), certificate.serial_number)


Identifier: TypeAlias = "IssuerAndSerial | bytes"
"""A certificate by issuer and serial, or a key by its subject key identifier."""


def encode_identifier(whom: Identifier) -> bytes:
    """As DER."""
    return whom.encode() if isinstance(whom, IssuerAndSerial) else retag(KEY_ID, octet_string(whom))


def decode_identifier(der: bytes, what: str) -> Identifier:
    """From DER; raises `Malformed`."""
    if der[:1] != KEY_ID:
        return IssuerAndSerial.decode(der, what)
    found = content(der)
    if not 0 < len(found) <= MAXIMUM_KEY_ID:
        raise Malformed(f"{what} with a key identifier of {len(found)} octets, not 1 to {MAXIMUM_KEY_ID}")
    return found


def is_named(certificate: x509.Certificate, whom: Identifier) -> bool:
    """Whether this certificate is meant; its issuer's very encoding counts."""
    if isinstance(whom, IssuerAndSerial):
        return IssuerAndSerial.of(certificate) == whom
    return subject_key_id(certificate) == whom


def subject_key_id(certificate: x509.Certificate) -> bytes | None:
    """The subject key identifier in a certificate; None when it has none or its extensions can't be read."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (x509.ExtensionNotFound, *certs.UNREADABLE):
        return None


def key_of(holder: x509.Certificate | x509.CertificateSigningRequest) -> Any:
    """The public key of a certificate or a CSR; raises `Malformed` for one of a kind that can't be used."""
    try:
        return holder.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("a public key that can't be used") from None


def key_id_of(public: Any) -> bytes:
    """The usual identifier of a public key: SHA-1 of its bits (RFC 5280 4.2.1.2, method 1)."""
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    fields = Fields(spki, "a SubjectPublicKeyInfo")
    fields.take("algorithm")
    return hashlib.sha1(content(fields.take("key"))[1:], usedforsecurity=False).digest()


@dataclass(frozen=True)
class Attribute:
    """Attribute (RFC 5652 5.3): an OID and its values, each the DER of one."""

    oid: str
    values: tuple[bytes, ...]

    def encode(self) -> bytes:
        """As DER."""
        return sequence(oid(self.oid), set_of(self.values))

    @classmethod
    def decode(cls, der: bytes, what: str = "an Attribute") -> Attribute:
        """From DER; raises `Malformed`."""
        fields = Fields(der, what)
        name, values = fields.oid("type"), items(fields.take("values", SET), what, SET)
        fields.end()
        return cls(name, tuple(values))


def decode_attributes(der: bytes, what: str, tag: bytes) -> tuple[Attribute, ...]:
    """The attributes of a SET OF; raises `Malformed`, for a type that is there twice too (RFC 5652 5.3)."""
    found = tuple(Attribute.decode(each, what) for each in items(der, what, tag))
    if len({each.oid for each in found}) < len(found):
        raise Malformed(f"{what} with the same attribute twice")
    return found


def single(attributes: Iterable[Attribute], name: str, what: str) -> bytes | None:
    """The one value of an attribute, None when it is not there; raises `Malformed` for any other number."""
    values: Sequence[bytes] | None = next((each.values for each in attributes if each.oid == name), None)
    if values is not None and len(values) != 1:
        raise Malformed(f"{what} with {len(values)} values, not one")
    return values[0] if values else None
