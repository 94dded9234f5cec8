"""CSR attributes: the attributes that a CA wants in a CSR (RFC 7030 4.5.2, RFC 9908), decoded and encoded.

Theory of operation.  An answer of /csrattrs is a SEQUENCE of bare OIDs and attributes.  It has two forms.  The classic
one (RFC 7030 4.5.2, RFC 9908 3.2) is a flat list.  The template (RFC 9908 3.4) is one attribute whose value is like the
CSR itself, with parts that the client fills in.  Four modules work on it, each on top of the one before:

    csrattrs          this model and its DER
    csrattrs_values   strings and extensions in the words of csrattrs.yaml
    csrattrs_keys     kinds of key in the same words
    csrattrs_data     the whole list: YAML's lists, texts and mappings to this model, and back

Values stay in the DER and the order in which they came.  So an answer survives a round trip byte for byte, with the
parts that this module does not know (RFC 7030 4.5.2: clients ignore unknown parts).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cryptography.hazmat import asn1

from estgw.errors import Malformed
from estgw.est.csr import EXTENSION_REQUEST as EXTENSION_REQUEST
from estgw.est.der import SEQUENCE, decode, elements, whole, wrap
from estgw.est.der import decode_oid as decode_oid
from estgw.est.der import encode_oid as encode_oid

TEMPLATE = "1.2.840.113549.1.9.16.2.61"  # id-aa-certificationRequestInfoTemplate: RFC 9908 3.4
EXTENSION_TEMPLATE = "1.2.840.113549.1.9.16.2.62"  # id-aa-extensionReqTemplate: RFC 9908 3.4
EC_PUBLIC_KEY = "1.2.840.10045.2.1"
RSA_ENCRYPTION = "1.2.840.113549.1.1.1"

_OID, _SET, _INTEGER, _BIT_STRING, _OCTETS, _BOOLEAN = b"\x06", b"\x31", b"\x02", b"\x03", b"\x04", b"\x01"
_KEY, _ATTRIBUTES = b"\xa0", b"\xa1"
_VERSION = b"\x02\x01\x00"
_TRUE = b"\x01\x01\xff"


@dataclass(frozen=True)
class AttributeWish:
    """Attribute (X.501): a dotted type and its values, each a complete DER value.  RFC 9908 allows an empty set."""

    oid: str
    values: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """Return the DER."""
        return wrap(SEQUENCE, encode_oid(self.oid) + wrap(_SET, b"".join(self.values)))


@dataclass(frozen=True)
class ExtensionWish:
    """One extension: `value` is the DER inside extnValue, or None if the client is to choose it (RFC 9908 3.4)."""

    oid: str
    critical: bool = False
    value: bytes | None = None

    def encode(self) -> bytes:
        """Return the DER of an ExtensionTemplate, which with a value is an Extension too."""
        critical = _TRUE if self.critical else b""
        value = b"" if self.value is None else wrap(_OCTETS, self.value)
        return wrap(SEQUENCE, encode_oid(self.oid) + critical + value)


@dataclass(frozen=True)
class NamePart:
    """One attribute of a wanted RDN: `value` is its DER, or None if the client is to fill it in."""

    oid: str
    value: bytes | None = None

    def encode(self) -> bytes:
        """Return the DER of a SingleAttributeTemplate."""
        return wrap(SEQUENCE, encode_oid(self.oid) + (self.value or b""))


@dataclass(frozen=True)
class KeyWish:
    """The wanted public key: algorithm, parameters as DER, and for the size of an RSA key RFC 9908's dummy key."""

    oid: str
    parameters: bytes | None = None
    public_key: bytes | None = None
    """The complete BIT STRING as DER."""

    @property
    def curve(self) -> str | None:
        """The OID of the named curve of an EC key, or None.  Raises `Malformed`."""
        if self.oid != EC_PUBLIC_KEY or self.parameters is None or self.parameters[:1] != _OID:
            return None
        return decode_oid(self.parameters)

    @property
    def bits(self) -> int | None:
        """The modulus length of an RSA key in bits, or None.  Raises `Malformed` when the dummy key can't be read."""
        if self.oid != RSA_ENCRYPTION:
            return None
        if self.public_key is not None:
            string = decode(asn1.TLV, self.public_key, "a BIT STRING")
            numbers = elements(bytes(string.data)[1:], "an RSAPublicKey")
            return _integer(numbers[0]).bit_length() if numbers else None
        if self.parameters is not None and self.parameters[:1] == _INTEGER:
            return _integer(decode(asn1.TLV, self.parameters, "an INTEGER"))
        return None


