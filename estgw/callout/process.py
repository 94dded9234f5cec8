"""What every runner shares: files, limits, and the wait for the end of a program.  Nothing here is about EST.

stdin, stdout and stderr are files in memory, never pipes.  So a process that the program leaves behind can't delay the
answer, and a program that never reads its input can't block the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from estgw.callout import header

POLL = 0.01
"""Seconds between two looks at the size of the output; a flood goes on for this long past its limit."""
LONGEST_POLL = 0.05
"""The same for a program that has not written for a while: each look wakes the gateway."""
TERM_GRACE = 5.0
"""Seconds between TERM and KILL."""
FILE_LIMIT = 1 << 30
"""Bytes of the largest file that a program may write, its outputs included, unless the configuration says otherwise.

The kernel enforces it (SIGXFSZ), even after the gateway was killed.  Without it, one orphaned `yes` fills the machine's
memory.
"""

Files: TypeAlias = tuple[int, int, int]
"""Descriptors of stdin, stdout and stderr."""
Outputs: TypeAlias = "Sequence[tuple[Files, Limits]]"
"""The files of the scripts that a child runs, each with its limits."""


@dataclass(frozen=True)
class Limits:
    """Bounds on a program: seconds, and bytes of each output."""

    seconds: float
    stdout: int
    stderr: int
    file: int = FILE_LIMIT


@dataclass(frozen=True)
class Script:
    """A script to be run, with its environment and standard input."""

    program: Path
    env: Mapping[str, str]
    stdin: bytes
    limits: Limits


@dataclass(frozen=True)
class Stage:
    """A script under way in a child that runs one or two: its environment file, its outputs, and its limits."""

    environment: int
    files: Files
    limits: Limits

    @property
    def descriptors(self) -> tuple[int, int, int, int]:
        """As they travel to the child."""
        return (self.environment, *self.files)


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    exit: int | None
    """The exit status, or None when a signal ended it."""
    signal: int | None
    """The signal; if this is None as well, its end is unknown."""
    stdout: bytes
    stderr: bytes
    stderr_truncated: bool = False
    timed_out: bool = False
    flooded: bool = False
    """It wrote more than its limit and was killed."""
    seconds: float = field(default=0.0, compare=False)
    """How long it ran, in seconds, queueing for a child or a worker included."""


class CouldNotStart(Exception):
    """The program could not be started: no such file, no execute bit, no interpreter.

    Its cause, if it has one, is the OSError, which may be a shortage of the machine (`shortage`).
    """

    @classmethod
    def by(cls, program: Path, fault: OSError, why: str = "") -> CouldNotStart:
        """The exception for a program and an OSError."""
        made = cls(f"{program}: {why}{fault.strerror or fault}")
        made.__cause__ = fault
        return made


class Child(Protocol):
    """A program that runs."""

    ended: asyncio.Future[Any]
    """Done when it has ended."""

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to its process group, if there still is one."""

    async def finish(self) -> int | None:
        """Kill what is left of its group and reap it.

        Returns the exit status as `subprocess` does, negative for a signal, or None if it is lost.
        """


@contextlib.contextmanager
def memory_files(stdin: bytes) -> Iterator[Files]:
    """stdin, stdout and stderr for one program."""
    files: list[int] = []
    try:
        for name, content in (("stdin", stdin), ("stdout", b""), ("stderr", b"")):
            files.append(memory_file(name, content))
            # O_APPEND, so that two writers that open it separately do not overwrite each other.
            fcntl.fcntl(files[-1], fcntl.F_SETFL, os.O_APPEND)
        yield (files[0], files[1], files[2])
    finally:
        for descriptor in files:
            os.close(descriptor)


def memory_file(name: str, content: bytes = b"") -> int:
    """An anonymous file, read from its beginning."""
    descriptor = os.memfd_create(f"estgw-{name}", os.MFD_CLOEXEC)
    if content:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


async def supervise(child: Child, files: Files, limits: Limits) -> Outcome:
    """Wait for a program's end, and enforce its limits.  Returns its output and how it ended."""
    outputs = ((files, limits),)
    began = time.monotonic()
    async with _ended_after(child):
        end = await _wait(child, outputs, limits.seconds)
        if end is _End.OVERTIME:
            await _terminate(child, outputs)
    return _outcome(await child.finish(), files, limits, (end, time.monotonic() - began))


