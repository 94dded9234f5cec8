"""What fullcmc remembers between requests: cmc.sqlite in EST_CA_DIR, one table, bounded, each row with its end.

Rows that have ended are removed by whoever writes next; a table that is full refuses, with `Full`.
To look into it:  sqlite3 cmc.sqlite "SELECT kind, count(*) FROM kept GROUP BY kind"
"""

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

NAME = "cmc.sqlite"
MOST = 20_000  # rows of one kind
STAYS = "unconfirmed"  # the kind that is not forgotten when its time is over

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA user_version = 1;
CREATE TABLE kept (
    kind  TEXT NOT NULL,     -- message, pending, waiting, challenge, unconfirmed, wrong, passphrase, sent
    key   TEXT NOT NULL,
    value BLOB NOT NULL,
    until INTEGER NOT NULL,  -- seconds since the epoch
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE INDEX by_end ON kept (until);
"""


class Full(Exception):
    """There is no room for another row of this kind."""


class State:
    """The open database; every call is a transaction.  A fault of SQLite's is an `sqlite3.Error`."""

    def __init__(self, folder: Path) -> None:
        path = folder.absolute() / NAME
        if not path.exists():
            _create(path)
        patience = int(os.environ["EST_TIMEOUT"]) / 4
        self._db = sqlite3.connect(f"{path.as_uri()}?mode=rw", timeout=patience, isolation_level=None, uri=True)
        self._db.execute("PRAGMA synchronous = NORMAL")

    def close(self) -> None:
        self._db.close()

    def get(self, kind: str, key: str) -> bytes | None:
        """A value that has not ended."""
        query = "SELECT value FROM kept WHERE kind = ? AND key = ? AND until > ?"
        found = self._db.execute(query, [kind, key, time.time()]).fetchone()
        return bytes(found[0]) if found else None

    def put(self, kind: str, key: str, value: bytes, lasts: timedelta) -> bool:
        """Keep a value; False when there is one of that name, which stays."""
        with self._writing():
            if self.get(kind, key) is not None:
                return False
            self._insert(kind, key, value, lasts)
            return True

    def drop(self, kind: str, key: str) -> bool:
        """Forget a value; whether it was there, so that of two that come at once one has it."""
        with self._writing():
            return self._db.execute("DELETE FROM kept WHERE kind = ? AND key = ?", [kind, key]).rowcount > 0

    def count(self, kind: str, key: str) -> int:
        """How often `add` was called and has not ended."""
        return int(self.get(kind, key) or 0)

    def add(self, kind: str, key: str, lasts: timedelta) -> None:
        """One more, from now on as long as `lasts`."""
        with self._writing():
            now = self.count(kind, key) + 1
            self._db.execute("DELETE FROM kept WHERE kind = ? AND key = ?", [kind, key])
            self._insert(kind, key, str(now).encode(), lasts)

    def ended(self, kind: str, most: int) -> list[bytes]:
        """Some values of a kind whose time is over, and that stay until they are dropped."""
        query = "SELECT value FROM kept WHERE kind = ? AND until <= ? LIMIT ?"
        return [bytes(value) for (value,) in self._db.execute(query, [kind, time.time(), most])]

    def _insert(self, kind: str, key: str, value: bytes, lasts: timedelta) -> None:
        now = time.time()
        self._db.execute("DELETE FROM kept WHERE until <= ? AND kind <> ?", [now, STAYS])
        if self._db.execute("SELECT count(*) FROM kept WHERE kind = ?", [kind]).fetchone()[0] >= MOST:
            raise Full(kind)
        row = [kind, key, value, int(now + lasts.total_seconds()) + 1]
        self._db.execute("INSERT INTO kept (kind, key, value, until) VALUES (?, ?, ?, ?)", row)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _create(path: Path) -> None:
    """Make an empty one, whole, under another name, then link it into place: of two who come at once one wins."""
    new = path.with_name(f".{NAME}.{os.urandom(8).hex()}")
    try:
        with contextlib.closing(sqlite3.connect(new)) as db:
            db.executescript(_SCHEMA)
        new.chmod(0o600)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(new)
    finally:
        new.unlink(missing_ok=True)


def mark(*parts: object) -> str:
    """A key of fixed length for what a peer chose as long as it liked."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()
