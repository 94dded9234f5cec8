"""Trust anchors, path validation, and the authorization of the EST server.

RFC 7030 1.1 and 3.6 tell two kinds of anchors apart.  Explicit anchors were configured for this purpose: under them a
server may have a matching name *or* id-kp-cmcRA, by which their CA names its RAs.  Implicit anchors are the system's:
anybody can get a certificate there, so the name must match and the extended key usage proves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto

from estgw.client.faults import Untrusted, clean
from estgw.est import certs, hostnames, names

CMC_CA = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.27")
"""id-kp-cmcCA (RFC 6402 2.10)."""


class Anchor(Enum):
    """The kind of anchor at the end of a server's path (RFC 7030 1.1)."""

    EXPLICIT = "explicit"
    IMPLICIT = "implicit"
    NONE = "none"
    """Nothing was verified: bootstrap of /cacerts only (RFC 7030 4.1.1)."""


@dataclass(frozen=True)
class Trust:
    """The anchors of a session."""

    explicit: tuple[x509.Certificate, ...] = ()
    """Explicit anchors; they need not be self-signed (RFC 5280 6.1.1)."""
    implicit: bool = False
    """Whether the system's anchors count too (RFC 7030 3.3.1: it must be possible to disable them)."""
    bootstrap: bool = False
    """No verification at all; a session then does /cacerts and nothing else, without any credentials."""

    def __post_init__(self) -> None:
        if self.bootstrap and (self.explicit or self.implicit):
            raise ValueError("bootstrap means that there is no anchor")


@dataclass(frozen=True)
class Verdict:
    """The outcome of the checks on one connection's server."""

    certificate: x509.Certificate
    anchor: Anchor
    by: str
    """The reason of the authorization: `name`, `cmcRA`, or `nobody` while bootstrapping."""


def objection(trust: Trust, certificate: x509.Certificate, host: str) -> str | None:
    """Why the holder of a certificate with a valid path may not be the EST server at `host`, or None.

    RFC 7030 3.6.1.  This is the weaker test: it runs inside the handshake, before our own certificate is sent, and
    `judge` finds out later whether the path ended at an explicit anchor.
    """
    if hostnames.matches(certificate, host) or (trust.explicit and certs.has_eku(certificate, certs.CMC_RA)):
        return None
    return (
        f"the server's certificate is for {clean(hostnames.identities(certificate), 300)}, not for {host}, "
        "and it is not an RA's either (id-kp-cmcRA)"
    )


def judge(trust: Trust, chain: Sequence[x509.Certificate], host: str, sent: Sequence[x509.Certificate] = ()) -> Verdict:
    """Authorize the server of a handshake that succeeded.

    `chain` is the verified one, leaf first.  `sent` has the other certificates from the server, which may lead to an
    explicit anchor where OpenSSL chose an implicit one.
    Raises `Untrusted`.  RFC 7030 3.6.1 for explicit anchors, 3.6.2 for implicit ones.
    """
    if not chain:
        raise Untrusted("the server sent no certificate that could be verified")
    leaf = chain[0]
    is_explicit = not trust.implicit or path_fault(leaf, trust.explicit, [*chain[1:], *sent]) is None
    anchor = Anchor.EXPLICIT if is_explicit else Anchor.IMPLICIT
    if hostnames.matches(leaf, host):
        return Verdict(leaf, anchor, "name")
    if anchor is Anchor.EXPLICIT and certs.has_eku(leaf, certs.CMC_RA):
        return Verdict(leaf, anchor, "cmcRA")
    raise Untrusted(
        f"the server's certificate is for {clean(hostnames.identities(leaf), 300)}, not for {host}"
        + ("; id-kp-cmcRA counts under explicit anchors only (RFC 7030 3.6.2)" if not is_explicit else "")
    )


def path_fault(
    certificate: x509.Certificate, anchors: Sequence[x509.Certificate], untrusted: Sequence[x509.Certificate]
) -> str | None:
    """Why no valid path leads from `certificate` to one of `anchors` (RFC 5280 6), or None when one does."""
    if not anchors:
        return "there is no anchor"
    store = crypto.X509Store()
    for anchor in anchors:
        store.add_cert(crypto.X509.from_cryptography(anchor))
    return _path_fault(store, certificate, untrusted)


def _path_fault(
    store: crypto.X509Store, certificate: x509.Certificate, untrusted: Sequence[x509.Certificate]
) -> str | None:
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    helpers = [crypto.X509.from_cryptography(helper) for helper in untrusted]
    context = crypto.X509StoreContext(store, crypto.X509.from_cryptography(certificate), helpers)
    try:
        context.verify_certificate()
    except crypto.X509StoreContextError as fault:
        return str(fault)
    return None


def speaker_fault(
    trust: Trust, certificate: x509.Certificate, host: str, untrusted: Sequence[x509.Certificate]
) -> str | None:
    """Why the holder of a certificate may not sign for the CA in CMC (RFC 6402 2.10), or None.

    Under explicit anchors, a CA may, and a holder of id-kp-cmcRA or id-kp-cmcCA.  Under implicit anchors, these usages
    prove nothing (RFC 7030 3.6.2): a CA may, and the holder of the server's name.
    """
    helpers = [each for each in untrusted if is_ca(each)]
    who = f"it is signed by {clean(names.dn_text(certificate.subject), 200)}"
    fault = path_fault(certificate, trust.explicit, helpers)
    if fault is None:
        if is_ca(certificate) or certs.has_eku(certificate, certs.CMC_RA) or certs.has_eku(certificate, CMC_CA):
            return None
        return f"{who}, which is neither a CA nor its RA (id-kp-cmcRA or id-kp-cmcCA)"
    if trust.implicit:
        fault = _system_path_fault(certificate, helpers)
        if fault is None and (is_ca(certificate) or hostnames.matches(certificate, host)):
            return None
        if fault is None:
            return f"{who}, which is neither a CA nor {host}"
    return f"{who}, and no path leads from there to one of our anchors ({clean(fault, 200)})"


def is_anchored(trust: Trust, certificate: x509.Certificate, untrusted: Sequence[x509.Certificate]) -> bool:
    """Whether a valid path leads from a certificate to an anchor of either kind."""
    if path_fault(certificate, trust.explicit, untrusted) is None:
        return True
    return trust.implicit and _system_path_fault(certificate, untrusted) is None


def _system_path_fault(certificate: x509.Certificate, untrusted: Sequence[x509.Certificate]) -> str | None:
    """The same as `path_fault` for the system's anchors, found as TLS finds them."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)  # must outlive its store, which holds no reference to it
    context.set_default_verify_paths()
    return _path_fault(context.get_cert_store() or crypto.X509Store(), certificate, untrusted)


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether basicConstraints say CA:TRUE."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *certs.UNREADABLE):
        return False


def is_self_issued(certificate: x509.Certificate) -> bool:
    """Whether subject and issuer are the same name (RFC 5280 3.2)."""
    return names.name_key(certificate.subject) == names.name_key(certificate.issuer)


def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer`'s name and key fit `certificate`'s issuer and signature; nothing else is checked."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER, lower-case hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()
