"""The seconds between the order to stop and the end of accepting: `server.drain_delay`."""

from __future__ import annotations

import asyncio

from estgw.logs import log


async def linger(seconds: float) -> None:
    """Let a load balancer see that the gateway is not ready, while connections are still accepted."""
    if seconds:
        log.info("no longer ready", text="connections are accepted for these seconds", seconds=seconds)
        await asyncio.sleep(seconds)
