"""Look up certificates in a CA's registers: the index of `openssl ca`, its archives, and handlers/python's store."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from estgw.callout import shortage
from estgw.errors import Malformed
from estgw.est import certs, names
from estgw.est import csr as csrs
from estgw.est.csr import CSR
from estgw.register import engines, schema, sqlite
from estgw.register.engine import Engine

INDEX, ARCHIVES, ISSUED = "index.txt", "index-archive", "newcerts"
"""The index of `openssl ca`, the directory of openssl-ca/rotate for older rows, and the directory of certificates."""

STORE = sqlite.NAME
"""The register of handlers/python."""

PATIENCE = 5.0
"""Seconds in which a register must answer."""

MOST = 1000
"""Certificates of a register that are read at most.  Rows with another subject do not count and cost almost nothing."""


def newest_valid(ca_dir: Path, csr: CSR, url: str | None = None) -> x509.Certificate | None:
    """Return the newest certificate with the CSR's subject and SAN that is valid now and not revoked, or None.

    `url` is that of the register, if it is not `certs.sqlite`.  Blocks while it reads.  Raises
    `RegisterError` for a register that can't be read, and OSError if the machine has no descriptor or no memory left.
    """
    now = datetime.now(UTC)
    wanted = _Subject(csr.subject)
    index = ca_dir / INDEX
    # `openssl ca` renames its files: for a moment only index.txt.old exists.
    current = _read(index if index.exists() else index.with_suffix(".txt.old"))
    revoked = {row[3] for row in map(_fields, current.splitlines()) if row[0] == b"R"}
    found = []
    with contextlib.ExitStack() as opened:
        registers = [_index(ca_dir, current, wanted)]
        if url is not None or (ca_dir / STORE).exists():
            engine = opened.enter_context(contextlib.closing(_opened(ca_dir, url)))
            has_keys = url is not None or engine.rows("PRAGMA user_version")[0][0] > 1
            registers += [_store(engine, csr, revoked)] if has_keys else []
            registers += [_store_without_keys(engine, wanted, revoked, "subject_key = ''" if has_keys else "1 = 1")]
        for register in registers:
            for certificate in itertools.islice(register, MOST):
                valid = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
                if valid and csrs.difference(csr, certificate) is None:
                    found.append(certificate)
                    break
    return max(found, key=lambda one: one.not_valid_before_utc, default=None)


class _Subject:
    """Excludes rows of a register whose subject is certainly another one.  For the others the certificate decides."""

    def __init__(self, name: x509.Name) -> None:
        values = {value for rdn in names.name_key(name) for _, value in rdn if not value.startswith("#")}
        self.is_ascii = all(map(str.isascii, values))
        """If False, a subject in ASCII is another one."""
        runs = [max(re.findall(r"[a-z0-9.-]+", value), key=len, default="")[:100] for value in values]
        self.needles = sorted(runs, key=len)[-8:]
        """Strings that each ASCII subject of that name contains, in any case.  Few and short, as SQLite has a limit."""
        self._values = [f"={_joined(value)}" for value in sorted(values, key=len)[-8:]]
        """The longest values, a few only: a search for each of thousands would take quadratic time."""

    def may_be(self, subject: str) -> bool:
        """Whether all values are in a register's subject, whose escapes are undone.  True for one with a NUL in it."""
        folded = f"{_joined(names.fold(subject))}/"  # the slash ends the last value
        return "\0" in subject or all(any(value + end in folded for end in "/,+") for value in self._values)


def _joined(text: str) -> str:
    """Remove the white space around separators, since a certificate may have more of it."""
    return re.sub(r" ?([=/,+]) ?", r"\1", text)


