from __future__ import annotations

import asyncio
import time

import pytest

from estgw.auth import throttle
from estgw.auth.throttle import BURST, NAMES, USERS, Throttle
from estgw.errors import TooManyGuesses
from tests.kit.processes import ROOT


class Clock:
    """A clock that only sleeping moves."""

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


ADDRESS = "192.0.2.1"


def guess(of: Throttle, times: int, address: str = ADDRESS, user: str = "ann") -> None:
    async def wrong() -> None:
        async with of.turn(address, user):
            of.failed(address, user)

    async def all_of_them() -> None:
        for _ in range(times):
            await wrong()

    asyncio.run(all_of_them())


def log_in(of: Throttle, address: str = ADDRESS, user: str = "ann") -> None:
    """Log in with the right password."""

    async def right() -> None:
        async with of.turn(address, user):
            of.succeeded(address, user)

    asyncio.run(right())


def failures(of: Throttle, user: str = "ann") -> int:
    known = of._addresses.get(ADDRESS)
    found = known.of.get(throttle._digest(user)) if known else None
    return found.count if found else 0


def test_the_delay_doubles_up_to_guess_delay(clock):
    guess(Throttle(2), 10)
    assert clock.slept == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2]


def test_several_processes_multiply_the_delay_by_their_number(clock):
    """A client may go from one process to the next, and each process knows only its own failures."""
    guess(Throttle(2, of=4), 9)
    assert clock.slept == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 8, 8]


def test_a_failure_delays_no_other_address(clock):
    guessed = Throttle(2)
    guess(guessed, 5)
    clock.slept.clear()
    log_in(guessed, "192.0.2.2")
    assert clock.slept == []


def test_a_guessing_participant_does_not_delay_others_behind_one_address(clock):
    """p7 guesses for half an hour without a pause. In between the others log in, and sometimes mistype."""
    guessed = Throttle(2)
    for minute in range(30):
        guess(guessed, 30, user="p7")
        clock.slept.clear()
        for number in range(20):
            log_in(guessed, user=f"q{number}")
        guess(guessed, 1, user=f"q{minute % 20}")
        log_in(guessed, user=f"q{minute % 20}")
        assert sum(clock.slept) <= 0.05, "a participant waits for nothing but the own failure"


HOUR = 3600


def guesses_in(clock: Clock, guessed: Throttle, *users: str, seconds: float = HOUR) -> int:
    """Count the guesses that one address can make in this time, taking turns at these users."""

    async def guesses() -> int:
        end, count = clock.now + seconds, 0
        while True:
            async with guessed.turn(ADDRESS, users[count % len(users)]):
                if clock.now > end:
                    return count
                guessed.failed(ADDRESS, users[count % len(users)])
            count += 1

    return asyncio.run(guesses())


def test_readme_and_conf_state_the_guesses_per_hour(clock):
    default = Throttle(2)
    one = guesses_in(clock, default, "ann")
    many = guesses_in(clock, Throttle(2), *(f"user{number}" for number in range(1000)))
    assert one == 1 + 6 + (HOUR - 3) // 2  # one at once, six while the delay grows for 3.15 s, then one every 2 s
    assert many == BURST + USERS * HOUR / 2
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "1,800 guesses an hour at one user" in readme
    assert "14,400 an hour over all user names" in readme
    conf = " ".join((ROOT / "conf.yaml").read_text(encoding="utf-8").replace("#", " ").split())
    assert "1800 guesses an hour at one user and 14400 over all names" in conf


@pytest.mark.parametrize("names", [2, 8, NAMES, NAMES + 1, 5 * NAMES])
def test_guesses_at_many_names_stay_within_the_bound_of_an_address(clock, names):
    """This holds even if so many names fail that the address forgets the first of them."""
    victim, others = "victim", [f"user{number}" for number in range(names - 1)]
    guesses = guesses_in(clock, Throttle(2), victim, *others, seconds=900)
    assert guesses <= USERS * 900 / 2 + BURST
    assert guesses / names <= 900 / 2 + BURST, "at the one user"


def test_a_right_password_removes_that_users_failures(clock):
    guessed = Throttle(2)
    guess(guessed, 5)
    log_in(guessed)
    clock.slept.clear()
    guess(guessed, 1)
    assert clock.slept == []
    guessed.succeeded("192.0.2.77", "ann")  # never seen before
    clock.now += 10
    log_in(guessed)
    assert not guessed._addresses


