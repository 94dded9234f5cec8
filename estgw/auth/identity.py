"""Who the client is, as far as TLS can tell: certificate, trust class, RA or not (RFC 7030 3.3.2, 3.7)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from estgw.auth.credentials import Credentials
from estgw.est.certs import CMC_RA, has_eku
from estgw.tls.info import TLSInfo


class Trust(Enum):
    """Which kind of anchor vouches for the client's certificate (RFC 7030 1.1)."""

    EXPLICIT = "explicit"
    """Our own CA: the one whose certificates this server hands out."""
    IMPLICIT = "implicit"
    """A third party's CA, such as a device maker's."""
    NONE = "none"


@dataclass(frozen=True)
class Client:
    """One client on one connection, and what one request said about itself."""

    address: str
    port: int
    tls: TLSInfo
    certificate: x509.Certificate | None = None
    """The certificate as scripts may see it: None when it does not verify and the configuration hides it."""
    trust: Trust = Trust.NONE
    is_ra: bool = False
    claimed: Credentials | None = None
    """What an Authorization header says, not verified."""
    user: str | None = None
    """The verified user name, which may be empty (RFC 7030 3.2.3)."""

    @property
    def verify(self) -> str:
        """`SUCCESS`, `NONE` or `FAILED:<reason>`, as Apache's mod_ssl says it."""
        if self.certificate is None:
            return "NONE"
        if self.trust is Trust.NONE:
            return f"FAILED:{self.tls.verify_error or 'not verified'}"
        return "SUCCESS"

    @property
    def methods(self) -> str:
        """How the client is authenticated: `tls`, `http`, `tls+http` or empty."""
        tls = "tls" if self.trust is not Trust.NONE else ""
        http = "http" if self.user is not None else ""
        return "+".join(part for part in (tls, http) if part)

    @property
    def name(self) -> str | None:
        """The client in one word for the log: the certificate's subject, else the user."""
        if self.certificate is not None and self.trust is not Trust.NONE:
            return self.certificate.subject.rfc4514_string()
        return self.user

    @property
    def why_not(self) -> str:
        """Why a certificate that was offered does not count, as the end of a sentence: what its owner wants to know."""
        none_offered = self.tls.certificate is None and self.tls.verify_error is None
        if none_offered or self.trust is not Trust.NONE:
            return ""
        return f"; the one offered was not accepted: {self.tls.verify_error or 'no anchor for it here'}"

    def with_user(self, user: str) -> Client:
        """The same client with a verified user name."""
        return replace(self, user=user)


class Anchors:
    """The trust anchors of both classes, and the verdict on a client's certificate."""

    def __init__(self, explicit: Iterable[x509.Certificate], implicit: Iterable[x509.Certificate]) -> None:
        self.explicit = tuple(explicit)
        self.implicit = tuple(implicit)
        self._explicit_digests = {_digest(certificate) for certificate in self.explicit}
        self._implicit_digests = {_digest(certificate) for certificate in self.implicit}

    def trust_of(self, verified_chain: Iterable[x509.Certificate]) -> Trust:
        """The trust class of a verified chain, leaf first.

        The explicit anchor may stand in the middle, when our CA is a subordinate of a third party's root:
        the leaf is then still one of ours.  The leaf itself never counts, or whoever is listed as an anchor
        would be its own CA.
        """
        issuers = {_digest(certificate) for certificate in tuple(verified_chain)[1:]}
        if issuers & self._explicit_digests:
            return Trust.EXPLICIT
        return Trust.IMPLICIT if issuers & self._implicit_digests else Trust.NONE


def identify(address: tuple[str, int], tls: TLSInfo, anchors: Anchors, unknown: str) -> Client:
    """Who is at the other end of a connection.

    `unknown` is the setting for certificates that do not verify: `anonymous` hides them, `pass` shows them
    to the scripts as FAILED; `reject` was dealt with in the handshake and hides what is left.
    """
    trust = anchors.trust_of(tls.verified_chain)
    visible = trust is not Trust.NONE or unknown == "pass"
    certificate = tls.certificate if visible else None
    return Client(
        address=address[0],
        port=address[1],
        tls=tls,
        certificate=certificate,
        trust=trust,
        # RFC 7030 3.7: id-kp-cmcRA from a third party confers nothing.
        is_ra=trust is Trust.EXPLICIT and certificate is not None and has_eku(certificate, CMC_RA),
    )


def _digest(certificate: x509.Certificate) -> bytes:
    return certificate.fingerprint(hashes.SHA256())
