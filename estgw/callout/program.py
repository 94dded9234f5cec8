"""Check whether a callout's file can and may be run: at the start, on reload and in `estgw check`."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
LIBRARIES = (".py", ".pyc", ".sh")
DEPTH = 4
"""Of packages in packages; handlers have fewer."""


def faults(program: Path, search_path: str) -> list[str]:
    """The faults of a callout's file, a sentence each; empty if it can be run."""
    try:
        info = program.stat()
    except OSError as fault:
        return [f"{program}: {fault.strerror}"]
    if not stat.S_ISREG(info.st_mode):
        return [f"{program}: not a regular file"]
    found = []
    if not os.access(program, os.X_OK):
        found.append(f"{program}: not executable; chmod +x {shlex.quote(str(program))}")
    if info.st_mode & WRITABLE_BY_OTHERS:
        found.append(f"{program}: writable by group or others; chmod go-w {shlex.quote(str(program))}")
    # A file that a script imports or sources can change what the script does.
    found += [
        f"{path}: writable by group or others; chmod go-w {shlex.quote(str(path))}"
        for path in (program.parent, *libraries(program.parent))
        if _is_open(path.stat().st_mode)
    ]
    if wrong := _interpreter_fault(program, search_path):
        found.append(f"{program}: {wrong}")
    return found


def interpreter(program: Path) -> list[str]:
    """The words of a script's `#!` line; none for anything else, or what can't be read."""
    try:
        with program.open("rb") as file:
            first = file.readline(256)
    except OSError:
        return []
    return first[2:].decode("utf-8", "replace").split() if first.startswith(b"#!") else []


def libraries(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Modules, packages with their content, and the compiled files of both."""
    for path in sorted(folder.iterdir()):
        if path.suffix in LIBRARIES and path.is_file():
            yield path
        elif depth < DEPTH and path.is_dir() and (path.name == "__pycache__" or (path / "__init__.py").exists()):
            yield path
            yield from libraries(path, depth + 1)


def _is_open(mode: int) -> bool:
    """Whether other users may replace it.  In a sticky directory such as /tmp they can't."""
    return bool(mode & WRITABLE_BY_OTHERS) and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX)


def _interpreter_fault(program: Path, search_path: str) -> str | None:
    """Why the kernel can't run the file: a fault of the `#!` line, or neither a script nor an ELF program."""
    try:
        with program.open("rb") as file:
            first = file.readline(256)
    except OSError as fault:
        return f"can't be read: {fault.strerror}"
    if first.startswith(b"\x7fELF"):
        return None
    if first.startswith(b"\xef\xbb\xbf#!"):
        return "a byte order mark stands before its #! line: save it as UTF-8 without BOM"
    if not first.startswith(b"#!"):
        return "neither a #! line nor a program"
    if first.rstrip(b"\n").endswith(b"\r"):
        return "its #! line ends in a carriage return: save it with Unix line ends"
    words = first[2:].decode("utf-8", "replace").split()
    if not words:
        return "nothing after #!"
    if not os.access(words[0], os.X_OK):
        return f"its interpreter {words[0]} does not exist"
    wanted = [word for word in words[1:] if not word.startswith("-")]
    if Path(words[0]).name == "env" and wanted and not shutil.which(wanted[0], path=search_path):
        return f"its interpreter {wanted[0]} is not in {search_path}"
    return None
