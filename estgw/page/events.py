"""New rows as server-sent events (HTML Standard 9.2), in batches, for a page that resumes where it has stopped.

An event is an array of rows, and its id is the number of the last one.  A page that connects again sends that number as
Last-Event-ID and gets what came after.  If the ring has dropped some of it meanwhile, an event `lost` says how many.
"""

from __future__ import annotations

import asyncio
import json

from aiohttp import hdrs, web

from estgw.page import guard, rows
from estgw.page.viewers import View

LISTENERS = 16
"""Pages that listen at once; one more gets a 503."""
BATCH = 500
"""Rows of one event, so that a browser is never busy with one for long."""
GATHER = 0.05
"""Seconds between two events, in which rows gather."""
GLANCE = 1.0
"""Seconds after which a listener looks whether its page is still there."""
HEARTBEAT = 15.0
"""Seconds of silence after which a comment tells the page that the connection lives."""
STALLED = 30.0
"""Seconds for which a page may leave an event unread; then its connection is closed, and it resumes later."""


class Events:
    """The listeners of one page."""

    def __init__(self) -> None:
        self.open = 0
        """Pages that listen now."""
        self._closing = asyncio.Event()

    @property
    def are_many(self) -> bool:
        """Whether one more listener would be too many."""
        return self.open >= LISTENERS

    def close(self) -> None:
        """End all streams soon."""
        self._closing.set()

    async def stream(self, request: web.BaseRequest, view: View, after: int) -> web.StreamResponse:
        """Send the rows of a view after a number, and each new one, until the page goes away."""
        response = web.StreamResponse(headers={**guard.HEADERS, hdrs.CONTENT_TYPE: "text/event-stream"})
        self.open += 1
        try:
            await response.prepare(request)
            await self._send(request, response, view, after)
        except TimeoutError:  # the page is stuck, and so is what was written last
            if request.transport is not None:
                request.transport.abort()
        finally:
            self.open -= 1
        return response

    async def _send(self, request: web.BaseRequest, response: web.StreamResponse, view: View, after: int) -> None:
        # A page that has come further than this ring belongs to an earlier gateway: begin anew.
        after = after if after <= view.last else 0
        silent = 0.0
        with view.listening() as news:
            while request.transport is not None and not self._closing.is_set():
                news.clear()
                found, last = view.since(after), view.last
                lost = view.first - after - 1
                if lost > 0 and after:  # a page that has just begun has lost nothing
                    await _write(response, f"event: lost\ndata: {lost}\n\n")
                for start in range(0, len(found), BATCH):
                    part = found[start : start + BATCH]
                    data = json.dumps([rows.row(number, entry.outline()) for number, entry in part])
                    await _write(response, f"id: {part[-1][0]}\ndata: {data}\n\n")
                    await asyncio.sleep(0)  # let the gateway serve others
                after = last
                silent = 0.0 if found else silent + GLANCE
                if silent >= HEARTBEAT:
                    await _write(response, ": still here\n\n")
                    silent = 0.0
                await self._news_or_glance(news)

    async def _news_or_glance(self, news: asyncio.Event) -> None:
        """Wait for a row and those that come right after it, for the end of the server, or for `GLANCE`."""
        waits = [asyncio.ensure_future(each.wait()) for each in (news, self._closing)]
        try:
            done, _ = await asyncio.wait(waits, timeout=GLANCE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        if done:
            await asyncio.sleep(GATHER)


async def _write(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(STALLED):
        await response.write(text.encode())
