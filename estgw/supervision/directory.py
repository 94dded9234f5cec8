"""The private directory of a supervisor and its workers: their locks, their counters, their temporary files."""

from __future__ import annotations

import os
from pathlib import Path

from estgw.callout import home, scratch


class Directory:
    """A directory that several processes share; the last one that leaves it removes it.

    Each process holds a lock on it.  The lock also keeps systemd-tmpfiles, which removes old files from /tmp, away from
    it and from its content.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = home.lock(path)

    @classmethod
    def make(cls, workers: int) -> Directory:
        """Make a new one with the folders of all workers.  Directories of ended processes beside it are removed."""
        where = scratch.place()
        home.sweep(where)
        path, lock = home.make(where)
        made = cls(path)
        os.close(lock)
        for folder in (made.locks, made.metrics, *(made.temporary(slot) for slot in range(workers))):
            folder.mkdir(mode=0o700)
        return made

    @property
    def locks(self) -> Path:
        """The locks of `serialize`."""
        return self.path / "locks"

    @property
    def metrics(self) -> Path:
        """The workers' metrics."""
        return self.path / "metrics"

    def temporary(self, slot: int) -> Path:
        """A worker's TMPDIR.  If the worker is killed, its content is removed with this directory."""
        return self.path / f"tmp-{slot + 1}"

    def sweep(self) -> None:
        """Remove the directories of ended workers here, and of ended gateways beside it."""
        home.sweep(self.path.parent)
        for folder in self.path.glob("tmp-*"):
            home.sweep(folder)

    def leave(self) -> None:
        """Release the lock; the last process removes the directory."""
        home.remove(self.path, self._lock)
