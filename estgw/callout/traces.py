"""Whether a script that has ended left anything behind in its process that the next script could see.

A decision and a handler that run in one child must each find a process as a new interpreter would be.  Most of that is
made anew for each script (`interpreter.enter`).  What can't be made anew is compared: if anything differs from the
moment before the first script, the child ends, and the handler gets a child of its own.  What is not noticed: an
attribute of one of Python's own modules that was replaced, and what a preloaded module keeps to itself.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal.getsignal makes an enumeration of each, 64 times
import atexit
import builtins
import contextlib
import gc
import itertools
import locale
import logging
import os
import random
import signal
import socket
import sys
import sysconfig
import threading
import types
import warnings
from collections.abc import Callable
from typing import Any

from estgw.callout import interpreter
from estgw.callout.interpreter import Environment, Fresh
from estgw.callout.sources import directory
from estgw.callout.worker import CHANGES_ENVIRONMENT, STARTS_A_PROCESS

SPOILS = STARTS_A_PROCESS | {"sys.addaudithook", "resource.setrlimit", "ctypes.dlopen"}
"""Audit events after which the process is not used again."""
_LIBRARY = (sysconfig.get_path("stdlib") + os.sep, sysconfig.get_path("platstdlib") + os.sep)
_SITE = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)

_SIGNALS = tuple(int(number) for number in signal.valid_signals())

_PROBES: tuple[Callable[[], Any], ...] = (
    threading.active_count,
    lambda: len(threading._threading_atexits),  # type: ignore[attr-defined]
    atexit._ncallbacks,
    lambda: [_signal.getsignal(number) for number in _SIGNALS],
    lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    lambda: [signal.getitimer(kind) for kind in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)],
    lambda: (os.getresuid(), os.getresgid(), os.getgroups(), os.getpriority(os.PRIO_PROCESS, 0)),
    lambda: (sys.getrecursionlimit(), sys.getswitchinterval(), sys.gettrace(), sys.getprofile()),
    lambda: sys.dont_write_bytecode,
    lambda: (*sys.meta_path, None, *sys.path_hooks, sys.displayhook, threading.excepthook),
    lambda: (gc.get_threshold(), gc.get_debug()),
    lambda: (list(warnings.filters), warnings.showwarning),
    lambda: (list(logging.root.handlers), logging.root.level, logging.root.disabled, logging.root.manager.disable),
    lambda: len(logging.root.manager.loggerDict),
    lambda: locale.setlocale(locale.LC_ALL),
    socket.getdefaulttimeout,
    lambda: len(builtins.__dict__),
)


class Traces:
    """The state of a process before a script runs in it."""

    def __init__(self, environment: Environment) -> None:
        self.environment: Environment | None = environment
        """What the environment certainly is; None: the script may have changed it."""
        self._before = [probe() for probe in _PROBES]
        # Values alone: a look at an object copies its page, and there are hundreds of modules.
        self._modules = list(sys.modules.values())
        self._main = sys.modules["__main__"]
        self._is_spoilt = False
        self._imported: list[str] = []
        os.umask(0o077)
        sys.addaudithook(self._audit)

    def _audit(self, event: str, _arguments: object) -> None:
        if event in SPOILS:
            self._is_spoilt = True
        elif event in CHANGES_ENVIRONMENT:
            self.environment = None

    def is_clean(self, program: str) -> bool:
        """Whether another script may run in this process, once `clear` has been called."""
        if self._is_spoilt or [probe() for probe in _PROBES] != self._before:
            return False
        # The modules that were here before must be the same; new ones follow them in the table.
        new = len(sys.modules) - len(self._modules)
        if new < 0 or any(
            now is not before and before is not self._main
            for before, now in zip(self._modules, sys.modules.values(), strict=False)
        ):
            return False
        self._imported = [*itertools.islice(reversed(sys.modules), new)][::-1]
        own = directory(program) + os.sep
        return all(_can_be_imported_again(sys.modules[name], own) for name in self._imported)

    def clear(self, fresh: Fresh) -> bool:
        """Forget the script and the modules that it has imported.  Returns whether its output could be written."""
        written = interpreter.flush()
        interpreter.forget_modules(fresh)
        for name in self._imported:
            del sys.modules[name]
            parent, _, child = name.rpartition(".")
            if parent in sys.modules:
                with contextlib.suppress(AttributeError):
                    delattr(sys.modules[parent], child)
        random.seed()
        os.umask(0o077)
        return interpreter.flush(complain=False) and written


def _can_be_imported_again(module: types.ModuleType, own: str) -> bool:
    """Whether a module is written in Python and stands beside the script or in Python's library.

    Others may keep a state outside of Python, and some refuse to be imported twice in a process.
    """
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py") or any(part in file for part in _SITE):
        return False
    return file.startswith((own, *_LIBRARY))
