"""One at a time of a name, within a process and over several."""

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

# Takes the turn so many times, by several at once, and writes down who had it.
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


def shut(folder: Path) -> int:
    """Shut the gate before the turn of `ca`; it opens when this is closed."""

    async def once() -> None:
        async with NamedLocks(folder).take("ca"):
            pass

    asyncio.run(once())
    (file,) = folder.glob("*.gate")
    descriptor = os.open(file, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def waiting_for(descriptor: int) -> int:
    """How many processes the kernel has queued for a lock."""
    inode = os.fstat(descriptor).st_ino
    return len(re.findall(rf"-> FLOCK .*:{inode} ", Path("/proc/locks").read_text()))


def test_over_processes_one_at_a_time_and_nobody_is_passed_over(tmp_path):
    book, times = tmp_path / "book", 40
    folder = tmp_path / "locks"
    folder.mkdir()
    clients = [client(name, folder, book, times) for name in "abc"]
    gate = shut(folder)
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
    # All of them wait all the time: whoever has had a turn lets the others go first.
    longest, run, before = 0, 0, ""
    for name in holders[: 2 * times]:
        run, before = (run + 1 if name == before else 1), name
        longest = max(longest, run)
    assert longest < times / 2


@pytest.fixture
def taken(tmp_path: Path) -> int:
    """The gate before the turn of `ca`, shut by somebody else."""
    return shut(tmp_path)


def test_who_gives_up_waiting_leaves_nothing_locked(tmp_path, taken):
    async def play() -> None:
        locks = NamedLocks(tmp_path)
        waiting = asyncio.create_task(_take(locks))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        os.close(taken)
        async with asyncio.timeout(DEADLINE), locks.take("ca"):
            pass

    asyncio.run(play())
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "turn"])


def test_a_loop_that_ends_meanwhile_is_no_matter(tmp_path, taken):
    async def play() -> None:
        waiting = asyncio.create_task(_take(NamedLocks(tmp_path)))
        await asyncio.sleep(0.05)
        waiting.cancel()

    asyncio.run(play())
    os.close(taken)
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "turn"])


async def _take(locks: NamedLocks) -> None:
    async with locks.take("ca"):
        pass


def test_names_are_apart_whatever_they_are(tmp_path):
    async def play() -> None:
        locks = NamedLocks(tmp_path)
        async with AsyncExitStack() as stack, asyncio.timeout(DEADLINE):
            for name in ("ca", "../ca", "", "c\0a", "x" * 5000, "\udc80"):
                await stack.enter_async_context(locks.take(name))

    asyncio.run(play())
    assert len(list(tmp_path.glob("*.lock"))) == 6
