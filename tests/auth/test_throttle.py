from __future__ import annotations

import asyncio

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


def guess(of: Throttle, times: int, address: str = "192.0.2.1") -> None:
    for _ in range(times):
        wait(of, address)
        of.failed(address)


def test_the_delay_grows_up_to_the_most(clock):
    guess(Throttle(2), 10)
    assert clock.slept == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2]


def test_a_failure_costs_nobody_else(clock):
    guessed = Throttle(2)
    guess(guessed, 5)
    clock.slept.clear()
    wait(guessed, "192.0.2.2")
    assert clock.slept == []


def test_a_right_password_clears_the_record(clock):
    guessed = Throttle(2)
    guess(guessed, 5)
    guessed.succeeded("192.0.2.1")
    clock.slept.clear()
    wait(guessed)
    assert clock.slept == []
    guessed.succeeded("192.0.2.77")  # never seen before


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
        guessed.failed("192.0.2.1")
    with pytest.raises(TooManyGuesses) as refusal:
        for _ in range(100):
            wait(guessed)
    assert slept == [2 * at for at in range(1, 11)]
    assert int(refusal.value.headers["Retry-After"]) >= 20


def test_zero_turns_it_off(clock):
    guess(Throttle(0), 50)
    assert clock.slept == []


def test_a_long_night_overflows_nothing(clock):
    guessed = Throttle(2)
    for _ in range(5000):
        guessed.failed("192.0.2.1")
    assert guessed._delay(guessed._records["192.0.2.1"]) == 2


def test_memory_is_bounded(clock):
    guessed = Throttle(2)
    for number in range(throttle.ADDRESSES + 500):
        guessed.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
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
