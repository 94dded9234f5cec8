"""Bounds on callouts: how many run at once, how many wait, and which run one at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from estgw.callout.named_locks import NamedLocks
from estgw.metrics.meter import meter
from estgw.metrics.table import CALLOUTS_RUNNING, CALLOUTS_WAITING


class Busy(Exception):
    """The queue is full."""


class Slots:
    """At most `max_running` callouts run and `max_waiting` wait; one more raises `Busy`.

    A quarter as many again, one at least, may run of brief callouts: those of requests without a body, such as cacerts.
    Otherwise they would wait behind all that issue certificates.
    """

    def __init__(self, max_running: int, max_waiting: int, locks: NamedLocks | None = None) -> None:
        """`locks` may be shared with other `Slots`."""
        self._running = asyncio.Semaphore(max_running + max(1, max_running // 4))
        self._long = asyncio.Semaphore(max_running)
        self._most = max_running + max_waiting
        self._taken = 0
        self._locks = locks or NamedLocks()

    @contextlib.asynccontextmanager
    async def take(self, serialize: str | None = None, *, brief: bool = False) -> AsyncIterator[None]:
        """Hold a slot and, with `serialize`, the lock of that name.  Raises `Busy` at once if too many wait.

        The lock comes first: a callout that waits for it must not hold a slot that another could use.
        """
        if self._taken >= self._most:
            raise Busy
        self._taken += 1
        try:
            async with contextlib.AsyncExitStack() as stack:
                with meter.held(CALLOUTS_WAITING):
                    if serialize is not None:
                        await stack.enter_async_context(self._locks.take(serialize))
                    if not brief:
                        await stack.enter_async_context(self._long)
                    await stack.enter_async_context(self._running)
                with meter.held(CALLOUTS_RUNNING):
                    yield
        finally:
            self._taken -= 1
