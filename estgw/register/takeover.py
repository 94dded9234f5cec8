"""Take over what fullcmc of estgw 0.1.0 kept in files: its memory, cmc.sqlite, and requests that wait, pending/."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from estgw.est import certs
from estgw.register.engine import Engine, RegisterBusy, RegisterError
from estgw.register.requests import STATES, Request, Requests

OLD = "cmc.sqlite"
TAKEN = "cmc.sqlite.taken-over"

_INSERT = """
INSERT INTO kept (kind, key, value, until, owner) VALUES (:kind, :key, :value, :until, :owner) ON CONFLICT DO NOTHING
"""


def take_over(folder: Path, register: Engine) -> int | None:
    """Move the rows of cmc.sqlite to the register, if that file is there; one of several processes does it.

    The old file is emptied when the register has the rows, under the lock with which they were read, and renamed.
    Returns how many rows it had that count; None where there is no such file.  Raises `RegisterError`.
    """
    path = folder.absolute() / OLD
    if not path.exists():
        return None
    try:
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode=rw", timeout=register.patience, isolation_level=None, uri=True
        )
        with contextlib.closing(connection) as old:
            old.execute("BEGIN IMMEDIATE")
            # Version 1 had no owner.
            owner = "owner" if old.execute("PRAGMA user_version").fetchone()[0] >= 2 else "''"
            query = f"SELECT kind, key, value, until, {owner} FROM kept WHERE until > ? OR kind = 'unconfirmed'"  # noqa: S608
            rows = old.execute(query, [int(time.time())]).fetchall()
            with register.transaction():
                for row in rows:
                    register.rows(_INSERT, dict(zip(("kind", "key", "value", "until", "owner"), row, strict=True)))
            old.execute("DELETE FROM kept")
            old.execute("COMMIT")
        with contextlib.suppress(FileNotFoundError):
            path.rename(path.with_name(TAKEN))
        return len(rows)
    except (sqlite3.Error, OSError) as fault:
        if not path.exists():  # another process has taken it over; SQLite does not write to a file that has moved
            return None
        busy = getattr(fault, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
        raise (RegisterBusy if busy else RegisterError)(f"{path}: {fault}") from None


MARK = "EST_CMC_REQUEST"
"""The variable by which a folder of fullcmc differs from one of handlers/examples/manual-approval, which stays."""


def take_over_requests(pending: Path, register: Engine) -> int:
    """Move the requests of fullcmc in EST_CA_DIR/pending to the register; returns how many.  Raises `RegisterError`."""
    found = {path.name for state in STATES for path in (pending / state).glob("*") if path.is_dir()}
    return sum(take_over_request(pending, request_id, register) for request_id in sorted(found))


def take_over_request(pending: Path, request_id: str, register: Engine) -> bool:
    """Move one request to the register, and remove its folder when the register has it; False if there is none.

    Where issuing it was interrupted, the certificate that the register has for it counts.  Raises `RegisterError`.
    """
    if not any((pending / state / request_id).is_dir() for state in STATES):
        return False
    try:
        with (pending / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            here = next((path for state in STATES if (path := pending / state / request_id).is_dir()), None)
            if here is None or (request := _read(here, register)) is None:
                return False
            Requests(register).enter(request, request.client)
            shutil.rmtree(here)
    except (OSError, ValueError) as fault:
        raise RegisterError(f"{pending}: {fault}") from None
    return True


def _read(here: Path, register: Engine) -> Request | None:
    """A request of fullcmc in a folder; None for one of another script."""
    text = (here / "request").read_text(encoding="utf-8", errors="backslashreplace")
    facts = {name: value for name, _, value in (line.partition("=") for line in text.splitlines())}
    if MARK not in facts:
        return None
    state, reason, certificate = here.parent.name, None, None
    if state == "refused":
        reason = (here / "reason").read_text(encoding="utf-8", errors="backslashreplace").strip() or "refused"
    elif state in ("approved", "issued") and (certificate := _certificate(here, register)) is not None:
        state = "issued"
    elif state == "issued":
        state = "waiting"  # its certificate is in no register: a person looks at it again
    return Request(
        id=here.name,
        state=state,
        facts=facts,
        csr=(here / "csr.pem").read_text(),
        since=datetime.fromtimestamp((here / "request").stat().st_mtime, UTC),
        changed=datetime.fromtimestamp(here.stat().st_mtime, UTC),
        reason=reason,
        certificate=certificate,
    )


def _certificate(here: Path, register: Engine) -> x509.Certificate | None:
    """What the request got, if the register has it."""
    if (file := here / "certificate.pem").exists():
        condition, value = "serial = :value", certs.serial_hex(certs.load_pem(file.read_bytes())[0])
    elif (here / "started").exists():
        condition, value = "pending_id = :value", here.name
    else:
        return None
    query = f"SELECT der FROM certificates WHERE {condition} ORDER BY rowid DESC LIMIT 1"  # noqa: S608
    found = register.rows(query, {"value": value})
    return x509.load_der_x509_certificate(found[0][0]) if found else None