async def supervise_both(child: Child, first: Stage, second: Stage) -> tuple[Outcome, Outcome | None]:
    """The same for a child that runs two scripts, the second if the first exits with 0.  None if it has not begun.

    Each script has its own time; the second's begins when the first has ended.
    """
    outputs = ((first.files, first.limits), (second.files, second.limits))
    began = time.monotonic()
    async with _ended_after(child):
        end = await _wait(child, outputs, first.limits.seconds)
        if end is _End.OVERTIME:
            # The child reports the end of the first script, then looks whether it may go on.  Here it is the other way
            # round, so one of the two sees the other: a script that is over its time is never followed by the second.
            header.stop(first.environment)
            if header.status(first.environment) is not None:
                header.stop(first.environment, wanted=False)
                since = time.monotonic() - header.ended_at(first.environment)
                end = await _wait(child, outputs, max(0.0, second.limits.seconds - since))
        if end is _End.OVERTIME:
            await _terminate(child, outputs)
    code, now = await child.finish(), time.monotonic()
    if not header.has_begun(second.environment):
        # The process's own end counts.  What its environment's head says is for the case that this end is lost.
        status = header.status(first.environment) if code is None else code
        return _outcome(status, first.files, first.limits, (end, now - began)), None
    went_on = header.ended_at(first.environment)
    allowed = _outcome(0, first.files, first.limits, (_End.ENDED, went_on - began))
    return allowed, _outcome(code, second.files, second.limits, (end, now - went_on))


@contextlib.asynccontextmanager
async def _ended_after(child: Child) -> AsyncIterator[None]:
    """End the child if the block raises, also when its task is cancelled."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):  # the exit status no longer matters here
            await child.finish()
        raise


async def _terminate(child: Child, outputs: Outputs) -> None:
    """Ask the child to end, and give it some time for that."""
    child.signal_group(signal.SIGTERM)
    await _wait(child, outputs, TERM_GRACE)


def _outcome(code: int | None, files: Files, limits: Limits, how: tuple[_End, float]) -> Outcome:
    """The outcome for an exit status, the outputs, and how the wait ended, after how many seconds."""
    (end, seconds), (_, out, err) = how, files
    stdout, more = _contents(out, limits.stdout)
    stderr, truncated = _contents(err, limits.stderr)
    return Outcome(
        exit=code if code is not None and code >= 0 else None,
        signal=-code if code is not None and code < 0 else None,
        stdout=stdout,
        stderr=stderr,
        stderr_truncated=truncated,
        timed_out=end is _End.OVERTIME,
        flooded=end is _End.FLOOD or (end is _End.ENDED and more),
        seconds=seconds,
    )


class _End(Enum):
    """How a wait ended."""

    ENDED = 1
    FLOOD = 2
    OVERTIME = 3


async def _wait(child: Child, outputs: Outputs, seconds: float) -> _End:
    """Wait until it ends, floods, or runs out of time; with timers, not tasks, because each callout does this."""
    loop = asyncio.get_running_loop()
    verdict: asyncio.Future[_End] = loop.create_future()
    timer: asyncio.TimerHandle

    def settle(end: _End) -> None:
        if not verdict.done():
            verdict.set_result(end)

    def ended(_: asyncio.Future[Any]) -> None:
        settle(_End.ENDED)

    def look(before: int, pause: float) -> None:
        nonlocal timer
        now = 0
        for files, limits in outputs:
            stdout, stderr = os.fstat(files[1]).st_size, os.fstat(files[2]).st_size
            if stdout > limits.stdout or stderr > 16 * limits.stderr:
                settle(_End.FLOOD)
                return
            now += stdout + stderr
        pause = POLL if now != before else min(2 * pause, LONGEST_POLL)
        timer = loop.call_later(pause, look, now, pause)

    timer = loop.call_later(POLL, look, 0, POLL)
    deadline = loop.call_later(seconds, settle, _End.OVERTIME)
    child.ended.add_done_callback(ended)
    try:
        return await verdict
    finally:
        timer.cancel()
        deadline.cancel()
        child.ended.remove_done_callback(ended)


def _contents(descriptor: int, limit: int) -> tuple[bytes, bool]:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, min(size, limit), 0), size > limit
