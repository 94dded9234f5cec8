"""The standard library's own TLS and asyncio with a fixed answer: `python -m tests.bench.plain CERT KEY ANCHORS`.

It shows the cost of handshakes alone, and the maximum rate of the load client.  Prints its port.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import sys
from typing import cast

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 20\r\n\r\nnothing to see here\n"
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)", re.IGNORECASE)


class Fixed(asyncio.Protocol):
    """The same answer to each request."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if blank and len(body) >= (int(length[1]) if length else 0):
            self._received = b""
            self._transport.write(ANSWER)


async def serve(certificate: str, key: str, anchors: str) -> None:
    """Serve until the process is ended."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=anchors)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.load_cert_chain(certificate, key)
    server = await asyncio.get_running_loop().create_server(Fixed, "127.0.0.1", 0, ssl=context, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
