"""Code that the warm parent has compiled for its children: scripts, and the modules that lie beside them.

Only code is kept.  A module is executed anew in each process that imports it, as in an interpreter that was started for
the script, so it finds the variables of its own request.  An edit counts at once: each use compares the file's stamp.
"""

from __future__ import annotations

import contextlib
import os
import time
import types
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

LONGEST_MODULE = 64 << 10
"""Bytes of a module that is compiled in advance: the parent forks nothing meanwhile."""
MODULES = 64
"""Modules of one directory that are compiled in advance."""
LOOK = 1.0
"""Seconds until the modules of a directory are looked at again; an import takes a newer file as it is."""

Stamp = tuple[int, int, int, int]


def stamp(info: os.stat_result) -> Stamp:
    """Facts that differ between two versions of a file."""
    return info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino


def version_of(path: str | Path) -> Stamp | None:
    """The stamp of a file as it is now; None if it is missing or can't be looked at."""
    try:
        return stamp(os.stat(path))
    except OSError:
        return None


@dataclass(frozen=True)
class Source:
    """A compiled file.  `code` is None if it does not compile; the child compiles it again and reports the fault."""

    stamp: Stamp
    code: types.CodeType | None
    complaints: tuple[warnings.WarningMessage, ...]
    """The compiler's warnings, which each run prints."""


class Sources:
    """Compiled scripts, and the modules beside them."""

    def __init__(self) -> None:
        self._scripts: dict[str, Source] = {}
        self._modules: dict[str, Source] = {}
        self._looked: dict[str, float] = {}

    def get(self, program: str) -> Source | None:
        """The script as it is now; None when it can't be read."""
        return _current(program, self._scripts)

    def look_beside(self, program: str) -> None:
        """Compile the modules in the directory of a script that are new or have been edited."""
        folder, now = directory(program), time.monotonic()
        if now - self._looked.get(folder, -LOOK) < LOOK:
            return
        self._looked[folder] = now
        with contextlib.suppress(OSError), os.scandir(folder) as beside:
            modules = [entry for entry in beside if entry.name.endswith(".py") and entry.is_file()]
            for entry in modules[:MODULES]:
                if entry.stat().st_size <= LONGEST_MODULE:
                    _current(entry.path, self._modules)

    def install(self) -> None:
        """Let imports in this process and its children take the code of modules from here."""
        SourceFileLoader.get_code = _getter(self._modules)  # type: ignore[method-assign]


def directory(program: str) -> str:
    """The directory of a script's own modules; links are followed, as Python does."""
    return os.path.dirname(os.path.realpath(program))


def _current(path: str, known: dict[str, Source]) -> Source | None:
    """A file as it is now, compiled if it is another than the known one; None when it can't be read."""
    try:
        with open(path, "rb") as file:
            now = stamp(os.fstat(file.fileno()))
            before = known.get(path)
            if before is not None and before.stamp == now:
                return before
            text = file.read()
    except OSError:
        return None
    source = known[path] = Source(now, *_compiled(text, path))
    return source


def _compiled(text: bytes, path: str) -> tuple[types.CodeType | None, tuple[warnings.WarningMessage, ...]]:
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        try:
            code = compile(text, path, "exec", dont_inherit=True)
        except Exception:  # noqa: BLE001 - any fault of the compiler is the script's fault
            return None, ()
    return code, tuple(complaints)


def _getter(modules: Mapping[str, Source]) -> Any:
    """`SourceFileLoader.get_code`, which looks here first.  Python itself deals with all that is not plain."""
    own = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> types.CodeType | None:
        known = modules.get(loader.path) if type(loader) is SourceFileLoader else None
        if known is not None and known.code is not None and not known.complaints:
            with contextlib.suppress(OSError):
                if stamp(os.stat(loader.path)) == known.stamp:
                    return known.code
        return own(loader, name)

    return get_code
