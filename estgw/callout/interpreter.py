"""Make a forked child look to its script like an interpreter that was started for it.

This module repeats what Python does between its start and a script's first line, and between the last line and the end
of the process.  It runs in children of the warm parent only; the gateway never imports a script.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import io
import os
import resource
import signal
import struct
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Collection, Iterator
from importlib.machinery import SourceFileLoader
from typing import Any, NoReturn, TypeAlias

from estgw.callout.sources import Source, directory

BROKEN_OUTPUT = 120
"""Python's exit status when the rest of its output could not be written."""
START_ONLY = (b"PYTHON", b"LD_", b"MALLOC_", b"GLIBC_")
"""Variables with these prefixes are read once, when a process starts; after a fork it is too late."""
LOCALE = b"C.UTF-8"
"""The locale of the warm parent; the contract promises it to scripts."""
NOTE = struct.Struct("=i")
"""What the warm parent's stdout holds: the number of its current request, or 0."""

Environment: TypeAlias = dict[bytes, bytes]

_FILE_LIMITS = resource.getrlimit(resource.RLIMIT_FSIZE)


class Fresh:
    """The modules of Python itself, as opposed to a script's; made once, before the first script runs."""

    def __init__(self, modules: Collection[str]) -> None:
        """`modules` are those that every interpreter has at its start."""
        self._modules = frozenset(sys.modules)
        self._last = next(reversed(sys.modules))
        self.search_path = tuple(sys.path[1:])
        self._preloaded = frozenset(name for name in sys.modules if "." not in name) - frozenset(modules)

    def imported_since(self) -> Iterator[types.ModuleType]:
        """The modules that the script has imported, last first: looking at each preloaded one would copy its page."""
        for name in reversed(sys.modules):
            if name == self._last:
                break
            if name not in self._modules:
                yield sys.modules[name]

    def can_be_had_by_fork(self, program: str, environment: Environment) -> bool:
        """Whether the script can't distinguish this child from an interpreter that was started for it.

        It can if a variable changes how Python starts, or if a file beside the script has the name of a module that is
        preloaded here but would have been found there first.
        """
        locale = environment.get(b"LC_ALL") or environment.get(b"LC_CTYPE") or environment.get(b"LANG")
        if locale != LOCALE or any(name.startswith(START_ONLY) for name in environment):
            return False
        with os.scandir(directory(program)) as beside:
            return not any(entry.name.partition(".")[0] in self._preloaded and _is_module(entry) for entry in beside)


def _is_module(entry: os.DirEntry[str]) -> bool:
    if entry.name.endswith((".py", ".so", ".pyc")):
        return True
    return entry.is_dir() and os.path.exists(os.path.join(entry.path, "__init__.py"))


def take_files(files: Collection[int], keep: Collection[int] = ()) -> None:
    """Make these stdin, stdout and stderr, and close everything else but `keep`."""
    for number, descriptor in enumerate(files):
        os.dup2(descriptor, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            with contextlib.suppress(OSError):  # the listing's own
                os.close(int(name))


def limit_files(size: int) -> None:
    """Let files grow to `size` bytes, and to no more than we were given ourselves."""
    soft, hard = _FILE_LIMITS
    bounds = [limit for limit in (size, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(bounds), hard))


def enter(
    program: str, environment: Environment, folder: str, fresh: Fresh, *, before: Environment | None = None
) -> None:
    """Set the process up as a script's interpreter is when it begins; `folder` is the `directory` of the script.

    `before` is the environment that the process certainly has, or None if that is not known.
    """
    os.chdir(os.path.dirname(program))
    _change_environment(environment, before)
    time.tzset()
    sys.stdin = sys.__stdin__ = _stream(0, "r", "surrogateescape")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _stream(1, "w", "surrogateescape")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2, "w", "backslashreplace")  # type: ignore[misc]
    sys.excepthook, sys.unraisablehook = sys.__excepthook__, sys.__unraisablehook__
    sys.argv = [program]
    sys.orig_argv = [sys.executable, program]
    sys.path[:] = [folder, *fresh.search_path]
    gc.enable()


def _change_environment(wanted: Environment, before: Environment | None) -> None:
    """Make the environment this one.  What is right already stays, since a variable that is set anew costs 6 us."""
    if before is None:
        os.environ.clear()
        before = {}
    for name in before.keys() - wanted.keys():
        del os.environb[name]
    for name, value in wanted.items():
        if before.get(name) != value:
            os.environb[name] = value


