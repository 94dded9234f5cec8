"""A worker's place as the supervisor sees it: its sockets, who is there, and how often somebody has died there."""

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
"""Seconds after which a worker's death has nothing to do with the one before."""
LONGEST_PAUSE = 30.0
"""Seconds between two workers of which the first did not last."""

# The first entry of the search path says where we are; without it that would be wherever somebody started us.
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
    """Who wants to know."""

    def on_ready(self, slot: WorkerSlot) -> None:
        """The worker there accepts connections."""

    def on_end(self, slot: WorkerSlot, end: End) -> None:
        """It has ended; what it said last has been heard."""


class WorkerSlot:
    """One of the places; `index` counts from 0."""

    def __init__(self, index: int, keeper: Keeper) -> None:
        self.index = index
        self.sockets: list[socket.socket] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.is_ready = False
        self.generation = 0
        """Which configuration the worker has."""
        self.faults: list[str] = []
        """Why the last one could not start, if it said so."""
        self.known_faults: list[str] = []
        """What the log has of that already."""
        self.deaths = 0
        """Of workers that did not last, in a row."""
        self.timer: asyncio.TimerHandle | None = None
        self._keeper = keeper
        self._answer: asyncio.Future[list[str]] | None = None

    def start(self, orders: Orders, environment: Mapping[str, str]) -> None:
        """Start a worker, whose orders lack the line and the sockets.  Raises OSError."""
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.setblocking(False)
        orders = replace(orders, line=theirs.fileno(), sockets=[sock.fileno() for sock in self.sockets])
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _BEGIN, _ROOT, orders.text()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=environment,
                    pass_fds=[orders.line, orders.config, *orders.sockets],
                    start_new_session=True,  # Ctrl-C is for the supervisor
                )
        except OSError:
            self._line.close()
            raise
        loop = asyncio.get_running_loop()
        self.faults, self._started = [], loop.time()
        self._descriptor = os.pidfd_open(self.process.pid)
        loop.add_reader(self._line, self._hear)
        loop.add_reader(self._descriptor, self._end)

    def ask(self, config: int) -> asyncio.Future[list[str]]:
        """Have it prepare another configuration; the faults that it finds, none if it dies meanwhile."""
        self._answer = asyncio.get_running_loop().create_future()
        self.say("prepare", config)
        return self._answer

    def give_up(self) -> list[str]:
        """If it has not answered, it never will: kill it.  That is a fault, too."""
        if self._answer is None or self.process is None:
            return []
        self.process.kill()
        return [f"worker {self.index + 1} did not answer in time"]

    def say(self, word: str, *descriptors: int) -> None:
        """Say something to it; if it can't hear, that will be noticed by its end or a missing answer."""
        with contextlib.suppress(OSError):
            control_channel.say(self._line, word, descriptors=descriptors)

    def close_sockets(self) -> None:
        """Let the kernel give new connections to others; those that nobody has accepted are cut."""
        for sock in self.sockets:
            sock.close()
        self.sockets = []

    def pause(self, lasted: bool = False) -> float:
        """Another death: seconds until the next worker; none after one that had lasted."""
        self.deaths = 1 if lasted else self.deaths + 1
        return min(LONGEST_PAUSE, 0.5 * 2.0 ** min(self.deaths - 2, 10)) if self.deaths > 1 else 0.0

    def _hear(self) -> bool:
        """Whether something was said."""
        try:
            heard = control_channel.hear(self._line)
        except BlockingIOError:
            return False
        if heard is None:
            asyncio.get_running_loop().remove_reader(self._line)
            return False
        word, faults, _ = heard
        if word == "ready":
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
        loop.remove_reader(self._line)
        loop.remove_reader(self._descriptor)
        self._line.close()
        os.close(self._descriptor)
        self._settle([])
        lasted = self.is_ready and loop.time() - self._started > LONG_ENOUGH
        end = End(self.process.pid, self.process.wait(), self.is_ready, lasted)
        self.process, self.is_ready = None, False
        self._keeper.on_end(self, end)
