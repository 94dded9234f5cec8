"""Input from the clients of the quirk server: requests on a connection."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from estgw.client.transport.stream import Stream
from estgw.errors import RequestError
from estgw.quirks import wire
from estgw.quirks.kept import Kept
from estgw.quirks.wire import Link, Reader
from tests.fuzz import checks
from tests.fuzz.targets_client import Wire

TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {}
_target = functools.partial(checks.target, TARGETS)
_CHUNKED = (
    b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n\r\n"
)
_LENGTH = b"\r\nPOST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
_EXPECT = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nAuthorization: Basic YTpi\r\nContent-Length: 1\r\n\r\na"


@_target(RequestError)
def quirks_request(data: bytes) -> None:
    end: Any = Wire(data)
    stream = Stream(end, end)
    stream.start_clock(10, wire.MAXIMUM_REQUEST)
    reader = Reader(stream, Link(1, "192.0.2.1", 8450))
    while (request := reader.request()) is not None:
        assert request.method.isalpha()
        assert request.target.isascii()
        assert " " not in request.target
        assert len(request.body) <= wire.MAXIMUM_BODY
        assert request.closes in (True, False)
        for header in request.headers.get_all("Authorization", []):
            pair = wire.basic_credentials(header)
            assert pair is None or ":" not in pair[0]


TARGETS["quirks-request"][1].extend([_CHUNKED, _LENGTH, _EXPECT])


@_target(seeds="*.b64")
def quirks_kept(data: bytes) -> None:
    """A client's file may hold anything."""
    kept = Kept(0, {"file": data})
    assert len(kept.issued) == sum(map(len, kept.bags.values()))
    assert all(kept.is_raw(name) in (True, False) for name in kept.bags)
    assert kept.keys is not None
    assert kept.holding(data) == ("file" if data.strip() else "")
