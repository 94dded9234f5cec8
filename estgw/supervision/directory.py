"""The private directory of a supervisor and its workers: their locks, their counters, their temporary files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from estgw.callout import scratch


class Directory:
    """A directory that several processes share; whoever leaves it last removes it.

    Each has a lock on it as long as it is there.  That also keeps systemd-tmpfiles, which clears /tmp of what is old,
    away from it and from all that is in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    @classmethod
    def make(cls, workers: int) -> Directory:
        """A new one, with the folders that so many workers need."""
        made = cls(Path(tempfile.mkdtemp(prefix="estgw-", dir=scratch.place())))
        for folder in (made.turns, made.metrics, *(made.temporary(place) for place in range(workers))):
            folder.mkdir(mode=0o700)
        return made

    @property
    def turns(self) -> Path:
        """The locks of `serialize`."""
        return self.path / "turns"

    @property
    def metrics(self) -> Path:
        """What the workers count."""
        return self.path / "metrics"

    def temporary(self, place: int) -> Path:
        """A worker's TMPDIR: what it leaves there when it is killed goes with the rest."""
        return self.path / f"tmp-{place + 1}"

    def leave(self) -> None:
        """We are done here."""
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
