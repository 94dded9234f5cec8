"""The editor's files: those of one directory that are there already, with their last versions.

Theory of operation.  A name is looked up in the list of the directory's files, so no text of a browser ever becomes
a path.  A saved text is written to a file beside the versions, its syntax is checked there, the old content is kept as
a version, and then one rename puts the new one in place: a reader sees the old file or the new one, whole.  A save
that is interrupted leaves the old file, and a temporary one that a later save removes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from estgw.callout import syntax
from estgw.config import marked_yaml
from estgw.errors import ConfigError

SIZE = 64 << 10
"""Bytes of a file that can be edited."""
FILES = 500
"""Files that are listed; handlers have fewer."""
VERSIONS = 10
"""Earlier versions of a file that are kept."""
DEPTH = 4
_ODD = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_PART = "save-"
ABANDONED = 60.0
"""Seconds after which a temporary file is one that an interrupted save has left."""


class FileFault(Exception):
    """A file can't be read or saved; the text says why, and what to do."""


class Files:
    """The files of a directory that a person edits in a page."""

    def __init__(self, folder: Path, versions: Path, search_path: str) -> None:
        """`versions` is the directory of earlier versions, on the same file system; it is made when it is needed.

        `search_path` is the PATH of scripts, for the syntax check.
        """
        self._folder, self._versions, self._search_path = folder, versions, search_path

    def all(self) -> dict[str, Any]:
        """Return the names and sizes of all files.  Raises `FileFault`."""
        found = [{"name": name, "size": size, "large": size > SIZE} for name, size in self._listed().items()]
        return {"folder": self._folder.name, "files": found}

    def read(self, name: str, version: str | None = None) -> dict[str, Any]:
        """Return the text of a file, or of a version of it, with the list of versions.  Raises `FileFault`."""
        path = self._path(name)
        versions = self._versions_of(name)
        if version is not None:
            if version not in versions:
                raise FileFault(f"{name} has no such version; the newest {VERSIONS} are kept")
            return {"name": name, "version": version, "text": _text(_content(versions[version], name), name)}
        content = _content(path, name)
        listed = [{"version": key, "at": int(key.partition("-")[0]) // 1_000_000} for key in reversed(versions)]
        return {"name": name, "text": _text(content, name), "digest": _digest(content), "versions": listed}

    def save(self, name: str, content: bytes, instead: str) -> dict[str, Any]:
        """Put a text in the place of the content with the digest `instead`, and return its own digest.

        Raises `FileFault` if the file has another content by now, if the syntax is wrong, or if it can't be written.
        """
        path = self._path(name)
        if len(content) > SIZE:
            raise FileFault(f"{name} would have {len(content)} bytes, and {SIZE} is the most; nothing was saved")
        _text(content, name)
        old = _content(path, name)
        if _digest(old) != instead:
            raise FileFault(
                f"{name} has been changed by someone else since you opened it; copy your text and open it again"
            )
        if content != old:
            try:
                self._replace(path, name, old, content)
            except OSError as fault:
                raise FileFault(f"{name} was not saved: {fault.strerror}") from None
        return {"name": name, "digest": _digest(content)}

    def _replace(self, path: Path, name: str, old: bytes, content: bytes) -> None:
        kept = self._kept(name)
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in kept.glob(f"{_PART}*"):
            if time.time() - left.stat().st_mtime > ABANDONED:
                left.unlink(missing_ok=True)
        mode = stat.S_IMODE(path.stat().st_mode)
        with contextlib.ExitStack() as leftovers:
            made = _written(kept, content, mode, path.suffix)
            leftovers.callback(made.unlink, missing_ok=True)
            if faults := _faults(made, self._search_path):
                sentence = faults[0].replace(str(made), name)
                raise FileFault(f"{sentence}; nothing was saved")
            version = _written(kept, old, 0o600, "")
            leftovers.callback(version.unlink, missing_ok=True)
            # The name ends in random letters: two saves may fall into one tick of a coarse clock.
            version.rename(kept / f"{time.time_ns()}-{version.name.removeprefix(_PART)}")
            made.rename(path)
        for surplus in list(self._versions_of(name).values())[:-VERSIONS]:
            surplus.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        if name not in self._listed():
            raise FileFault(f"{name[:100]!r} is none of the files that can be edited here")
        return self._folder / name

    def _listed(self) -> dict[str, int]:
        found: dict[str, int] = {}
        try:
            for path in _inside(self._folder, DEPTH):
                if len(found) == FILES:
                    break
                found[path.relative_to(self._folder).as_posix()] = path.lstat().st_size
        except OSError as fault:
            raise FileFault(f"{self._folder.name} can't be listed: {fault.strerror}") from None
        return found

    def _kept(self, name: str) -> Path:
        """The directory of a file's versions, under a name that has no slash."""
        return self._versions / hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def _versions_of(self, name: str) -> dict[str, Path]:
        """The earlier versions, oldest first."""
        try:
            found = [path for path in self._kept(name).iterdir() if re.fullmatch(r"\d{1,20}-\w+", path.name)]
        except OSError:
            return {}
        return {path.name: path for path in sorted(found, key=lambda path: (len(path.name.split("-")[0]), path.name))}


def _inside(folder: Path, depth: int) -> Iterator[Path]:
    """The regular files of a directory and those below it; links, hidden and compiled files are left out."""
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__pycache__" or not entry.name.isprintable():
            continue
        if entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
        elif depth and entry.is_dir(follow_symlinks=False):
            yield from _inside(Path(entry.path), depth - 1)


def _content(path: Path, name: str) -> bytes:
    """The bytes of a file that can be edited.  Raises `FileFault`."""
    try:
        # A FIFO that takes its place would hold up the page for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(SIZE + 1) or b""
    except OSError as fault:
        raise FileFault(f"{name} can't be read: {fault.strerror}") from None
    if len(content) > SIZE:
        raise FileFault(f"{name} has more than {SIZE} bytes, which is too much for this editor")
    return content


def _text(content: bytes, name: str) -> str:
    """The text of a file.  Raises `FileFault` for what an editor would spoil."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise FileFault(f"{name} is not UTF-8, so it is no text that can be edited here") from None
    if odd := _ODD.search(text):
        line = text.count("\n", 0, odd.start()) + 1
        raise FileFault(f"{name}:{line}: a control character (code {ord(odd[0])}) is in it, so it is no text to edit")
    if "\r" in text:
        line = text.count("\n", 0, text.index("\r")) + 1
        raise FileFault(f"{name}:{line}: a carriage return is in it; use Unix line ends")
    return text


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _written(folder: Path, content: bytes, mode: int, suffix: str) -> Path:
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=_PART, suffix=suffix)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    return Path(name)


def _faults(path: Path, search_path: str) -> list[str]:
    """The first syntax error of a script, of a library of scripts, or of a YAML file."""
    if path.suffix in (".yaml", ".yml"):
        try:
            marked_yaml.read(path)
        except ConfigError as refusal:
            return refusal.faults
        return []
    return syntax.faults(path, search_path) or syntax.library_fault(path, search_path)
