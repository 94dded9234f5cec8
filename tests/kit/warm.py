"""Python handlers in children of a warm parent, as the gateway's runner `fork` has them.

A new interpreter imports for a third of a second what the parent has already.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import threading
from collections.abc import Mapping
from pathlib import Path

from estgw.callout.process import Limits, Outcome
from estgw.callout.warm import Warm
from tests.kit.processes import DEADLINE

_LIMITS = Limits(DEADLINE, 1 << 24, 1 << 24)


def serves(program: Path) -> bool:
    """Whether that is a script for the interpreter in PATH."""
    with program.open("rb") as file:
        return file.readline() == b"#!/usr/bin/env python3\n"


def run(program: Path, env: Mapping[str, str], stdin: bytes = b"") -> Outcome:
    """Run a Python script to its end in a child of this process's warm parent, which the first call starts."""
    loop, warm = _parent()
    return asyncio.run_coroutine_threadsafe(warm.run(program, env, stdin, _LIMITS), loop).result(2 * DEADLINE)


@functools.cache
def _parent() -> tuple[asyncio.AbstractEventLoop, Warm]:
    loop, warm = asyncio.new_event_loop(), Warm()
    thread = threading.Thread(target=loop.run_forever, daemon=True)  # the interpreter waits for others before `end`
    thread.start()

    async def close() -> None:
        warm.close()

    @atexit.register
    def end() -> None:
        asyncio.run_coroutine_threadsafe(close(), loop).result(DEADLINE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    return loop, warm
