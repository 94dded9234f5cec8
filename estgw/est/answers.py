"""Check a handler's output against the answer that its operation promises, and bring it to wire form.

A handler may end with the plain `openssl` command.  This module tells DER, PEM and base64 apart by content, packs PEM
certificates, and makes the multipart of RFC 7030 4.4.2 from a key and a certificate.  `Malformed` means that the output
is not the promised answer; the client then gets a 500 and the log gets the fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import serialization

from estgw.errors import Malformed
from estgw.est import ber, certs, encoding
from estgw.est.csrattrs import TEMPLATE, AttributeWish, CsrAttrs, Item, decode_csrattrs, decode_template
from estgw.est.der import ContentInfo, decode
from estgw.est.operations import CERTS_ONLY, Body

BASE64 = "base64"
BOUNDARY = "estgw-serverkeygen"
"""Base64 has no hyphen, so a fixed boundary can't occur inside a part."""
SERVER_GENERATED_KEY = "application/pkcs7-mime; smime-type=server-generated-key"
_SIGNED_DATA = "1.2.840.113549.1.7.2"
_ENVELOPED = {"1.2.840.113549.1.7.3": "EnvelopedData", "1.2.840.113549.1.9.16.1.23": "AuthEnvelopedData"}
_KEY_LABELS = ("PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY")


@dataclass(frozen=True)
class Answer:
    """The body of a 200 in wire form."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """Content-Transfer-Encoding, and Content-Type where the operation's own one needs a parameter."""
    issued: x509.Certificate | None = None
    """The certificate in the answer, for the log."""
    encrypted: bool = False
    """Whether the private key in the answer is encrypted on top of TLS."""


_ENCODED = {"Content-Transfer-Encoding": BASE64}
"""RFC 8951 3 tells receivers to ignore this header.  It is always sent: one client decodes base64 only with it."""


def to_wire(kind: Body, output: bytes, *, columns: int | None) -> Answer:
    """Return the answer in wire form for a handler's output (DER, PEM or base64).

    `columns` is the length of a base64 line in characters; None means one unbroken line.  Raises `Malformed`.
    """
    match kind:
        case Body.CA_CERTS:
            der, _ = _certs_only(output)
            return Answer(encoding.encode_base64(der, columns=columns), _ENCODED)
        case Body.ISSUED:
            der, issued = _issued(output)
            return Answer(encoding.encode_base64(der, columns=columns), _ENCODED, issued)
        case Body.CSRATTRS:
            return Answer(encoding.encode_base64(csrattrs(output), columns=columns), _ENCODED)
        case Body.KEYGEN:
            return _keygen(output, columns)
        case Body.CMC:
            der = encoding.decode(output, certs.PKCS7_LABELS)
            _require_type(der, {_SIGNED_DATA: "SignedData"})
            return Answer(encoding.encode_base64(der, columns=columns), _ENCODED)
        case Body.DER:
            der = encoding.decode(output, ())
            decode(asn1.TLV, der, "DER")
            return Answer(encoding.encode_base64(der, columns=columns), _ENCODED)
        case Body.RAW:
            return Answer(output)


def _certs_only(output: bytes) -> tuple[bytes, list[x509.Certificate]]:
    """Return a certs-only PKCS#7 in DER, and its certificates.

    The output is PEM certificates, or one certificate or one PKCS#7 as PEM, DER or base64.  Raises `Malformed`.
    """
    blocks = encoding.pem_blocks(output) if b"-----BEGIN" in output else []
    if any("PRIVATE KEY" in block.label for block in blocks):
        raise Malformed("the output holds a private key, which this operation never sends")
    if found := [certs.load(block.der) for block in blocks if block.label in certs.CERTIFICATE_LABELS]:
        return certs.pack(found), found
    der = encoding.decode(output, certs.PKCS7_LABELS)
    try:
        single = certs.load(der)
    except Malformed:
        return der, certs.unpack(der)
    return certs.pack([single]), [single]


