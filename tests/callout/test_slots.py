"""The bounds on callouts that run at once."""

from __future__ import annotations

import asyncio

import pytest

from estgw.callout.slots import Busy, Slots


class Scene:
    """Callouts that run until they are released. `running` has their names in order."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.running: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, name: str, serialize: str | None = None, *, brief: bool = False) -> None:
        self.gates[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._hold(name, serialize, brief))
        await self.settle()

    async def _hold(self, name: str, serialize: str | None, brief: bool) -> None:
        async with self.slots.take(serialize, brief=brief):
            self.running.append(name)
            try:
                await self.gates[name].wait()
            finally:
                self.running.remove(name)

    async def end(self, name: str) -> None:
        self.gates[name].set()
        await self.tasks[name]
        await self.settle()

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


def test_callouts_beyond_the_limit_wait_in_order():
    async def play() -> None:
        scene = Scene(Slots(2, 5))
        for name in "abcd":
            await scene.start(name)
        assert scene.running == ["a", "b"]
        await scene.end("b")
        assert scene.running == ["a", "c"]
        await scene.end("a")
        assert scene.running == ["c", "d"]

    asyncio.run(play())


def test_a_callout_beyond_the_queue_is_refused_at_once():
    async def play() -> None:
        scene = Scene(Slots(1, 1))
        await scene.start("running")
        await scene.start("waiting")
        with pytest.raises(Busy):
            async with scene.slots.take():
                raise AssertionError
        await scene.end("running")
        await scene.start("next")
        assert scene.running == ["waiting"]
        await scene.end("waiting")
        assert scene.running == ["next"]

    asyncio.run(play())


def test_without_a_queue_a_second_callout_is_refused():
    async def play() -> None:
        slots = Slots(1, 0)
        async with slots.take():
            with pytest.raises(Busy):
                async with slots.take():
                    raise AssertionError
        async with slots.take():
            pass

    asyncio.run(play())


def test_callouts_of_one_serialize_name_run_one_at_a_time():
    async def play() -> None:
        scene = Scene(Slots(5, 5))
        await scene.start("a", "ca")
        await scene.start("b", "ca")
        await scene.start("other", "other-ca")
        await scene.start("free")
        assert scene.running == ["a", "other", "free"]
        await scene.end("a")
        assert scene.running == ["other", "free", "b"]

    asyncio.run(play())


def test_a_callout_waiting_for_its_name_occupies_no_slot():
    async def play() -> None:
        scene = Scene(Slots(2, 5))
        await scene.start("a", "ca")
        await scene.start("b", "ca")
        await scene.start("free")
        assert scene.running == ["a", "free"]

    asyncio.run(play())


@pytest.mark.parametrize("serialize", [None, "ca"])
def test_a_cancelled_callout_frees_its_slot_and_its_name(serialize):
    async def play() -> None:
        scene = Scene(Slots(1, 2))
        for name in "abc":
            await scene.start(name, serialize)
        await scene.cancel("b")  # was waiting
        await scene.cancel("a")  # was running
        assert scene.running == ["c"]
        await scene.end("c")
        for name in "def":
            await scene.start(name, serialize)
        assert scene.running == ["d"]

    asyncio.run(play())


def test_an_exception_frees_the_slot_and_the_name():
    async def play() -> None:
        slots = Slots(1, 0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                async with slots.take("ca"):
                    raise ZeroDivisionError

    asyncio.run(play())


def test_brief_callouts_do_not_wait_behind_long_ones():
    async def play() -> None:
        scene = Scene(Slots(4, 20))
        for name in "abcdef":
            await scene.start(name)
        await scene.start("first", brief=True)
        assert scene.running == ["a", "b", "c", "d", "first"]
        await scene.start("second", brief=True)
        await scene.end("first")
        assert scene.running == ["a", "b", "c", "d", "second"]

    asyncio.run(play())


def test_brief_callouts_use_the_places_that_no_long_one_takes():
    async def play() -> None:
        scene = Scene(Slots(4, 20))
        for name in "abcdef":
            await scene.start(name, brief=True)
        assert scene.running == ["a", "b", "c", "d", "e"]

    asyncio.run(play())


def test_a_brief_callout_that_is_cancelled_frees_its_place():
    async def play() -> None:
        scene = Scene(Slots(1, 20))
        await scene.start("long")
        for name in "abc":
            await scene.start(name, brief=True)
        await scene.cancel("b")
        await scene.cancel("a")
        assert scene.running == ["long", "c"]

    asyncio.run(play())