def start_anew(program: str, environment: Environment) -> NoReturn:
    """Become an interpreter that was started for this script."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these two
        signal.signal(number, signal.SIG_DFL)
    os.chdir(os.path.dirname(program))
    os.execve(sys.executable, [sys.executable, program], environment)  # noqa: S606 - there must be no shell


def _stream(descriptor: int, mode: str, errors: str) -> io.TextIOWrapper:
    """A standard stream as Python makes it in the locale C.UTF-8."""
    name = ("<stdin>", "<stdout>", "<stderr>")[descriptor]
    buffer = open(descriptor, f"{mode}b", closefd=False)  # noqa: SIM115 - it stays open until the end
    buffer.raw.name = name  # type: ignore[attr-defined]
    stream = io.TextIOWrapper(buffer, "utf-8", errors, newline="\n", line_buffering=descriptor == 2)
    stream.mode = mode  # type: ignore[misc]
    return stream


def execute(program: str, source: Source | None) -> int:
    """Run a script as `__main__`.  Returns its exit status, negative if it must end by a signal."""
    main = types.ModuleType("__main__")
    loader = SourceFileLoader("__main__", program)
    main.__dict__.update(__annotations__={}, __builtins__=builtins, __file__=program, __cached__=None)
    main.__loader__ = loader
    sys.modules["__main__"] = main
    try:
        if source is None or source.code is None:
            code = compile(loader.get_data(program), program, "exec", dont_inherit=True)
        else:
            code = source.code
            for said in source.complaints:
                warnings.warn_explicit(said.message, said.category, said.filename, said.lineno)
        exec(code, main.__dict__)  # noqa: S102 - this function runs scripts
    except SystemExit as end:
        return _exit_status(end.code)
    except KeyboardInterrupt as fault:
        _report(fault)
        return -signal.SIGINT
    except BaseException as fault:  # noqa: BLE001 - Python ends with 1 after any exception
        _report(fault)
        return 1
    return 0


def _exit_status(code: object) -> int:
    """The exit status for an argument of `sys.exit`."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -(2**63) <= code < 2**63 else 0xFF
    with contextlib.suppress(Exception):
        print(code, file=sys.stderr)  # noqa: T201 - as Python does
    return 1


def _report(fault: BaseException) -> None:
    """Print the traceback, without our own frame."""
    trace = fault.__traceback__
    fault.__traceback__ = trace.tb_next if trace else None
    try:
        sys.excepthook(type(fault), fault, fault.__traceback__)
    except BaseException as second:  # noqa: BLE001 - the script's own hook can raise anything
        sys.__excepthook__(type(second), second, second.__traceback__)
        sys.__excepthook__(type(fault), fault, fault.__traceback__)


def last_words(fresh: Fresh) -> bool:
    """Do what Python does when a script has ended, in its order.  Returns whether everything could be written.

    Wait for threads, run `atexit`, empty the modules (which closes, and so writes, the files that the script has left
    open), and flush the streams.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    written = flush()
    forget_modules(fresh)
    return flush(complain=False) and written


def forget_modules(fresh: Fresh) -> None:
    """Empty the script's module and those that it has imported."""
    main = sys.modules["__main__"]
    for module in [main, *fresh.imported_since()]:
        names: dict[str, Any] = getattr(module, "__dict__", {})
        for private in (True, False):
            for name in [name for name in names if name.startswith("_") is private and not name.startswith("__")]:
                names[name] = None
    gc.collect()
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


def flush(*, complain: bool = True) -> bool:
    """Write what stdout and stderr still hold.  Returns whether that was possible."""
    written = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except Exception as fault:  # noqa: BLE001 - a script may have replaced them by anything
            written = False
            if complain and stream is sys.stdout:
                with contextlib.suppress(Exception):
                    where = "on flushing sys.stdout:" if sys.version_info >= (3, 13) else f"in: {stream!r}"
                    words = f"Exception ignored {where}\n{type(fault).__name__}: {fault}"
                    print(words, file=sys.stderr)  # noqa: T201 - as Python does
    return written


def printed() -> int:
    """Bytes that stdout holds; 0 if the script has closed it."""
    try:
        return os.fstat(1).st_size
    except OSError:
        return 0


def leave(code: int, fresh: Fresh, record: Callable[[int], None] = lambda _: None) -> NoReturn:
    """End this process as Python would, but leave out the teardown of the interpreter, which has no visible effect."""
    if not last_words(fresh):
        code = BROKEN_OUTPUT
    record(code)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
