"""The register: certs.sqlite in EST_CA_DIR, a row for each certificate, committed before it is handed out.

Not a program.  To look into it:  sqlite3 certs.sqlite "SELECT serial, subject, not_after FROM certificates"
"""

import atexit
import contextlib
import hashlib
import os
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NAME = "certs.sqlite"

# Times are UTC in ISO 8601, digests and DER are those of the certificate; "revoked" is set by a person, or by fullcmc.
_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA user_version = 1;
CREATE TABLE certificates (
    serial       TEXT NOT NULL PRIMARY KEY,  -- upper-case hex, as `openssl x509 -serial` prints it
    status       TEXT NOT NULL DEFAULT 'valid' CHECK (status IN ('valid', 'revoked')),
    revoked_at   TEXT,
    reason       TEXT,                       -- why it was revoked, such as keyCompromise
    subject      TEXT NOT NULL,              -- RFC 4514
    san          TEXT NOT NULL,
    spki_sha256  TEXT NOT NULL,
    not_before   TEXT NOT NULL,
    not_after    TEXT NOT NULL,
    profile      TEXT NOT NULL,
    operation    TEXT NOT NULL,
    label        TEXT,
    request_id   TEXT NOT NULL,
    pending_id   TEXT,
    issued_at    TEXT NOT NULL,
    der          BLOB NOT NULL
);
CREATE INDEX by_subject ON certificates (subject);
CREATE INDEX by_pending_id ON certificates (pending_id);
"""


def create(folder: Path) -> None:
    """Make an empty register where none is: whole, under another name, then linked into place.

    So nobody ever sees half of one, and of two that come at the same time one wins.
    """
    path = folder / f".{NAME}.{os.urandom(8).hex()}"
    try:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.executescript(_SCHEMA)
        with contextlib.suppress(FileExistsError):
            (folder / NAME).hardlink_to(path)
    finally:
        path.unlink(missing_ok=True)


PAUSE = 0.001
"""Seconds before another try, while somebody else writes.  SQLite itself would wait for 1, 2, 5, 10 ms and so on: the
longer one has waited, the fewer tries one has, and those who come later go first."""

_kept: dict[tuple[object, ...], sqlite3.Connection] = {}  # the one that is open, by file


def _do(statement: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
    """The rows of one statement, a transaction of its own; a fault ends the handler, with 69 where it stays locked."""
    path = Path(os.environ["EST_CA_DIR"]).absolute() / NAME
    deadline = time.monotonic() + int(os.environ["EST_TIMEOUT"]) / 3  # a handler comes here up to three times
    while True:
        try:
            return _register(path).execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as fault:
            busy = getattr(fault, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                _close()
                print(f"{path}: {fault}", file=sys.stderr)
                sys.exit(os.EX_UNAVAILABLE if busy else os.EX_IOERR)
        time.sleep(PAUSE)


def _register(path: Path) -> sqlite3.Connection:
    """The register; it stays open as long as the process lives, which for a worker of `pool` is many requests.

    Who closes it when nobody else has it open takes the disk's time once more, and more of it than a row does.
    """
    if not path.exists():
        create(path.parent)
    file = path.stat()
    which = (path, file.st_dev, file.st_ino)
    if which not in _kept:
        _close()
        _kept[which] = sqlite3.connect(f"{path.as_uri()}?mode=rw", timeout=0, isolation_level=None, uri=True)
    _kept[which].execute("PRAGMA synchronous = FULL")  # committed means: it outlives a power cut
    return _kept[which]


@atexit.register
def _close() -> None:
    while _kept:
        _kept.popitem()[1].close()


def add(certificate: x509.Certificate, san: str, profile: str) -> None:
    """Enter a certificate; when this returns, the row is on the disk."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    row = {
        "serial": _serial(certificate),
        "subject": _text(certificate.subject),
        "san": san,
        "spki_sha256": hashlib.sha256(spki).hexdigest(),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "profile": profile,
        "operation": os.environ["EST_OPERATION"],
        "label": os.environ.get("EST_LABEL"),
        "request_id": os.environ["EST_REQUEST_ID"],
        "pending_id": os.environ.get("EST_PENDING_ID"),
        "issued_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "der": certificate.public_bytes(Encoding.DER),
    }
    places = ", ".join(f":{column}" for column in row)
    _do(f"INSERT INTO certificates ({', '.join(row)}) VALUES ({places})", row)  # noqa: S608


def status(certificate: x509.Certificate) -> str | None:
    """`valid` or `revoked`; None for a certificate that is not in the register."""
    rows = _do("SELECT status FROM certificates WHERE serial = ?", [_serial(certificate)])
    return rows[0][0] if rows else None


def newest(subject: x509.Name) -> x509.Certificate | None:
    """The last valid certificate that was issued for this subject, or None: the one to renew."""
    return _last("subject = ? AND not_after > ?", _text(subject), _ago(timedelta(0)))


def handed_out(within: timedelta) -> x509.Certificate | None:
    """What this very request got before, or None: the client may have lost the answer (EST_PENDING_ID)."""
    return _last("pending_id = ? AND issued_at > ?", os.environ["EST_PENDING_ID"], _ago(within))


def by_serial(serial: int) -> x509.Certificate | None:
    """The certificate with this serial number, revoked or not."""
    rows = _do("SELECT der FROM certificates WHERE serial = ?", [_digits(serial)])
    return x509.load_der_x509_certificate(rows[0][0]) if rows else None


def has_key(spki: bytes) -> bool:
    """Whether a certificate for this key, the DER of a SubjectPublicKeyInfo, was ever issued."""
    # Without an index, as it is asked where policy wants it.
    query = "SELECT 1 FROM certificates WHERE spki_sha256 = ? LIMIT 1"
    return bool(_do(query, [hashlib.sha256(spki).hexdigest()]))


def revoke(certificate: x509.Certificate, reason: str) -> bool:
    """Mark it as revoked, for a reason such as keyCompromise; False when the register does not have it."""
    change = "UPDATE certificates SET status = 'revoked', revoked_at = ?, reason = ? WHERE serial = ? AND status <> ?"
    _do(change, [_ago(timedelta(0)), reason, _serial(certificate), "revoked"])
    return status(certificate) is not None


def revoked() -> list[tuple[int, datetime | None, str | None]]:
    """Serial number, time and reason of all that is revoked and has not expired."""
    query = "SELECT serial, revoked_at, reason FROM certificates WHERE status = 'revoked' AND not_after > ?"
    rows = _do(query, [_ago(timedelta(0))])
    return [(int(serial, 16), _time(at), reason) for serial, at, reason in rows]


def _time(text: str | None) -> datetime | None:
    """A time of the register; a person may have written it, with SQLite's datetime() and so without a zone."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _last(condition: str, *values: str) -> x509.Certificate | None:
    query = f"SELECT der FROM certificates WHERE status = 'valid' AND {condition} ORDER BY rowid DESC LIMIT 1"  # noqa: S608
    rows = _do(query, values)
    return x509.load_der_x509_certificate(rows[0][0]) if rows else None


def _ago(time: timedelta) -> str:
    return (datetime.now(UTC) - time).isoformat(timespec="seconds")


def _serial(certificate: x509.Certificate) -> str:
    return _digits(certificate.serial_number)


def _digits(serial: int) -> str:
    digits = f"{serial:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


def _text(name: x509.Name) -> str:
    """RFC 4514, with hex pairs for what a terminal would obey instead of print."""

    def shown(char: str) -> str:
        return char if char.isprintable() else "".join(f"\\{byte:02X}" for byte in char.encode())

    return "".join(map(shown, name.rfc4514_string()))
