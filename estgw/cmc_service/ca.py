"""What Full CMC needs of a CA.  `handlers/python/cmc_ca.py` is the CA that a workspace has.

The protocol decides whether a part of a message is sound and allowed.  The CA issues, looks up, revokes and lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from estgw.cms import signed


class CAError(Exception):
    """The CA did not do what it was asked."""


class CABusy(CAError):
    """Something else holds the CA: the client is asked to come back (tryLater)."""


class CAFailed(CAError):
    """A fault of the CA.  The text is for the log; the client gets internalCAError."""


class CADeclined(CAError):
    """The CA does not do this.  The text is for the client (badRequest)."""


@dataclass(frozen=True)
class Certification:
    """A certificate to be issued."""

    subject: x509.Name
    public_key: CertificatePublicKeyTypes
    san: Sequence[x509.GeneralName]
    profile: str
    lifetime: timedelta
    signs: bool
    """Whether the client has proved that the key signs.  If not, the certificate is for encryption alone."""
    pending_id: str
    """EST_PENDING_ID of the request, for the register."""


class CA(Protocol):
    """A certification authority.  Each method raises a `CAError` when it can't do its work."""

    @property
    def directory(self) -> Path:
        """Where the service keeps what is its own: `cmc-secrets`."""

    @property
    def issuers(self) -> Sequence[x509.Certificate]:
        """Certificates of the keys that sign or have signed for this CA, the present one first."""

    @property
    def anchors(self) -> Sequence[x509.Certificate]:
        """What a client needs to trust this CA: the root, the chain, and the links from an old key to a new one."""

    @property
    def responder(self) -> tuple[signed.Signer, Sequence[x509.Certificate]]:
        """The key that signs Full PKI Responses, and its chain (RFC 5272 4.2)."""

    def issue(self, wanted: Certification) -> x509.Certificate:
        """Issue a certificate.  It is in the register when this returns."""

    def find(self, serial: int) -> x509.Certificate | None:
        """The certificate with this serial number, revoked or not (RFC 5272 6.9)."""

    def has_key(self, spki: bytes) -> bool:
        """Whether a certificate for this key, the DER of a SubjectPublicKeyInfo, was ever issued."""

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """Whether the register says so."""

    def revoke(self, certificate: x509.Certificate, reason: str) -> None:
        """Revoke it for a reason such as `keyCompromise` (RFC 5272 6.11)."""

    def crls(self, moment: datetime | None) -> Sequence[bytes]:
        """The CRLs in force, as DER; `moment` asks for those of a time in the past (RFC 5272 6.10)."""
