"""How to run a program: environment, files, limits, process group, timeout.  Nothing here knows of EST.

stdin, stdout and stderr are files in memory, never pipes: a child that the program leaves behind can't delay the
answer, and a program that never reads its input can't stall us.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

POLL = 0.01
"""Seconds between two looks at how much the program has written; a flood gets this far past its limit."""
TERM_GRACE = 5.0
"""Seconds between TERM and KILL."""


@dataclass(frozen=True)
class Limits:
    """What a program may take: seconds, and bytes of each output."""

    seconds: float
    stdout: int
    stderr: int


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    exit: int | None
    """The exit status, or None when a signal ended it."""
    signal: int | None
    stdout: bytes
    stderr: bytes
    stderr_truncated: bool = False
    timed_out: bool = False
    flooded: bool = False
    """It wrote more than it may, and was killed for it."""


class CouldNotStart(Exception):
    """The program could not be started: no such file, no execute bit, no interpreter."""


def default_signals() -> None:
    """Make sure that programs get default signals, whoever started us; called once, at the beginning.

    exec passes on what is ignored or blocked, and with SIGCHLD ignored no exit status can be learnt at all: a
    refusal would look like success.  A caught signal is default again after exec, so that is what the ignored ones
    become here.
    """
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # `subprocess` restores these two
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _ignore)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing, like SIG_IGN."""


async def run(program: Path, env: Mapping[str, str], stdin: bytes, limits: Limits) -> Outcome:
    """Run a program to its end; argv is its own path and the working directory its own.

    It gets a session of its own (so nothing can prompt on a terminal, and a timeout can signal the whole group),
    umask 077, default signals and three descriptors.  Whatever happens, cancellation included, its process group
    is gone when this returns.  Raises `CouldNotStart`.
    """
    files = [_memory_file("stdin", stdin), _memory_file("stdout"), _memory_file("stderr")]
    try:
        process = _start(program, env, files)
        try:
            timed_out, flooded = await _wait(process, limits, files[1], files[2])
        finally:
            _end(process)
        stdout, _ = _contents(files[1], limits.stdout)
        stderr, truncated = _contents(files[2], limits.stderr)
        code = process.returncode
        return Outcome(
            exit=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            stdout=stdout,
            stderr=stderr,
            stderr_truncated=truncated,
            timed_out=timed_out,
            flooded=flooded,
        )
    finally:
        for descriptor in files:
            os.close(descriptor)


def _memory_file(name: str, content: bytes = b"") -> int:
    """An anonymous file; appending, so that two writers that opened it apart do not overwrite each other."""
    descriptor = os.memfd_create(f"estgw-{name}", os.MFD_CLOEXEC)
    if content:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    return descriptor


def _start(program: Path, env: Mapping[str, str], files: list[int]) -> subprocess.Popen[bytes]:
    # No preexec_fn, user= or group=: each turns vfork off, and the start then copies the gateway's page tables.
    try:
        return subprocess.Popen(
            [program],
            stdin=files[0],
            stdout=files[1],
            stderr=files[2],
            env=dict(env),
            cwd=program.parent,
            start_new_session=True,
            umask=0o077,
        )
    except OSError as fault:
        raise CouldNotStart(f"{program}: {fault.strerror or fault}") from None


async def _wait(process: subprocess.Popen[bytes], limits: Limits, out: int, err: int) -> tuple[bool, bool]:
    """Wait for the end, whatever brings it; returns (timed out, flooded).  The process is a zombie afterwards."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, _resolve, ended)
    deadline = loop.time() + limits.seconds
    try:
        while not ended.done():
            await asyncio.wait([ended], timeout=max(0.0, min(POLL, deadline - loop.time())))
            if ended.done():
                break
            if os.fstat(out).st_size > limits.stdout or os.fstat(err).st_size > 16 * limits.stderr:
                return False, True
            if loop.time() >= deadline:
                _signal_group(process, signal.SIGTERM)
                await asyncio.wait([ended], timeout=TERM_GRACE)
                return True, False
        return False, os.fstat(out).st_size > limits.stdout
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the group, then reap the leader.

    In this order: as long as the leader is not reaped, its process group id can't belong to anybody else.
    """
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _contents(descriptor: int, limit: int) -> tuple[bytes, bool]:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, min(size, limit), 0), size > limit
