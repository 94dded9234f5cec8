"""The stream of rows: complete, resumable, bounded."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from estgw.page import events
from tests.kit.processes import until
from tests.page import samples
from tests.page.shown import Shown, shown


class Stream:
    """An open stream, read event by event."""

    def __init__(self, page: Shown, after: int | None) -> None:
        place = urlsplit(page.base)
        self.connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
        headers = {"Authorization": f"Bearer {page.token}"}
        headers |= {} if after is None else {"Last-Event-ID": str(after)}
        self.connection.request("GET", "/api/events", headers=headers)
        self.response = self.connection.getresponse()

    def event(self) -> dict[str, str]:
        """The next event, or comment (its name is empty)."""
        found: dict[str, str] = {}
        while line := self.response.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            found[name] = value
        return found

    def rows(self, number: int) -> list[int]:
        """The numbers of the next rows, over as many events as they take."""
        found: list[int] = []
        while len(found) < number:
            event = self.event()
            if "data" in event:
                part = json.loads(event["data"])
                assert str(part[-1]["n"]) == event["id"]
                found += [row["n"] for row in part]
        return found


@contextlib.contextmanager
def stream(page: Shown, after: int | None = None) -> Iterator[Stream]:
    made = Stream(page, after)
    try:
        yield made
    finally:
        made.connection.close()


def some(number: int, first: int = 1) -> list[dict[str, Any]]:
    return [samples.record(each, each, "cacerts") for each in range(first, first + number)]


def test_a_page_gets_what_there_is_and_each_new_row():
    with shown(*some(3)) as page, stream(page) as reader:
        assert reader.response.headers["Content-Type"] == "text/event-stream"
        assert reader.rows(3) == [1, 2, 3]
        page.add(*some(2, 4))
        assert reader.rows(2) == [4, 5]


def test_a_page_that_comes_back_gets_what_it_missed_and_nothing_twice():
    with shown(*some(3)) as page:
        with stream(page) as reader:
            reader.rows(3)
        page.add(*some(4, 4))
        with stream(page, 3) as reader:
            assert reader.rows(4) == [4, 5, 6, 7]


def test_records_that_come_while_others_are_sent_are_not_lost(monkeypatch):
    monkeypatch.setattr(events, "BATCH", 2)
    with shown(*some(5)) as page, stream(page) as reader:
        for number in range(6, 60):
            page.add(*some(1, number))
        assert reader.rows(59) == list(range(1, 60))


def test_a_page_is_told_what_it_can_get_no_more():
    with shown(*some(2), keep=5) as page:
        with stream(page) as reader:
            reader.rows(2)
        page.add(*some(10, 3))
        with stream(page, 2) as reader:
            assert reader.event() == {"event": "lost", "data": "5"}
            assert reader.rows(5) == [8, 9, 10, 11, 12]
        with stream(page) as reader:  # a page that has just begun has lost nothing
            assert reader.rows(5) == [8, 9, 10, 11, 12]


def test_a_page_of_an_earlier_gateway_begins_anew():
    with shown(*some(3)) as page, stream(page, 100) as reader:
        assert reader.rows(3) == [1, 2, 3]


def test_a_silent_stream_says_that_it_lives(monkeypatch):
    monkeypatch.setattr(events, "GLANCE", 0.02)
    monkeypatch.setattr(events, "HEARTBEAT", 0.1)
    with shown() as page, stream(page) as reader:
        assert reader.event() == {"": "still here"}
        assert reader.event() == {"": "still here"}


def test_many_rows_travel_in_bounded_events():
    with shown(*some(1200)) as page, stream(page) as reader:
        sizes = [len(json.loads(reader.event()["data"])) for _ in range(3)]
        assert sizes == [500, 500, 200]


def test_a_row_is_short_however_long_its_record_is():
    long = "x" * 100_000
    record = samples.refusal(1, 0, "handler", 400, long, long, label=long, operation=long)
    record["request"]["line"] = record["auth"]["user"] = record["tls"]["subject"] = long
    with shown(record) as page, stream(page) as reader:
        assert len(reader.event()["data"]) < 2000


def test_listeners_above_the_bound_are_refused_until_one_leaves(monkeypatch):
    monkeypatch.setattr(events, "LISTENERS", 2)
    monkeypatch.setattr(events, "GLANCE", 0.05)
    with shown(*some(1)) as page, stream(page) as first, stream(page) as second:
        assert (first.rows(1), second.rows(1)) == ([1], [1])
        response, body = page.ask("GET", "/api/events")
        assert (response.status, body, response.headers["Retry-After"]) == (503, b"", "5")
        first.connection.close()
        first.response.close()

        def admitted() -> bool:
            with stream(page) as third:
                return third.response.status == 200

        assert until(admitted)


def test_a_page_that_reads_nothing_loses_its_stream_and_not_the_gateways_memory(monkeypatch):
    monkeypatch.setattr(events, "STALLED", 0.3)
    with shown() as page:
        place = ("127.0.0.1", int(page.base.rpartition(":")[2]))
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(place)
        head = f"GET /api/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {page.token}\r\n\r\n"
        raw.sendall(head.encode())
        assert raw.recv(100)
        page.add(*some(9000))
        with raw:
            raw.settimeout(20)
            until(lambda: page.listeners == 0)
            received = b""
            while part := raw.recv(1 << 20):
                received += part
        assert len(received) < 4_000_000
        assert not received.endswith(b"0\r\n\r\n")  # the end of a body that is whole


def test_a_server_that_stops_ends_its_streams():
    with shown(*some(1)) as page:
        reader = Stream(page, None)
        reader.rows(1)
    assert reader.response.read() == b""
    reader.connection.close()