def test_a_right_password_removes_no_failures_of_another_user(clock):
    """Logging in with one's own password between two guesses at another user must not make them faster."""
    guessed = Throttle(2)
    for _ in range(8):
        guess(guessed, 1, user="victim")
        log_in(guessed, user="mallory")
    assert clock.slept == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2]  # each guess but the first, and no success


def test_a_right_password_does_not_reset_the_bound_of_the_address(clock):
    guessed = Throttle(2)
    for number in range(BURST + 8):
        guess(guessed, 1, user=f"user{number}")
        log_in(guessed, user="mallory")
    assert sum(clock.slept) >= 7 * 2 / USERS


def test_failures_of_other_users_still_count_after_a_right_password(clock):
    guessed = Throttle(2)
    guess(guessed, 3, user="victim")
    guess(guessed, 2, user="mallory")
    log_in(guessed, user="mallory")
    assert (failures(guessed, "victim"), failures(guessed, "mallory")) == (3, 0)
    log_in(guessed, user="victim")
    assert failures(guessed, "victim") == 0


def test_many_long_names_use_bounded_memory_and_keep_their_delay(clock):
    guessed = Throttle(2)
    for number in range(1000):
        guessed.failed(ADDRESS, f"{number}" * 1000)
    known = guessed._addresses[ADDRESS]
    assert len(known.of) == NAMES
    assert max(map(len, known.of)) == 16
    for number in range(1000):
        guessed.succeeded(ADDRESS, f"{number}" * 1000)
    assert known.full_until - clock.now == 1000 * 2 / USERS
    with pytest.raises(TooManyGuesses) as refusal:
        log_in(guessed, user="new")
    assert int(refusal.value.headers["Retry-After"]) == int((1001 - BURST) * 2 / USERS) + 1


def test_user_names_that_are_not_unicode_are_told_apart(clock):
    guessed = Throttle(2)
    guessed.failed(ADDRESS, "\udce9")
    guessed.succeeded(ADDRESS, "\udcea")
    assert failures(guessed, "\udce9") == 1


def test_failures_are_forgotten_after_a_while(clock):
    guessed = Throttle(2)
    guess(guessed, 8)
    clock.now += throttle.FORGET + 1
    clock.slept.clear()
    guess(guessed, 3)
    assert clock.slept == [0.05, 0.1]


def test_attempts_at_once_wait_one_after_another(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(throttle, "time", clock)
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))  # no time passes: all attempts come at once

    monkeypatch.setattr(asyncio, "sleep", sleep)
    guessed = Throttle(2)

    def log_in_later(of: Throttle) -> None:
        async def attempt() -> None:
            async with of.turn(ADDRESS, "ann"):
                pass

        asyncio.run(attempt())

    for _ in range(8):
        guessed.failed(ADDRESS, "ann")
    with pytest.raises(TooManyGuesses) as refusal:
        for _ in range(100):
            log_in_later(guessed)
    assert slept == [2 * at for at in range(1, 11)]
    assert int(refusal.value.headers["Retry-After"]) >= 20


async def verified(
    of: Throttle, done: list[int], number: int, address: str = ADDRESS, good: bool = False, user: str = "ann"
) -> None:
    """Make an attempt whose verdict takes a moment, as with a password hash."""
    async with of.turn(address, user):
        await asyncio.sleep(0.02)
        done.append(number)
        (of.succeeded if good else of.failed)(address, user)


def test_a_thousand_first_guesses_at_once_run_a_few_at_a_time():
    """No attempt has failed yet when they come, so only the number that may run together runs without a delay."""

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


def test_a_thousand_guesses_at_as_many_users_stop_at_the_burst():
    async def main() -> None:
        guessed, done = Throttle(2), list[int]()
        crowd = [asyncio.create_task(verified(guessed, done, at, user=f"user{at}")) for at in range(1000)]
        await asyncio.sleep(0.5)
        assert throttle.SIDE_BY_SIDE <= len(done) <= BURST + 4
        for each in crowd:
            each.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        assert guessed._gates == {}
        assert guessed._addresses[ADDRESS].trying == 0

    asyncio.run(main())


