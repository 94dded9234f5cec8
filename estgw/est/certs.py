"""Certificates as EST carries them: the certs-only Simple PKI Response (RFC 5272 4.1, RFC 7030 4.1.3)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from estgw.errors import Malformed
from estgw.est.encoding import pem_blocks

UNREADABLE = (
    ValueError,
    TypeError,  # for a TLSFeature (RFC 7633) with nothing in it
    UnsupportedAlgorithm,
    InternalError,  # for a private X25519, X448, Ed25519 or Ed448 key of a wrong length
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""Every exception that cryptography raises for a certificate, CSR or key that it can't parse."""
_NONE = (x509.ExtensionNotFound, *UNREADABLE)


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Suppress cryptography's warnings: a name is too long, or certificates are not in DER's order.

    RFC 7030's own example in A.1 causes one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


CERTIFICATE_LABELS = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
PKCS7_LABELS = ("PKCS7", "CMS")
CRL_LABEL = "X509 CRL"

CMC_RA = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")
"""id-kp-cmcRA (RFC 6402 2.10): in the certificate of an RA, and of a server that acts for its CA (RFC 7030 3.6.1)."""


def pack(certificates: Sequence[x509.Certificate]) -> bytes:
    """Return a degenerate SignedData with these certificates and nothing else, as DER (RFC 5272 4.1)."""
    from cryptography.hazmat.primitives.serialization import pkcs7  # it takes 10 ms to import

    return pkcs7.serialize_certificates(list(certificates), Encoding.DER)


def unpack(der: bytes) -> list[x509.Certificate]:
    """Return the certificates of a certs-only PKCS#7 in DER.  Raises `Malformed`, also when it holds none."""
    from cryptography.hazmat.primitives.serialization import pkcs7

    try:
        with without_warnings():
            return list(pkcs7.load_der_pkcs7_certificates(der))
    except UNREADABLE as fault:
        raise Malformed(f"not a certs-only PKCS#7 with certificates in it: {fault}") from None


def load(der: bytes) -> x509.Certificate:
    """Return one certificate from DER.  Raises `Malformed`."""
    try:
        return x509.load_der_x509_certificate(der)
    except UNREADABLE as fault:
        raise Malformed(f"not a certificate: {fault}") from None


def load_named(der: bytes) -> x509.Certificate:
    """Return one certificate from DER.  Raises `Malformed`, also when its subject or issuer can't be read."""
    with without_warnings():
        certificate = load(der)
    require_names(certificate)
    return certificate


def require_names(certificate: x509.Certificate) -> None:
    """Raise `Malformed` unless subject and issuer can be read.  cryptography parses them on first access only."""
    try:
        with without_warnings():
            _ = certificate.issuer, certificate.subject
    except UNREADABLE as fault:
        raise Malformed(f"not a certificate: its names can't be read: {fault}") from None


def load_pem(text: bytes) -> list[x509.Certificate]:
    """Return all certificates of a PEM text, in order.  Raises `Malformed` when one can't be read."""
    return [load(block.der) for block in pem_blocks(text) if block.label in CERTIFICATE_LABELS]


def load_crls_pem(text: bytes) -> list[x509.CertificateRevocationList]:
    """All CRLs of a PEM text, in order: a CA that changed its key signs one with each.  Raises `Malformed`."""
    try:
        found = [x509.load_der_x509_crl(block.der) for block in pem_blocks(text) if block.label == CRL_LABEL]
        for crl in found:
            _ = crl.issuer  # cryptography reads it when it is first asked for
    except UNREADABLE as fault:
        raise Malformed(f"not a CRL in PEM: {fault}") from None
    if not found:
        raise Malformed(f"not a CRL in PEM: no {CRL_LABEL} block in it")
    return found


def has_eku(certificate: x509.Certificate, usage: x509.ObjectIdentifier) -> bool:
    """Whether the extended key usage lists `usage`.  False for an absent or unreadable extension."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except _NONE:
        return False
    return usage in extension.value


def may_authenticate(certificate: x509.Certificate) -> bool:
    """Whether a client may authenticate with this certificate, in TLS and by a signature on a message that renews it.

    True if the extended key usage is absent or has clientAuth (RFC 5280 4.2.1.12), as OpenSSL decides in a handshake.
    False if it can't be read.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return True
    except UNREADABLE:
        return False
    return ExtendedKeyUsageOID.CLIENT_AUTH in extension.value


def san(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    """The subject alternative name, or None if it is absent or the extensions can't be read."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except _NONE:
        return None


def spki(certificate: x509.Certificate) -> bytes:
    """The SubjectPublicKeyInfo as DER.  Raises `Malformed` when the key is of a kind that can't be read."""
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm) as fault:
        raise Malformed(f"the certificate's public key can't be read: {fault}") from None


def serial_hex(certificate: x509.Certificate) -> str:
    """The serial number as `openssl x509 -serial` prints it: upper-case hex, an even number of digits."""
    text = f"{certificate.serial_number:X}"
    return text.zfill(len(text) + len(text) % 2)
