"""The private directory that the callouts of one request share (EST_TMPDIR): where, what is in it, and its end."""

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

MEMORY = Path("/dev/shm")  # noqa: S108 - the name below it can't be guessed, and making it fails if it is there
FEW, SMALL = 16, 1 << 20
"""Files, and bytes of each, that are removed faster than a thread could be asked to."""


def place() -> Path:
    """Where private directories are made: in memory, unless TMPDIR says otherwise.

    A disk takes a third of a millisecond to make and to remove a directory, and remembers keys that lay there.
    """
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK):
        return MEMORY
    return Path(tempfile.gettempdir())


def lay_out(call: Call) -> None:
    """Make it, with the files that the variables name: a few small ones, cheaper than a thread's turn."""
    with contextlib.suppress(FileExistsError):
        call.exchange.tmp_dir.mkdir(mode=0o700)
    for path, content in call.files():
        path.write_bytes(content)


async def remove(directory: Path) -> None:
    """Remove it, if it was made; much litter of a script's must not keep the other requests waiting."""
    if not _swept(directory):
        await aside(functools.partial(shutil.rmtree, directory, ignore_errors=True))


async def aside(work: Callable[..., object], *arguments: object) -> None:
    """Do it in a thread; a machine that has no thread left does it here and now."""
    try:
        await asyncio.to_thread(work, *arguments)
    except RuntimeError:
        work(*arguments)


def _swept(directory: Path) -> bool:
    """Remove a directory that has next to nothing in it; False when that is work for a thread."""
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
