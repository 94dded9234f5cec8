"""A private copy of a CA's directory: what a script does with it touches the CA itself in no way.

The registers are copied whole: `index.txt` and its like under the CA's lock, those of SQLite by SQLite's own backup.
What lets a script issue with another machine stays behind (`SECRETS`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from estgw.errors import ConfigError
from estgw.register.copying import into_copy
from estgw.register.engine import RegisterError

LOCK = "ca.lock"
"""What openssl-ca/register.sh locks while it writes to the register."""
SECRETS = "secrets"
"""What lets a script issue elsewhere, such as the token for a CA that others run: no copy has it."""
PATIENCE = 5.0
"""Seconds to wait for that lock."""
TRIES, PAUSE = 5, 0.05
"""Copies of an SQLite file that is written to meanwhile, before it counts as busy, and seconds between them."""
MOST_FILES = 50_000
MOST_BYTES = 256 << 20
_CHUNK = 1 << 20
_MAGIC = b"SQLite format 3\0"
_BESIDE = ("-wal", "-shm", "-journal")


@dataclass
class _Copying:
    """What has been copied so far."""

    source: Path
    files: int = 0
    bytes: int = 0
    left_out: list[str] = field(default_factory=list)
    way_out: str = "; try the script with a smaller CA"
    """What to do about a CA that is too large."""

    def count(self, size: int = 0) -> None:
        """Take note of one more file, or of more bytes; raises `ConfigError` past the bounds."""
        self.files += not size
        self.bytes += size
        if self.files > MOST_FILES or self.bytes > MOST_BYTES:
            bounds = f"{MOST_FILES} files or {MOST_BYTES >> 20} MiB"
            words = f"{self.source}: more than {bounds}, too much to copy{self.way_out}"
            raise ConfigError([words])


def copy_ca(source: Path, target: Path, way_out: str | None = None, register: str | None = None) -> list[str]:
    """Copy a CA's directory to a new one (0700); a sentence for each file that can't be copied, such as a socket.

    Of a `register` in PostgreSQL the newest certificates are put into the copy, and a sentence says so: no script that
    works on the copy is told where that register is.

    `SECRETS` stays behind, and a sentence says so.  Symbolic links become what they point to, so that nothing in the
    copy leads back.  Raises `ConfigError` for a directory that is too large, can't be read, or is written to all the
    time.  `way_out` ends the sentence about a large one.
    """
    copying = _Copying(source) if way_out is None else _Copying(source, way_out=way_out)
    try:
        target.mkdir(mode=0o700)
        with _locked(source):
            folders = _copy_files(copying, source, target)
        trail = (_identity(source),)
        for folder in folders:
            if folder == SECRETS:
                copying.left_out.append(
                    f"{source / folder}: left out of the copy, as scripts could issue elsewhere with it"
                )
                continue
            _copy_folder(copying, source / folder, target / folder, trail)
        told = [into_copy(register, target)] if register is not None else []
    except OSError as fault:
        raise ConfigError([f"{fault.filename or source}: {fault.strerror}; the CA was not copied"]) from None
    except RegisterError as fault:
        raise ConfigError([f"{fault}; the CA was not copied"]) from None
    return [*copying.left_out, *told]


@contextlib.contextmanager
def _locked(source: Path) -> Iterator[None]:
    """Hold the CA's lock, if it has one: no row is entered meanwhile."""
    try:
        descriptor = os.open(source / LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConfigError([f"{source}: the CA is busy: its lock is taken; try again"]) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _identity(path: Path) -> tuple[int, int]:
    info = path.stat()
    return info.st_dev, info.st_ino


def _copy_folder(copying: _Copying, source: Path, target: Path, trail: tuple[tuple[int, int], ...]) -> None:
    """Copy a directory with all in it; `trail` has the directories above, as a link may lead back to one of them."""
    here = _identity(source)
    if here in trail:
        copying.left_out.append(f"{source}: leads back to a directory above it; left out of the copy")
        return
    target.mkdir(mode=0o700)
    for folder in _copy_files(copying, source, target):
        _copy_folder(copying, source / folder, target / folder, (*trail, here))


def _copy_files(copying: _Copying, source: Path, target: Path) -> list[str]:
    """Copy the files of one directory; the names of the directories in it."""
    folders = []
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        path = source / entry.name
        copying.count()
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:  # a link to nothing, or a file that has just gone
            continue
        if stat.S_ISDIR(mode):
            folders.append(entry.name)
        elif not stat.S_ISREG(mode):
            copying.left_out.append(f"{path}: {_kind(mode)}, no file; left out of the copy")
        elif not entry.name.endswith(_BESIDE):
            _copy_file(copying, path, target / entry.name)
    return folders


def _kind(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a named pipe" if stat.S_ISFIFO(mode) else "a device"


def _copy_file(copying: _Copying, source: Path, target: Path) -> None:
    with source.open("rb") as file:
        if file.read(len(_MAGIC)) == _MAGIC:
            copying.count(os.fstat(file.fileno()).st_size)
            _copy_register(source, target)
        else:
            file.seek(0)
            with target.open("wb") as made:
                while chunk := file.read(_CHUNK):
                    copying.count(len(chunk))
                    made.write(chunk)
        info = os.fstat(file.fileno())
    target.chmod(info.st_mode & 0o700)
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def _copy_register(source: Path, target: Path) -> None:
    """Copy a database of SQLite as it was at one moment; the files beside it stay as they are, too.

    Where a process has it open in WAL mode there is a `-shm`, and SQLite's backup sees what is committed.  Where none
    has it open, a connection would make that file, so the bytes are copied, again if they have changed meanwhile.
    """
    for _ in range(TRIES):
        is_open = _beside(source, "-shm").exists()
        if _backed_up(source, target) if is_open else _copied_at_rest(source, target):
            return
        time.sleep(PAUSE)
    raise ConfigError([f"{source}: the register is busy: it is written to all the time; try again"])


def _backed_up(source: Path, target: Path) -> bool:
    """Copy it by SQLite's backup; whether that went well."""
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as there,
            contextlib.closing(sqlite3.connect(target)) as here,
        ):
            there.backup(here)
    except sqlite3.Error:
        return False
    return True


def _copied_at_rest(source: Path, target: Path) -> bool:
    """Copy the file and those beside it; whether all have stayed as they were."""
    before = _stamps(source)
    for suffix in ("", "-wal", "-journal"):
        _beside(target, suffix).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(_beside(source, suffix), _beside(target, suffix))
    return _stamps(source) == before


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _stamps(source: Path) -> list[tuple[int, int, int] | None]:
    """What changes with every write to a database or the files beside it."""
    found: list[tuple[int, int, int] | None] = []
    for path in (source, *(_beside(source, suffix) for suffix in _BESIDE)):
        try:
            info = path.stat()
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((info.st_ino, info.st_size, info.st_mtime_ns))
    return found
