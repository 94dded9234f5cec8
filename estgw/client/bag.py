"""Which certificates of a CA's bag can be trusted under our anchors, and the role of each.

RFC 7030 4.1.3 and RFC 4210 4.4: after a change of its key a CA shows its old root (OldWithOld), its new one
(NewWithNew), and two certificates that sign one key with the other: OldWithNew and NewWithOld.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509

from estgw.client.transport import trust
from estgw.errors import Malformed
from estgw.est import certs

MAXIMUM_GENERATIONS = 8
"""Changes of key between an anchor and the newest root.  The bound keeps a large bag from taking minutes."""


@dataclass(frozen=True)
class Entry:
    """One certificate of a bag."""

    certificate: x509.Certificate
    role: str
    """`root`, `OldWithOld`, `NewWithNew`, `OldWithNew`, `NewWithOld`, `intermediate`, or `no CA`."""
    fault: str | None
    """Why it must not be trusted, or None."""
    is_expired: bool = False
    is_newest: bool = False
    """Whether it is the self-signed certificate that runs longest: the CA's newest root (RFC 7030 4.1.3)."""

    @property
    def is_good(self) -> bool:
        """Whether it may be stored as an anchor."""
        return self.fault is None and not self.is_expired


def examine(
    bag: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    fingerprints: Collection[str] = (),
    now: datetime | None = None,
) -> list[Entry]:
    """Judge every certificate of a bag, the newest root first, duplicates left out.

    A certificate is trusted if it is an anchor, if the user gave its SHA-256 (lower-case hex), if a path leads from
    it to a trusted one, or if it is a root with the name and key of a trusted CA certificate.  So an old anchor
    reaches the new root through NewWithOld.
    """
    now = now or datetime.now(UTC)
    unique = list(dict.fromkeys(bag))
    is_expired = {certificate: certificate.not_valid_after_utc < now for certificate in unique}
    trusted: list[x509.Certificate] = [
        one for one in unique if one in anchors or (trust.fingerprint(one) in fingerprints and trust.is_ca(one))
    ]
    faults: dict[x509.Certificate, str] = {}
    for _ in range(MAXIMUM_GENERATIONS):
        rest = [one for one in unique if one not in trusted]
        usable = [one for one in [*anchors, *trusted] if one.not_valid_after_utc >= now]
        faults = {one: _fault(one, usable, rest, now) or "" for one in rest}
        fresh = [one for one in rest if not faults[one]]
        if not fresh:
            break
        trusted += fresh
    roots = [one for one in unique if _is_root(one)]
    # An untrusted root must not make another one look old.
    family = [one for one in roots if one in trusted or is_expired[one]]
    good = [one for one in family if not is_expired[one]]
    newest = max(good, key=lambda one: one.not_valid_after_utc, default=None)
    entries = [
        Entry(one, _role(one, roots if faults.get(one) else family), faults.get(one), is_expired[one], one is newest)
        for one in unique
    ]
    return sorted(entries, key=lambda entry: (not entry.is_newest, entry.role == "intermediate"))


def roots_of(bag: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The self-signed CA certificates of a bag: the ones that a fingerprint can name."""
    return [one for one in dict.fromkeys(bag) if _is_root(one)]


def _is_root(certificate: x509.Certificate) -> bool:
    return (
        trust.is_ca(certificate) and trust.is_self_issued(certificate) and trust.is_signed_by(certificate, certificate)
    )


def _fault(
    certificate: x509.Certificate,
    trusted: Sequence[x509.Certificate],
    helpers: Sequence[x509.Certificate],
    now: datetime,
) -> str | None:
    if not trust.is_ca(certificate):
        return "it is no CA's certificate"
    if not trust.is_self_issued(certificate):
        return trust.path_fault(certificate, trusted, helpers)
    # Without key identifiers, OpenSSL takes every self-issued certificate for a root.  So rollover certificates are
    # checked here, one step at a time.
    if certificate.not_valid_before_utc > now:
        return "it is not valid yet"
    others = [one for one in trusted if one.subject == certificate.subject and trust.is_ca(one)]
    if _is_root(certificate):
        if any(_same_key(other, certificate) for other in others):
            return None
        return "a root that has neither the name and key of an anchor nor a given fingerprint"
    if any(trust.is_signed_by(certificate, other) for other in others):
        return None
    return "none of our anchors' keys has signed it"


def _same_key(one: x509.Certificate, other: x509.Certificate) -> bool:
    try:
        return certs.spki(one) == certs.spki(other)
    except Malformed:
        return False


def _role(certificate: x509.Certificate, roots: Sequence[x509.Certificate]) -> str:
    if not trust.is_ca(certificate):
        return "no CA"
    if not trust.is_self_issued(certificate):
        return "intermediate"
    family = sorted(
        (root for root in roots if root.subject == certificate.subject), key=lambda root: root.not_valid_after_utc
    )
    if certificate in family:
        if len(family) == 1:
            return "root"
        return "NewWithNew" if certificate is family[-1] else "OldWithOld"
    signers = [root for root in family if trust.is_signed_by(certificate, root)]
    owners = [root for root in family if _same_key(certificate, root)]
    if signers:
        is_newer = not owners or family.index(signers[0]) > family.index(owners[0])
        return "OldWithNew" if is_newer else "NewWithOld"
    return "NewWithOld" if owners else "intermediate"
