"""The register: a row for each certificate, committed before it is handed out.

It is certs.sqlite in EST_CA_DIR, or the PostgreSQL that EST_REGISTER names.  Not a program.  To look into it:
    sqlite3 certs.sqlite "SELECT serial, subject, not_after FROM certificates"
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from estgw.callout.sources import Stamp, stamp
from estgw.register import crls, engines, requests, schema
from estgw.register.engine import Engine, RegisterBusy, RegisterError
from estgw.register.sqlite import NAME as NAME
from estgw.register.sqlite import create as create  # for create-ca

MOST_OF_A_SCRIPT = 1 << 20  # bytes of a file beside this one that count for `once`
_key: str | None = None  # of the request that is being served inside `once`
_approval: tuple[str, str] | None = None  # EST_REQUEST_ID and EST_PENDING_ID of a request that needed approval


def _engine() -> Engine:
    patience = int(os.environ["EST_TIMEOUT"]) / 3  # a handler comes here up to three times
    return engines.open_register(os.environ.get("EST_REGISTER"), Path(os.environ["EST_CA_DIR"]), patience)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """A fault ends the handler: with 69 if the client is to come back, as nothing was handed out."""
    try:
        yield
    except RegisterError as fault:
        print(fault, file=sys.stderr)
        sys.exit(fault.status)


def _do(statement: str, values: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
    """The rows of one statement, a transaction of its own unless it is inside `once`; a fault ends the handler."""
    with ending():
        return _engine().rows(statement, values or {})


@contextlib.contextmanager
def once(within: timedelta, *decided: object) -> Iterator[x509.Certificate | None]:
    """Serve this very request alone, and yield what it got before, or None: its answer may have been lost.

    It is the same request if client, key, names and operation are the same (EST_PENDING_ID), and so is all that was
    `decided` and each script in this directory: an edited policy is never answered with the old certificate.  Print the
    certificate after the block, when it is in the register for good.  What was approved is issued once, however long
    ago that was.
    """
    global _key
    pieces = [os.environ["EST_PENDING_ID"], _scripts(), *map(repr, decided)]
    key = hashlib.sha256("\0".join(pieces).encode("utf-8", "surrogatepass")).hexdigest()
    with ending(), _engine().alone(key):
        _key = key
        try:
            if _is_approved():
                yield _approved()
            else:
                condition = "request_key = :key AND issued_at > :since AND not_after > :now"
                yield _last(condition, key=key, since=_ago(within))
        finally:
            _key = None


def require_approval(days: int = 30, most: int = 1000, each: int = 200) -> None:
    """End with 75 (202 for the client) until a person has approved this request; refused, it ends with 77.

    `estgw pending` lists and decides.  At most so many requests wait, and `each` of one client; one that nothing
    happens to for so many days is forgotten.  After this, `once` and `add` issue it once.  A key of the server's making
    is sent once and kept nowhere, so a client that asks again waits again.
    """
    global _approval
    environ = os.environ
    _approval = environ["EST_REQUEST_ID"], environ["EST_PENDING_ID"]
    client = hashlib.sha256(repr((environ.get("REMOTE_USER"), environ.get("SSL_CLIENT_S_DN"))).encode()).hexdigest()
    room = requests.Room(each, most, timedelta(days=days))
    with ending():
        known = requests.Requests(_engine())
        request = known.find(_approval[1])
        try:
            if request is None:
                known.put(requests.new(environ, Path(environ["EST_CSR_FILE"]).read_text()), client, room)
                sys.exit(os.EX_TEMPFAIL)
        except requests.RequestError as full:
            print(full)
            sys.exit(os.EX_UNAVAILABLE)
        if request.state == "waiting":
            known.touch(request.id)
            sys.exit(os.EX_TEMPFAIL)
        if request.state == "refused":
            print(request.reason)
            sys.exit(os.EX_NOPERM)
        if request.state == "issued" and (environ["EST_OPERATION"] == "serverkeygen" or not request.can_be_given):
            known.wait_again(request.id)
            sys.exit(os.EX_TEMPFAIL)


def _is_approved() -> bool:
    """Whether the request that is being served has needed approval; a worker may have served others before."""
    return _approval == (os.environ["EST_REQUEST_ID"], os.environ.get("EST_PENDING_ID"))


def _approved() -> x509.Certificate | None:
    """What the approved request got before, or None if it is to be issued now."""
    found = requests.Requests(_engine()).find(os.environ["EST_PENDING_ID"])
    if found is None or found.state not in ("approved", "issued"):
        raise RegisterBusy("somebody has decided otherwise at this moment")
    return found.certificate


def _scripts() -> str:
    """A digest of the files in this directory, the policies among them."""
    files = [entry for entry in os.scandir() if entry.is_file() and entry.stat().st_size <= MOST_OF_A_SCRIPT]
    return _digest(tuple(sorted((entry.name, stamp(entry.stat())) for entry in files)))


@functools.lru_cache(maxsize=1)
def _digest(files: tuple[tuple[str, Stamp], ...]) -> str:
    """A digest of these files.  A worker that serves many requests reads them once, and again after an edit."""
    found = hashlib.sha256()
    for name, _ in files:
        content = Path(name).read_bytes()
        found.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogateescape") + content)
    return found.hexdigest()


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
        "subject_key": schema.subject_key(certificate.subject),
        "request_key": _key,
    }
    places = ", ".join(f":{column}" for column in row)
    # If the connection is lost, it is said twice, and the row is entered once.
    insert = f"INSERT INTO certificates ({', '.join(row)}) VALUES ({places}) ON CONFLICT (serial) DO NOTHING"  # noqa: S608
    if not _is_approved():
        _do(insert, row)
        return
    with ending(), _engine().transaction():
        _engine().rows(insert, row)
        if not requests.Requests(_engine()).close(os.environ["EST_PENDING_ID"], _serial(certificate)):
            raise RegisterBusy("it was issued or refused at this moment, so nothing was issued now")


def status(certificate: x509.Certificate) -> str | None:
    """`valid` or `revoked`; None for a certificate that is not in the register."""
    rows = _do("SELECT status FROM certificates WHERE serial = :serial", {"serial": _serial(certificate)})
    return rows[0][0] if rows else None


def newest(subject: x509.Name) -> x509.Certificate | None:
    """The last valid certificate that was issued for this subject, or None: the one to renew."""
    return _last("subject = :subject AND not_after > :now", subject=_text(subject))


def by_serial(serial: int) -> x509.Certificate | None:
    """The certificate with this serial number, revoked or not."""
    rows = _do("SELECT der FROM certificates WHERE serial = :serial", {"serial": _digits(serial)})
    return x509.load_der_x509_certificate(rows[0][0]) if rows else None


def has_key(spki: bytes) -> bool:
    """Whether a certificate for this key, the DER of a SubjectPublicKeyInfo, was ever issued."""
    # Without an index, as it is asked where policy wants it.
    query = "SELECT 1 FROM certificates WHERE spki_sha256 = :digest LIMIT 1"
    return bool(_do(query, {"digest": hashlib.sha256(spki).hexdigest()}))


def revoke(certificate: x509.Certificate, reason: str) -> bool:
    """Mark it as revoked, for a reason such as keyCompromise; False when the register does not have it."""
    change = "UPDATE certificates SET status = 'revoked', revoked_at = :now, reason = :reason WHERE serial = :serial"
    values = {"now": _ago(timedelta(0)), "reason": reason, "serial": _serial(certificate)}
    _do(f"{change} AND status <> 'revoked'", values)
    return status(certificate) is not None


def crl(issuer: x509.Certificate, key: Any) -> bytes:
    """The CRL of all that is revoked and has not expired, as DER, signed by the holder of `issuer`."""
    with ending():
        return crls.current(_engine(), crls.Issuer(issuer, key))


def _last(condition: str, **values: str) -> x509.Certificate | None:
    query = f"SELECT der FROM certificates WHERE status = 'valid' AND {condition} ORDER BY rowid DESC LIMIT 1"  # noqa: S608
    rows = _do(query, {"now": _ago(timedelta(0)), **values})
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
