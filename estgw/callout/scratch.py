"""The private directory that the callouts of one request share (EST_TMPDIR)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from estgw.callout.call import Call

MEMORY = Path("/dev/shm")  # noqa: S108 - names below it are random, and mkdir fails if one exists
FEW, SMALL = 16, 1 << 20
"""So many files of so many bytes are removed faster than a thread could do it."""


def place() -> Path:
    """Where private directories are made: in memory, unless TMPDIR says otherwise.

    On a disk, making and removing a directory takes a third of a millisecond, and keys leave traces.
    """
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK):
        return MEMORY
    return Path(tempfile.gettempdir())


def lay_out(call: Call) -> None:
    """Make it, with the files that variables name.  They are few and small, so no thread is used."""
    with contextlib.suppress(FileExistsError):
        call.exchange.tmp_dir.mkdir(mode=0o700)
    for path, content in call.files():
        path.write_bytes(content)


async def remove(directory: Path) -> None:
    """Remove it, if it was made; in a thread if a script has left much, so that other requests do not wait."""
    if not _swept(directory):
        await aside(functools.partial(shutil.rmtree, directory, ignore_errors=True))


async def aside(work: Callable[..., object], *arguments: object) -> None:
    """Call `work` in a thread, or here if the machine has no thread left."""
    try:
        await asyncio.to_thread(work, *arguments)
    except RuntimeError:
        work(*arguments)


def _swept(directory: Path) -> bool:
    """Remove a directory with few files.  Returns False if that is work for a thread."""
    try:
        with os.scandir(directory) as listing:
            left = list(itertools.islice(listing, FEW + 1))
        if len(left) > FEW or not all(map(_is_small_file, left)):
            return False
        for entry in left:
            Path(entry).unlink()
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _is_small_file(entry: os.DirEntry[str]) -> bool:
    info = entry.stat(follow_symlinks=False)
    return not stat.S_ISDIR(info.st_mode) and info.st_size <= SMALL
