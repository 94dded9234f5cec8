"""Named locks: one holder at a time, within a process and across processes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import subprocess
import sys
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from estgw.callout.named_locks import NamedLocks
from tests.kit.processes import DEADLINE, ROOT, until

# Takes the lock many times, from several tasks at once, and writes down each holder.
CLIENT = """
import asyncio, sys
from pathlib import Path
from estgw.callout.named_locks import NamedLocks

async def main():
    name, directory, book, times = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    locks = NamedLocks(directory)
    print("ready", flush=True)
    sys.stdin.readline()
    async def once():
        async with locks.take("ca"):
            with book.open("a") as file:
                file.write(f"+{name} ")
                file.flush()
                await asyncio.sleep(0.002)
                file.write(f"-{name} ")
    await asyncio.gather(*(once() for _ in range(times)))

asyncio.run(main())
"""


def client(name: str, directory: Path, book: Path, times: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CLIENT, name, str(directory), str(book), str(times)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def lock_gate(folder: Path) -> int:
    """Lock the gate of `ca`. Closing the descriptor unlocks it."""

    async def once() -> None:
        async with NamedLocks(folder).take("ca"):
            pass

    asyncio.run(once())
    (file,) = folder.glob("*.gate")
    descriptor = os.open(file, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def waiting_for(descriptor: int) -> int:
    """The number of processes that the kernel has queued for a lock."""
    inode = os.fstat(descriptor).st_ino
    return len(re.findall(rf"-> FLOCK .*:{inode} ", Path("/proc/locks").read_text()))


def test_processes_hold_a_named_lock_one_at_a_time_and_fairly(tmp_path):
    book, times = tmp_path / "book", 40
    folder = tmp_path / "locks"
    folder.mkdir()
    clients = [client(name, folder, book, times) for name in "abc"]
    gate = lock_gate(folder)
    try:
        for each in clients:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in clients:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        until(lambda: waiting_for(gate) == 3)
        os.close(gate)
        assert [each.wait(DEADLINE) for each in clients] == [0, 0, 0]
    finally:
        for each in clients:
            each.kill()
            each.communicate()
    words = book.read_text().split()
    assert [word[0] for word in words] == ["+", "-"] * (3 * times)
    holders = [word[1] for word in words if word[0] == "+"]
    assert {name: holders.count(name) for name in "abc"} == dict.fromkeys("abc", times)
    # All processes wait all the time, so a process that has had the lock must let the others go first.
    longest, run, before = 0, 0, ""
    for name in holders[: 2 * times]:
        run, before = (run + 1 if name == before else 1), name
        longest = max(longest, run)
    assert longest < times / 2


@pytest.fixture
def locked_gate(tmp_path: Path) -> int:
    """The gate of `ca`, locked by another holder."""
    return lock_gate(tmp_path)


def test_a_cancelled_waiter_leaves_nothing_locked(tmp_path, locked_gate):
    async def play() -> None:
        locks = NamedLocks(tmp_path)
        waiting = asyncio.create_task(_take(locks))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        os.close(locked_gate)
        async with asyncio.timeout(DEADLINE), locks.take("ca"):
            pass

    asyncio.run(play())
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "turn"])


def test_a_waiter_may_outlive_its_event_loop(tmp_path, locked_gate):
    async def play() -> None:
        waiting = asyncio.create_task(_take(NamedLocks(tmp_path)))
        await asyncio.sleep(0.05)
        waiting.cancel()

    asyncio.run(play())
    os.close(locked_gate)
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "turn"])


async def _take(locks: NamedLocks) -> None:
    async with locks.take("ca"):
        pass


def test_different_names_have_different_locks(tmp_path):
    async def play() -> None:
        locks = NamedLocks(tmp_path)
        async with AsyncExitStack() as stack, asyncio.timeout(DEADLINE):
            for name in ("ca", "../ca", "", "c\0a", "x" * 5000, "\udc80"):
                await stack.enter_async_context(locks.take(name))

    asyncio.run(play())
    assert len(list(tmp_path.glob("*.lock"))) == 6
