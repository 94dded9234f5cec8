"""Private directories that are removed soon after their process has ended, even if it was killed.

Each gateway process has one and holds a lock on it (flock), which the kernel releases when the process dies.  A
directory without a lock is removed: by the next gateway at its start, by a supervisor when its worker dies, by each
gateway once a minute, and by the warm parent when its gateway dies.

Only directories of our own user are opened, and no symbolic link is followed.  A script that outlives its gateway keeps
its directory until it ends, because it may be about to issue a certificate.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from pathlib import Path

AGE = 3600.0
"""Seconds after which a directory without a lock is removed, even if a process uses it: no callout takes so long."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

INTERVAL = 60.0
"""Seconds between two sweeps of a running gateway."""

_NAME = re.compile(r"estgw-[0-9a-f]{16}")
_FORMER = re.compile(r"estgw-([0-9a-f]{32}|[0-9a-z_]{8})")
"""Names of earlier versions, which did not lock a request's directory; those are removed by age."""
_FOLDERS = re.compile(r"locks|metrics|tmp-[0-9]+")
"""The entries of a supervisor's directory, by which it is recognised."""


def make(where: Path) -> tuple[Path, int]:
    """A new directory (0700), and the descriptor that holds its lock; raises OSError."""
    while True:
        path = where / f"estgw-{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        descriptor = -1
        try:
            descriptor = lock(path)
            if _is(path, descriptor):
                return path, descriptor
        except (FileNotFoundError, BlockingIOError):
            pass  # another process swept it before it was locked
        except BaseException:
            path.rmdir()
            raise
        if descriptor >= 0:
            os.close(descriptor)


def lock(path: Path) -> int:
    """A descriptor that protects a directory from being swept until it is closed.  Raises OSError."""
    descriptor = os.open(path, _DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def remove(path: Path, descriptor: int) -> None:
    """Remove a directory that we have locked, unless another process has locked it too.  Closes the descriptor."""
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)


class Home:
    """The private directory of one process, with a directory for each request in it."""

    def __init__(self, where: Path) -> None:
        """Remove what ended processes have left in `where`, and make a new directory there.  Raises OSError."""
        sweep(where)
        self.path, self._lock = make(where)

    def directory(self) -> Path:
        """The path of a directory for one request, which is not made yet.  Raises OSError."""
        if not _is(self.path, self._lock):  # another program has removed it
            gone = self._lock
            self.path, self._lock = make(self.path.parent)
            os.close(gone)
        return self.path / secrets.token_hex(8)

    def close(self) -> None:
        """Remove it with its content."""
        remove(self.path, self._lock)


def sweep(where: Path) -> None:
    """Remove the directories of ended processes in `where`, except those of scripts that still run.

    A directory that can't be removed is left; the next sweep tries again.
    """
    try:
        found = [each for each in where.iterdir() if _NAME.fullmatch(each.name) or _FORMER.fullmatch(each.name)]
    except OSError:
        return
    for path in found:
        with contextlib.suppress(OSError):  # BlockingIOError: its owner lives, or another process sweeps it
            _clear(path)


def outlive(path: Path) -> None:
    """Remove the directory of a gateway that has died.  Waits for its scripts."""
    end, pause = time.monotonic() + AGE, 0.01
    while path.exists() and time.monotonic() < end:
        sweep(path.parent)
        time.sleep(pause)
        pause = min(2 * pause, 1)


def _is(path: Path, descriptor: int) -> bool:
    """Whether `path` still is the directory that `descriptor` was opened for."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _clear(path: Path) -> None:
    """Remove a directory if its owner is dead; raises OSError."""
    descriptor = os.open(path, _DIRECTORY)
    try:
        if not _is_swept(path.name, descriptor):
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _empty(path, descriptor, _in_use(path)):
            path.rmdir()
    finally:
        os.close(descriptor)


def _is_swept(name: str, descriptor: int) -> bool:
    """Whether an open directory may be swept: ours, and old enough if it is of a version without locks."""
    info = os.fstat(descriptor)
    if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) != 0o700:
        return False
    if _NAME.fullmatch(name):
        return True
    is_request = len(name) > len("estgw-") + 8
    is_known = is_request or all(_FOLDERS.fullmatch(child) for child in os.listdir(descriptor))
    return is_known and time.time() - info.st_mtime > AGE


def _empty(path: Path, descriptor: int, in_use: set[Path]) -> bool:
    """Remove the entries of a directory that are not in use.  Returns whether it is empty."""
    empty = True
    for name in os.listdir(descriptor):
        child = path / name
        if not any(used.is_relative_to(child) for used in in_use):
            _remove(name, descriptor)
        elif child in in_use:
            empty = False
        else:
            inner = os.open(name, _DIRECTORY, dir_fd=descriptor)
            try:
                _empty(child, inner, in_use)
            finally:
                os.close(inner)
            empty = False
    return empty


def _remove(name: str, descriptor: int) -> None:
    try:
        os.unlink(name, dir_fd=descriptor)
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=descriptor)


def _in_use(path: Path) -> set[Path]:
    """The requests' directories below `path` whose scripts still run and are younger than `AGE`."""
    found: set[Path] = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError), Path("/proc", entry.name, "environ").open("rb") as file:
            for variable in file.read().split(b"\0"):
                if variable.startswith(b"EST_TMPDIR="):
                    found.add(Path(os.fsdecode(variable.partition(b"=")[2])))
    return {each for each in found if each.is_relative_to(path) and _is_young(each)}


def _is_young(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_mtime < AGE
    except OSError:
        return False
