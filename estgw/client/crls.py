"""CRLs in a CMC answer, and whether they can be trusted (RFC 5280 6.3, RFC 5272 6.10)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.client.faults import InvalidAnswer, clean
from estgw.client.transport import trust
from estgw.client.transport.trust import Trust
from estgw.cms.signed import SignedData
from estgw.est import certs, encoding, names

PEM_LABEL = "X509 CRL"
MAXIMUM_CRLS = 20
"""CRLs that are read: a CA has one, and sometimes a delta as well."""


def newest(
    message: SignedData, issuer: x509.Name, trusted: Trust, now: datetime | None = None
) -> x509.CertificateRevocationList:
    """The newest CRL of `issuer` in a message, checked.

    A CA certificate with that name has signed it, a path leads from that certificate to one of our anchors, and the CRL
    has not expired at `now` (UTC).  Raises `InvalidAnswer`.
    """
    known = [each for der in message.crls[:MAXIMUM_CRLS] if (each := _load(der)) is not None]
    found = [each for each in known if _is_by(each, issuer)]
    name = clean(names.dn_text(issuer), 200)
    if not found:
        raise InvalidAnswer(f"the CMC answer has no CRL of {name} in it")
    crl = max(found, key=lambda each: each.last_update_utc)
    signers = [
        each
        for each in dict.fromkeys([*trusted.explicit, *message.bag])
        if trust.is_ca(each) and names.name_key(each.subject) == names.name_key(issuer) and _has_signed(each, crl)
    ]
    if not signers:
        raise InvalidAnswer(f"the signature of the CRL does not fit any certificate of {name}")
    if not any(trust.is_anchored(trusted, each, message.bag) for each in signers):
        raise InvalidAnswer(f"no path leads from the signer of the CRL, {name}, to one of our anchors")
    end = crl.next_update_utc
    if end is not None and end < (now or datetime.now(UTC)):
        raise InvalidAnswer(f"the CRL of {name} expired on {end:%Y-%m-%d %H:%M} UTC")
    return crl


def render(crl: x509.CertificateRevocationList, form: str) -> bytes:
    """A CRL as `pem` or `der`."""
    der = crl.public_bytes(Encoding.DER)
    return der if form == "der" else encoding.encode_pem(der, PEM_LABEL)


def line(crl: x509.CertificateRevocationList) -> str:
    """One line about a CRL."""
    end = crl.next_update_utc
    until = f", until {end:%Y-%m-%d %H:%M} UTC" if end else ""
    return f"{names.dn_text(crl.issuer)}, {len(crl)} revoked, of {crl.last_update_utc:%Y-%m-%d %H:%M} UTC{until}"


def facts(crl: x509.CertificateRevocationList) -> dict[str, Any]:
    """Facts about a CRL for JSON."""
    end = crl.next_update_utc
    return {
        "issuer": names.dn_text(crl.issuer),
        "this_update": f"{crl.last_update_utc:%Y-%m-%dT%H:%M:%SZ}",
        "next_update": f"{end:%Y-%m-%dT%H:%M:%SZ}" if end else None,
        "revoked": len(crl),
        "pem": render(crl, "pem").decode(),
    }


def _load(der: bytes) -> x509.CertificateRevocationList | None:
    try:
        return x509.load_der_x509_crl(der)
    except certs.UNREADABLE:
        return None


def _is_by(crl: x509.CertificateRevocationList, issuer: x509.Name) -> bool:
    try:
        with certs.without_warnings():
            return names.name_key(crl.issuer) == names.name_key(issuer)
    except certs.UNREADABLE:
        return False


def _has_signed(certificate: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    try:
        key: Any = certificate.public_key()
        return crl.is_signature_valid(key)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False
