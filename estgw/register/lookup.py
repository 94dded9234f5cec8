"""What a CA's registers know: that of `openssl ca` with its archives, and that of handlers/python."""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from estgw.callout import shortage
from estgw.errors import Malformed
from estgw.est import certs, names
from estgw.est import csr as csrs
from estgw.est.csr import CSR

INDEX, ARCHIVES, ISSUED = "index.txt", "index-archive", "newcerts"
"""Where `openssl ca` keeps its index, openssl-ca/rotate the older rows, and both the certificates."""

STORE = "certs.sqlite"
"""The register of handlers/python; `store.py` there has its schema."""

MOST = 1000
"""So many certificates of a register are looked at; a row that can't have the name wanted costs next to nothing."""


def newest_valid(ca_dir: Path, csr: CSR) -> x509.Certificate | None:
    """The newest certificate with the CSR's subject and SAN that is valid now and not revoked.

    Blocks while it reads.  Raises `sqlite3.Error` when there is a store that can't be read, and OSError where the
    machine has no descriptor or no memory left to read with.
    """
    now = datetime.now(UTC)
    wanted = _Subject(csr.subject)
    index = ca_dir / INDEX
    current = _read(index if index.exists() else index.with_suffix(".txt.old"))  # for a moment that is the only one
    revoked = {row[3] for row in map(_fields, current.splitlines()) if row[0] == b"R"}
    found = []
    for register in (_index(ca_dir, current, wanted), _store(ca_dir / STORE, revoked, wanted)):
        for certificate in itertools.islice(register, MOST):
            valid = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
            if valid and csrs.difference(csr, certificate) is None:
                found.append(certificate)
                break
    return max(found, key=lambda one: one.not_valid_before_utc, default=None)


class _Subject:
    """Rules out what a register says plainly to be another's subject; the certificate decides."""

    def __init__(self, name: x509.Name) -> None:
        values = {value for rdn in names.name_key(name) for _, value in rdn if not value.startswith("#")}
        self.is_ascii = all(map(str.isascii, values))
        """Where one is not, an ASCII subject is another's."""
        runs = [max(re.findall(r"[a-z0-9.-]+", value), key=len, default="")[:100] for value in values]
        self.needles = sorted(runs, key=len)[-8:]
        """What each ASCII subject of that name has in it, but for case: few and short, as SQLite has a limit."""
        self._values = [f"={_joined(value)}" for value in sorted(values, key=len)[-8:]]
        """The longest ones: to look for each of thousands in thousands would take the square of a subject's length."""

    def may_be(self, subject: str) -> bool:
        """Whether all values are in a subject as a register has it, its escapes undone; with a zero in it, yes."""
        folded = f"{_joined(names.fold(subject))}/"  # so that the last value has an end
        return "\0" in subject or all(any(value + end in folded for end in "/,+") for value in self._values)


def _joined(text: str) -> str:
    """Without the white space around signs that part values: there may be more of it in a certificate."""
    return re.sub(r" ?([=/,+]) ?", r"\1", text)


def _index(ca_dir: Path, current: bytes, wanted: _Subject) -> Iterator[x509.Certificate]:
    """The certificates of the index that may be wanted, newest first.

    A certificate that was revoked after its row had gone to an archive has another row in `index.txt`, which counts.
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
    """The six fields of a row; all empty where there are not as many."""
    fields = line.split(b"\t")
    return fields if len(fields) == 6 else [b""] * 6


def _of_index(subject: bytes) -> str:
    r"""Undo what the index does: every byte but printable ASCII is \xC3 there.

    What has two or four bytes a character comes out with zeros in it, and what is no UTF-8 as one zero.
    """
    try:
        return re.sub(rb"\\x([0-9A-F]{2})", lambda match: bytes.fromhex(match[1].decode()), subject).decode()
    except UnicodeDecodeError:
        return "\0"


def _of_store(subject: str) -> str:
    """Undo the escapes of RFC 4514 2.4: a backslash before a character, or before two digits for each byte of one."""
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


def _store(path: Path, revoked: set[bytes], wanted: _Subject) -> Iterator[x509.Certificate]:
    """The certificates of the store that may be wanted, newest first."""
    if not path.exists():
        return
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        # The sign before rowid makes it walk through the subjects alone, which are an index, not through the table.
        plain = " AND ".join(["?", *["subject LIKE ?"] * len(wanted.needles)])
        where = f"WHERE {plain} OR subject GLOB '*[^ -~]*' OR instr(subject, char(92))"  # a backslash
        rows = f"SELECT rowid, subject FROM certificates {where} ORDER BY +rowid DESC"  # noqa: S608  # all ours
        for number, subject in db.execute(rows, [wanted.is_ascii, *(f"%{needle}%" for needle in wanted.needles)]):
            if not wanted.may_be(_of_store(subject)):
                continue
            found = db.execute("SELECT serial, der FROM certificates WHERE rowid = ? AND status = 'valid'", [number])
            for serial, der in found:
                if serial.encode() not in revoked:
                    yield x509.load_der_x509_certificate(der)
