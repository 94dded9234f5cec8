"""Whether a certificate is for a host (RFC 9525)."""

from __future__ import annotations

import ipaddress

from cryptography import x509

from estgw.est import certs, names


def matches(certificate: x509.Certificate, host: str) -> bool:
    """Whether a certificate is for `host`, a name or an IP address (RFC 9525 6.3 to 6.5).

    Only the subject alternative name counts: RFC 9525 ended RFC 6125's last resort, the common name.  A wildcard stands
    for one whole leftmost label, and never directly under a top-level domain.
    """
    san = certs.san(certificate)
    if san is None:
        return False
    try:
        return ipaddress.ip_address(host) in san.get_values_for_type(x509.IPAddress)
    except ValueError:
        return any(_name_matches(pattern, host) for pattern in san.get_values_for_type(x509.DNSName))


def _name_matches(pattern: str, host: str) -> bool:
    pattern, host = pattern.lower().rstrip("."), host.lower().rstrip(".")
    if pattern == host:
        return "*" not in pattern
    first, _, rest = pattern.partition(".")
    left, _, parent = host.partition(".")
    return first == "*" and "." in rest and "*" not in rest and rest == parent and bool(left)


def identities(certificate: x509.Certificate) -> str:
    """The first names in a certificate, for a message; they are a peer's and may hold anything."""
    entries = [names.san_text(entry) for entry in certs.san(certificate) or ()][:5]
    return ", ".join(entries) or f"no SAN (subject {names.dn_text(certificate.subject)})"
