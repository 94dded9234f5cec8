"""Processes that have imported the gateway and fork one program of this package after the other.

Most of what a program's start costs is importing its modules.  Each test process has two such processes, so that the
modules are imported once: one for all programs, and one for the warm parents of gateways, which must not have more
modules than the contract promises to Python handlers.  For each connection (`tests.kit.forked`) there are two forks:
the first process waits for the second one, which becomes the program.

A forked gateway starts its workers and its warm parent in the same way, where one that a user starts executes an
interpreter for each.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import json
import os
import resource
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NoReturn, Self

from tests.kit import forked
from tests.kit.forked import Forked

ROOT = Path(__file__).resolve().parents[2]

_WARM = (
    "import sys; modules = set(sys.modules); sys.path[0] = sys.argv[1]; "
    "from tests.kit import preloaded; preloaded.fork_warm_parents(int(sys.argv[2]), modules)"
)
_PROGRAMS = (
    "import sys; sys.path[0] = sys.argv[1]; "
    "from tests.kit import preloaded; preloaded.fork_programs(int(sys.argv[2]), sys.argv[3])"
)


class Program(Forked):
    """A forked program with its standard output in a pipe."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], stderr: IO[Any]) -> None:
        read, write = os.pipe()
        with open(os.devnull) as null, os.fdopen(write, "w"):
            descriptors = {0: null.fileno(), 1: write, 2: stderr.fileno()}
            super().__init__(_addresses()[0], "estgw", arguments, descriptors, environment=environment)
        self.stdout = os.fdopen(read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.wait()


def forked_estgw() -> list[str]:
    """The first words of a command line that does what `python -W error -m estgw` does, without its imports.

    Streams, signals, environment, directory, umask and resource limits are passed on; terminals, privileges and the
    interpreter's own variables, as PYTHONPATH, are not.
    """
    return [sys.executable, "-IS", forked.__file__, _addresses()[0], "estgw"]


def forked_estclient() -> list[str]:
    """The same for `python -W error -m estgw.client`."""
    return [*forked_estgw()[:-1], "estclient"]


def script(words: Sequence[str]) -> str:
    """The text of a program that runs this command line with its own arguments."""
    return f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'


@functools.cache
def _addresses() -> tuple[str, str]:
    """Where this process's forkers listen: programs, warm parents.  They are started here and end with us."""
    warm = _started(_WARM, {"LC_CTYPE": "C.UTF-8", "TZ": "UTC", "HOME": "/nonexistent"})
    return _started(_PROGRAMS, os.environ, "-W", "error", address=warm), warm


def _started(code: str, environment: Mapping[str, str], *options: str, address: str = "") -> str:
    own = f"estgw-tests-{os.urandom(16).hex()}"
    held, watched = socket.socketpair()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * forked.LONGEST)
        listener.bind(f"\0{own}")
        listener.listen(128)
        arguments = [str(ROOT), str(listener.fileno()), address]
        process = subprocess.Popen(
            [sys.executable, *options, "-c", code, *arguments],
            stdin=watched.fileno(),
            stdout=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            pass_fds=[listener.fileno()],
        )
    watched.close()

    @atexit.register
    def end() -> None:
        held.close()
        process.wait()

    return own


def forking() -> dict[ModuleType, object]:
    """What to put for `subprocess` in modules of this process, so that their interpreters are forked."""
    return dict(_forking(*_addresses()))


# In the forkers.


def fork_programs(listener: int, warm: str) -> NoReturn:
    """Serve gateways, their workers and commands; `warm` is the other forker's address."""
    from estgw.cli import main as estgw
    from estgw.client.commands import cli as client
    from estgw.gateway import server
    from estgw.supervision import supervisor, worker

    assert server
    assert supervisor
    estgw.program()
    with socket.socket(fileno=os.dup(listener)) as known:
        own = known.getsockname()[1:].decode()
    for module, forking in _forking(own, warm).items():
        module.__dict__["subprocess"] = forking

    def be_worker(arguments: Sequence[str]) -> None:
        sys.argv[1:] = arguments
        worker.main()

    _serve(listener, {"estgw": estgw.main, "estclient": client.main, "worker": be_worker})


def fork_warm_parents(listener: int, modules: Collection[str]) -> NoReturn:
    """Serve warm parents; `modules` are those that Python had imported at its start."""
    from estgw.callout import forkserver, interpreter

    for name in (*forkserver.PRELOADED, "estgw.cmc_service.service"):  # our configurations have fullcmc
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]  # no script may find them

    def be_warm(arguments: Sequence[str]) -> None:
        interpreter._FILE_LIMITS = resource.getrlimit(resource.RLIMIT_FSIZE)  # those of a new process
        _, control, home, *preload = arguments
        forkserver.main(int(control), modules, home, preload)

    _serve(listener, {"warm": be_warm})


