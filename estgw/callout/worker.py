"""The pool worker's side: one process that runs one script for many callouts.

Between two callouts the process is restored: environment, working directory, umask, signals, streams, `__main__`.  What
can't be restored ends the worker: an exception, a thread, or a process that the script started.  The state of imported
modules stays.  That makes a pool worker fast, and a script must be written for it.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from estgw.callout import interpreter
from estgw.callout.interpreter import Fresh, Sources, Stamp

STARTS_A_PROCESS = frozenset(
    {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "subprocess.Popen"}
)
"""Audit events after which another process may be in this worker's group."""
STALE = "stale"
"""The answer when a module has been edited since it was imported: another worker must serve the callout."""


class _Watch:
    """Hooks that notice what would be left over for the next callout."""

    def __init__(self) -> None:
        self.spoilt = False
        self._register = atexit.register
        sys.addaudithook(self._audit)
        atexit.register = self._at_exit

    def _audit(self, event: str, _arguments: object) -> None:
        if event in STARTS_A_PROCESS:
            self.spoilt = True

    def _at_exit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Callable[..., Any]:
        # A module registers once, at its import.  A script registers in each callout, and expects the call at its end.
        if sys._getframe(1).f_globals.get("__name__") == "__main__":
            self.spoilt = True
        return self._register(function, *arguments, **options)


def serve(program: str, sources: Sources, control: int, requests: int, fresh: Fresh) -> NoReturn:
    """Serve callouts on a socket until one spoils the process, `requests` are served, or the gateway closes it.

    A callout is a packet with the file limit and four descriptors: environment, stdin, stdout, stderr.  The answer is
    the exit status and whether the worker can serve another callout.
    """
    with socket.socket(fileno=control) as gateway:
        interpreter.take_files((), keep=(control,))
        me, left = os.getpid(), requests
        signals = {number: signal.getsignal(number) for number in signal.valid_signals()}
        imported: dict[str, Stamp | None] = {}
        watch = _Watch()
        while True:
            packet, files, flags, _ = socket.recv_fds(gateway, 64, 4, socket.MSG_CMSG_CLOEXEC)
            if not packet:
                os._exit(0)
            if flags & socket.MSG_CTRUNC or any(_stamp(path) != known for path, known in imported.items()):
                gateway.send(json.dumps([STALE]).encode())
                os._exit(0)
            left -= 1
            interpreter.limit_files(json.loads(packet))
            environment = os.pread(files[0], os.fstat(files[0]).st_size, interpreter.HEADER.size)
            for number, descriptor in enumerate(files[1:]):
                os.dup2(descriptor, number)
            for descriptor in files:
                os.close(descriptor)
            interpreter.enter(program, interpreter.read_environment(environment), fresh)
            code = interpreter.execute(program, sources.get(program))
            if os.getpid() != me:  # a process that the script forked, at its end
                interpreter.leave(code, fresh)
            spoilt = watch.spoilt or code in (1, -signal.SIGINT) or threading.active_count() > 1 or left == 0
            if spoilt:
                code = code if interpreter.last_words(fresh) else interpreter.BROKEN_OUTPUT
            elif not _clear(signals):
                code, spoilt = interpreter.BROKEN_OUTPUT, True
            _let_go_of_files()
            for path in _own_modules(program, fresh):
                imported.setdefault(path, _stamp(path))
            gateway.send(json.dumps([code, not spoilt]).encode())
            if spoilt:
                gateway.recv(1)  # the gateway ends this process and its group
                os._exit(0)


def _clear(signals: dict[signal.Signals, Any]) -> bool:
    """Restore the process.  Returns whether the rest of the script's output could be written."""
    main = sys.modules["__main__"].__dict__
    for name in [name for name in main if not name.startswith("__")]:
        main[name] = None
    written = interpreter.flush()
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    written &= interpreter.flush(complain=False)
    signal.alarm(0)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.setitimer(signal.ITIMER_PROF, 0)
    for number, handler in signals.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o077)
    return written


def _let_go_of_files() -> None:
    """Close the callout's files: nothing is written after an answer, and an idle worker keeps no memory file open."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    if nothing > 2:
        os.close(nothing)


def _own_modules(program: str, fresh: Fresh) -> list[str]:
    """The files of the modules that were imported from the script's own directory."""
    directory = interpreter.directory(program) + os.sep
    files = (getattr(module, "__file__", None) for module in fresh.imported_since())
    return [os.path.realpath(file) for file in files if file and os.path.realpath(file).startswith(directory)]


def _stamp(path: str) -> Stamp | None:
    try:
        return interpreter.stamp(os.stat(path))
    except OSError:
        return None
