"""The language of a script, from its `#!` line."""

from __future__ import annotations

import os
import re
import sys
from enum import Enum
from pathlib import Path

_PYTHON = re.compile(r"python(3(\.\d+)?)?")
_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"


class Language(Enum):
    """What a script's `#!` line says."""

    OURS = "the gateway's own Python"
    PYTHON = "another Python, or ours with options"
    OTHER = "no Python"


def language(program: Path) -> Language:
    """The script's language; OTHER for a file that can't be read, because exec reports that best."""
    try:
        return read_language(program)
    except OSError:
        return Language.OTHER


def read_language(program: Path) -> Language:
    """The same; raises OSError for a file that can't be read."""
    with program.open("rb") as file:
        first = file.readline(256)
    if not first.startswith(b"#!") or not os.access(program, os.X_OK):
        return Language.OTHER
    command, *options = os.fsdecode(first[2:]).split() or [""]
    if Path(command).name == "env" and options:
        command, *options = options
        ours = command in ("python", "python3", _VERSION)
    else:
        ours = _is_this_interpreter(command)
    if not _PYTHON.fullmatch(Path(command).name):
        return Language.OTHER
    return Language.OURS if ours and not options else Language.PYTHON


def _is_this_interpreter(path: str) -> bool:
    """The same program in the same virtual environment, or out of one: with another's libraries it is another."""
    theirs, ours = Path(path), Path(sys.executable)
    return theirs.resolve() == ours.resolve() and _environment(theirs) == _environment(ours)


def _environment(interpreter: Path) -> Path | None:
    """The virtual environment that an interpreter's path lies in."""
    home = interpreter.parent.parent
    return home.resolve() if (home / "pyvenv.cfg").exists() else None
