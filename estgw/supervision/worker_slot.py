"""A worker slot: the listening sockets of one worker, its process, and how often that had to be replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from estgw.supervision import control_channel
from estgw.supervision.control_channel import Orders

LONG_ENOUGH = 30.0
"""A worker that has run for so many seconds starts a new count of early deaths."""
LONGEST_PAUSE = 30.0
"""The longest pause, in seconds, before a worker is started again after early deaths."""

# The first entry of the search path is where this package lies; by default it would be the working directory.
_BEGIN = "import sys; sys.path[0] = sys.argv[1]; from estgw.supervision import worker; worker.main()"
_ROOT = str(Path(__file__).resolve().parents[2])


@dataclass(frozen=True)
class End:
    """How a worker ended."""

    pid: int
    code: int
    """The exit status, or the signal's number negated."""
    was_ready: bool
    lasted: bool

    def __str__(self) -> str:
        if self.code >= 0:
            return f"exit status {self.code}"
        return signal.Signals(-self.code).name if -self.code in set(signal.Signals) else f"signal {-self.code}"


class Keeper(Protocol):
    """The owner of a slot, which is told of changes."""

    def on_ready(self, slot: WorkerSlot) -> None:
        """The worker there accepts connections."""

    def on_end(self, slot: WorkerSlot, end: End) -> None:
        """The worker has ended, and all its packets have been read."""


class WorkerSlot:
    """One worker slot; `index` counts from 0."""

    def __init__(self, index: int, keeper: Keeper) -> None:
        self.index = index
        self.sockets: list[socket.socket] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.is_ready = False
        self.generation = 0
        """The number of the worker's configuration."""
        self.faults: list[str] = []
        """Why the last worker could not start, if it reported that."""
        self.known_faults: list[str] = []
        """The faults that have been logged."""
        self.missed = 0
        """Pings in a row that the worker has not answered.

        Pings are counted, not seconds: if a whole machine stood still, its workers have missed one.
        """
        self.deaths = 0
        """Workers in a row that ended early."""
        self.timer: asyncio.TimerHandle | None = None
        self._keeper = keeper
        self._answer: asyncio.Future[list[str]] | None = None

    def start(self, orders: Orders, environment: Mapping[str, str]) -> None:
        """Start a worker.  `orders` lack the control channel and the sockets.  Raises OSError."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setblocking(False)
        orders = replace(orders, channel=theirs.fileno(), sockets=[sock.fileno() for sock in self.sockets])
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _BEGIN, _ROOT, orders.text()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=environment,
                    pass_fds=[orders.channel, orders.config, *orders.sockets],
                    start_new_session=True,  # Ctrl-C is for the supervisor
                )
        except OSError:
            self._channel.close()
            raise
        loop = asyncio.get_running_loop()
        self.faults, self.missed, self._started = [], 0, loop.time()
        self._descriptor = os.pidfd_open(self.process.pid)
        loop.add_reader(self._channel, self._hear)
        loop.add_reader(self._descriptor, self._end)

    def ask(self, config: int) -> asyncio.Future[list[str]]:
        """Ask the worker to prepare another configuration.  The result is its faults; none if it dies meanwhile."""
        self._answer = asyncio.get_running_loop().create_future()
        self.say("prepare", config)
        return self._answer

    @property
    def owes_an_answer(self) -> bool:
        """Whether the worker has been asked something and has not answered."""
        return self.missed > 0 or self._answer is not None

    def ping(self) -> None:
        """Ask a worker that is ready whether it is alive.

        A worker that reads another configuration is busy with that, and `give_up` ends it if it takes too long.
        """
        if not self.is_ready or self._answer is not None:
            return
        if not self.missed:
            self.say("ping")
        self.missed += 1

    def give_up(self) -> list[str]:
        """Kill a worker that has not answered.  Returns that as a fault."""
        if self._answer is None or self.process is None:
            return []
        self.process.kill()
        return [f"worker {self.index + 1} did not answer in time"]

    def say(self, word: str, *descriptors: int) -> None:
        """Send a word.  A worker that can't be reached is noticed by its end or by a missing answer."""
        with contextlib.suppress(OSError):
            control_channel.say(self._channel, word, descriptors=descriptors)

    def close_sockets(self) -> None:
        """Close the sockets, so that the kernel gives new connections to other workers.  Queued ones are reset."""
        for sock in self.sockets:
            sock.close()
        self.sockets = []

    def pause(self, lasted: bool = False) -> float:
        """Count an end.  Returns the seconds until the next start: 0 if the worker had `lasted`."""
        self.deaths = 1 if lasted else self.deaths + 1
        return min(LONGEST_PAUSE, 0.5 * 2.0 ** min(self.deaths - 2, 10)) if self.deaths > 1 else 0.0

    def _hear(self) -> bool:
        """Read one packet.  Returns whether there was one."""
        try:
            heard = control_channel.hear(self._channel)
        except BlockingIOError:
            return False
        if heard is None:
            asyncio.get_running_loop().remove_reader(self._channel)
            return False
        word, faults, _ = heard
        if word == "pong":
            self.missed = 0
        elif word == "ready":
            self.is_ready, self.known_faults = True, []
            self._keeper.on_ready(self)
        elif self._answer is not None:
            self._settle(faults)
        else:
            self.faults = faults
        return True

    def _settle(self, faults: list[str]) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(faults)
        self._answer = None

    def _end(self) -> None:
        assert self.process is not None
        while self._hear():
            pass
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._channel)
        loop.remove_reader(self._descriptor)
        self._channel.close()
        os.close(self._descriptor)
        self._settle([])
        lasted = self.is_ready and loop.time() - self._started > LONG_ENOUGH
        end = End(self.process.pid, self.process.wait(), self.is_ready, lasted)
        self.process, self.is_ready, self.missed = None, False, 0
        self._keeper.on_end(self, end)
