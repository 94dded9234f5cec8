"""How many callouts run at once: a bounded number, a bounded queue in front, one at a time where asked for."""

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
    """`max_running` places and `max_waiting` chairs; past that, `Busy`."""

    def __init__(self, max_running: int, max_waiting: int, locks: NamedLocks | None = None) -> None:
        """`locks` may be shared with other `Slots`."""
        self._running = asyncio.Semaphore(max_running)
        self._chairs = max_running + max_waiting
        self._taken = 0
        self._locks = locks or NamedLocks()

    @contextlib.asynccontextmanager
    async def take(self, serialize: str | None = None) -> AsyncIterator[None]:
        """Hold a place; with `serialize`, hold that name's turn as well.  Raises `Busy` at once when full.

        The turn comes first: who waits for it must not sit on a place that others could use.
        """
        if self._taken >= self._chairs:
            raise Busy
        self._taken += 1
        try:
            async with contextlib.AsyncExitStack() as stack:
                with meter.held(CALLOUTS_WAITING):
                    if serialize is not None:
                        await stack.enter_async_context(self._locks.take(serialize))
                    await stack.enter_async_context(self._running)
                with meter.held(CALLOUTS_RUNNING):
                    yield
        finally:
            self._taken -= 1
