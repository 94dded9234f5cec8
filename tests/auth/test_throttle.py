from __future__ import annotations

import asyncio
import time

import pytest

from estgw.auth import throttle
from estgw.auth.throttle import Throttle
from estgw.errors import TooManyGuesses


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 3))
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(throttle, "time", made)
    monkeypatch.setattr(asyncio, "sleep", made.sleep)
    return made


def wait(of: Throttle, address: str = "192.0.2.1") -> None:
    asyncio.run(of.wait(address))


def guess(of: Throttle, times: int, address: str = "192.0.2.1", user: str = "ann") -> None:
    for _ in range(times):
        wait(of, address)
        of.failed(address, user)


def test_the_delay_grows_up_to_the_most(clock):
    guess(Throttle(2), 10)
    assert clock.slept == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2]


def test_several_processes_are_guessed_at_as_fast_as_one(clock):
    """An address may go from one to the next; each knows a part of its failures, and is so many times as slow."""
    guess(Throttle(2, of=4), 9)
    assert clock.slept == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 8, 8]


def test_a_failure_costs_nobody_else(clock):
    guessed = Throttle(2)
    guess(guessed, 5)
    clock.slept.clear()
    wait(guessed, "192.0.2.2")
    assert clock.slept == []


def test_a_right_password_takes_back_that_users_failures(clock):
    guessed = Throttle(2)
    guess(guessed, 5)
    guessed.succeeded("192.0.2.1", "ann")
    clock.slept.clear()
    wait(guessed)
    assert clock.slept == []
    assert not guessed._records
    guessed.succeeded("192.0.2.77", "ann")  # never seen before


def test_and_nobody_elses(clock):
    """A password of one's own between two guesses at another's makes them no faster."""
    guessed = Throttle(2)
    for _ in range(8):
        guess(guessed, 1, user="victim")
        wait(guessed)
        guessed.succeeded("192.0.2.1", "mallory")
    growing = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2]
    assert clock.slept[1::2] == growing  # each guess but the first
    assert clock.slept[::2] == [*growing, 2]  # and each success, which comes from the same address


def test_what_is_left_after_a_right_password_still_counts(clock):
    guessed = Throttle(2)
    guess(guessed, 3, user="victim")
    guess(guessed, 2, user="mallory")
    guessed.succeeded("192.0.2.1", "mallory")
    assert guessed._delay(guessed._records["192.0.2.1"]) == 0.2
    guessed.succeeded("192.0.2.1", "mallory")
    assert guessed._delay(guessed._records["192.0.2.1"]) == 0.2
    guessed.succeeded("192.0.2.1", "victim")
    assert not guessed._records


def test_names_past_the_bound_are_forgiven_by_time_alone(clock):
    """Who tries many names, with the names as long as may be, fills no memory and loses no delay."""
    guessed = Throttle(2)
    for number in range(1000):
        guessed.failed("192.0.2.1", f"{number}" * 1000)
    record = guessed._records["192.0.2.1"]
    assert (record.failures, len(record.of)) == (1000, throttle.NAMES)
    assert max(map(len, record.of)) == 16
    for number in range(1000):
        guessed.succeeded("192.0.2.1", f"{number}" * 1000)
    assert (record.failures, len(record.of)) == (1000 - throttle.NAMES, 0)
    assert guessed._delay(record) == 2
    clock.now += throttle.FORGET + 1
    guessed.failed("192.0.2.1", "ann")
    assert (record.failures, len(record.of)) == (1, 1)


def test_a_name_that_is_no_unicode_is_a_name(clock):
    guessed = Throttle(2)
    guessed.failed("192.0.2.1", "\udce9")
    guessed.succeeded("192.0.2.1", "\udcea")
    assert guessed._records


def test_time_heals(clock):
    guessed = Throttle(2)
    guess(guessed, 8)
    clock.now += throttle.FORGET + 1
    clock.slept.clear()
    guess(guessed, 3)
    assert clock.slept == [0.05, 0.1]


