"""Both engines of a register: the same statements, the same promises."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.register import copying, crls, schema, sqlite
from estgw.register.engine import Engine, RegisterBusy, RegisterError, RegisterUnfit
from estgw.register.postgresql import PostgreSQL
from estgw.register.sqlite import SQLite
from tests.kit.ca import CA, root
from tests.kit.postgres import Cluster


class Place:
    """A register that can be opened several times, as several processes do."""

    def __init__(self, kind: str, folder: Path, request: pytest.FixtureRequest) -> None:
        self.kind, self.folder = kind, folder
        if kind == "PostgreSQL":
            cluster: Cluster = request.getfixturevalue("cluster")
            self.url = cluster.register()
            with closing(PostgreSQL(self.url)) as made:
                made.create()
        self._opened: list[Engine] = []

    def open(self, patience: float = 20.0, *, is_kept: bool = True) -> Any:
        engine: Engine = PostgreSQL(self.url) if self.kind == "PostgreSQL" else SQLite(self.folder / sqlite.NAME)
        engine.patience = patience
        if is_kept:
            self._opened.append(engine)
        return engine

    def close(self) -> None:
        for engine in self._opened:
            engine.close()


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(request.param, tmp_path, request)
    yield made
    made.close()


@pytest.fixture(scope="module")
def ca() -> CA:
    return root("Register CA")


def row(certificate: x509.Certificate, **changes: object) -> dict[str, object]:
    values: dict[str, object] = dict.fromkeys(schema.COLUMNS, None)
    values |= dict.fromkeys(("san", "spki_sha256", "profile", "operation", "request_id"), "x")
    values |= {
        "serial": f"{certificate.serial_number:X}",
        "status": "valid",
        "subject": certificate.subject.rfc4514_string(),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "issued_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "der": certificate.public_bytes(Encoding.DER),
        "subject_key": schema.subject_key(certificate.subject),
    }
    return values | changes


def enter(engine: Engine, certificate: x509.Certificate, **changes: object) -> None:
    columns = ", ".join(schema.COLUMNS)
    places = ", ".join(f":{column}" for column in schema.COLUMNS)
    insert = f"INSERT INTO certificates ({columns}) VALUES ({places}) ON CONFLICT (serial) DO NOTHING"
    engine.rows(insert, row(certificate, **changes))


def count(engine: Engine, table: str = "certificates") -> int:
    found: int = engine.rows(f"SELECT count(*) FROM {table}")[0][0]
    return found


def test_a_row_is_entered_once_and_read_back_as_it_was(place, ca):
    engine, certificate = place.open(), ca.issue("device-1").certificate
    for _ in range(2):
        enter(engine, certificate, san="it's 100 % :name")
    (found,) = place.open().rows("SELECT san, der, label FROM certificates WHERE serial = :serial", row(certificate))
    assert found == ("it's 100 % :name", row(certificate)["der"], None)


def test_a_transaction_that_fails_leaves_nothing(place, ca):
    engine = place.open()
    with pytest.raises(ZeroDivisionError), engine.transaction():
        enter(engine, ca.issue("device-1").certificate)
        raise ZeroDivisionError
    assert count(engine) == 0
    with pytest.raises(RegisterError), engine.transaction():
        enter(engine, ca.issue("device-1").certificate)
        engine.rows("SELECT nonsense FROM certificates")
    assert count(place.open()) == count(engine) == 0


def test_only_one_is_inside_with_one_name(place):
    inside, most = 0, 0
    guard = threading.Lock()

    def enter_alone(_: int) -> None:
        nonlocal inside, most
        with place.open().alone("one name"):
            with guard:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with guard:
                inside -= 1

    if place.kind == "SQLite":
        alone_in_processes(place.folder)
        return
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter_alone, range(16)))
    assert most == 1


def alone_in_processes(folder: Path) -> None:
    """Locks of a file are a process's, so this needs processes: each counts up, and reads what it has written."""
    (folder / "count").write_text("0")
    children = []
    for _ in range(6):
        if not (child := os.fork()):
            status = 1
            try:
                engine = SQLite(folder / sqlite.NAME)
                engine.patience = 20
                for _ in range(5):
                    with engine.alone("one name"):
                        number = int((folder / "count").read_text())
                        time.sleep(0.002)
                        (folder / "count").write_text(str(number + 1))
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    assert (folder / "count").read_text() == "30"


