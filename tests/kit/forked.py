"""Programs of this package, forked from a process that has imported them (`tests.kit.preloaded`).

A start is a connection to that process.  The first packet says what to run and how; descriptors travel with it.  The
answers are the process id and, later, the exit status.

`python FILE ADDRESS ENTRY [ARGUMENT ...]`, with this file, is such a program for shells and for `subprocess`: it passes
on streams, signals and the exit status.  This module imports little, so it starts in a twentieth of the time in which
an interpreter imports the program.
"""

from __future__ import annotations

import array
import contextlib
import functools
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

LONGEST = 1 << 17
"""Bytes of the longest order, which has a whole environment."""
MOST = 64
"""Descriptors that travel with an order."""
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Forked:
    """A forked process, with the part of `subprocess.Popen` that the gateway and its tests use."""

    def __init__(
        self,
        address: str,
        entry: str,
        arguments: Sequence[str],
        descriptors: Mapping[int, int],
        *,
        environment: Mapping[str, str],
        **options: object,
    ) -> None:
        """`descriptors` has one of ours for each number that there is to be; the child has no others.

        Options: its `directory`; whether it leads a `session` of its own; whether it is on a `leash`, which means
        that it is killed when we end.  Umask and resource limits are ours.
        """
        os.umask(umask := os.umask(0o077))
        order = {
            "entry": entry,
            "arguments": [os.fspath(each) for each in arguments],
            "descriptors": list(descriptors),
            "environment": dict(environment),
            "directory": os.getcwd(),
            "umask": umask,
            "limits": [(each, *resource.getrlimit(each)) for each in _LIMITS],
            "session": False,
            "leash": False,
            **options,
        }
        message = json.dumps(order).encode()
        assert len(message) < LONGEST
        assert len(descriptors) <= MOST
        self.returncode: int | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LONGEST)
        self._socket.connect(f"\0{address}")
        numbers = array.array("i", descriptors.values())
        self._socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
        self.pid = int(self._socket.recv(100))

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        if self.returncode is None:
            self._socket.settimeout(0)
            try:
                self._hear()
            except BlockingIOError:
                return None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; the exit status, negative for a signal.  Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            self._socket.settimeout(timeout)
            try:
                self._hear()
            except TimeoutError:
                from subprocess import TimeoutExpired  # few need it

                raise TimeoutExpired("estgw", timeout or 0) from None
        assert self.returncode is not None
        return self.returncode

    def _hear(self) -> None:
        self.returncode = int(self._socket.recv(100))
        self._socket.close()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            _kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _kill(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(process, number)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _stand_in(address: str, entry: str, *arguments: str) -> int:
    """Be the program.  Returns its exit status, negative for a signal."""
    early: list[int] = []
    forward: Callable[[int], object] = early.append
    for number in _FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: forward(number))
    descriptors = {number: number for number in range(3) if _is_open(number)}
    process = Forked(address, entry, arguments, descriptors, environment=os.environ, leash=True)
    forward = functools.partial(_kill, process.pid)
    for each in early:
        forward(each)
    return process.wait()


if __name__ == "__main__":
    status = _stand_in(*sys.argv[1:])
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)
