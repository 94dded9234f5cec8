"""Open the register of a CA: SQLite beside the CA, or PostgreSQL for several gateways.

Theory of operation.  The statements are plain SQL, one text for both, with `:names` as SQLite has them.  Each statement
is a transaction of its own.  Every decision rests on a unique key, on one conditional statement, or on a lock by name
(`alone`), so READ COMMITTED is enough and nothing is repeated for serialization.

A connection stays open as long as its process, which for a worker of the runner `pool` is many requests, and is never
used after a fork.  A statement whose connection to PostgreSQL is lost is said once more on a new one: each of ours may
be said twice.  Inside a transaction it is not, because what came before it is lost.  Where it is not known whether a
commit has happened, the client is told to come back, and finds what it got by EST_PENDING_ID.
"""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path

from estgw.register.engine import Engine, RegisterUnfit
from estgw.register.sqlite import NAME, SQLite


def open_register(url: str | None, folder: Path, patience: float) -> Engine:
    """The register of a CA: `postgresql://...`, or `certs.sqlite` in its directory if there is no URL.

    `patience` is how many seconds a statement may take.  Each thread of a process has one connection to a register, as
    SQLite loses its locks on a file of which another descriptor is closed.  Raises `RegisterUnfit` where psycopg is
    missing.
    """
    which = (os.getpid(), threading.get_ident(), url or str(folder.absolute()))
    engine = _open.get(which)
    if engine is None:
        engine = _open[which] = connect(url) if url else SQLite(folder.absolute() / NAME)
    engine.patience = patience
    return engine


_open: dict[tuple[int, int, str], Engine] = {}


def connect(url: str) -> Engine:
    """A register in PostgreSQL, which the caller closes.  Raises `RegisterUnfit` where psycopg is missing."""
    try:
        from estgw.register import postgresql  # psycopg takes 0.2 s to import, and one machine does not need it
    except ImportError as fault:
        raise RegisterUnfit(
            f"a register in PostgreSQL needs psycopg: pip install 'estgw[postgres]' ({fault})"
        ) from None
    return postgresql.PostgreSQL(url)


@atexit.register
def close_all() -> None:
    """Close what this process has opened."""
    for (pid, thread, _), engine in list(_open.items()):
        if (pid, thread) == (os.getpid(), threading.get_ident()):
            engine.close()
