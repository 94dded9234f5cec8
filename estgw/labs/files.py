"""Files of a workspace that labs write: whole or not at all.

A trainer may do it as root in the workspace of a learner.  So the files are given to the learner, and always by their
descriptors: the learner could put a link in the place of a name.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path


def write(
    path: Path, text: str, *, mode: int | None = None, approve: Callable[[Path], object] = lambda path: None
) -> None:
    """Put a text in the place of a file.

    The file keeps its owner, and its mode unless another one is given; a new one has those of its directory's owner and
    0600.  `approve` is called with the path of the new file, and refuses it by an exception.  Raises OSError.
    """
    try:
        info = path.stat()
        kept = stat.S_IMODE(info.st_mode)
    except FileNotFoundError:
        info, kept = path.parent.stat(), 0o600
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _give(descriptor, info)
            os.fchmod(descriptor, kept if mode is None else mode)
            file.write(text)
        approve(Path(name))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def make_directory(path: Path) -> None:
    """Make a directory that others may enter, if it is not there.  Raises OSError."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o755)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _give(descriptor, path.parent.stat())
        finally:
            os.close(descriptor)


def _give(descriptor: int, info: os.stat_result) -> None:
    """Give what root has opened to that owner."""
    if os.geteuid() == 0:
        os.fchown(descriptor, info.st_uid, info.st_gid)
