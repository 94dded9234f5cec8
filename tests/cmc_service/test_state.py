"""What fullcmc remembers, in both engines of a register, where several gateways ask at once."""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from estgw.cmc_service import state
from estgw.cmc_service.state import Bound, Full, Spent, State
from estgw.register import engines
from estgw.register.postgresql import PostgreSQL

HOUR = timedelta(hours=1)


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def opened(request: pytest.FixtureRequest, tmp_path, monkeypatch) -> Iterator[Callable[[], State]]:
    """Opens the state of one CA."""
    if request.param == "PostgreSQL":
        url = request.getfixturevalue("cluster").register()
        with closing(PostgreSQL(url)) as made:
            made.create()
        monkeypatch.setenv("EST_REGISTER", url)
    yield lambda: State(tmp_path, 30)
    engines.close_all()


def at_once(opened: Callable[[], State], work: Callable[[State], Any], number: int = 12) -> Counter[Any]:
    """Count what comes of it, each time on a connection of its own."""

    def one(_: int) -> Any:
        try:
            return work(opened())
        except (Full, Spent) as refusal:
            return type(refusal)
        finally:
            engines.close_all()

    with ThreadPoolExecutor(number) as pool:
        return Counter(pool.map(one, range(number)))


def test_of_many_that_keep_one_key_at_once_one_wins(opened):
    opened()
    assert at_once(opened, lambda kept: kept.put("message", "key", b"", HOUR)) == {True: 1, False: 11}


def test_of_many_that_drop_one_value_at_once_one_has_it(opened):
    assert opened().put("challenge", "key", b"value", HOUR, "owner")
    assert at_once(opened, lambda kept: kept.drop("challenge", "key")) == {True: 1, False: 11}


def test_guesses_at_once_get_as_many_verdicts_as_one_by_one(opened):
    opened()
    found = at_once(opened, lambda kept: kept.judge("wrong", "device-7", HOUR, most=5, is_right=False))
    assert found == {False: 5, Spent: 7}


def test_a_value_ends_and_a_bound_holds(opened, monkeypatch):
    kept = opened()
    assert kept.put("message", "gone", b"value", timedelta(seconds=-5))
    assert kept.get("message", "gone") is None
    assert kept.put("message", "gone", b"again", HOUR)
    assert kept.get("message", "gone") == b"again"
    monkeypatch.setitem(state.BOUNDS, "pending", Bound(2, 3, "requests"))
    monkeypatch.setitem(state.BOUNDS, "challenge", Bound(2, 3, ""))
    for number in range(2):
        assert kept.put("pending", f"{number}", b"", HOUR, "loud")
        assert kept.put("challenge", f"{number}", b"", timedelta(hours=number + 1), "loud")
    with pytest.raises(Full, match="too many of your requests"):
        kept.put("pending", "2", b"", HOUR, "loud")
    assert kept.put("pending", "2", b"", HOUR, "quiet")
    with pytest.raises(Full, match="too many of all clients' requests"):
        kept.require_room("pending", "another")
    assert kept.put("challenge", "2", b"", HOUR, "loud")
    assert kept.get("challenge", "0") is None, "the oldest makes room"


def test_bounds_hold_for_clients_that_come_at_once(opened, monkeypatch):
    monkeypatch.setitem(state.BOUNDS, "message", Bound(3, None, "messages"))
    monkeypatch.setitem(state.BOUNDS, "pending", Bound(2, 5, "requests"))
    monkeypatch.setitem(state.BOUNDS, "challenge", Bound(2, 5, ""))
    monkeypatch.setitem(state.BOUNDS, "unknown", Bound(4, None, ""))
    opened()
    numbers = itertools.count()

    def put(kind: str, owners: int) -> Callable[[State], bool]:
        def work(kept: State) -> bool:
            number = next(numbers)
            return kept.put(kind, f"{number}", b"", HOUR, f"client {number % owners}")

        return work

    assert at_once(opened, put("message", 1)) == {True: 3, Full: 9}, "of each client"
    assert at_once(opened, put("pending", 1)) == {True: 2, Full: 10}
    assert at_once(opened, put("pending", 12))[True] == 3, "of all together"
    assert at_once(opened, put("challenge", 12)) == {True: 12}
    guess = at_once(opened, lambda kept: kept.judge("unknown", f"{next(numbers)}", HOUR, most=5, is_right=False))
    assert guess == {False: 12}
    kinds = dict(opened().register.rows("SELECT kind, count(*) FROM kept GROUP BY kind"))
    assert kinds == {"message": 3, "pending": 5, "challenge": 5, "unknown": 4}, "the oldest have made room"


def test_cmc_sqlite_is_taken_over_once(opened, tmp_path):
    with closing(sqlite3.connect(tmp_path / "cmc.sqlite")) as old, old:
        old.execute("CREATE TABLE kept (kind TEXT, key TEXT, value BLOB, until INTEGER)")
        old.executemany("INSERT INTO kept VALUES ('challenge', ?, x'01', 1 << 40)", [(f"{n}",) for n in range(40)])
        old.execute("INSERT INTO kept VALUES ('challenge', 'ended', x'01', 1)")
    # Each takes one away: none of these must come back by a second takeover.
    found = at_once(opened, lambda kept: sum(kept.drop("challenge", f"{n}") for n in range(40)), 6)
    assert sum(number * times for number, times in found.items()) == 40
    assert opened().get("challenge", "ended") is None
    assert not (tmp_path / "cmc.sqlite").exists()
