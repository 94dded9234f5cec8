"""The records that are kept in memory: the newest, bounded in number and in bytes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

Record: TypeAlias = Mapping[str, Any]
"""One transaction as JSON values; `docs/records.md` lists the keys."""


class Entry(Protocol):
    """A record that is kept, made or not."""

    id: str
    label: str | None
    size: int
    """Bytes that it takes in memory, roughly."""

    def outline(self) -> Record:
        """The record, perhaps without what a row of a list does not need."""

    def record(self) -> Record:
        """The whole record."""


class Made:
    """A record that is made already."""

    __slots__ = ("_record", "id", "label", "size")

    def __init__(self, record: Record) -> None:
        self._record = record
        self.id: str = record["id"]
        self.label: str | None = record.get("label")
        # As measured with small and large ones.
        self.size = 2048 + 3 * len(json.dumps(record))

    def outline(self) -> Record:
        """The whole record, as it costs nothing."""
        return self._record

    def record(self) -> Record:
        """The record."""
        return self._record


class Ring:
    """The newest records, by a sequence number that grows by one with each."""

    def __init__(self, keep: int, memory: int) -> None:
        """`keep` records at most, which take `memory` bytes together; the oldest go first."""
        self._keep = keep
        self._memory = memory
        self._bytes = 0
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._numbers: dict[str, int] = {}
        self._listeners: set[asyncio.Event] = set()
        self.last = 0
        """The number of the newest record; 0 before the first."""

    def add(self, record: Record) -> None:
        """As `put`, for a record that is made already."""
        self.put(Made(record))

    def put(self, entry: Entry) -> None:
        """Keep a record, and wake the listeners.  A record that alone is larger than the bound is not kept."""
        self.last += 1
        self._entries[self.last] = entry
        self._numbers[entry.id] = self.last
        self._bytes += entry.size
        while self._entries and (len(self._entries) > self._keep or self._bytes > self._memory):
            number, gone = self._entries.popitem(last=False)
            self._bytes -= gone.size
            if self._numbers.get(gone.id) == number:
                del self._numbers[gone.id]
        for event in self._listeners:
            event.set()

    @property
    def first(self) -> int:
        """The number of the oldest record that is kept; the next one's if none is."""
        return next(iter(self._entries), self.last + 1)

    def get(self, identifier: str) -> Entry | None:
        """The record of that id; None if it was never kept, or has been dropped."""
        number = self._numbers.get(identifier)
        return None if number is None else self._entries[number]

    def since(self, number: int) -> list[tuple[int, Entry]]:
        """The records after that number, oldest first, each with its own number."""
        found = list(itertools.takewhile(lambda each: each[0] > number, reversed(self._entries.items())))
        return found[::-1]

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event that is set with each new record; the listener clears it."""
        event = asyncio.Event()
        self._listeners.add(event)
        try:
            yield event
        finally:
            self._listeners.discard(event)
