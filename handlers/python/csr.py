"""PKCS#10 attributes, which cryptography reads only in part: for serverkeygen, csrattrs and changes of name.

Not a program.
"""

from typing import Annotated

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

CHANGE_SUBJECT_NAME = "1.3.6.1.5.5.7.7.36"  # RFC 6402 2.8
EXTENSION_REQUEST = x509.ObjectIdentifier("1.2.840.113549.1.9.14")  # RFC 2985 5.4.2

SEQUENCE, SET = 0x30, 0x31


@asn1.sequence
class _Attribute:
    type: x509.ObjectIdentifier
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class _Info:
    version: int
    subject: asn1.TLV
    key: asn1.TLV
    attributes: Annotated[asn1.SetOf[_Attribute], asn1.Implicit(0)]


@asn1.sequence
class _Request:
    info: _Info
    algorithm: asn1.TLV
    signature: asn1.TLV


@asn1.sequence
class _ChangeSubjectName:
    subject: list[asn1.TLV] | None
    names: Annotated[list[asn1.TLV] | None, asn1.Implicit(1)]


def attributes(csr: x509.CertificateSigningRequest) -> dict[str, list[asn1.TLV]]:
    """The values of each attribute, by dotted OID."""
    info = asn1.decode_der(_Info, csr.tbs_certrequest_bytes)
    return {found.type.dotted_string: found.values.as_list() for found in info.attributes.as_list()}


def attribute(kind: x509.ObjectIdentifier, *values: object) -> bytes:
    """An attribute as DER; its values are ObjectIdentifiers, numbers or the like, or DER as a TLV."""
    return _wrap(SEQUENCE, kind, _wrap(SET, *values))


def sequence(*elements: object) -> bytes:
    """A SEQUENCE as DER; bytes are elements in DER already."""
    return _wrap(SEQUENCE, *elements)


def with_changed_names(csr: x509.CertificateSigningRequest) -> x509.CertificateSigningRequest:
    """The CSR as if it asked, in its subject and its extensions, for what ChangeSubjectName asks for.

    A part that is absent there is empty (RFC 6402 2.8).  The names keep their encoding, byte for byte; the signature
    is the old one, which nobody looks at any more.
    """
    (value,) = attributes(csr)[CHANGE_SUBJECT_NAME]
    change = asn1.decode_der(_ChangeSubjectName, asn1.encode_der(value))
    old = asn1.decode_der(_Request, csr.public_bytes(Encoding.DER))
    wishes = b""
    if change.names is not None:
        extension = sequence(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, asn1.encode_der(sequence(*change.names)))
        wishes = attribute(EXTENSION_REQUEST, sequence(extension))
    info = sequence(old.info.version, sequence(*change.subject or ()), old.info.key, _wrap(0xA0, wishes))
    return x509.load_der_x509_csr(sequence(info, old.algorithm, old.signature))


def _wrap(tag: int, *elements: object) -> bytes:
    """These elements in one constructed element: an OCTET STRING of them, with another tag."""
    content = b"".join(element if isinstance(element, bytes) else asn1.encode_der(element) for element in elements)
    return bytes([tag]) + asn1.encode_der(content)[1:]
