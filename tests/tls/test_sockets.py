"""A server of asyncio is closed while clients connect."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from estgw.tls import sockets


class _Ended(asyncio.Protocol):
    """Ends its connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


@pytest.mark.parametrize("turns", range(5))
def test_a_server_that_is_closed_leaves_no_connection_open(turns):
    """The client has connected some turns of the loop before: not accepted yet, just accepted, or served."""

    async def scene() -> None:
        server = await asyncio.get_running_loop().create_server(_Ended, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname(), 10) as client:
            for _ in range(turns):
                await asyncio.sleep(0)
            await sockets.close(server)
            await asyncio.sleep(0)  # an aborted transport closes its socket in the next turn
            with contextlib.suppress(ConnectionResetError):  # so the kernel ends what is not accepted
                assert client.recv(1) == b""

    asyncio.run(scene())
