"""Copy the rows of one register to another, whatever their engines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from estgw.register import engines, schema, sqlite
from estgw.register.engine import Engine

CHUNK = 500
"""Rows that are read at once."""
NEWEST = 10_000
"""Certificates that a private copy of a CA gets."""
PATIENCE = 30.0

TABLES: Mapping[str, tuple[str, ...]] = {
    "certificates": schema.COLUMNS,
    "kept": ("kind", "key", "value", "until", "owner"),
    "requests": ("id", "state", "facts", "csr", "owner", "reason", "serial", "since", "changed"),
    "crls": ("number", "this_update", "next_update", "der"),
}


def copy(source: Engine, target: Engine, newest: int | None = None) -> dict[str, int]:
    """Copy all rows in one transaction, or none; returns how many of each table the target did not have.

    `newest` bounds the certificates.  A row that the target has already stays as it is there.  Raises `RegisterError`.
    """
    with target.transaction():
        return {
            "certificates": _certificates(source, target, newest),
            "kept": _all(source, target, "kept", "WHERE until > :now"),
            "requests": _all(source, target, "requests"),  # after the certificates that they name
            "crls": _all(source, target, "crls"),
        }


def into_copy(url: str, folder: Path) -> str:
    """Put the newest certificates of a register into a private copy of its CA's directory; a sentence about that.

    Raises `RegisterError`.
    """
    for file in folder.glob(f"{sqlite.NAME}*"):  # of a time before the register was elsewhere
        file.unlink()
    source = engines.open_register(url, folder, PATIENCE)
    target = sqlite.SQLite(folder.absolute() / sqlite.NAME)
    try:
        number = copy(source, target, NEWEST)["certificates"]
    finally:
        target.close()
    return f"the scripts get a copy of the register too, not {source.place}: its newest certificates, {number} of them"


def _certificates(source: Engine, target: Engine, newest: int | None) -> int:
    number, last = 0, 0
    if newest is not None:
        last = int(source.rows("SELECT coalesce(max(rowid), 0) FROM certificates")[0][0]) - newest
    columns = ", ".join(schema.COLUMNS)
    query = f"SELECT rowid, {columns} FROM certificates WHERE rowid > :last ORDER BY rowid LIMIT {CHUNK}"  # noqa: S608
    while rows := source.rows(query, {"last": last}):
        for row in rows:
            number += _insert(target, "certificates", _with_key(row[1:]))
        last = rows[-1][0]
    return number


def _with_key(row: tuple[object, ...]) -> tuple[object, ...]:
    """A row of certificates with its subject_key, which a program of version 1 does not write."""
    values = dict(zip(schema.COLUMNS, row, strict=True))
    der = values["der"]
    if values["subject_key"] == "" and isinstance(der, bytes):
        values["subject_key"] = schema.key_of_certificate(der)
    return tuple(values.values())


def _all(source: Engine, target: Engine, table: str, where: str = "") -> int:
    query = f"SELECT {', '.join(TABLES[table])} FROM {table} {where}"  # noqa: S608
    return sum(_insert(target, table, row) for row in source.rows(query, {"now": int(time.time())}))


def _insert(target: Engine, table: str, row: tuple[object, ...]) -> int:
    """Whether the row was new."""
    columns = TABLES[table]
    places = ", ".join(f":{column}" for column in columns)
    insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}) ON CONFLICT DO NOTHING RETURNING 1"  # noqa: S608
    return len(target.rows(insert, dict(zip(columns, row, strict=True))))
