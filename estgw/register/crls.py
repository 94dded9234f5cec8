"""CRLs of a register: made when one is needed, kept with their numbers, the same for all gateways (RFC 5280 5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.register.engine import Engine, RegisterBusy

LASTS = timedelta(days=7)
TRIES = 5
"""Numbers to try, if other processes make lists at the same moment."""

_FLAGS = {each.value: each for each in x509.ReasonFlags} | {"cACompromise": x509.ReasonFlags.ca_compromise}


@dataclass(frozen=True)
class Issuer:
    """What signs a CRL."""

    certificate: x509.Certificate
    key: Any


def current(engine: Engine, issuer: Issuer) -> bytes:
    """The list in force as DER; a new one if there is none, or if something has been revoked since.

    Raises `RegisterError`.
    """
    for _ in range(TRIES):
        now = datetime.now(UTC).replace(microsecond=0)
        entries = _revoked(engine, now)
        newest = engine.rows("SELECT number, this_update, next_update, der FROM crls ORDER BY number DESC LIMIT 1")
        if newest and _still_good(newest[0], entries, now, issuer):
            return bytes(newest[0][3])
        # Before there was this table, the number was the time, so the first number here is above those.
        number = int(newest[0][0]) + 1 if newest else int(now.timestamp())
        der = _make(issuer, number, now, entries)
        row = {"number": number, "this_update": now.isoformat(), "next_update": (now + LASTS).isoformat(), "der": der}
        if engine.rows(_INSERT, row):
            return der
    raise RegisterBusy(f"{engine.place}: others make lists all the time")


_INSERT = """
INSERT INTO crls (number, this_update, next_update, der) VALUES (:number, :this_update, :next_update, :der)
    ON CONFLICT DO NOTHING RETURNING 1
"""

Entry = tuple[int, datetime | None, str | None]


def _revoked(engine: Engine, now: datetime) -> list[Entry]:
    """Serial number, time and reason of all that is revoked and has not expired."""
    query = "SELECT serial, revoked_at, reason FROM certificates WHERE status = 'revoked' AND not_after > :now"
    rows = engine.rows(query, {"now": now.isoformat()})
    return [(int(serial, 16), _time(at), reason) for serial, at, reason in rows]


def _time(text: str | None) -> datetime | None:
    """A time of the register; a person may have written it, with SQLite's datetime() and so without a zone."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _still_good(row: tuple[Any, ...], entries: list[Entry], now: datetime, issuer: Issuer) -> bool:
    """Whether a list says all there is to say, is in the first half of its life, and is of this key."""
    made, ends = datetime.fromisoformat(row[1]), datetime.fromisoformat(row[2])
    if now >= made + (ends - made) / 2:
        return False
    found = x509.load_der_x509_crl(row[3])
    listed = {each.serial_number for each in found}
    return {serial for serial, _, _ in entries} == listed and found.is_signature_valid(issuer.certificate.public_key())  # type: ignore[arg-type]


def _make(issuer: Issuer, number: int, now: datetime, entries: list[Entry]) -> bytes:
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(now).next_update(now + LASTS)
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    builder = builder.add_extension(issuer_key_id(issuer.certificate), critical=False)
    for serial, at, reason in entries:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at or now)
        if reason in _FLAGS and reason != "unspecified":
            entry = entry.add_extension(x509.CRLReason(_FLAGS[reason]), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, signing_hash(issuer.key)).public_bytes(Encoding.DER)


def issuer_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """What names the key that signs: the identifier in its certificate, else the usual one."""
    try:
        known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)


def signing_hash(key: Any) -> hashes.SHA256 | hashes.SHA384 | None:
    """What a CA with this key hashes with: as strong as the key, or nothing where the key's algorithm has its own."""
    match key:
        case rsa.RSAPrivateKey():
            return hashes.SHA256()
        case ec.EllipticCurvePrivateKey():
            return hashes.SHA256() if key.curve.key_size <= 256 else hashes.SHA384()
        case _:
            return None
