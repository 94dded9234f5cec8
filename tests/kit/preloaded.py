"""A process that has imported the gateway and forks one `estgw serve` after the other.

Most of what a gateway's start costs is importing its modules.  This process imports them once for each test process.
A start is a message on a socket, with the command line, the environment, the working directory, and three descriptors:
standard output, standard error, and a socket that brings the process id and later the exit status.  Two forks follow:
the first process waits for the second one, which becomes the gateway.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, Self

ROOT = Path(__file__).resolve().parents[2]
_LONGEST = 1 << 17


class Forked:
    """A forked gateway, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], stderr: IO[Any]) -> None:
        mine, its = socket.socketpair()
        read, write = os.pipe()
        order = {"arguments": list(arguments), "environment": dict(environment), "directory": os.getcwd()}
        message = json.dumps(order).encode()
        assert len(message) < _LONGEST
        try:
            socket.send_fds(_forker(), [message], [write, stderr.fileno(), its.fileno()])
        finally:
            os.close(write)
            its.close()
        self.returncode: int | None = None
        self.stdout = os.fdopen(read)
        self._socket = mine
        self._lines = mine.makefile("r")
        self.pid = int(self._lines.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.wait()

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; the exit status, negative for a signal."""
        if self.returncode is None:
            self._socket.settimeout(timeout)
            try:
                self.returncode = int(self._socket.recv(100))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("estgw", timeout or 0) from None
            self._lines.close()
            self._socket.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def _forker() -> socket.socket:
    """The socket of this process's forker, which is started when it is first needed and ends with us."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for each in (mine, its):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _LONGEST)
    command = [sys.executable, "-W", "error", "-m", "tests.kit.preloaded", str(its.fileno())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=environment, pass_fds=[its.fileno()])
    its.close()

    @atexit.register
    def end() -> None:
        mine.close()
        process.wait()

    return mine


def _serve(orders: socket.socket) -> list[str]:
    """Fork for each order until the other end is closed; return in the process that becomes a gateway."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that wait
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, _LONGEST, 3)
        if not message:
            os._exit(0)
        if not os.fork():
            break
        for descriptor in descriptors:
            os.close(descriptor)
    orders.close()
    stdout, stderr, report = descriptors
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := os.fork():
        os.close(stdout)
        os.close(stderr)
        os.write(report, b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        os.write(report, b"%d" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    os.close(report)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target, descriptor in ((1, stdout), (2, stderr)):
        os.dup2(descriptor, target)
        os.close(descriptor)
    order = json.loads(message)
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["environment"])
    tempfile.tempdir = None
    arguments: list[str] = order["arguments"]
    return arguments


def _end(status: int) -> NoReturn:
    """End as an interpreter does, up to where it would take the imported modules apart, which takes longest."""
    threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter calls
    atexit._run_exitfuncs()
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    from estgw.cli.main import main
    from estgw.gateway import server
    from estgw.supervision import supervisor

    assert server and supervisor  # loaded before the forks
    gc.freeze()
    _end(main(_serve(socket.socket(fileno=int(sys.argv[1])))))
