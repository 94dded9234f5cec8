"""Locks by name, held by one task at a time in this process and in all processes that share a directory with it.

Theory of operation.  Each name has an `asyncio.Lock` for the tasks of this process and, with a directory, two files
that are locked by flock(2): NAME.gate and NAME.lock.  A process that waits for NAME.lock holds NAME.gate.  A process
that has just released the lock and wants it again has to pass the gate first, so it queues behind the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path


class NamedLocks:
    """Locks by name: first come, first served within a process, and no process is overtaken by another."""

    def __init__(self, directory: Path | None = None) -> None:
        """`directory` must outlive all processes that share it; without one the locks hold in this process alone."""
        self._directory = directory
        self._ours: dict[str, asyncio.Lock] = {}

    @contextlib.asynccontextmanager
    async def take(self, name: str) -> AsyncIterator[None]:
        """Hold the lock of that name."""
        async with self._ours.setdefault(name, asyncio.Lock()):
            if self._directory is None:
                yield
                return
            # A name may hold any character, a slash too; the file is named after its hash.
            stem = self._directory / hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
            lock = await _lock(stem.with_suffix(".gate"), stem.with_suffix(".lock"))
            try:
                yield
            finally:
                os.close(lock)


async def _lock(gate_file: Path, lock_file: Path) -> int:
    """Take the lock and return its descriptor.  Closing it releases the lock, and so does the end of the process."""
    gate = _open(gate_file)
    try:
        lock = _open(lock_file)
    except OSError:
        os.close(gate)
        raise
    try:
        fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return await _wait(gate, lock)
    os.close(gate)
    return lock


async def _wait(gate: int, lock: int) -> int:
    """Wait in a thread, as nothing tells an event loop that a lock is free.

    A thread in flock(2) can't be interrupted.  When its waiter is cancelled, the thread goes on waiting and releases
    the lock as soon as it has it.  It is a daemon thread, so it does not keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    had: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if had.cancelled():
            os.close(lock)
        else:
            had.set_result(None)

    def wait() -> None:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.close(gate)
        with contextlib.suppress(RuntimeError):  # the loop is closed; the process is about to end, and the lock with it
            loop.call_soon_threadsafe(settle)

    try:
        threading.Thread(target=wait, name="lock", daemon=True).start()
    except RuntimeError:
        os.close(gate)
        os.close(lock)
        raise
    try:
        await had
    except asyncio.CancelledError:
        if had.done() and not had.cancelled():  # the lock and the cancellation came together
            os.close(lock)
        raise
    return lock


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
