"""One child of the warm parent, seen from the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from estgw.callout import header, process
from estgw.callout.process import CouldNotStart, Script, Stage

LONGEST_VARIABLE = 128 * 1024
"""Linux refuses to exec with a longer NAME=value, its final NUL included.  A fork has no such check."""
PATIENCE = 5.0
"""Seconds after KILL until the parent counts as hung."""


class Parent(Protocol):
    """The warm parent, as a job needs it."""

    def signal(self, job: Job, number: signal.Signals) -> None:
        """Signal a child's group."""

    def settle(self, job: Job, code: int | None = None) -> None:
        """Record that a child has ended."""

    def give_up(self) -> None:
        """Kill a parent that does not answer."""


class Job:
    """One child of the warm parent, as a `process.Child`."""

    def __init__(
        self,
        warm: Parent,
        number: int,
        program: Path,
        packet: bytes,
        descriptors: Sequence[int],
        on_begin: Callable[[], None],
    ) -> None:
        self._warm = warm
        self.number = number
        self.program = program
        self.packet = packet
        self.descriptors = descriptors
        self.on_begin = on_begin
        self.ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self.pid: int | None = None
        self.told: signal.Signals | None = None
        """The last signal sent to it, which a dying parent may not have delivered."""
        self._orphan: int | None = None  # a pidfd, once the parent is dead

    @property
    def is_orphan(self) -> bool:
        """Whether its parent has died."""
        return self._orphan is not None

    def signal_group(self, number: signal.Signals) -> None:
        """Signal it and all processes that it has started."""
        if self.ended.done():
            return
        self.told = number
        if self._orphan is None:
            self._warm.signal(self, number)
        else:
            self._kill(number)

    async def finish(self) -> int | None:
        """Kill it if it has not ended.  Returns its exit status."""
        if not self.ended.done():
            self.signal_group(signal.SIGKILL)
            await asyncio.wait([self.ended], timeout=PATIENCE)
            if not self.ended.done() and not self.is_orphan:
                self._warm.give_up()
                await asyncio.wait([self.ended], timeout=PATIENCE)
        return self.ended.result()

    def become_orphan(self) -> None:
        """Watch it by a pidfd, since its parent can no longer report its end."""
        assert self.pid is not None
        try:
            self._orphan = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._orphan = -1
            self._bury()
        else:
            asyncio.get_running_loop().add_reader(self._orphan, self._bury)
            if self.told is not None:
                self._kill(self.told)

    def _bury(self) -> None:
        if self._orphan is not None and self._orphan >= 0:
            asyncio.get_running_loop().remove_reader(self._orphan)
            os.close(self._orphan)
        self._kill(signal.SIGKILL)
        self._warm.settle(self, self._left_word())

    def _kill(self, number: signal.Signals) -> None:
        assert self.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _left_word(self) -> int | None:
        """The exit status that a `run` wrote into the head of its last environment, or None."""
        if self.ended.done() or len(self.descriptors) not in (4, 8):
            return None
        last = self.descriptors[-4]
        return header.status(last if header.has_begun(last) else self.descriptors[0])


@contextlib.contextmanager
def laid_out(script: Script) -> Iterator[Stage]:
    """The files of one script, its environment among them, because that may be larger than a packet.

    Raises `CouldNotStart`.
    """
    text = os.fsencode("".join(f"{name}={value}\0" for name, value in script.env.items()))
    if len(text) > LONGEST_VARIABLE and max(map(len, text.split(b"\0"))) >= LONGEST_VARIABLE:
        raise CouldNotStart(f"{script.program}: Argument list too long")
    environment = process.memory_file("environment", header.blank() + text)
    try:
        with process.memory_files(script.stdin) as files:
            yield Stage(environment, files, script.limits)
    finally:
        os.close(environment)
