"""The identity of a client: its certificate, the trust class, whether it is an RA (RFC 7030 3.3.2, 3.7)."""

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
    """The kind of trust anchor to which the client's certificate leads (RFC 7030 1.1)."""

    EXPLICIT = "explicit"
    """Our own CA, whose certificates this server hands out."""
    IMPLICIT = "implicit"
    """A third party's CA, such as a device maker's."""
    NONE = "none"


@dataclass(frozen=True)
class Client:
    """One client on one connection, with the credentials of one request."""

    address: str
    port: int
    tls: TLSInfo
    certificate: x509.Certificate | None = None
    """The certificate as scripts may see it: None if it does not verify and the configuration hides it."""
    trust: Trust = Trust.NONE
    is_ra: bool = False
    claimed: Credentials | None = None
    """The credentials of the Authorization header, not verified."""
    user: str | None = None
    """The verified user name, which may be empty (RFC 7030 3.2.3)."""

    @property
    def verify(self) -> str:
        """`SUCCESS`, `NONE` or `FAILED:<reason>`, in the words of Apache's mod_ssl."""
        if self.certificate is None:
            return "NONE"
        if self.trust is Trust.NONE:
            return f"FAILED:{self.tls.verify_error or 'not verified'}"
        return "SUCCESS"

    @property
    def methods(self) -> str:
        """The methods by which the client is authenticated: `tls`, `http`, `tls+http` or empty."""
        tls = "tls" if self.trust is not Trust.NONE else ""
        http = "http" if self.user is not None else ""
        return "+".join(part for part in (tls, http) if part)

    @property
    def name(self) -> str | None:
        """The client's name for the log: the subject of its verified certificate, else the user, else None."""
        if self.certificate is not None and self.trust is not Trust.NONE:
            return self.certificate.subject.rfc4514_string()
        return self.user

    @property
    def why_not(self) -> str:
        """The reason why an offered certificate was not accepted, as the end of a sentence for its owner, or empty."""
        none_offered = self.tls.certificate is None and self.tls.verify_error is None
        if none_offered or self.trust is not Trust.NONE:
            return ""
        return f"; the one offered was not accepted: {self.tls.verify_error or 'no anchor for it here'}"

    def with_user(self, user: str) -> Client:
        """Return the same client with a verified user name."""
        return replace(self, user=user)


class Anchors:
    """The trust anchors of both classes, which decide the trust class of a client's certificate."""

    def __init__(self, explicit: Iterable[x509.Certificate], implicit: Iterable[x509.Certificate]) -> None:
        self.explicit = tuple(explicit)
        self.implicit = tuple(implicit)
        self._explicit_digests = {_digest(certificate) for certificate in self.explicit}
        self._implicit_digests = {_digest(certificate) for certificate in self.implicit}

    def trust_of(self, verified_chain: Iterable[x509.Certificate]) -> Trust:
        """Return the trust class of a verified chain, leaf first.

        The explicit anchor may be in the middle of the chain, if our CA is a subordinate of a third party's root: the
        leaf is then still issued by our CA.  The leaf itself does not count, since a certificate that is listed as an
        anchor would then be its own CA.
        """
        issuers = {_digest(certificate) for certificate in tuple(verified_chain)[1:]}
        if issuers & self._explicit_digests:
            return Trust.EXPLICIT
        return Trust.IMPLICIT if issuers & self._implicit_digests else Trust.NONE


def identify(address: tuple[str, int], tls: TLSInfo, anchors: Anchors, unknown: str) -> Client:
    """Return the client of a connection; `address` is its IP address and port.

    `unknown` is the setting for certificates that do not verify: `anonymous` hides them, `pass` shows them to the
    scripts as FAILED.  With `reject` the handshake has failed already, so it is treated like `anonymous`.
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
        # RFC 7030 3.7: id-kp-cmcRA in a third party's certificate does not make an RA.
        is_ra=trust is Trust.EXPLICIT and certificate is not None and has_eku(certificate, CMC_RA),
    )


def _digest(certificate: x509.Certificate) -> bytes:
    return certificate.fingerprint(hashes.SHA256())
