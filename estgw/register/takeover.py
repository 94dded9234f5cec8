"""Take over what estgw 0.1.0 kept in a file of its own: cmc.sqlite, the memory of fullcmc."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

from estgw.register.engine import Engine, RegisterBusy, RegisterError

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
