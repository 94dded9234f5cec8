from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import HttpVersion10, HttpVersion11, web

from estgw.errors import BadRequest, RequestTimedOut, TooLarge
from estgw.gateway import body


class Request:
    """As much of a request as is asked for its body."""

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


def test_whole():
    assert read(Request(b"12345", b"67890", length=10)) == b"1234567890"
    assert read(Request()) == b""


def test_too_large_by_its_own_word_or_in_fact():
    announced = Request(b"never read", length=11, expect="100-continue")
    with pytest.raises(TooLarge):
        read(announced)
    assert announced.written == []
    with pytest.raises(TooLarge):
        read(Request(b"123456", b"78901"))
    assert TooLarge("").close


def test_go_on_is_said_once_and_does_not_count_as_the_answer():
    for word in ("100-continue", "100-Continue"):
        waiting = Request(b"1", expect=word, length=1)
        assert read(waiting) == b"1"
        assert waiting.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
        assert waiting.output_size == 0


@pytest.mark.parametrize("request_", [Request(b"1"), Request(b"1", expect="100-continue", version=HttpVersion10)])
def test_nobody_else_is_told_to_go_on(request_):
    assert read(request_) == b"1"
    assert request_.written == []


def test_too_slow():
    with pytest.raises(RequestTimedOut):
        read(Request(*[b"1"] * 9), seconds=0.03)


def test_broken_framing():
    with pytest.raises(BadRequest, match=r"^body: cut off$") as refusal:
        read(Request(b"1", web.RequestPayloadError("cut off")))
    assert refusal.value.public == "The body's framing is broken."
