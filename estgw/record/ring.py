"""The records that are kept in memory: the newest, bounded in number and in bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Record: TypeAlias = Mapping[str, Any]
"""One transaction as JSON values; `docs/records.md` lists the keys."""


def in_memory(characters: int) -> int:
    """Bytes that a record with so much JSON takes in memory, roughly, as measured with small and large ones."""
    return 2048 + 3 * characters


class Ring:
    """The newest records, by a sequence number that grows by one with each."""

    def __init__(self, keep: int, memory: int) -> None:
        """`keep` records at most, which take `memory` bytes together; the oldest go first."""
        self._keep = keep
        self._memory = memory
        self._bytes = 0
        self._records: OrderedDict[int, tuple[Record, int]] = OrderedDict()
        self._numbers: dict[str, int] = {}
        self._listeners: set[asyncio.Event] = set()
        self.last = 0
        """The number of the newest record; 0 before the first."""

    def add(self, record: Record, size: int | None = None) -> None:
        """Keep a record, and wake the listeners.  A record that alone is larger than the bound is not kept.

        `size` is the bytes that it takes in memory, if that is known.
        """
        self.last += 1
        size = in_memory(len(json.dumps(record))) if size is None else size
        self._records[self.last] = (record, size)
        self._numbers[record["id"]] = self.last
        self._bytes += size
        while self._records and (len(self._records) > self._keep or self._bytes > self._memory):
            number, (gone, freed) = self._records.popitem(last=False)
            self._bytes -= freed
            if self._numbers.get(gone["id"]) == number:
                del self._numbers[gone["id"]]
        for event in self._listeners:
            event.set()

    @property
    def first(self) -> int:
        """The number of the oldest record that is kept; the next one's if none is."""
        return next(iter(self._records), self.last + 1)

    def get(self, identifier: str) -> Record | None:
        """The record of that id; None if it was never kept, or has been dropped."""
        number = self._numbers.get(identifier)
        return None if number is None else self._records[number][0]

    def since(self, number: int) -> list[tuple[int, Record]]:
        """The records after that number, oldest first, each with its own number."""
        found = []
        for at in reversed(self._records):
            if at <= number:
                break
            found.append((at, self._records[at][0]))
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
