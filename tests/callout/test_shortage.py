"""Which errors count as a shortage of the machine."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import sqlite3
import threading
from pathlib import Path

import pytest

from estgw.callout import scratch, shortage, spawn
from estgw.callout.named_locks import NamedLocks
from estgw.callout.process import CouldNotStart, Limits

LIMITS = Limits(5, 1 << 20, 1 << 16)


def sqlite_fault(kind: str) -> sqlite3.Error:
    fault = sqlite3.OperationalError("it is full")
    fault.sqlite_errorname = kind
    return fault


@pytest.mark.parametrize(
    ("fault", "thing", "way_out"),
    [
        (OSError(errno.EMFILE, "x"), "descriptor", "ulimit -n"),
        (OSError(errno.ENFILE, "x"), "descriptor", "fs.file-max"),
        (OSError(errno.ENOSPC, "x", "/dev/shm/a"), "space", "make room"),
        (OSError(errno.EDQUOT, "x"), "quota", "make room"),
        (OSError(errno.EAGAIN, "x"), "process or thread", "ulimit -u"),
        (OSError(errno.ENOMEM, "x"), "memory", "max_running"),
        (RuntimeError("can't start new thread"), "process or thread", "ulimit -u"),
        (MemoryError(), "memory", "max_running"),
        (sqlite_fault("SQLITE_FULL"), "space", "make room"),
        (sqlite_fault("SQLITE_NOMEM"), "memory", "max_running"),
        (CouldNotStart.by(Path("/x"), OSError(errno.EAGAIN, "x")), "process or thread", "ulimit -u"),
    ],
)
def test_a_shortage_is_named_with_its_remedy(fault, thing, way_out):
    words = shortage.words(fault)
    assert words is not None
    assert thing in words
    assert way_out in words


def test_the_words_for_a_full_device_name_its_path():
    assert "(/dev/shm/a)" in str(shortage.words(OSError(errno.ENOSPC, "x", "/dev/shm/a")))


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOENT, "x"), OSError("no number"), RuntimeError("a bug"), KeyError("x"), CouldNotStart("x"),
        CouldNotStart.by(Path("/x"), OSError(errno.ENOENT, "x")), sqlite_fault("SQLITE_CORRUPT"), None,
    ],
)  # fmt: skip
def test_other_faults_are_no_shortage(fault):
    assert shortage.words(fault) is None


def test_the_same_shortage_is_reported_once(capsys):
    assert shortage.report("a test", OSError(errno.EMFILE, "x"))
    assert shortage.report("a test", OSError(errno.EMFILE, "x"))
    assert shortage.report("a test", OSError(errno.ENFILE, "x"))
    assert not shortage.report("a test", OSError(errno.ENOENT, "x"))
    out = capsys.readouterr()
    assert len(re.findall("a test", out.out + out.err)) == 2


# Where shortages arise.


def test_a_program_that_gets_no_process_is_reported_as_a_shortage(monkeypatch):
    def none_left(*_: object, **__: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "posix_spawn", none_left)
    with pytest.raises(CouldNotStart, match="Resource temporarily unavailable") as caught:
        asyncio.run(spawn.run(Path("/bin/true"), {}, b"", LIMITS))
    assert "process" in str(shortage.words(caught.value))


def test_a_program_that_cannot_be_watched_is_killed_and_collected(monkeypatch):
    spawned: list[int] = []
    posix_spawn = os.posix_spawn

    def noting(*arguments: object, **options: object) -> int:
        spawned.append(posix_spawn(*arguments, **options))  # type: ignore[arg-type]
        return spawned[-1]

    def none_left(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "posix_spawn", noting)
    monkeypatch.setattr(os, "pidfd_open", none_left)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(CouldNotStart) as caught:
        asyncio.run(spawn.run(Path("/bin/cat"), {}, b"", LIMITS))
    assert "descriptor" in str(shortage.words(caught.value))
    with pytest.raises(ChildProcessError):
        os.waitpid(spawned[0], os.WNOHANG)
    assert set(os.listdir("/proc/self/fd")) <= before


def none_started(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_the_directory_of_a_request_is_removed_without_a_thread(monkeypatch, tmp_path):
    directory = tmp_path / "request"
    directory.mkdir()
    for number in range(scratch.FEW + 5):
        (directory / f"{number}").touch()

    async def scene() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none_started)
            await scratch.remove(directory)

    asyncio.run(scene())
    assert not directory.exists()


def test_a_lock_that_gets_no_thread_to_wait_leaves_no_descriptor(monkeypatch, tmp_path):
    async def scene() -> None:
        first, second = NamedLocks(tmp_path), NamedLocks(tmp_path)
        async with first.take("x"):
            before = set(os.listdir("/proc/self/fd"))
            monkeypatch.setattr(threading.Thread, "start", none_started)
            with pytest.raises(RuntimeError):
                async with second.take("x"):
                    pass
            assert set(os.listdir("/proc/self/fd")) == before

    asyncio.run(scene())
