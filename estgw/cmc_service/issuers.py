"""Which certificates are this CA's own: names, signatures, times and key usage (RFC 5280 4.2.1.3, 6.1)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from estgw.cmc import parts
from estgw.est import certs, names


def have_name(issuers: Iterable[x509.Certificate], name: bytes) -> bool:
    """Whether one of these CA certificates has this subject, the DER of a Name; compared as names."""
    wanted = names.name_key(parts.read_name(name))
    return any(names.name_key(issuer.subject) == wanted for issuer in issuers)


def vouch_for(issuers: Iterable[x509.Certificate], certificate: x509.Certificate) -> bool:
    """Whether one of these CA certificates is the issuer of an end entity's certificate.

    It counts as it does in a chain (RFC 5280 6.1.3, 6.1.4): valid now, and allowed to sign certificates.
    """
    if is_ca(certificate):
        return False
    for issuer in issuers:
        if not (is_valid_now(issuer) and _may_certify(issuer)):
            continue
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return True
    return False


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether basicConstraints calls it a CA's (RFC 5280 4.2.1.9)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *certs.UNREADABLE):
        return False


def is_valid_now(certificate: x509.Certificate) -> bool:
    """Whether the present time is between notBefore and notAfter."""
    return certificate.not_valid_before_utc <= datetime.now(UTC) < certificate.not_valid_after_utc


def may_sign(certificate: x509.Certificate) -> bool:
    """Whether its key usage allows signatures (RFC 5272 3.2); one without that extension may."""
    usage = _key_usage(certificate)
    return usage if isinstance(usage, bool) else usage.digital_signature


def _may_certify(issuer: x509.Certificate) -> bool:
    """Whether its key usage has keyCertSign (RFC 5280 4.2.1.3); one without that extension may."""
    usage = _key_usage(issuer)
    return usage if isinstance(usage, bool) else usage.key_cert_sign


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage | bool:
    """The extension, True where it is absent, False where it can't be read."""
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except certs.UNREADABLE:
        return False
