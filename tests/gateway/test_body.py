from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import HttpVersion10, HttpVersion11, web

from estgw.errors import BadRequest, RequestTimedOut, TooLarge
from estgw.gateway import body


class Request:
    """The part of a request that reading its body uses."""

    def __init__(self, *parts: bytes | BaseException, expect: str = "", length: int | None = None, version: Any = None):
        self.parts = parts
        self.headers = {"Expect": expect} if expect else {}
        self.content_length = length
        self.version = version or HttpVersion11
        self.content = self.writer = self
        self.written: list[bytes] = []
        self.output_size = 99

    async def write(self, data: bytes) -> None:
        self.written.append(data)

    async def iter_any(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            await asyncio.sleep(0.01)
            if isinstance(part, BaseException):
                raise part
            yield part


def read(request: Request, *, limit: int = 10, seconds: float = 5) -> bytes:
    return asyncio.run(body.read(request, limit=limit, seconds=seconds))  # type: ignore[arg-type]


def test_read_joins_all_parts_of_a_body():
    assert read(Request(b"12345", b"67890", length=10)) == b"1234567890"
    assert read(Request()) == b""


def test_too_large_body_is_refused_whether_announced_or_received():
    announced = Request(b"never read", length=11, expect="100-continue")
    with pytest.raises(TooLarge):
        read(announced)
    assert announced.written == []
    with pytest.raises(TooLarge):
        read(Request(b"123456", b"78901"))
    assert TooLarge("").close


def test_100_continue_is_sent_once_and_not_counted_as_the_answer():
    for word in ("100-continue", "100-Continue"):
        waiting = Request(b"1", expect=word, length=1)
        assert read(waiting) == b"1"
        assert waiting.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
        assert waiting.output_size == 0


@pytest.mark.parametrize("request_", [Request(b"1"), Request(b"1", expect="100-continue", version=HttpVersion10)])
def test_no_100_continue_without_expect_or_for_http_1_0(request_):
    assert read(request_) == b"1"
    assert request_.written == []


def test_slow_body_times_out():
    with pytest.raises(RequestTimedOut):
        read(Request(*[b"1"] * 9), seconds=0.03)


def test_broken_framing_is_a_bad_request():
    with pytest.raises(BadRequest, match=r"^body: cut off$") as refusal:
        read(Request(b"1", web.RequestPayloadError("cut off")))
    assert refusal.value.public == "The body's framing is broken."
