"""A TLS connection with the socket methods that http.client calls, bounded in time and in bytes received."""

from __future__ import annotations

import contextlib
import io
import select
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

from OpenSSL import SSL

from estgw.client.faults import InvalidAnswer, Untrusted, clean

T = TypeVar("T")


class Stream:
    """A connected TLS socket for http.client, bounded in time and in bytes received."""

    def __init__(self, raw: socket.socket, connection: SSL.Connection) -> None:
        self._raw = raw
        self._connection = connection
        self._deadline = 0.0
        self._allowance = 0
        self._limit = 0
        self._readers = 0
        self._is_closing = False
        self.received = 0
        """Bytes received since the last `start_clock`."""

    def start_clock(self, seconds: float, limit: int) -> None:
        """Limit the next exchange to `seconds`, and its answer to `limit` bytes."""
        self._deadline = time.monotonic() + seconds
        self._allowance = self._limit = limit
        self.received = 0

    def handshake(self) -> None:
        """Run the TLS handshake; raises whatever pyOpenSSL does, `TimeoutError` and `OSError`."""
        self._run(self._connection.do_handshake)

    def sendall(self, data: bytes) -> None:
        """Send all of it, or as much as the other side takes.

        A server may answer and close before it has read everything, as with a 413.  So a failure to send raises
        nothing here; the read that follows reports it.
        """
        view = memoryview(data)
        with contextlib.suppress(SSL.Error):
            while view:
                view = view[self._run(self._connection.send, bytes(view[:65536])) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        """A reader for one response."""
        del mode  # http.client always says "rb"
        self._readers += 1
        return io.BufferedReader(_Reader(self))

    def receive(self, size: int) -> bytes:
        """Up to `size` bytes; empty at the end of the connection, orderly or not."""
        if self._allowance <= 0:
            raise InvalidAnswer(f"the server's answer does not end: more than {self._limit} bytes")
        try:
            data = self._run(self._connection.recv, min(size, self._allowance))
        except SSL.ZeroReturnError:
            return b""
        except SSL.SysCallError as fault:
            if fault.args[0] == -1:  # closed without close_notify
                return b""
            raise ConnectionResetError(*fault.args) from None
        except SSL.Error as fault:
            raise Untrusted(f"TLS: {reason(fault)}") from None
        self._allowance -= len(data)
        self.received += len(data)
        return data

    def is_quiet(self) -> bool:
        """Whether the connection is open and the server has sent nothing unasked."""
        try:
            self._connection.recv(1)
        except SSL.WantReadError:
            return True
        except SSL.Error:
            return False
        return False

    def close(self) -> None:
        """Close after the last reader is done, as sockets do: http.client closes before it reads to the end."""
        self._is_closing = True
        self._close_if_done()

    def release(self) -> None:
        """Note that a reader is done."""
        self._readers -= 1
        self._close_if_done()

    def _close_if_done(self) -> None:
        if not self._is_closing or self._readers > 0:
            return
        with contextlib.suppress(SSL.Error):
            self._connection.shutdown()  # send close_notify if that works at once
        self._raw.close()

    def _run(self, call: Callable[..., T], *arguments: Any) -> T:
        while True:
            try:
                return call(*arguments)
            except SSL.WantReadError:
                self._wait(select.POLLIN)
            except SSL.WantWriteError:
                self._wait(select.POLLOUT)

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self._raw, event)
        left = self._deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError


class _Reader(io.RawIOBase):
    """The raw half of `Stream.makefile`; closing it leaves the connection open for the next exchange."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._stream.release()

    def readinto(self, buffer: Any) -> int:
        data = self._stream.receive(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def reason(fault: SSL.Error) -> str:
    """OpenSSL's own words for an error, such as `tlsv1 alert unknown ca`."""
    if fault.args and isinstance(fault.args[0], list) and fault.args[0]:
        return clean(str(fault.args[0][-1][2]) or "failed", 200)
    return "failed"
