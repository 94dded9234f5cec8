"""How many callouts run at once: a bounded number, a bounded queue in front, one at a time where asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Busy(Exception):
    """The queue is full."""


class Slots:
    """`max_running` places and `max_waiting` chairs; past that, `Busy`."""

    def __init__(self, max_running: int, max_waiting: int) -> None:
        self._running = asyncio.Semaphore(max_running)
        self._chairs = max_running + max_waiting
        self._taken = 0
        self._turns: dict[str, asyncio.Lock] = {}

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
                if serialize is not None:
                    await stack.enter_async_context(self._turns.setdefault(serialize, asyncio.Lock()))
                await stack.enter_async_context(self._running)
                yield
        finally:
            self._taken -= 1