def test_a_crowd_behind_one_address_is_not_delayed_by_one_guesser():
    async def main() -> float:
        guessed, done = Throttle(2), list[int]()
        guesser = [asyncio.create_task(verified(guessed, done, -1, user="p7")) for _ in range(200)]
        await asyncio.sleep(0.3)
        started = time.monotonic()
        await asyncio.gather(*(verified(guessed, done, at, good=True, user=f"q{at}") for at in range(80)))
        took = time.monotonic() - started
        for each in guesser:
            each.cancel()
        await asyncio.gather(*guesser, return_exceptions=True)
        return took

    assert asyncio.run(main()) < 2  # ten times 20 ms


def test_right_passwords_at_once_are_not_delayed():
    async def main() -> float:
        guessed, done = Throttle(2), list[int]()
        started = time.monotonic()
        await asyncio.gather(*(verified(guessed, done, number, good=True) for number in range(80)))
        assert len(done) == 80
        return time.monotonic() - started

    assert asyncio.run(main()) < 2  # ten times 20 ms; a delayed attempt would wait for two seconds


def test_an_attempt_without_a_free_place_is_refused_after_a_while(monkeypatch):
    monkeypatch.setattr(throttle, "PATIENCE", 0.1)

    async def main() -> None:
        guessed = Throttle(2)
        stop = asyncio.Event()

        async def slow() -> None:
            async with guessed.turn(ADDRESS, "ann"):
                await stop.wait()

        crowd = [asyncio.create_task(slow()) for _ in range(throttle.SIDE_BY_SIDE)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyGuesses):
            await slow()
        stop.set()
        await asyncio.gather(*crowd)
        assert guessed._gates == {}

    asyncio.run(main())


def test_a_fault_while_verifying_frees_its_place():
    async def main() -> None:
        guessed = Throttle(2)
        for _ in range(3 * throttle.SIDE_BY_SIDE):
            with pytest.raises(ValueError, match="the directory sleeps"):
                async with guessed.turn(ADDRESS, "ann"):
                    raise ValueError("the directory sleeps")
        assert guessed._gates == {}

    asyncio.run(main())


def test_a_guess_delay_of_zero_turns_throttling_off(clock):
    async def main() -> None:
        guessed = Throttle(0)
        for _ in range(50):
            async with guessed.turn(ADDRESS, "ann"):
                guessed.failed(ADDRESS, "ann")

    asyncio.run(main())
    assert clock.slept == []


def test_thousands_of_failures_do_not_overflow_the_delay(clock):
    guessed = Throttle(2)
    for _ in range(5000):
        guessed.failed(ADDRESS, "ann")
    assert guessed._delay(guessed._addresses[ADDRESS].of[throttle._digest("ann")]) == 2


def test_remembered_addresses_are_bounded_and_the_oldest_goes_first(clock):
    guessed = Throttle(2)
    for number in range(throttle.ADDRESSES + 500):
        guessed.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "ann")
    assert len(guessed._addresses) == throttle.ADDRESSES
    assert "10.0.0.1" not in guessed._addresses  # the one that failed longest ago went first


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        (ADDRESS, "192.0.2.2", False),
    ],
)
def test_addresses_of_one_ipv6_subnet_count_as_one(one, other, same):
    assert (throttle._key(one) == throttle._key(other)) is same


def test_text_that_is_not_an_address_is_its_own_key():
    assert throttle._key("a socket's path") == "a socket's path"


# Remembered passwords are delayed, too, unless their address is quiet.


def test_an_address_with_a_failure_is_not_quiet_for_any_user(clock):
    busy = Throttle(2)
    assert busy.is_quiet(ADDRESS, "ann")
    guess(busy, 1, user="bob")
    assert not busy.is_quiet(ADDRESS, "ann")
    assert busy.is_quiet("192.0.2.2", "ann")


def test_an_address_with_an_open_attempt_is_not_quiet_for_any_user():
    busy = Throttle(2)

    async def attempt() -> None:
        async with busy.turn(ADDRESS, "ann"):
            assert not busy.is_quiet(ADDRESS, "ann")
            assert not busy.is_quiet(ADDRESS, "bob")
            assert busy.is_quiet("192.0.2.2", "ann")

    asyncio.run(attempt())
    assert busy.is_quiet(ADDRESS, "ann")
