"""What fullcmc remembers between requests: the table `kept` of the CA's register, each row with its end.

The next row that is written removes the rows that have ended.  `BOUNDS` limits the rows of each client: a client that
has reached its limit is told so, and the others go on.
To look into it:  sqlite3 certs.sqlite "SELECT kind, count(*) FROM kept GROUP BY kind"
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from estgw.register import engines, takeover

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


class Full(Exception):
    """There is no room for another row of this kind; the text is for the client."""

    def __init__(self, kind: str, whose: str) -> None:
        super().__init__(f"too many {whose} {BOUNDS[kind].too_many}")
        self.kind = kind


class Spent(Exception):
    """Too many wrong guesses: no guess is checked before the time is over."""


class State:
    """The open table.  Every call is a transaction; a fault of the register is a `RegisterError`."""

    def __init__(self, directory: Path, patience: float) -> None:
        """Open the register that EST_REGISTER names, or certs.sqlite; a statement may take `patience` seconds."""
        self.register = engines.open_register(os.environ.get("EST_REGISTER"), directory, patience)
        takeover.take_over(directory, self.register)

    def get(self, kind: str, key: str) -> bytes | None:
        """A value that has not ended."""
        query = "SELECT value FROM kept WHERE kind = :kind AND key = :key AND until > :now"
        found = self.register.rows(query, {"kind": kind, "key": key, "now": _now()})
        return bytes(found[0][0]) if found else None

    def put(
        self, kind: str, key: str, value: bytes, lasts: timedelta, owner: str = "", *, is_bounded: bool = True
    ) -> bool:
        """Keep a value; False when there is one under that key, which stays.  Raises `Full`.

        `is_bounded=False` puts a value back that had its place before.
        """
        row = {"kind": kind, "key": key, "value": value, "owner": owner}
        until = int(time.time() + lasts.total_seconds()) + 1
        is_bounded = is_bounded and kind in BOUNDS
        with self.register.exclusive(_room(kind, owner) if is_bounded else f"{kind} {key}"):
            if self.get(kind, key) is not None:
                return False
            if is_bounded:
                self._make_room(kind, owner)
            self._forget_ended()
            return bool(self.register.rows(_INSERT_NEW, {**row, "until": until, "now": _now()}))

    def require_room(self, kind: str, owner: str) -> None:
        """Raise `Full` before work that must end with a new row."""
        with self.register.exclusive(_room(kind, owner)):
            self._make_room(kind, owner)

    def drop(self, kind: str, key: str) -> bool:
        """Forget a value; True if it was there, so that one of two processes has it."""
        drop = "DELETE FROM kept WHERE kind = :kind AND key = :key RETURNING 1"
        return bool(self.register.rows(drop, {"kind": kind, "key": key}))

    def wrong(self, kind: str, key: str) -> int:
        """The number of wrong guesses that count now."""
        return int(self.get(kind, key) or 0)

    def judge(self, kind: str, key: str, lasts: timedelta, *, most: int, is_right: bool) -> bool:
        """Return `is_right` for one of the first `most` guesses in `lasts`; raise `Spent` for later ones.

        The transaction that counts a guess also gives the verdict on it: of any number at once, `most` get one.  A
        right guess writes its row, too, so that a guess that can't be counted gets no verdict.
        """
        with self.register.exclusive(f"{kind} {key}"):
            count, now = self.wrong(kind, key), time.time()
            if count >= most:
                raise Spent
            query = "SELECT until FROM kept WHERE kind = :kind AND key = :key AND until > :now"
            found = self.register.rows(query, {"kind": kind, "key": key, "now": _now()})
            if not found and kind in BOUNDS:
                with self.register.exclusive(_room(kind, "")):
                    self._make_room(kind, "")
            until = found[0][0] if found and is_right else int(now + lasts.total_seconds()) + 1
            self._insert(kind, key, str(count + (not is_right)).encode(), until)
        return is_right

    def ended(self, kind: str, most: int) -> list[bytes]:
        """Some values of a kind that stays after its end until it is dropped; other values the next time."""
        query = "SELECT value FROM kept WHERE kind = :kind AND until <= :now ORDER BY random() LIMIT :most"
        return [bytes(value) for (value,) in self.register.rows(query, {"kind": kind, "now": _now(), "most": most})]

    def _insert(self, kind: str, key: str, value: bytes, until: int) -> None:
        self._forget_ended()
        self.register.rows(_INSERT, {"kind": kind, "key": key, "value": value, "until": until, "owner": ""})

    def _forget_ended(self) -> None:
        self.register.rows("DELETE FROM kept WHERE until <= :now AND kind <> :stays", {"now": _now(), "stays": STAYS})

    def _make_room(self, kind: str, owner: str) -> None:
        """Raise `Full`, or forget the oldest row where `Bound.too_many` is empty."""
        if (bound := BOUNDS.get(kind)) is None:
            return
        self._forget_ended()
        if self._count("kind = :kind AND owner = :owner", kind=kind, owner=owner) >= bound.each:
            if bound.too_many:
                raise Full(kind, "of your")
        elif bound.total is None or self._count("kind = :kind", kind=kind) < bound.total:
            return
        elif bound.too_many:
            raise Full(kind, "of all clients'")
        else:  # the client with the most rows loses one
            query = "SELECT owner FROM kept WHERE kind = :kind GROUP BY owner ORDER BY count(*) DESC LIMIT 1"
            owner = self.register.rows(query, {"kind": kind})[0][0]
        oldest = "SELECT key FROM kept WHERE kind = :kind AND owner = :owner ORDER BY until LIMIT 1"
        drop = f"DELETE FROM kept WHERE kind = :kind AND key = ({oldest})"  # noqa: S608
        self.register.rows(drop, {"kind": kind, "owner": owner})

    def _count(self, condition: str, **values: str) -> int:
        found: int = self.register.rows(f"SELECT count(*) FROM kept WHERE {condition}", values)[0][0]  # noqa: S608
        return found


_INSERT = """
INSERT INTO kept (kind, key, value, until, owner) VALUES (:kind, :key, :value, :until, :owner)
    ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value, until = excluded.until, owner = excluded.owner
"""

_INSERT_NEW = """
INSERT INTO kept (kind, key, value, until, owner) VALUES (:kind, :key, :value, :until, :owner)
    ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value, until = excluded.until, owner = excluded.owner
    WHERE kept.until <= :now RETURNING 1
"""


def _room(kind: str, owner: str) -> str:
    """The lock under which rows of a kind are counted and entered, so that bounds hold whatever number comes at once.

    Where only each client has a bound, clients do not wait for each other.
    """
    return f"room {kind} {owner}" if kind in BOUNDS and BOUNDS[kind].total is None else f"room {kind}"


def _now() -> int:
    """Seconds since 1970; a row's end is rounded up."""
    return int(time.time())


def mark(*parts: object) -> str:
    """A key of fixed length for values of a peer, which may be of any length."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()