@dataclass(frozen=True)
class Template:
    """CertificationRequestInfoTemplate (RFC 9908 3.4)."""

    subject: tuple[tuple[NamePart, ...], ...] | None = None
    """The wanted RDNs; None leaves the subject to the client."""
    key: KeyWish | None = None
    attributes: tuple[AttributeWish, ...] = ()

    def encode(self) -> bytes:
        """Return the DER."""
        subject = b"" if self.subject is None else wrap(SEQUENCE, b"".join(map(_encode_rdn, self.subject)))
        key = b"" if self.key is None else wrap(_KEY, _encode_key(self.key))
        attributes = wrap(_ATTRIBUTES, b"".join(attribute.encode() for attribute in self.attributes))
        return wrap(SEQUENCE, _VERSION + subject + key + attributes)


Item: TypeAlias = "str | AttributeWish"
"""AttrOrOID: a dotted OID, or an attribute."""


@dataclass(frozen=True)
class CsrAttrs:
    """CsrAttrs (RFC 7030 4.5.2): bare OIDs and attributes, in order."""

    items: tuple[Item, ...] = field(default=())

    @property
    def oids(self) -> tuple[str, ...]:
        """The bare OIDs."""
        return tuple(item for item in self.items if isinstance(item, str))

    @property
    def attributes(self) -> tuple[AttributeWish, ...]:
        """The attributes, RFC 9908's template among them."""
        return tuple(item for item in self.items if isinstance(item, AttributeWish))

    @property
    def template(self) -> Template | None:
        """RFC 9908's template, or None.  Raises `Malformed` when it can't be read or there are two."""
        values = [value for attribute in self.attributes if attribute.oid == TEMPLATE for value in attribute.values]
        if len(values) > 1:
            raise Malformed("CSR attributes with more than one template")
        return decode_template(values[0]) if values else None

    def encode(self) -> bytes:
        """Return the DER."""
        parts = [encode_oid(item) if isinstance(item, str) else item.encode() for item in self.items]
        return wrap(SEQUENCE, b"".join(parts))


def decode_csrattrs(der: bytes) -> CsrAttrs:
    """Return CsrAttrs from DER.  Raises `Malformed`."""
    items: list[Item] = []
    for element in elements(der, "CsrAttrs"):
        if bytes(element.tag_bytes) == _OID:
            items.append(decode_oid(whole(element)))
        else:
            items.append(_attribute(element))
    return CsrAttrs(tuple(items))


def decode_template(der: bytes) -> Template:
    """Return a CertificationRequestInfoTemplate from DER (RFC 9908 3.4).  Raises `Malformed`."""
    parts = elements(der, "a certification request template")
    if not parts or whole(parts[0]) != _VERSION:
        raise Malformed("a certification request template of a version that is not v1")
    subject: tuple[tuple[NamePart, ...], ...] | None = None
    key: KeyWish | None = None
    attributes: tuple[AttributeWish, ...] | None = None
    for part in parts[1:]:
        tag, inner = bytes(part.tag_bytes), wrap(SEQUENCE, bytes(part.data))
        if tag == SEQUENCE and subject is None and key is None and attributes is None:
            subject = tuple(_rdn(rdn) for rdn in elements(inner, "a name template"))
        elif tag == _KEY and key is None and attributes is None:
            key = _key(inner)
        elif tag == _ATTRIBUTES and attributes is None:
            attributes = tuple(_attribute(element) for element in elements(inner, "attributes"))
        else:
            raise Malformed(f"a certification request template with an unknown part 0x{tag.hex()}")
    if attributes is None:
        raise Malformed("a certification request template without its attributes field")
    return Template(subject, key, attributes)