def _issued(output: bytes) -> tuple[bytes, x509.Certificate]:
    """The same as `_certs_only` for exactly one certificate, the issued one (RFC 7030 4.2.3)."""
    der, found = _certs_only(output)
    if len(found) != 1:
        raise Malformed(f"{len(found)} certificates, where the answer holds the issued one alone")
    return der, found[0]


def csrattrs(output: bytes) -> bytes:
    """Return CsrAttrs in DER (RFC 7030 4.5.2: a SEQUENCE OF OID or Attribute).  Raises `Malformed`."""
    der = encoding.decode(output, ())
    _ = decode_csrattrs(der).template  # RFC 9908 3.4: at most one template; this raises if it can't be read
    return der


def announce(output: bytes, attribute: str) -> bytes:
    """Return CsrAttrs in DER that have the OID `attribute` among their elements.  Raises `Malformed`.

    The output may be empty.  The OID is not added if an element already names it, alone or as an attribute with values.
    A template gets it too, as an attribute to be filled in, since a client that knows templates ignores everything else
    (RFC 9908 4).
    """
    found = decode_csrattrs(csrattrs(output)) if output.strip() else CsrAttrs()
    items = [_with_attribute(item, attribute) for item in found.items]
    if not any(attribute == (item if isinstance(item, str) else item.oid) for item in items):
        items.append(attribute)
    return CsrAttrs(tuple(items)).encode()


def _with_attribute(item: Item, attribute: str) -> Item:
    if isinstance(item, str) or item.oid != TEMPLATE or not item.values:
        return item
    template = decode_template(item.values[0])
    if any(wish.oid == attribute for wish in template.attributes):
        return item
    attributes = sorted((*template.attributes, AttributeWish(attribute)), key=AttributeWish.encode)
    return AttributeWish(TEMPLATE, (replace(template, attributes=tuple(attributes)).encode(),))


def _keygen(output: bytes, columns: int | None) -> Answer:
    """Return multipart/mixed of private key and certificate (RFC 7030 4.4.2).

    Raises `Malformed`, also when the key does not fit the certificate.
    """
    blocks = encoding.pem_blocks(output)
    keys = [block for block in blocks if block.label in _KEY_LABELS]
    enveloped = [block for block in blocks if block.label in certs.PKCS7_LABELS]
    issued = [certs.load(block.der) for block in blocks if block.label in certs.CERTIFICATE_LABELS]
    if len(keys) + len(enveloped) != 1 or len(issued) != 1:
        raise Malformed("serverkeygen prints two PEM blocks, one private key (or CMS) and one certificate")
    if keys:
        key_type, key_der = "application/pkcs8", _pkcs8(keys[0], issued[0])
    else:
        key_type, key_der = SERVER_GENERATED_KEY, enveloped[0].der
        _require_type(ber.to_der(key_der), _ENVELOPED)
    parts = ((key_type, key_der), (CERTS_ONLY, certs.pack(issued)))
    body = b"".join(_part(kind, der, columns) for kind, der in parts) + f"--{BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/mixed; boundary={BOUNDARY}"}
    return Answer(body, headers, issued[0], encrypted=bool(enveloped))


def _pkcs8(block: encoding.PEMBlock, certificate: x509.Certificate) -> bytes:
    try:
        key = serialization.load_der_private_key(block.der, password=None)
        fits = key.public_key() == certificate.public_key()
    except certs.UNREADABLE:
        # The library's message is left out: it might quote key material.
        raise Malformed("the private key can't be read") from None
    if not fits:
        raise Malformed("the private key does not fit the certificate")
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _part(content_type: str, der: bytes, columns: int | None) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: {content_type}\r\nContent-Transfer-Encoding: {BASE64}\r\n\r\n"
    lines = encoding.encode_base64(der, columns=columns).replace(b"\n", b"\r\n")
    return head.encode() + lines + (b"" if lines.endswith(b"\r\n") else b"\r\n")


def _require_type(der: bytes, types: Mapping[str, str]) -> None:
    info = decode(ContentInfo, der, "a CMS message")
    if info.content_type.dotted_string not in types:
        raise Malformed(f"a CMS message of type {info.content_type.dotted_string}, not {' or '.join(types.values())}")
