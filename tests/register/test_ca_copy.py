"""A copy of a CA's directory: complete, private, bounded, and without changes to the CA itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sqlite3
import stat
from pathlib import Path

import pytest

from estgw.errors import ConfigError
from estgw.register import ca_copy
from estgw.register.ca_copy import copy_ca


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    folder = tmp_path / "ca"
    (folder / "private").mkdir(parents=True)
    (folder / "newcerts").mkdir()
    (folder / "cacert.pem").write_text("certificate")
    (folder / "private/cakey.pem").write_text("key")
    (folder / "private/cakey.pem").chmod(0o600)
    (folder / "index.txt").write_text("V\t\n")
    (folder / "ca.lock").touch()
    (folder / "revoke").write_text("#!/bin/sh\n")
    (folder / "revoke").chmod(0o755)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(ca: Path, target: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        copy_ca(ca, target)
    return str(refused.value)


def test_a_copy_has_every_file_and_is_private(ca, tmp_path):
    assert copy_ca(ca, tmp_path / "copy") == []
    assert contents(tmp_path / "copy") == contents(ca)
    for path in (tmp_path / "copy").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert os.access(tmp_path / "copy/revoke", os.X_OK)
    assert (tmp_path / "copy/index.txt").stat().st_mtime_ns == (ca / "index.txt").stat().st_mtime_ns


def test_secrets_for_other_machines_are_left_out_and_reported(ca, tmp_path):
    (ca / "secrets").mkdir()
    (ca / "secrets/token").write_text("s.secret")
    (ca / "more").mkdir()
    left_out = copy_ca(ca, tmp_path / "copy")
    assert left_out == [f"{ca}/secrets: left out of the copy, as scripts could issue elsewhere with it"]
    assert (tmp_path / "copy/more").is_dir()
    assert not (tmp_path / "copy/secrets").exists()


def test_writing_to_the_copy_does_not_change_the_ca(ca, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "anchors.pem").write_text("anchors")
    (ca / "anchors.pem").symlink_to(outside / "anchors.pem")
    (ca / "more").symlink_to(outside)
    copy_ca(ca, tmp_path / "copy")
    (tmp_path / "copy/anchors.pem").write_text("spoilt")
    (tmp_path / "copy/more/anchors.pem").write_text("spoilt")
    (tmp_path / "copy/index.txt").write_text("spoilt")
    assert (outside / "anchors.pem").read_text() == "anchors"
    assert (ca / "index.txt").read_text() == "V\t\n"


def test_sockets_pipes_and_loops_are_left_out_and_reported(ca, tmp_path, monkeypatch):
    os.mkfifo(ca / "pipe")
    (ca / "newcerts/loop").symlink_to(ca)
    (ca / "gone").symlink_to("nowhere")
    monkeypatch.chdir(ca)  # the path of a socket must be short
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind("hsm")
        left_out = copy_ca(ca, tmp_path / "copy")
    assert left_out == [
        f"{ca}/hsm: a socket, no file; left out of the copy",
        f"{ca}/pipe: a named pipe, no file; left out of the copy",
        f"{ca}/newcerts/loop: leads back to a directory above it; left out of the copy",
    ]
    assert {path.name for path in (tmp_path / "copy").iterdir()} >= {"index.txt", "newcerts"}


def test_a_ca_that_is_too_large_is_refused_with_the_bound(ca, tmp_path, monkeypatch):
    monkeypatch.setattr(ca_copy, "MOST_BYTES", 1 << 20)
    with (ca / "huge").open("wb") as file:
        file.truncate(1 << 30)
    assert refusal(ca, tmp_path / "copy") == (
        f"{ca}: more than 50000 files or 1 MiB, too much to copy; try the script with a smaller CA"
    )
    assert sum(path.stat().st_size for path in (tmp_path / "copy").rglob("*")) < 4 << 20, "it was not copied whole"
    (ca / "huge").unlink()
    monkeypatch.setattr(ca_copy, "MOST_FILES", 20)
    for number in range(30):
        (ca / f"newcerts/{number}.pem").touch()
    assert "more than 20 files" in refusal(ca, tmp_path / "another")


def test_a_missing_ca_is_refused_with_its_path(tmp_path):
    assert refusal(tmp_path / "none", tmp_path / "copy") == (
        f"{tmp_path}/none: No such file or directory; the CA was not copied"
    )


def test_a_ca_whose_lock_is_taken_is_busy(ca, tmp_path, monkeypatch):
    monkeypatch.setattr(ca_copy, "PATIENCE", 0.1)
    with (ca / "ca.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert refusal(ca, tmp_path / "copy") == f"{ca}: the CA is busy: its lock is taken; try again"
    copy_ca(ca, tmp_path / "another")


def register(path: Path) -> sqlite3.Connection:
    """A register with one row, as handlers/python has it."""
    made = sqlite3.connect(path, isolation_level=None)
    made.executescript("PRAGMA journal_mode = WAL; CREATE TABLE certificates (serial TEXT)")
    made.execute("INSERT INTO certificates VALUES ('1')")
    return made


def serials(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return [serial for (serial,) in db.execute("SELECT serial FROM certificates ORDER BY serial")]


def test_an_open_register_is_copied_with_its_last_committed_row(ca, tmp_path):
    with contextlib.closing(register(ca / "certs.sqlite")) as db:
        db.execute("INSERT INTO certificates VALUES ('2')")
        assert (ca / "certs.sqlite-wal").stat().st_size, "the rows are not in the file itself"
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO certificates VALUES ('3')")
        copy_ca(ca, tmp_path / "copy")
        db.execute("COMMIT")
    assert serials(tmp_path / "copy/certs.sqlite") == ["1", "2"]
    assert serials(ca / "certs.sqlite") == ["1", "2", "3"]


def test_a_closed_register_is_copied_without_changes_to_the_ca(ca, tmp_path):
    register(ca / "certs.sqlite").close()
    before = contents(ca)
    copy_ca(ca, tmp_path / "copy")
    assert serials(tmp_path / "copy/certs.sqlite") == ["1"]
    assert contents(ca) == before


def test_the_register_of_a_killed_process_is_copied_with_its_last_row(ca, tmp_path):
    """A kill leaves rows in the -wal, and no process has the file open."""
    (tmp_path / "other").mkdir()
    with contextlib.closing(register(tmp_path / "other/certs.sqlite")):
        for name in ("certs.sqlite", "certs.sqlite-wal"):
            (ca / name).write_bytes((tmp_path / "other" / name).read_bytes())
    before = contents(ca)
    copy_ca(ca, tmp_path / "copy")
    assert contents(ca) == before
    assert serials(tmp_path / "copy/certs.sqlite") == ["1"]


def test_a_register_that_changes_all_the_time_is_busy(ca, tmp_path, monkeypatch):
    register(ca / "certs.sqlite").close()
    stamps = iter(range(1000))
    monkeypatch.setattr(ca_copy, "_stamps", lambda _: [(next(stamps), 0, 0)])
    monkeypatch.setattr(ca_copy, "PAUSE", 0)
    assert "the register is busy" in refusal(ca, tmp_path / "copy")
