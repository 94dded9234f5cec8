"""PKCS#10 certification requests (RFC 2986) as EST carries them (RFC 7030 4.2.1)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from estgw.errors import Malformed
from estgw.est import ber, certs, encoding, names
from estgw.est import der as der_tools

PEM_LABELS = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")

CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7"  # noqa: S105 - RFC 2985 5.4.1, an OID
OTP_CHALLENGE = "1.2.840.113549.1.9.16.2.56"  # RFC 7894 3.1
REVOCATION_CHALLENGE = "1.2.840.113549.1.9.16.2.57"  # RFC 7894 3.2
EST_IDENTITY_LINKING = "1.2.840.113549.1.9.16.2.58"  # RFC 7894 3.3
EXTENSION_REQUEST = "1.2.840.113549.1.9.14"  # id-ExtensionReq: RFC 2985 5.4.2
CHANGE_SUBJECT_NAME = "1.3.6.1.5.5.7.7.36"  # RFC 6402 2.8

ATTRIBUTE_NAMES: Mapping[str, str] = {
    CHALLENGE_PASSWORD: "challengePassword",
    OTP_CHALLENGE: "otpChallenge",
    REVOCATION_CHALLENGE: "revocationChallenge",
    EST_IDENTITY_LINKING: "estIdentityLinking",
    CHANGE_SUBJECT_NAME: "changeSubjectName",
}

MINIMUM_RSA_BITS = 2048
MAXIMUM_RSA_BITS = 16384
"""OpenSSL's own limit (OPENSSL_RSA_MAX_MODULUS_BITS); larger keys only burn time."""
MINIMUM_EC_BITS = 224
WEAK_HASHES = (hashes.MD5, hashes.SHA1)

# The string types that clients use for a DirectoryString.  IA5String is not one, but some clients send it.
_STRING_CODECS: Mapping[bytes, str] = {
    b"\x0c": "utf-8",  # UTF8String
    b"\x13": "ascii",  # PrintableString
    b"\x14": "latin-1",  # TeletexString, in practice Latin-1
    b"\x16": "ascii",  # IA5String
    b"\x1c": "utf-32-be",  # UniversalString
    b"\x1e": "utf-16-be",  # BMPString
}
MAXIMUM_VALUES = 100
"""Values of one attribute; nearly all attributes have one."""
MAXIMUM_STRING = 255
"""Characters of a challenge: pkcs-9-ub-challengePassword (RFC 2985 5.4.1) and the bounds of RFC 7894 3."""


@asn1.sequence
class _RequestInfo:
    version: int
    subject: asn1.TLV
    public_key: asn1.TLV
    attributes: Annotated[asn1.SetOf[der_tools.Attribute], asn1.Implicit(0)]


