"""A register in PostgreSQL: one role and one schema for each CA, found by the role's search_path.

psycopg is imported here alone.  Statements are not prepared and no options are set in a session, so PgBouncer may stand
between, in its transaction mode.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import psycopg
from psycopg import conninfo
from psycopg.errors import Diagnostic

from estgw.register import schema
from estgw.register.engine import RegisterBusy, RegisterError, RegisterUnfit, Rows, Values

BUSY = re.compile("08|57P0|57014|25006|40|55P03|53")
"""States (Appendix A of PostgreSQL's manual) that pass: it is starting, ending, read-only, full, or lost a conflict."""
UNFIT = {
    "42P01": "its tables are missing: say estgw register init",
    "3F000": "its role has no schema: estgw register init --sql prints what an administrator must say",
    "42501": "its role may not use the tables: estgw register init --sql prints what an administrator must say",
    "28P01": "its role is not let in: look at pg_hba.conf and the passfile of the URL",
    "28000": "its role is not let in: look at pg_hba.conf",
    "3D000": "there is no such database: look at the URL",
}
"""States that somebody must mend, and how."""
SYNC_WARNING = "01000"
"""The state of the warning that a commit is on the primary's disk only."""


class PostgreSQL:
    """A connection that is made when it is needed, and made anew when it is lost."""

    def __init__(self, url: str) -> None:
        self.place, self.patience = shown(url), 10.0
        self._url = url
        self._connection: _Connection | None = None
        self._inside = False

    def rows(self, statement: str, values: Values = {}) -> Rows:  # noqa: B006 - nobody writes to it
        with self._errors_told():
            deadline = time.monotonic() + self.patience
            try:
                return self._said(statement, values, deadline)
            except psycopg.OperationalError:
                # A connection that rests may have been closed by the server long ago.
                if self._inside or self._connection is None or not self._connection.broken:
                    raise
                self.close()
                return self._said(statement, values, deadline)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self._transaction(""):
            yield

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        with self._transaction(f"SELECT pg_advisory_xact_lock({number})"):
            yield

    exclusive = alone

    @contextlib.contextmanager
    def _transaction(self, first: str) -> Iterator[None]:
        """A transaction that says this statement first, in one go with its BEGIN; or the one that there is."""
        if self._inside:
            if first:
                self.rows(first)
            yield
            return
        self.rows(f"BEGIN; {first}")
        self._inside = True
        try:
            yield
            self.rows("COMMIT")
        except BaseException:
            self.close()  # which undoes all of it
            raise
        finally:
            self._inside = False

    def create(self) -> None:
        """Make the tables, if there are none.  Raises `RegisterError`."""
        with self._errors_told(), contextlib.closing(self._connect(self.patience)) as connection:
            if connection.execute("SELECT current_schema()").fetchone() == (None,):
                raise RegisterUnfit(f"{self.place}: {UNFIT['3F000']}")
            if not _version(connection):
                with connection.transaction():
                    connection.execute(schema.POSTGRESQL)
            self._require_known(connection)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _said(self, statement: str, values: Values, deadline: float) -> Rows:
        if self._connection is None:
            if self._inside:  # a fault has ended the transaction, and somebody goes on as if there were one
                raise RegisterBusy(f"{self.place}: the transaction is lost")
            made = self._connect(deadline - time.monotonic())
            try:
                self._require_known(made)
            except BaseException:
                made.close()
                raise
            self._connection = made
        connection = self._connection
        connection.deadline, connection.is_in_doubt = deadline, False
        # Without values the whole text goes out as it is, which may be several statements.
        cursor = connection.execute(_translated(statement), dict(values) or None)
        if connection.is_in_doubt:
            raise RegisterBusy(f"{self.place}: somebody has cancelled the wait for a standby")
        return cursor.fetchall() if cursor.description else []

    def _connect(self, seconds: float) -> _Connection:
        made = _Connection.connect(
            self._url,
            autocommit=True,
            prepare_threshold=None,
            # libpq takes 2 at least, and waits this long for each host of the URL.
            connect_timeout=max(2, int(seconds / 2)),
            application_name="estgw",
        )
        made.deadline = time.monotonic() + seconds
        made.add_notice_handler(made.doubt)
        return made

    def _require_known(self, connection: _Connection) -> None:
        version = _version(connection)
        if version is None:
            raise RegisterUnfit(f"{self.place}: {UNFIT['42P01']}")
        try:
            schema.require_known(version)
        except schema.WrongVersion as fault:
            raise RegisterUnfit(f"{self.place}: {fault}") from None

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        """Faults of psycopg become ours; the connection is closed unless a transaction has to end first."""
        try:
            yield
        except (psycopg.Error, _TooLong) as fault:
            self.close()
            raise self._error(fault) from None
        except RegisterError:
            self.close()
            raise

    def _error(self, fault: Exception) -> RegisterError:
        state = getattr(fault, "sqlstate", None)
        words = " ".join(str(fault).split())
        if state is None:  # it never came to a server's answer, unless that refused to let us in
            state = next((state for text, state in _LOGIN.items() if text in words), None)
        if state in UNFIT:
            return RegisterUnfit(f"{self.place}: {words}; {UNFIT[state]}")
        is_lost = state is None and isinstance(fault, psycopg.OperationalError | _TooLong)
        if is_lost or BUSY.match(state or "-"):
            return RegisterBusy(f"{self.place}: {words}")
        return RegisterError(f"{self.place}: {words}")


# What libpq has no state for: the server's words while a connection is made.
_LOGIN = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "no pg_hba.conf entry": "28000",
    '" does not exist': "3D000",
}


class _TooLong(Exception):
    def __str__(self) -> str:
        return "no answer in time; a synchronous standby may be away"


class _Connection(psycopg.Connection[Any]):
    """A connection whose every wait has an end: a COMMIT waits for ever for a synchronous standby that is away."""

    deadline = float("inf")
    """By time.monotonic()."""
    is_in_doubt = False
    """Whether the server has warned that a commit may be on one disk only."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        left = self.deadline - time.monotonic()
        if timeout is None and left != float("inf"):
            timeout = max(left, 0)
        try:
            return super().wait(gen, interval, timeout)
        except Exception:
            if time.monotonic() >= self.deadline:
                raise _TooLong from None
            raise

    def doubt(self, notice: Diagnostic) -> None:
        if notice.sqlstate == SYNC_WARNING and notice.severity_nonlocalized == "WARNING":
            self.is_in_doubt = True


def _version(connection: _Connection) -> int | None:
    """The version of the tables; None where there are none."""
    if connection.execute("SELECT to_regclass('version')").fetchone() == (None,):
        return None
    found = connection.execute("SELECT number FROM version").fetchone()
    return int(found[0]) if found else None


@cache
def _translated(statement: str) -> Any:
    """`:name` as psycopg has it; our statements have no other colon and no percent sign."""
    return re.sub(r":([a-z][a-z0-9_]*)", r"%(\1)s", statement)


def shown(url: str) -> str:
    """A URL for a person: role, hosts and database."""
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        return "PostgreSQL"
    user, host, database = (parts.get(name, "?") for name in ("user", "host", "dbname"))
    return f"PostgreSQL, role {user} at {host}, database {database}"