def _index(ca_dir: Path, current: bytes, wanted: _Subject) -> Iterator[x509.Certificate]:
    """The certificates of the index that may have the wanted subject, newest first.

    A certificate that was revoked after its row was archived has a second row in `index.txt`, which counts.
    """
    serials = {_fields(line)[3] for line in current.splitlines()}
    yield from _certificates(ca_dir, current, wanted, set())
    for path in sorted((ca_dir / ARCHIVES).glob("[0-9]*.txt"), reverse=True):
        yield from _certificates(ca_dir, _read(path), wanted, serials)


def _certificates(ca_dir: Path, rows: bytes, wanted: _Subject, known: set[bytes]) -> Iterator[x509.Certificate]:
    needles = [needle.encode() for needle in wanted.needles]

    def hopeless(text: bytes) -> bool:
        plain = text.lower()
        return b"\\" not in text and not (wanted.is_ascii and all(needle in plain for needle in needles))

    for line in () if hopeless(rows) else reversed(rows.splitlines()):
        if hopeless(line):
            continue
        status, _, _, serial, _, subject = _fields(line)
        if status != b"V" or not serial.isalnum() or serial in known or not wanted.may_be(_of_index(subject)):
            continue
        try:
            yield certs.load_pem((ca_dir / ISSUED / f"{serial.decode()}.pem").read_bytes())[0]
        except (OSError, Malformed, IndexError) as fault:
            if shortage.words(fault):
                raise


def _fields(line: bytes) -> list[bytes]:
    """The six fields of a row; six empty ones if the row has another number."""
    fields = line.split(b"\t")
    return fields if len(fields) == 6 else [b""] * 6


def _of_index(subject: bytes) -> str:
    r"""Undo the escapes of the index, where each byte that is not printable ASCII has the form \xC3.

    A string with two or four bytes for each character comes out with NULs in it, one that is not UTF-8 as a single NUL.
    """
    try:
        return re.sub(rb"\\x([0-9A-F]{2})", lambda match: bytes.fromhex(match[1].decode()), subject).decode()
    except UnicodeDecodeError:
        return "\0"


def _of_store(subject: str) -> str:
    """Undo the escapes of RFC 4514 2.4: a backslash before a character, or before the two hex digits of each byte."""
    return re.sub(r"((?:\\[0-9A-F]{2})+)|\\(.)", _char, subject)


def _char(escaped: re.Match[str]) -> str:
    return escaped[2] or bytes.fromhex(escaped[1].replace("\\", "")).decode(errors="replace")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        if shortage.words(fault):
            raise
        return b""


def _opened(ca_dir: Path, url: str | None) -> Engine:
    """A connection of its own, since a thread of the gateway asks; a dry run, too, so it changes nothing."""
    file = ca_dir.absolute() / STORE
    engine = sqlite.SQLite(file, is_read_only=True) if url is None else engines.connect(url)
    engine.patience = PATIENCE
    return engine


def _store(engine: Engine, csr: CSR, revoked: set[bytes]) -> Iterator[x509.Certificate]:
    """The certificates of the register that have the wanted subject, newest first."""
    query = "SELECT serial, der FROM certificates WHERE subject_key = :key AND status = 'valid' ORDER BY rowid DESC"
    for serial, der in engine.rows(f"{query} LIMIT {MOST}", {"key": schema.subject_key(csr.subject)}):
        if serial.encode() not in revoked:
            yield x509.load_der_x509_certificate(der)


def _store_without_keys(
    engine: Engine, wanted: _Subject, revoked: set[bytes], which: str
) -> Iterator[x509.Certificate]:
    """The same of the rows that a program of version 1 has entered, before the register was upgraded or since."""
    query = f"SELECT rowid, subject FROM certificates WHERE {which} ORDER BY rowid DESC"  # noqa: S608
    for number, subject in engine.rows(query):
        if not wanted.may_be(_of_store(subject)):
            continue
        one = "SELECT serial, der FROM certificates WHERE rowid = :number AND status = 'valid'"
        for serial, der in engine.rows(one, {"number": number}):
            if serial.encode() not in revoked:
                yield x509.load_der_x509_certificate(der)
