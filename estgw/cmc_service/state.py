"""What fullcmc remembers between requests: cmc.sqlite in EST_CA_DIR, one table, each row with its end.

The next row that is written removes the rows that have ended.  `BOUNDS` limits the rows of each client: a client that
has reached its limit is told so, and the others go on.
To look into it:  sqlite3 cmc.sqlite "SELECT kind, count(*) FROM kept GROUP BY kind"
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

NAME = "cmc.sqlite"
STAYS = "unconfirmed"  # rows of this kind stay after their end


@dataclass(frozen=True)
class Bound:
    """The maximum number of rows of a kind."""

    each: int
    """Of one client."""
    total: int | None
    """Of all clients together; None where time alone bounds them."""
    too_many: str
    """For the client: what there is too much of, and the way out.  Empty: the oldest row is removed instead."""


BOUNDS: Mapping[str, Bound] = {
    # Each ends with the window of signing times, so the rate at which messages are served bounds them all together.
    "message": Bound(20_000, None, "messages in a short time: come back later"),
    "untimed": Bound(10_000, 100_000, "messages without a signing time: sign with signingTime (RFC 5652 11.3)"),
    "pending": Bound(200, 20_000, "requests that wait: come back when some of them are decided"),
    "challenge": Bound(100, 5_000, ""),
    "sent": Bound(400, 20_000, ""),
    "unknown": Bound(5_000, None, ""),  # as `wrong`, where there is no secret, so that no client learns which there are
}
"""The other kinds need no bound.  `wrong` has a row for an identification in cmc-secrets or for a passphrase, `waiting`
one for a `pending`, `passphrase` and `unconfirmed` one for a certificate in the register, which has no bound either."""

_OWNER = "CREATE INDEX by_owner ON kept (kind, owner, until)"
_SCHEMA = f"""
PRAGMA journal_mode = WAL;
PRAGMA user_version = 2;
CREATE TABLE kept (
    kind  TEXT NOT NULL,     -- a key of BOUNDS, or: wrong, waiting, passphrase, unconfirmed
    key   TEXT NOT NULL,
    value BLOB NOT NULL,
    until INTEGER NOT NULL,  -- seconds since the epoch
    owner TEXT NOT NULL DEFAULT '',  -- the client whose row it is, where `BOUNDS` counts
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE INDEX by_end ON kept (until);
{_OWNER};
"""
# Version 1 had no owner.  Programs of that version work with this one, so an upgrade needs no standstill.
_UPGRADE = ("ALTER TABLE kept ADD COLUMN owner TEXT NOT NULL DEFAULT ''", _OWNER, "PRAGMA user_version = 2")


class Full(Exception):
    """There is no room for another row of this kind; the text is for the client."""

    def __init__(self, kind: str, whose: str) -> None:
        super().__init__(f"too many {whose} {BOUNDS[kind].too_many}")
        self.kind = kind


class Spent(Exception):
    """Too many wrong guesses: no guess is checked before the time is over."""


class State:
    """The open database.  Every call is a transaction; a fault of SQLite is an `sqlite3.Error`."""

    def __init__(self, directory: Path, patience: float) -> None:
        """Open it, and make it where it is missing; a writer waits for `patience` seconds for another."""
        path = directory.absolute() / NAME
        if not path.exists():
            _create(path)
        self._db = sqlite3.connect(f"{path.as_uri()}?mode=rw", timeout=patience, isolation_level=None, uri=True)
        self._db.execute("PRAGMA synchronous = NORMAL")
        if self._version() < 2:
            self._upgrade()

    def close(self) -> None:
        self._db.close()

    def get(self, kind: str, key: str) -> bytes | None:
        """A value that has not ended."""
        query = "SELECT value FROM kept WHERE kind = ? AND key = ? AND until > ?"
        found = self._db.execute(query, [kind, key, time.time()]).fetchone()
        return bytes(found[0]) if found else None

    def put(
        self, kind: str, key: str, value: bytes, lasts: timedelta, owner: str = "", *, is_bounded: bool = True
    ) -> bool:
        """Keep a value; False when there is one under that key, which stays.  Raises `Full`.

        `is_bounded=False` puts a value back that had its place before.
        """
        with self._writing():
            if self.get(kind, key) is not None:
                return False
            if is_bounded:
                self._make_room(kind, owner)
            self._insert(kind, key, value, int(time.time() + lasts.total_seconds()) + 1, owner)
            return True

    def require_room(self, kind: str, owner: str) -> None:
        """Raise `Full` before work that must end with a new row."""
        with self._writing():
            self._make_room(kind, owner)

    def drop(self, kind: str, key: str) -> bool:
        """Forget a value; True if it was there, so that one of two processes has it."""
        with self._writing():
            return self._db.execute("DELETE FROM kept WHERE kind = ? AND key = ?", [kind, key]).rowcount > 0

    def wrong(self, kind: str, key: str) -> int:
        """The number of wrong guesses that count now."""
        return int(self.get(kind, key) or 0)

    def judge(self, kind: str, key: str, lasts: timedelta, *, most: int, is_right: bool) -> bool:
        """Return `is_right` for one of the first `most` guesses in `lasts`; raise `Spent` for later ones.

        The transaction that counts a guess also gives the verdict on it: of any number at once, `most` get one.  A
        right guess writes its row, too, so that a guess that can't be counted gets no verdict.
        """
        with self._writing():
            count, now = self.wrong(kind, key), time.time()
            if count >= most:
                raise Spent
            query = "SELECT until FROM kept WHERE kind = ? AND key = ? AND until > ?"
            found = self._db.execute(query, [kind, key, now]).fetchone()
            if found is None:
                self._make_room(kind, "")
            until = found[0] if found and is_right else int(now + lasts.total_seconds()) + 1
            self._insert(kind, key, str(count + (not is_right)).encode(), until)
        return is_right

    def ended(self, kind: str, most: int) -> list[bytes]:
        """Some values of a kind that stays after its end until it is dropped; other values the next time."""
        query = "SELECT value FROM kept WHERE kind = ? AND until <= ? ORDER BY random() LIMIT ?"
        return [bytes(value) for (value,) in self._db.execute(query, [kind, time.time(), most])]

    def _insert(self, kind: str, key: str, value: bytes, until: int, owner: str = "") -> None:
        self._forget_ended()
        row = [kind, key, value, until, owner]
        self._db.execute("INSERT OR REPLACE INTO kept (kind, key, value, until, owner) VALUES (?, ?, ?, ?, ?)", row)

    def _forget_ended(self) -> None:
        self._db.execute("DELETE FROM kept WHERE until <= ? AND kind <> ?", [time.time(), STAYS])

    def _make_room(self, kind: str, owner: str) -> None:
        """Raise `Full`, or forget the oldest row where `Bound.too_many` is empty."""
        if (bound := BOUNDS.get(kind)) is None:
            return
        self._forget_ended()
        if self._count("kind = ? AND owner = ?", kind, owner) >= bound.each:
            if bound.too_many:
                raise Full(kind, "of your")
        elif bound.total is None or self._count("kind = ?", kind) < bound.total:
            return
        elif bound.too_many:
            raise Full(kind, "of all clients'")
        else:  # the client with the most rows loses one
            query = "SELECT owner FROM kept WHERE kind = ? GROUP BY owner ORDER BY count(*) DESC LIMIT 1"
            (owner,) = self._db.execute(query, [kind]).fetchone()
        oldest = "SELECT key FROM kept WHERE kind = ? AND owner = ? ORDER BY until LIMIT 1"
        self._db.execute(f"DELETE FROM kept WHERE kind = ? AND key = ({oldest})", [kind, kind, owner])  # noqa: S608

    def _count(self, condition: str, *values: str) -> int:
        found: int = self._db.execute(f"SELECT count(*) FROM kept WHERE {condition}", values).fetchone()[0]  # noqa: S608
        return found

    def _version(self) -> int:
        found: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        return found

    def _upgrade(self) -> None:
        with self._writing():
            if self._version() < 2:  # one of two processes does it
                for statement in _UPGRADE:
                    self._db.execute(statement)

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
    """Make an empty database under another name, then link it into place: one of two processes wins."""
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
    """A key of fixed length for values of a peer, which may be of any length."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()