def extensions(attributes: Iterable[AttributeWish]) -> tuple[ExtensionWish, ...]:
    """Return the extensions in extensionRequest and extensionReqTemplate attributes.  Raises `Malformed`.

    Other values in them are skipped: RFC 7030's own example has a bare OID there, which RFC 9908 3.2 declares an error.
    """
    found: list[ExtensionWish] = []
    for attribute in attributes:
        if attribute.oid not in (EXTENSION_REQUEST, EXTENSION_TEMPLATE):
            continue
        for value in attribute.values:
            if value[:1] == SEQUENCE:
                found += [_extension(element) for element in elements(value, "Extensions")]
    return tuple(found)


def set_of(values: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return values in DER's order for a SET OF (X.690 11.6)."""
    return tuple(sorted(values))


def _attribute(element: asn1.TLV) -> AttributeWish:
    parts = elements(whole(element), "an Attribute") if bytes(element.tag_bytes) == SEQUENCE else []
    if len(parts) != 2 or bytes(parts[0].tag_bytes) != _OID or bytes(parts[1].tag_bytes) != _SET:
        raise Malformed("CSR attributes with an element that is neither OID nor Attribute")
    values = elements(wrap(SEQUENCE, bytes(parts[1].data)), "attribute values")
    return AttributeWish(decode_oid(whole(parts[0])), tuple(whole(value) for value in values))


def _extension(element: asn1.TLV) -> ExtensionWish:
    parts = elements(whole(element), "an Extension") if bytes(element.tag_bytes) == SEQUENCE else []
    tags = [bytes(part.tag_bytes) for part in parts]
    if tags not in ([_OID], [_OID, _BOOLEAN], [_OID, _OCTETS], [_OID, _BOOLEAN, _OCTETS]):
        raise Malformed("CSR attributes with an extension that can't be read")
    value = bytes(parts[-1].data) if tags[-1] == _OCTETS else None
    critical = _BOOLEAN in tags and bytes(parts[1].data) != b"\0"
    return ExtensionWish(decode_oid(whole(parts[0])), critical, value)


def _rdn(rdn: asn1.TLV) -> tuple[NamePart, ...]:
    if bytes(rdn.tag_bytes) != _SET:
        raise Malformed("a name template with an element that is not an RDN")
    parts = []
    for single in elements(wrap(SEQUENCE, bytes(rdn.data)), "an RDN"):
        fields = elements(whole(single), "an RDN attribute") if bytes(single.tag_bytes) == SEQUENCE else []
        if len(fields) not in (1, 2) or bytes(fields[0].tag_bytes) != _OID:
            raise Malformed("a name template with an RDN that can't be read")
        parts.append(NamePart(decode_oid(whole(fields[0])), whole(fields[1]) if len(fields) == 2 else None))
    return tuple(parts)


def _encode_rdn(rdn: Sequence[NamePart]) -> bytes:
    return wrap(_SET, b"".join(part.encode() for part in rdn))


def _key(der: bytes) -> KeyWish:
    """Return the key of a SubjectPublicKeyInfoTemplate.  Its tag is implicit: the algorithm is directly inside."""
    parts = elements(der, "a key template")
    if len(parts) not in (1, 2) or bytes(parts[0].tag_bytes) != SEQUENCE:
        raise Malformed("a key template that can't be read")
    algorithm = elements(whole(parts[0]), "an AlgorithmIdentifier")
    if len(algorithm) not in (1, 2):
        raise Malformed("a key template whose algorithm can't be read")
    if len(parts) == 2 and bytes(parts[1].tag_bytes) != _BIT_STRING:
        raise Malformed("a key template whose key is not a BIT STRING")
    return KeyWish(
        decode_oid(whole(algorithm[0])),
        whole(algorithm[1]) if len(algorithm) == 2 else None,
        whole(parts[1]) if len(parts) == 2 else None,
    )


def _encode_key(key: KeyWish) -> bytes:
    algorithm = wrap(SEQUENCE, encode_oid(key.oid) + (key.parameters or b""))
    return algorithm + (key.public_key or b"")


def _integer(value: asn1.TLV) -> int:
    if bytes(value.tag_bytes) != _INTEGER:
        raise Malformed("a number that is not an INTEGER")
    return int.from_bytes(bytes(value.data), "big", signed=True)
