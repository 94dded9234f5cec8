"""A register in a file beside the CA: the default, for one machine."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from estgw.register import schema
from estgw.register.engine import RegisterBusy, RegisterError, RegisterUnfit, Rows, Values

NAME = "certs.sqlite"
"""The register of a CA on one machine, in the CA's directory."""
LOCKS = "certs.lock"
"""The locks by name beside it: one byte of this file each, which nobody writes."""
PAUSE = 0.001
"""Seconds before another try, while somebody else writes.  SQLite itself would wait for 1, 2, 5, 10 ms and so on: the
longer one has waited, the fewer tries one has, and those who come later go first."""


class SQLite:
    """A file.  It is made where it is missing, and one of an earlier version is upgraded when it is opened.

    One that is read only is neither made nor upgraded, and stays as it is when it is closed.
    """

    def __init__(self, path: Path, *, is_read_only: bool = False) -> None:
        self.place, self.patience = str(path), 10.0
        self._path, self._is_read_only = path, is_read_only
        self._kept: tuple[tuple[int, int], sqlite3.Connection] | None = None
        self._inside = False

    def rows(self, statement: str, values: Values = {}) -> Rows:  # noqa: B006 - nobody writes to it
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return self._connection().execute(statement, values).fetchall()
            except (sqlite3.Error, OSError, schema.WrongVersion) as fault:
                if not _is_busy(fault) or self._inside or time.monotonic() > deadline:
                    if not self._inside:
                        self.close()
                    raise self._error(fault) from None
            time.sleep(PAUSE)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        if self._inside:
            yield
            return
        self.rows("BEGIN IMMEDIATE")
        self._inside = True
        try:
            yield
            self.rows("COMMIT")
        except BaseException:
            with contextlib.suppress(RegisterError):
                self.rows("ROLLBACK")
            raise
        finally:
            self._inside = False

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        return self.transaction()  # which is exclusive for all names

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        # A lock of the file, not a transaction: a CA's signature, in an HSM perhaps, must not hold up everybody.
        deadline = time.monotonic() + self.patience
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
        descriptor = os.open(self._path.with_name(LOCKS), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
                    break
                except (BlockingIOError, PermissionError):  # POSIX allows either
                    if time.monotonic() > deadline:
                        words = f"{self.place}: the same request is being served at this moment"
                        raise RegisterBusy(words) from None
                time.sleep(PAUSE)
            yield
        finally:
            os.close(descriptor)  # which gives the lock back, as the end of this process would

    def close(self) -> None:
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None

    def _connection(self) -> sqlite3.Connection:
        """The open file, if it is still the one of that name.

        Closing the last connection to a file costs more disk time than a row does.
        """
        if not self._path.exists() and not self._is_read_only:
            create(self._path.parent)
        file = self._path.stat()
        which = (file.st_dev, file.st_ino)
        if self._kept is None or self._kept[0] != which:
            self.close()
            address = f"{self._path.as_uri()}?mode={'ro' if self._is_read_only else 'rw'}"
            made = sqlite3.connect(address, timeout=0, isolation_level=None, uri=True)
            try:
                if not self._is_read_only:
                    made.execute("PRAGMA synchronous = FULL")  # committed means: it outlives a power cut
                    schema.upgrade_sqlite(made)
            except BaseException:
                made.close()
                raise
            self._kept = which, made
        return self._kept[1]

    def _error(self, fault: Exception) -> RegisterError:
        kind = RegisterBusy if _is_busy(fault) else RegisterUnfit if isinstance(fault, schema.WrongVersion) else None
        return (kind or RegisterError)(f"{self.place}: {fault}")


def _is_busy(fault: Exception) -> bool:
    return getattr(fault, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def create(folder: Path) -> None:
    """Make an empty register where none is: whole, under another name, then linked into place.

    So nobody ever sees half of one, and of two that come at the same time one wins.
    """
    path = folder / f".{NAME}.{os.urandom(8).hex()}"
    try:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.executescript(schema.SQLITE)
        path.chmod(0o600)
        with contextlib.suppress(FileExistsError):
            (folder / NAME).hardlink_to(path)
    finally:
        path.unlink(missing_ok=True)
