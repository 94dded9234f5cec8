from __future__ import annotations

import asyncio

from estgw.record.ring import Ring


def record(identifier: str, text: str = "") -> dict[str, str]:
    return {"id": identifier, "text": text}


def filled(ring: Ring, *identifiers: str) -> Ring:
    for identifier in identifiers:
        ring.add(record(identifier))
    return ring


def test_the_oldest_record_goes_when_there_are_too_many():
    ring = filled(Ring(2, 10_000), "a", "b", "c")
    assert ring.get("a") is None
    kept = ring.get("c")
    assert kept is not None
    assert kept.record() == kept.outline() == record("c")
    assert [number for number, _ in ring.since(0)] == [2, 3]


def test_the_oldest_record_goes_when_they_take_too_many_bytes():
    ring = Ring(100, 7000)
    for number in range(10):
        ring.add(record(str(number), "x" * 50))
    assert [kept.id for _, kept in ring.since(0)] == ["7", "8", "9"]


def test_a_record_larger_than_the_bound_is_not_kept_and_the_next_one_is():
    ring = Ring(10, 3000)
    ring.add(record("large", "x" * 1000))
    filled(ring, "small")
    assert [kept.id for _, kept in ring.since(0)] == ["small"]


def test_since_gives_what_a_listener_has_missed_in_order():
    ring = filled(Ring(10, 10_000), "a", "b", "c")
    assert [kept.id for _, kept in ring.since(1)] == ["b", "c"]
    assert ring.since(3) == []
    assert ring.since(99) == []


def test_a_listener_is_woken_by_each_record_until_it_leaves():
    async def listen() -> list[bool]:
        ring = Ring(10, 10_000)
        with ring.listening() as event:
            filled(ring, "a")
            first = event.is_set()
            event.clear()
            filled(ring, "b")
            second = event.is_set()
            event.clear()
        filled(ring, "c")
        return [first, second, event.is_set()]

    assert asyncio.run(listen()) == [True, True, False]