def test_attempts_side_by_side_wait_one_after_another(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(throttle, "time", clock)
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))  # and no time passes: they all came at once

    monkeypatch.setattr(asyncio, "sleep", sleep)
    guessed = Throttle(2)
    for _ in range(8):
        guessed.failed("192.0.2.1", "ann")
    with pytest.raises(TooManyGuesses) as refusal:
        for _ in range(100):
            wait(guessed)
    assert slept == [2 * at for at in range(1, 11)]
    assert int(refusal.value.headers["Retry-After"]) >= 20


async def verified(of: Throttle, done: list[int], number: int, address: str = "192.0.2.1", good: bool = False) -> None:
    """An attempt whose verdict takes a moment, as that of a password hash does."""
    async with of.turn(address):
        await asyncio.sleep(0.02)
        done.append(number)
        (of.succeeded if good else of.failed)(address, "ann")


def test_a_thousand_first_guesses_at_once():
    """None has failed yet when they come, so only those that are under way together go free."""

    async def main() -> None:
        guessed, done = Throttle(2), list[int]()
        crowd = [asyncio.create_task(verified(guessed, done, number)) for number in range(1000)]
        others = [asyncio.create_task(verified(guessed, done, -1, "192.0.2.2", good=True)) for _ in range(50)]
        await asyncio.wait_for(asyncio.gather(*others), 5)
        await asyncio.sleep(0.3)
        assert sorted(number for number in done if number >= 0) == list(range(throttle.SIDE_BY_SIDE))
        for each in crowd:
            each.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        assert guessed._gates == {}

    asyncio.run(main())


def test_a_crowd_with_right_passwords_waits_for_nothing():
    async def main() -> float:
        guessed, done = Throttle(2), list[int]()
        started = time.monotonic()
        await asyncio.gather(*(verified(guessed, done, number, good=True) for number in range(80)))
        assert len(done) == 80
        return time.monotonic() - started

    assert asyncio.run(main()) < 2  # ten times 20 ms; whoever waited at all would wait for two seconds


def test_who_finds_no_place_is_turned_away(monkeypatch):
    monkeypatch.setattr(throttle, "PATIENCE", 0.1)

    async def main() -> None:
        guessed = Throttle(2)
        stop = asyncio.Event()

        async def slow() -> None:
            async with guessed.turn("192.0.2.1"):
                await stop.wait()

        crowd = [asyncio.create_task(slow()) for _ in range(throttle.SIDE_BY_SIDE)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyGuesses):
            await slow()
        stop.set()
        await asyncio.gather(*crowd)
        assert guessed._gates == {}

    asyncio.run(main())


def test_a_fault_while_verifying_frees_the_place():
    async def main() -> None:
        guessed = Throttle(2)
        for _ in range(3 * throttle.SIDE_BY_SIDE):
            with pytest.raises(ValueError, match="the directory sleeps"):
                async with guessed.turn("192.0.2.1"):
                    raise ValueError("the directory sleeps")
        assert guessed._gates == {}

    asyncio.run(main())


def test_zero_turns_it_off(clock):
    async def main() -> None:
        guessed = Throttle(0)
        for _ in range(50):
            async with guessed.turn("192.0.2.1"):
                guessed.failed("192.0.2.1", "ann")

    asyncio.run(main())
    assert clock.slept == []


def test_a_long_night_overflows_nothing(clock):
    guessed = Throttle(2)
    for _ in range(5000):
        guessed.failed("192.0.2.1", "ann")
    assert guessed._delay(guessed._records["192.0.2.1"]) == 2


def test_memory_is_bounded(clock):
    guessed = Throttle(2)
    for number in range(throttle.ADDRESSES + 500):
        guessed.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "ann")
    assert len(guessed._records) == throttle.ADDRESSES
    assert "10.0.0.1" not in guessed._records  # the one that failed longest ago went first


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_a_subnet_of_ipv6_is_one_guesser(one, other, same):
    assert (throttle._key(one) == throttle._key(other)) is same


def test_an_address_that_is_none_counts_as_itself():
    assert throttle._key("a socket's path") == "a socket's path"
