"""A running gateway that gets raw bytes: over TLS, before TLS, and at its metrics.

If an answer comes, it is well-formed HTTP and not a 500. The log has no traceback, and the gateway still serves.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.fuzz.runner import Function, corpus
from tests.kit.connection import EST
from tests.kit.gateway import Gateway, running_gateway
from tests.kit.processes import DEADLINE
from tests.kit.workspace import Workspace

NAMES = ("wire-http", "wire-tls", "wire-metrics")

OVERRIDES: Mapping[str, Any] = {
    "server": {"body_timeout": 0.2, "handshake_timeout": 1, "idle_timeout": 0.2},
    "metrics": {"listen": "127.0.0.1:0"},
    "callouts": {"operations": {"serverkeygen": {"enabled": True}}},
    "labels": {"iot": {"profile": "rfc"}},
}
"""With these timeouts an unfinished request ends soon."""
LAST = f"\r\nGET {EST}/cacerts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
"""Follows each input, and so ends the connection after an input that is a whole request."""

_HEAD = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) [ -~]*\r\n((?:[!#-'*+.^-z|~A-Z0-9-]+: [ -~]*\r\n)*)\r\n")
_LENGTH = re.compile(rb"^content-length: (\d+)\r$", re.IGNORECASE | re.MULTILINE)


@contextlib.contextmanager
def gateway() -> Iterator[Gateway]:
    """A gateway with its own laboratory, until the context ends."""
    with tempfile.TemporaryDirectory(prefix="estgw-fuzz-") as directory:
        lab = Workspace.demo(Path(directory) / "lab")
        with running_gateway(lab, OVERRIDES, clean=False) as running:  # `_Watch` checks the log
            yield running


def targets(served: Gateway) -> dict[str, tuple[Function, list[bytes]]]:
    """The targets of `NAMES`, for this gateway."""
    port = served.wait_for("metrics")["port"]
    doors: dict[str, Callable[[bytes], bytes]] = {
        "wire-http": lambda data: _over_tls(served, data + LAST),
        "wire-tls": lambda data: _plain(served.port, data),
        "wire-metrics": lambda data: _plain(port, data),
    }
    watch = _Watch(served)
    return {name: (watch.over(doors[name], is_http=name != "wire-tls"), corpus(name)) for name in NAMES}


class _Watch:
    """Checks the answers, and the log after each of them."""

    def __init__(self, served: Gateway) -> None:
        self._served = served
        self._seen = 0

    def over(self, door: Callable[[bytes], bytes], *, is_http: bool) -> Function:
        """A target that sends its input in this way."""

        def run(data: bytes) -> None:
            answer = door(data)
            if is_http:
                require_http(answer, heads=b"HEAD " in data)
            self._read_log()
            assert self._served.process.poll() is None, "the gateway has ended"
            assert self._served.get("cacerts").status == 200

        return run

    def _read_log(self) -> None:
        text = self._served.log_text
        fresh, self._seen = text[self._seen :], len(text)
        for line in fresh.splitlines():
            entry = json.loads(line)
            assert entry.get("status") != 500, line
            assert entry["level"] not in ("error", "critical"), line
            assert "Traceback" not in line, line


def require_http(stream: bytes, *, heads: bool = False) -> None:
    """Raise AssertionError unless the bytes are whole answers and nothing else. Answers to HEAD have no body."""
    while stream:
        head = _HEAD.match(stream)
        assert head, f"no head of an answer: {stream[:300]!r}"
        stream, status = stream[head.end() :], int(head[1])
        if status < 200 or status in (204, 304):
            continue
        length = _LENGTH.search(head[2])
        assert length, f"no Content-Length: {head[0]!r}"
        if heads and (not stream or stream.startswith(b"HTTP/1.1 ")):
            continue
        assert len(stream) >= int(length[1]), f"cut off: {head[0]!r} and {len(stream)} bytes"
        stream = stream[int(length[1]) :]


def _over_tls(served: Gateway, data: bytes) -> bytes:
    with served.connect() as connection:
        # The gateway may have answered and closed the connection before it has read everything.
        with contextlib.suppress(OSError):
            connection.send(data)
        return connection.rest()


def _plain(port: int, data: bytes) -> bytes:
    parts = []
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection, contextlib.suppress(OSError):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)
