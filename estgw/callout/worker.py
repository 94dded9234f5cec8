"""The pool worker's side: one process that runs one script, or a decision and its handler, for many callouts.

Between two callouts the process is restored: environment, working directory, umask, signals, streams, `__main__`.  What
can't be restored ends the worker: an exception, a thread, or a process that the script started.  The state of imported
modules stays.  That makes a pool worker fast, and a script must be written for it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal.getsignal makes an enumeration of each, 64 times
import atexit
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from estgw.callout import header, interpreter
from estgw.callout.header import Page
from estgw.callout.interpreter import Environment, Fresh
from estgw.callout.sources import Sources, Stamp, directory, version_of

STARTS_A_PROCESS = frozenset(
    {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "subprocess.Popen"}
)
"""Audit events after which another process may be in this worker's group."""
CHANGES_ENVIRONMENT = frozenset({"os.putenv", "os.unsetenv", "ctypes.dlopen"})
"""Audit events after which the environment may be another: the standard library's, and those of C by way of ctypes."""
STALE = "stale"
"""The answer when a module has been edited since it was imported: another worker must serve the callout."""


class _Watch:
    """Hooks that notice what would be left over for the next callout."""

    def __init__(self) -> None:
        self.spoilt = False
        self.environment: Environment | None = None
        """What the environment certainly is; None: a script may have changed it."""
        self._register = atexit.register
        sys.addaudithook(self._audit)
        atexit.register = self._at_exit

    def _audit(self, event: str, _arguments: object) -> None:
        if event in STARTS_A_PROCESS:
            self.spoilt = True
        elif event in CHANGES_ENVIRONMENT:
            self.environment = None

    def _at_exit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Callable[..., Any]:
        # A module registers once, at its import.  A script registers in each callout, and expects the call at its end.
        if sys._getframe(1).f_globals.get("__name__") == "__main__":
            self.spoilt = True
        return self._register(function, *arguments, **options)


@dataclass(frozen=True)
class Bounds:
    """The bounds of one script in bytes, as a packet has them."""

    file: int
    stdout: int


class Worker:
    """One script, or a decision and the handler that follows it, served for one callout after the other."""

    def __init__(self, programs: Sequence[str], sources: Sources, requests: int, fresh: Fresh) -> None:
        self._programs = programs
        self._sources = sources
        self._left = requests
        self._fresh = fresh
        self._me = os.getpid()
        self._signals = {int(number): _signal.getsignal(number) for number in signal.valid_signals()}
        self._watch = _Watch()
        self._folder = directory(programs[0])
        self._modules = 0
        self._stamps: dict[str, Stamp | None] = {}
        self._place = _place(programs[0])

    @property
    def is_stale(self) -> bool:
        """Whether a module of the scripts, or the directory that they lie in, is another than when it was imported."""
        return _place(self._programs[0]) != self._place or any(
            version_of(path) != known for path, known in self._stamps.items()
        )

    def serve(self, bounds: Sequence[Bounds], files: Sequence[int]) -> tuple[int, bool]:
        """Serve one callout; `files` are four descriptors for each script: environment, stdin, stdout, stderr.

        Returns the exit status of the last script that has run, and whether the process can serve another callout.
        """
        self._left -= 1
        stages = [files[at : at + 4] for at in range(0, len(files), 4)]
        # A script that is served alone finds no descriptor of ours but the socket.
        pages = [Page(stage[0]) for stage in stages] if len(stages) > 1 else []
        code, is_fit, ran = 0, True, 0
        for at, (program, bound, (environment, *streams)) in enumerate(
            zip(self._programs, bounds, stages, strict=True)
        ):
            if at:
                if code != 0 or not is_fit or pages[0].is_stopped or interpreter.printed() > bounds[0].stdout:
                    break
                pages[at].begin()
            variables = header.read(environment)
            interpreter.limit_files(bound.file)
            for number, descriptor in enumerate(streams):
                os.dup2(descriptor, number)
            for descriptor in stages[at]:
                os.close(descriptor)
            interpreter.enter(program, variables, self._folder, self._fresh, before=self._watch.environment)
            self._watch.environment = variables
            code, is_fit = self._run(program)
            ran += 4
            if pages:
                pages[at].report(code)
        for descriptor in files[ran:]:
            os.close(descriptor)
        for page in pages:
            page.close()
        _let_go_of_files()
        self._stamp_modules()
        return code, is_fit and self._left > 0

    def _run(self, program: str) -> tuple[int, bool]:
        """Run one script.  Returns its exit status, and whether the process has been restored."""
        code = interpreter.execute(program, self._sources.get(program))
        if os.getpid() != self._me:  # a process that the script forked, at its end
            interpreter.leave(code, self._fresh)
        if self._watch.spoilt or code in (1, -signal.SIGINT) or threading.active_count() > 1:
            return code if interpreter.last_words(self._fresh) else interpreter.BROKEN_OUTPUT, False
        return (code, True) if _clear(self._signals) else (interpreter.BROKEN_OUTPUT, False)

    def _stamp_modules(self) -> None:
        """Note the files of the scripts' own modules that have been imported by now."""
        if len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        for module in self._fresh.imported_since():
            file = getattr(module, "__file__", None)
            if file and (path := os.path.realpath(file)).startswith(self._folder + os.sep):
                self._stamps.setdefault(path, version_of(path))


def serve(programs: Sequence[str], sources: Sources, control: int, requests: int, fresh: Fresh) -> NoReturn:
    """Serve callouts on a socket until one spoils the process, `requests` are served, or the gateway closes it.

    A callout is a packet with the bounds of each script, and four descriptors for each.  The answer is the exit status
    and whether the worker can serve another callout.
    """
    with socket.socket(fileno=control) as gateway:
        interpreter.take_files((), keep=(control,))
        me = Worker(programs, sources, requests, fresh)
        while True:
            packet, files, flags, _ = socket.recv_fds(gateway, 256, 8, socket.MSG_CMSG_CLOEXEC)
            if not packet:
                os._exit(0)
            if flags & socket.MSG_CTRUNC or me.is_stale:
                gateway.send(json.dumps([STALE]).encode())
                os._exit(0)
            code, is_fit = me.serve([Bounds(*pair) for pair in json.loads(packet)], files)
            gateway.send(json.dumps([code, is_fit]).encode())
            if not is_fit:
                gateway.recv(1)  # the gateway ends this process and its group
                os._exit(0)


def _clear(signals: dict[int, Any]) -> bool:
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
        if handler is not None and _signal.getsignal(number) is not handler:
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


def _place(program: str) -> tuple[int, int] | None:
    """The identity of the directory that a script lies in: another one after a link to it was changed."""
    try:
        info = os.stat(os.path.dirname(program))
    except OSError:
        return None
    return info.st_dev, info.st_ino