@dataclass(frozen=True)
class CSR:
    """A parsed PKCS#10 request.  Its key and signature are not verified; `verify` does that."""

    der: bytes
    request: x509.CertificateSigningRequest
    subject: x509.Name
    extensions: x509.Extensions
    attributes: Mapping[str, Sequence[asn1.TLV]]
    """Attribute values by dotted OID."""
    key_info: bytes
    """The SubjectPublicKeyInfo as it stands in the request, whether its key can be read or not."""

    @property
    def san(self) -> x509.SubjectAlternativeName | None:
        """The subject alternative name in the extension request, or None."""
        return names.san_of(self.extensions)

    @cached_property
    def subject_text(self) -> str:
        """The subject as an RFC 4514 string."""
        return names.dn_text(self.subject)

    @cached_property
    def pem(self) -> bytes:
        """The request as canonical PEM."""
        return encoding.encode_pem(self.der, PEM_LABELS[0])

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the DER, lower-case hex."""
        return hashlib.sha256(self.der).hexdigest()

    @cached_property
    def spki(self) -> bytes:
        """The SubjectPublicKeyInfo as DER.  Raises `Malformed` when the key can't be read."""
        der: bytes = _public_key(self.request).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return der

    @cached_property
    def spki_sha256(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo, lower-case hex.  Taken of the bytes, so the key need not be readable."""
        return hashlib.sha256(self.key_info).hexdigest()

    def text_attribute(self, oid: str) -> str | None:
        """Return the text of a single-valued DirectoryString attribute, or None if the CSR lacks the attribute.

        `oid` is dotted.  Raises `Malformed` for an empty set, more than one value, another type or a text that is too
        long.
        """
        if oid not in self.attributes:
            return None
        name, values = ATTRIBUTE_NAMES.get(oid, oid), self.attributes[oid]
        if len(values) != 1:
            raise Malformed(f"the CSR's {name} attribute has {len(values)} values, not one")
        value = values[0]
        tag = bytes(value.tag_bytes)
        if tag not in _STRING_CODECS:
            raise Malformed(f"the CSR's {name} has ASN.1 tag 0x{tag.hex()}, which is no text")
        try:
            text = bytes(value.data).decode(_STRING_CODECS[tag])
        except UnicodeDecodeError:
            raise Malformed(f"the CSR's {name} is not valid {_STRING_CODECS[tag]} text") from None
        if len(text) > MAXIMUM_STRING:
            raise Malformed(f"the CSR's {name} is longer than {MAXIMUM_STRING} characters")
        return text


def parse(body: bytes) -> CSR:
    """Return the CSR in a body of PEM, DER or base64 of DER (RFC 7030 4.2.1).  Raises `Malformed` with the fault."""
    der = encoding.decode(body, PEM_LABELS)
    _check_length(der)
    try:
        request = _load(der)
        der = request.public_bytes(Encoding.DER)
        with certs.without_warnings():
            subject = request.subject
            extensions = request.extensions
        info = asn1.decode_der(_RequestInfo, request.tbs_certrequest_bytes)
    except certs.UNREADABLE as fault:
        raise Malformed(f"not a PKCS#10 CSR: {_first_line(fault)}") from None
    attributes: dict[str, Sequence[asn1.TLV]] = {}
    for attribute in info.attributes.as_list():
        oid = attribute.type.dotted_string
        if oid in attributes:
            raise Malformed(f"the CSR has the attribute {ATTRIBUTE_NAMES.get(oid, oid)} twice")
        attributes[oid] = attribute.values.as_list()
        if len(attributes[oid]) > MAXIMUM_VALUES:
            name = ATTRIBUTE_NAMES.get(oid, oid)
            raise Malformed(f"the CSR's attribute {name} has more than {MAXIMUM_VALUES} values")
    return CSR(der, request, subject, extensions, attributes, der_tools.whole(info.public_key))


def _load(der: bytes) -> x509.CertificateSigningRequest:
    """Read DER, or BER that can be converted (RFC 5967 2.1): the signature is over the DER in both cases."""
    try:
        return x509.load_der_x509_csr(der)
    except ValueError:
        try:
            plain = ber.to_der(der)
        except Malformed:
            plain = der
        if plain == der:
            raise
    return x509.load_der_x509_csr(plain)


def verify(csr: CSR) -> None:
    """Check the proof of possession: a key of a usable kind and size, and its signature (RFC 7030 4.2.1).

    Raises `Malformed`.  Not called for serverkeygen, which ignores the CSR's key and signature (RFC 7030 4.4.1).
    """
    key = _public_key(csr.request)
    match key:
        case rsa.RSAPublicKey() if not MINIMUM_RSA_BITS <= key.key_size <= MAXIMUM_RSA_BITS:
            raise Malformed(f"an RSA key of {key.key_size} bits; {MINIMUM_RSA_BITS} is the least here")
        case ec.EllipticCurvePublicKey() if key.curve.key_size < MINIMUM_EC_BITS:
            raise Malformed(f"an EC key of {key.curve.key_size} bits; {MINIMUM_EC_BITS} is the least here")
        case dsa.DSAPublicKey():
            raise Malformed("a DSA key; no certificate is issued for one")
    try:
        weak = isinstance(csr.request.signature_hash_algorithm, WEAK_HASHES)
        valid = not weak and csr.request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as fault:
        raise Malformed(f"the CSR's signature can't be checked: {_first_line(fault)}") from None
    if weak:
        name = csr.request.signature_hash_algorithm
        raise Malformed(f"the CSR is signed with {name.name.upper() if name else 'a weak hash'}; use SHA-256")
    if not valid:
        raise Malformed("the CSR's signature does not fit its key")


def require_subject(csr: CSR) -> None:
    """Raise `Malformed` for an empty subject, since the log, the register and every policy use the subject."""
    if not csr.subject.rdns:
        raise Malformed("the CSR's subject is empty")


@dataclass(frozen=True)
class NewNames:
    """The names in a ChangeSubjectName attribute (RFC 6402 2.8).  An absent part means an empty name."""

    subject: x509.Name
    san: x509.SubjectAlternativeName | None


def change_subject_name(csr: CSR) -> NewNames | None:
    """Return the names in the CSR's ChangeSubjectName, or None if the attribute is absent.  Raises `Malformed`.

    cryptography has no public function for a bare Name.  So the two parts are put into the subject and the extension
    request of another CSR, which is parsed and never verified.
    """
    values = csr.attributes.get(CHANGE_SUBJECT_NAME)
    if values is None:
        return None
    if len(values) != 1:
        raise Malformed(f"the CSR's changeSubjectName has {len(values)} values, not one")
    found = der_tools.elements(der_tools.whole(values[0]), "a ChangeSubjectName")
    parts = {bytes(part.tag_bytes): part for part in found}
    if not parts or parts.keys() - {der_tools.SEQUENCE, _SUBJECT_ALT} or len(parts) < len(found):
        raise Malformed("the CSR's changeSubjectName has neither subject nor subjectAlt, or something else")
    if _SUBJECT_ALT in parts and not bytes(parts[_SUBJECT_ALT].data):
        raise Malformed("the CSR's changeSubjectName has a subjectAlt without a name")
    subject = der_tools.whole(parts[der_tools.SEQUENCE]) if der_tools.SEQUENCE in parts else b"\x30\x00"
    san = der_tools.wrap(der_tools.SEQUENCE, bytes(parts[_SUBJECT_ALT].data)) if _SUBJECT_ALT in parts else None
    info = asn1.decode_der(_RequestInfo, csr.request.tbs_certrequest_bytes)
    tbs = b"\x02\x01\x00" + subject + der_tools.whole(info.public_key) + _extension_request(san)
    outer = der_tools.wrap(der_tools.SEQUENCE, tbs) + _NO_SIGNATURE
    try:
        carrier = x509.load_der_x509_csr(der_tools.wrap(der_tools.SEQUENCE, outer))
        with certs.without_warnings():
            return NewNames(carrier.subject, names.san_of(carrier.extensions))
    except certs.UNREADABLE as fault:
        raise Malformed(f"the CSR's changeSubjectName can't be read: {_first_line(fault)}") from None


_SUBJECT_ALT = b"\xa1"  # [1] IMPLICIT GeneralNames
_NO_SIGNATURE = bytes.fromhex("300a06082a8648ce3d040302030100")  # ecdsa-with-SHA256 and an empty BIT STRING


def _extension_request(san: bytes | None) -> bytes:
    """The [0] attributes of a CSR in DER: an extensionRequest for this SAN, or no attribute if `san` is None."""
    if san is None:
        return b"\xa0\x00"
    extension = bytes.fromhex("0603551d11") + der_tools.wrap(b"\x04", san)
    extensions = der_tools.wrap(der_tools.SEQUENCE, der_tools.wrap(der_tools.SEQUENCE, extension))
    attribute = bytes.fromhex("06092a864886f70d01090e") + der_tools.wrap(b"\x31", extensions)
    return der_tools.wrap(b"\xa0", der_tools.wrap(der_tools.SEQUENCE, attribute))


def difference(csr: CSR, certificate: x509.Certificate) -> str | None:
    """Describe how the CSR's subject or SAN differs from the certificate's (RFC 7030 4.2.2).  None if both are equal.

    They are compared as names: string type, case, white space and the order of SAN entries do not count.
    """
    if names.name_key(csr.subject) != names.name_key(certificate.subject):
        wanted, has = names.dn_text(csr.subject), names.dn_text(certificate.subject)
        return f"the CSR's subject is {wanted}, the certificate's is {has}"
    wanted_san, has_san = csr.san, certs.san(certificate)
    extra = names.san_key(wanted_san) - names.san_key(has_san)
    missing = names.san_key(has_san) - names.san_key(wanted_san)
    if extra or missing:
        parts = [
            f"the CSR adds {_list(extra)}" if extra else "",
            f"the CSR lacks {_list(missing)}" if missing else "",
        ]
        return " and ".join(part for part in parts if part) + " in its subject alternative name"
    return None


def _list(entries: frozenset[tuple[str, str]]) -> str:
    return ", ".join(sorted(value if ":" in value else f"{kind}:{value}" for kind, value in entries))


def _public_key(request: x509.CertificateSigningRequest) -> CertificatePublicKeyTypes:
    try:
        return request.public_key()
    except (ValueError, UnsupportedAlgorithm) as fault:
        raise Malformed(f"the CSR's public key can't be used: {_first_line(fault)}") from None


def _check_length(der: bytes) -> None:
    """Raise `Malformed` for surplus and missing bytes, the commonest faults, with a clearer text than the parser's."""
    length = der_tools.length(der)
    if length is None:
        return
    surplus = len(der) - length
    if surplus > 0:
        raise Malformed(f"{surplus} bytes too many after the end of the CSR")
    if surplus < 0:
        raise Malformed(f"the CSR is cut off: {-surplus} bytes are missing")


def _first_line(fault: Exception) -> str:
    """The first line of a library's error, at most 200 characters of it, for the client."""
    if parse_error := re.search(r"ParseError \{ kind: (\w+)", str(fault)):
        where = re.findall(r'"(\w+::\w+)"', str(fault))
        return f"{parse_error[1]} in its ASN.1" + (f" at {where[-1]}" if where else "")
    return (str(fault).splitlines() or [type(fault).__name__])[0][:200]
