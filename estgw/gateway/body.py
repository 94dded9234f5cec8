"""Reading a request's body: up to the limit, in time, and before any 401."""

from __future__ import annotations

import asyncio

from aiohttp import HttpVersion10, web

from estgw.errors import BadRequest, RequestTimedOut
from estgw.gateway import request as requests


async def read(request: web.BaseRequest, *, limit: int, seconds: float) -> bytes:
    """Read the whole body.

    A client that waits for 100 Continue is told to go on even when a 401 will follow: the body is small, and an
    answer instead of it would cost the connection, and the channel binding with it.  Raises `TooLarge` as soon as the
    announced or received size is known to be past `limit` bytes, `RequestTimedOut` and `BadRequest`.
    """
    too_large = requests.too_large(limit)
    if (request.content_length or 0) > limit:
        raise too_large
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version > HttpVersion10:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # aiohttp takes any output for the beginning of the answer
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise RequestTimedOut("The body took too long to arrive.") from None
    except web.RequestPayloadError as fault:
        raise BadRequest("The body's framing is broken.", log=f"body: {fault}") from None
    return bytes(body)
