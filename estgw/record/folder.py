"""Records as files: one JSON file each, private, whole or not there, the oldest go first."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from estgw.callout import shortage
from estgw.record import kinds
from estgw.record.gates import GATES
from estgw.record.ring import Record

FORMAT = 1
"""The format of records that this version writes and reads."""
MOST = 16 << 20
"""Bytes of a record that is read; one that is written has fewer."""
_ID = re.compile(r"[0-9a-f]{10}")
_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}-([0-9a-f]{10})\.json")
_PART = re.compile(r"\.\d{8}T\d{6}\.\d{3}-[0-9a-f]{10}\.json\.part")
ABANDONED = 60.0
"""Seconds after which an incomplete file is one that a killed process has left."""
RESCAN = 64
"""Files written until the directory is read again, as other workers write there, too."""


class RecordError(Exception):
    """A record that can't be found, read or used; the text is a sentence without its full stop."""


# Reading.


def require_id(text: str) -> str:
    """The id of a record; raises `RecordError` for anything else, such as a path."""
    if not _ID.fullmatch(text):
        raise RecordError(f"{text[:80]!r} is no id of a record: ten hex digits, such as 8f0c21ab44")
    return text


def find(directory: Path, identifier: str) -> Path:
    """The file of the record with that id; raises `RecordError`."""
    require_id(identifier)
    for path in _files(directory):
        if path.name.endswith(f"-{identifier}.json"):
            return path
    raise RecordError(f"{directory} has no record {identifier}; it has the newest ones only (record.files)")


def names(directory: Path) -> list[Path]:
    """The files of all records, oldest first; raises `RecordError`."""
    return sorted(_files(directory))


def _files(directory: Path) -> Iterator[Path]:
    try:
        with os.scandir(directory) as listing:
            found = [entry.name for entry in listing if _NAME.fullmatch(entry.name)]
    except OSError as fault:
        hint = "; `record: {dir: records}` in conf.yaml makes the gateway write them" if not directory.exists() else ""
        raise RecordError(f"{directory}: {fault.strerror}{hint}") from None
    yield from (directory / name for name in found)


def read(path: Path) -> Record:
    """The record in a file.  Raises `RecordError` with a sentence if the file holds no sound record."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST + 1)
    except OSError as fault:
        raise RecordError(f"{path}: {fault.strerror}") from None
    return parse(content, str(path))


def parse(content: bytes, name: str) -> Record:
    """The record in a text; `name` is for the words of a `RecordError`."""
    if len(content) > MOST:
        raise RecordError(f"{name}: larger than {MOST >> 20} MiB, so it is no record")
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as fault:
        where = f", {fault}" if isinstance(fault, json.JSONDecodeError) else ""
        raise RecordError(f"{name}: no record: it is not JSON, or is cut off{where}") from None
    if not isinstance(data, dict) or "format" not in data:
        raise RecordError(f'{name}: JSON, and no record: it has no "format"')
    if data["format"] != FORMAT:
        raise RecordError(
            f"{name}: a record of format {str(data['format'])[:40]}, and this version of estgw reads format {FORMAT}: "
            "read it with the version that wrote it, or a newer one"
        )
    _require_sound(data, name)
    return data


_KINDS = ("request", "handshake", "replay")


def _require_sound(data: dict[str, Any], name: str) -> None:
    """Raise `RecordError` for a record whose parts are not of the right kind; somebody may have edited it."""
    if words := kinds.fault(data):
        raise RecordError(f"{name}: no sound record: {words}")
    if not _ID.fullmatch(data["id"]) or data["kind"] not in _KINDS:
        raise RecordError(f'{name}: no sound record: "id" or "kind" has an impossible value')
    if [gate["name"] for gate in data["gates"]] != [gate.value for gate in GATES]:
        raise RecordError(f'{name}: no sound record: "gates" are not the eight, in their order')


# Writing.


def faults(directory: Path) -> list[str]:
    """Why records can't be written there, as sentences; the directory need not exist yet."""
    try:
        info = directory.stat()
    except FileNotFoundError:
        parent = directory.parent
        if not parent.is_dir():
            return [f"record.dir: {parent} is no directory, so {directory.name} can't be made in it"]
        return [] if os.access(parent, os.W_OK | os.X_OK) else [f"record.dir: {parent}: Permission denied"]
    except OSError as fault:
        return [f"record.dir: {directory}: {fault.strerror}"]
    if not stat.S_ISDIR(info.st_mode):
        return [f"record.dir: {directory} is no directory"]
    if info.st_uid != os.geteuid() and os.geteuid() != 0:
        return [f"record.dir: {directory} belongs to another user"]
    if info.st_mode & 0o077:
        return [f"record.dir: others may enter {directory}, and records are private: chmod 700 {directory}"]
    return [] if os.access(directory, os.W_OK | os.X_OK) else [f"record.dir: {directory}: Permission denied"]


def file_name(record: Record) -> str:
    """The name of its file, such as `20261129T150000.123-8f0c21ab44.json`."""
    return f"{re.sub('[-:Z]', '', record['at'])}-{record['id']}.json"


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """The directory that records are written to.  Its methods block."""

    def __init__(self, directory: Path, most: int) -> None:
        """Make the directory (0700) if it is not there; keep `most` files in it.  Raises OSError."""
        self._directory = directory
        self._most = most
        self._written = 0
        self._names: deque[str] = deque()
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        self._scan()

    def write(self, name: str, text: bytes) -> None:
        """Write one record: all of it or nothing.  Raises OSError."""
        # The event loop changes working directory, umask and the limit of file sizes for a moment when it starts a
        # script (`callout.spawn`): so the path is absolute and the mode explicit.
        part = f"{self._directory}/.{name}.part"
        descriptor = os.open(part, _NEW, 0o600)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                rest = memoryview(text)
                while rest:
                    rest = rest[file.write(rest) :]
            os.rename(part, f"{self._directory}/{name}")  # noqa: PTH104 - a Path costs as much as the system call
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)  # noqa: PTH108
            raise
        self._names.append(name)
        self._written += 1
        if self._written % RESCAN == 0:
            self._scan()
        self._prune()

    def words(self, fault: OSError) -> str:
        """Why a record could not be written: the same for each record."""
        return f"{self._directory}: {shortage.words(fault) or fault.strerror}"

    def _scan(self) -> None:
        names = [path.name for path in self._directory.iterdir()]
        self._names = deque(sorted(filter(_NAME.fullmatch, names)))
        for name in filter(_PART.fullmatch, names):
            path = self._directory / name
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()
        self._prune()

    def _prune(self) -> None:
        while len(self._names) > self._most:
            with contextlib.suppress(FileNotFoundError):  # another worker was faster
                (self._directory / self._names.popleft()).unlink()