class _Forking:
    """The module `subprocess` for a module of the gateway, whose interpreters are forked instead of executed."""

    def __init__(self, address: str, entry: str, code: str) -> None:
        self._address, self._entry, self._begin = address, entry, [sys.executable, "-c", code]

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def Popen(self, command: Sequence[str], **options: Any) -> Forked | subprocess.Popen[bytes]:  # noqa: N802
        if list(command[:3]) != self._begin:  # a test has put something else there
            return subprocess.Popen(command, **options)
        with open(os.devnull, "r+b") as null:
            streams = {0: options.pop("stdin"), 1: options.pop("stdout"), 2: options.pop("stderr", 2)}
            descriptors = {key: null.fileno() if got == subprocess.DEVNULL else got for key, got in streams.items()}
            descriptors |= {number: number for number in options.pop("pass_fds")}
            return Forked(
                self._address,
                self._entry,
                command[3:],
                descriptors,
                environment=options.pop("env"),
                session=options.pop("start_new_session"),
                directory=options.pop("cwd", os.getcwd()),
                **options,
            )


def _forking(programs: str, warm: str) -> dict[ModuleType, _Forking]:
    """What takes the place of `subprocess` in the modules of the gateway that start interpreters."""
    from estgw.callout import warm as warm_parent
    from estgw.supervision import worker_slot

    return {
        worker_slot: _Forking(programs, "worker", worker_slot._BEGIN),
        warm_parent: _Forking(warm, "warm", warm_parent._BEGIN),
    }


Entry = Callable[[Sequence[str]], int | None]


def _serve(descriptor: int, entries: Mapping[str, Entry]) -> NoReturn:
    """Fork for each connection until standard input is closed."""
    listener = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that wait
    gc.collect()
    gc.freeze()
    while True:
        ready, _, _ = select.select([0, descriptor], [], [])
        if descriptor not in ready:
            os._exit(0)
        connection, _ = listener.accept()
        # Every user of the machine sees the address in /proc/net/unix.
        if _user_of(connection) == os.geteuid() and not os.fork():
            break
        connection.close()
    listener.close()
    room = socket.CMSG_LEN(forked.MOST * array.array("i").itemsize)
    message, controls, _, _ = connection.recvmsg(forked.LONGEST, room)
    received = array.array("i")
    for _, _, numbers in controls:
        received.frombytes(numbers)
    order = json.loads(message)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := os.fork():
        _watch(pid, connection, received, leash=order["leash"])
    connection.close()
    try:
        _settle(order, received)
        status = entries[order["entry"]](order["arguments"])
    except SystemExit as end:
        status = end.code if end.code is None or isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    _end(status or 0)


def _user_of(connection: socket.socket) -> int:
    """The user id of the process that has connected."""
    credentials = struct.Struct("3i")
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    user: int = credentials.unpack(found)[1]
    return user


def _watch(pid: int, connection: socket.socket, received: Collection[int], *, leash: bool) -> NoReturn:
    """Report a process and its end; on a leash, kill it when the other end has gone."""
    for number in (0, 1, 2, *received):
        os.close(number)
    connection.send(b"%d" % pid)
    if leash:
        process = os.pidfd_open(pid)
        ready, _, _ = select.select([process, connection.fileno()], [], [])
        if process not in ready:
            os.kill(pid, signal.SIGKILL)
    end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert end is not None
    with contextlib.suppress(OSError):  # nobody waits for it
        connection.send(b"%d" % (end.si_status if end.si_code == os.CLD_EXITED else -end.si_status))
    os.waitpid(pid, 0)  # not before the other end knows: until then it may send a signal to this process id
    os._exit(0)


def _settle(order: Mapping[str, Any], received: Sequence[int]) -> None:
    """Be as a new process that was started with this order."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if order["session"]:
        os.setsid()
    highest = max([2, *received, *order["descriptors"]]) + 1
    moved = {number: _duplicate(got, highest) for number, got in zip(order["descriptors"], received, strict=True)}
    os.closerange(0, highest)
    for number, duplicate in moved.items():
        os.dup2(duplicate, number, inheritable=number > 2)
        os.close(duplicate)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if number not in moved:  # Python has no stream where the descriptor is closed
            setattr(sys, name, None)
    os.chdir(order["directory"])
    os.umask(order["umask"])
    for limit, soft, hard in order["limits"]:
        if resource.getrlimit(limit) != (soft, hard):
            resource.setrlimit(limit, (soft, hard))
    os.environ.clear()
    os.environ.update(order["environment"])
    if "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]


def _duplicate(descriptor: int, lowest: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)


def _end(status: int) -> NoReturn:
    """End as an interpreter does, up to where it would take the imported modules apart, which takes longest."""
    threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter calls
    atexit._run_exitfuncs()
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            status = 120
    os._exit(status)