def test_a_name_that_is_taken_too_long_is_busy_and_another_is_free(place):
    if place.kind == "SQLite":  # a lock of a file is a process's
        reading, writing = os.pipe()
        if not (child := os.fork()):
            with SQLite(place.folder / sqlite.NAME).alone("taken"):
                os.write(writing, b"1")
                time.sleep(60)
            os._exit(0)
        os.read(reading, 1)
    else:
        child = 0
        holder = place.open().alone("taken")
        holder.__enter__()
    engine = place.open(0.3)
    began = time.monotonic()
    with pytest.raises(RegisterBusy), engine.alone("taken"):
        pytest.fail("two are inside")
    assert 0.25 < time.monotonic() - began < 10
    with place.open().alone("free"):
        pass
    if child:
        os.kill(child, 9)
        os.waitpid(child, 0)
        with place.open().alone("taken"):  # whoever is killed gives it back
            pass
    else:
        holder.__exit__(None, None, None)


def test_a_register_of_the_future_is_refused_with_the_way_out(place):
    engine = place.open()
    engine.rows("SELECT 1 FROM certificates")
    if place.kind == "SQLite":
        engine.close()
        with closing(sqlite3.connect(place.folder / sqlite.NAME)) as db:
            db.execute("PRAGMA user_version = 9")
    else:
        engine.rows("UPDATE version SET number = 9")
    with pytest.raises(RegisterUnfit, match="it is of version 9, and this estgw knows 2: upgrade estgw") as refusal:
        place.open().rows("SELECT 1 FROM certificates")
    assert refusal.value.status == os.EX_CONFIG


# CRLs.


def crl(engine: Engine, ca: CA) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl(crls.current(engine, crls.Issuer(ca.certificate, ca.key)))


def number_of(found: x509.CertificateRevocationList) -> int:
    return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def test_a_crl_is_made_when_something_was_revoked_and_its_number_grows(place, ca):
    engine, certificate = place.open(), ca.issue("device-1").certificate
    enter(engine, certificate)
    first = crl(engine, ca)
    assert abs(number_of(first) - time.time()) < 60, "numbers go on from those of before, which were seconds"
    assert crl(place.open(), ca) == first
    engine.rows(
        "UPDATE certificates SET status = 'revoked', reason = 'keyCompromise', revoked_at = '2026-01-02 03:04:05'"
    )
    second = crl(place.open(), ca)
    assert number_of(second) == number_of(first) + 1
    (entry,) = second
    assert entry.serial_number == certificate.serial_number
    assert entry.revocation_date_utc == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert second.is_signature_valid(ca.certificate.public_key())
    engine.rows("UPDATE certificates SET status = 'valid'")
    assert list(crl(engine, ca)) == []


def test_a_crl_in_the_second_half_of_its_life_is_replaced(place, ca):
    engine = place.open()
    first = crl(engine, ca)
    long_ago = (datetime.now(UTC) - timedelta(4)).isoformat()
    engine.rows("UPDATE crls SET this_update = :then, next_update = :next", {
        "then": long_ago, "next": (datetime.now(UTC) + timedelta(3)).isoformat(),
    })  # fmt: skip
    assert number_of(crl(engine, ca)) == number_of(first) + 1


def test_gateways_that_make_a_crl_at_once_make_one_of_each_number(place, ca):
    first = place.open()
    for number in range(6):
        enter(first, ca.issue(f"device-{number}").certificate, status="revoked")

    def make(_: int) -> x509.CertificateRevocationList:
        with closing(place.open(is_kept=False)) as engine:  # SQLite wants to be closed in its own thread
            return crl(engine, ca)

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(make, range(4)))
    assert {len(list(each)) for each in made} == {6}
    by_number = {number_of(each): each for each in made}
    assert all(by_number[number_of(each)] == each for each in made)
    assert count(first, "crls") == len(by_number)


# Copies, and registers of version 1.


def test_all_rows_of_a_register_are_copied_in_one_transaction(place, ca, tmp_path):
    (tmp_path / "old").mkdir()
    source = SQLite(tmp_path / "old" / sqlite.NAME)
    with closing(source):
        for number in range(copying.CHUNK + 3):
            status = "revoked" if number == 1 else "valid"
            enter(source, ca.certificate, serial=f"{number:04X}", status=status, request_key="k")
        until = int(time.time())
        for name, end in (("kept", until + 60), ("gone", until - 60)):
            kept = {"key": name, "until": end}
            source.rows("INSERT INTO kept (kind, key, value, until) VALUES ('message', :key, '', :until)", kept)
        crls.current(source, crls.Issuer(ca.certificate, ca.key))
        target = place.open()
        expected = {"certificates": copying.CHUNK + 3, "kept": 1, "requests": 0, "crls": 1}
        assert copying.copy(source, target) == expected
        # Said twice, it copies nothing twice, and what has changed there stays.
        target.rows("UPDATE certificates SET status = 'revoked' WHERE serial = '0000'")
        assert copying.copy(source, target) == dict.fromkeys(expected, 0)
        columns = f"SELECT {', '.join(schema.COLUMNS)} FROM certificates WHERE serial <> '0000' ORDER BY rowid"
        assert place.open().rows(columns) == source.rows(columns)
        assert (
            target.rows("SELECT status FROM certificates WHERE serial <= '0001' ORDER BY serial") == [("revoked",)] * 2
        )


