"""One at a time of a name: in this process, and in all that share a directory with it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path


class Turns:
    """Turns by name, first come, first served within a process, and no process is passed over."""

    def __init__(self, directory: Path | None = None) -> None:
        """`directory` is there for as long as any of the processes that share it; without one there is only ours."""
        self._directory = directory
        self._ours: dict[str, asyncio.Lock] = {}

    @contextlib.asynccontextmanager
    async def take(self, name: str) -> AsyncIterator[None]:
        """Hold the turn of that name."""
        async with self._ours.setdefault(name, asyncio.Lock()):
            if self._directory is None:
                yield
                return
            # The name may be anything; as a file's it may not.
            stem = self._directory / hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
            turn = await _lock(stem.with_suffix(".gate"), stem.with_suffix(".turn"))
            try:
                yield
            finally:
                os.close(turn)


async def _lock(gate_file: Path, turn_file: Path) -> int:
    """Lock the turn; closing the descriptor that is returned unlocks it, and so does our death.

    Who waits for the turn holds the gate: a process that has just had the turn, and wants it again for the next of
    its own, finds the gate shut and queues behind whoever was there.
    """
    gate = _open(gate_file)
    try:
        turn = _open(turn_file)
    except OSError:
        os.close(gate)
        raise
    try:
        fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return await _wait(gate, turn)
    os.close(gate)
    return turn


async def _wait(gate: int, turn: int) -> int:
    """The same in a thread, as nothing tells an event loop that a lock is free.

    A thread in flock can't be called back.  When its waiter has gone away, it waits on and gives the turn back the
    moment it has it; as a daemon it keeps no process from ending.
    """
    loop = asyncio.get_running_loop()
    had: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if had.cancelled():
            os.close(turn)
        else:
            had.set_result(None)

    def wait() -> None:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(turn, fcntl.LOCK_EX)
        os.close(gate)
        with contextlib.suppress(RuntimeError):  # the loop is closed; the process is about to end, and the lock with it
            loop.call_soon_threadsafe(settle)

    try:
        threading.Thread(target=wait, name="turn", daemon=True).start()
    except RuntimeError:
        os.close(gate)
        os.close(turn)
        raise
    try:
        await had
    except asyncio.CancelledError:
        if had.done() and not had.cancelled():  # the turn and the cancellation came together
            os.close(turn)
        raise
    return turn


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