def test_the_newest_rows_come_into_a_private_copy(place, ca, tmp_path, monkeypatch):
    if place.kind == "SQLite":
        pytest.skip("its file is copied whole")
    monkeypatch.setattr(copying, "NEWEST", 5)
    engine = place.open()
    for number in range(8):
        enter(engine, ca.certificate, serial=f"{number:04X}")
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / sqlite.NAME).write_text("of another time")
    said = copying.into_copy(place.url, folder)
    assert "its newest certificates, 5 of them" in said
    with closing(SQLite(folder / sqlite.NAME)) as made:
        assert [serial for (serial,) in made.rows("SELECT serial FROM certificates")] == [
            f"{n:04X}" for n in range(3, 8)
        ]
    assert count(engine) == 8


VERSION_1 = """
PRAGMA journal_mode = WAL;
PRAGMA user_version = 1;
CREATE TABLE certificates (
    serial       TEXT NOT NULL PRIMARY KEY,
    status       TEXT NOT NULL DEFAULT 'valid' CHECK (status IN ('valid', 'revoked')),
    revoked_at   TEXT,
    reason       TEXT,
    subject      TEXT NOT NULL,
    san          TEXT NOT NULL,
    spki_sha256  TEXT NOT NULL,
    not_before   TEXT NOT NULL,
    not_after    TEXT NOT NULL,
    profile      TEXT NOT NULL,
    operation    TEXT NOT NULL,
    label        TEXT,
    request_id   TEXT NOT NULL,
    pending_id   TEXT,
    issued_at    TEXT NOT NULL,
    der          BLOB NOT NULL
);
CREATE INDEX by_subject ON certificates (subject);
CREATE INDEX by_pending_id ON certificates (pending_id);
"""
"""As estgw 0.1.0 made it."""


def version_1(folder: Path, *certificates: x509.Certificate) -> sqlite3.Connection:
    db = sqlite3.connect(folder / sqlite.NAME, isolation_level=None)
    db.executescript(VERSION_1)
    for certificate in certificates:
        enter_as_version_1(db, certificate)
    return db


def enter_as_version_1(db: sqlite3.Connection, certificate: x509.Certificate) -> None:
    values = row(certificate)
    columns = schema.COLUMNS[:16]
    db.execute(
        f"INSERT INTO certificates ({', '.join(columns)}) VALUES ({', '.join(f':{each}' for each in columns)})",
        {column: values[column] for column in columns},
    )


def test_a_register_of_version_1_is_upgraded_when_it_is_opened_and_keeps_all(tmp_path, ca):
    issued = [ca.issue(f"device-{number}").certificate for number in range(5)]
    with closing(version_1(tmp_path, *issued)) as old:
        before = old.execute(f"SELECT {', '.join(schema.COLUMNS[:16])} FROM certificates").fetchall()
        with closing(SQLite(tmp_path / sqlite.NAME)) as engine:
            assert engine.rows(f"SELECT {', '.join(schema.COLUMNS[:16])} FROM certificates") == before
            keys = [key for (key,) in engine.rows("SELECT subject_key FROM certificates ORDER BY rowid")]
            assert keys == [schema.subject_key(each.subject) for each in issued]
            # A program of version 1 that still runs goes on.
            enter_as_version_1(old, late := ca.issue("late").certificate)
            assert engine.rows("SELECT subject_key FROM certificates WHERE subject = 'CN=late'") == [("",)]
            assert engine.rows("SELECT der FROM certificates ORDER BY rowid DESC LIMIT 1")[0][0] == row(late)["der"]


def test_of_two_processes_that_upgrade_at_once_one_does_it(tmp_path, ca):
    version_1(tmp_path, *(ca.issue(f"device-{number}").certificate for number in range(20))).close()
    with ThreadPoolExecutor(4) as pool:

        def open_it(_: int) -> int:
            with closing(SQLite(tmp_path / sqlite.NAME)) as engine:
                return count(engine)

        assert list(pool.map(open_it, range(4))) == [20] * 4


def test_equal_names_have_equal_keys():
    names = [x509.Name.from_rfc4514_string(text) for text in ("CN=Zoë  Doe,O=x", "CN=ZOË DOE,O=X")]
    assert len({schema.subject_key(name) for name in names}) == 1
    assert schema.subject_key(x509.Name.from_rfc4514_string("CN=Zoë Doe")) != schema.subject_key(names[0])
