"""The private directory of a supervisor and its workers: their locks, their counters, their temporary files."""

from __future__ import annotations

import os
from pathlib import Path

from estgw.callout import home, scratch


class Directory:
    """A directory that several processes share; whoever leaves it last removes it.

    Each has a lock on it as long as it is there.  That also keeps systemd-tmpfiles, which clears /tmp of what is old,
    away from it and from all that is in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = home.lock(path)

    @classmethod
    def make(cls, workers: int) -> Directory:
        """A new one, with the folders that so many workers need; what the dead have left beside it is removed."""
        where = scratch.place()
        home.sweep(where)
        path, lock = home.make(where)
        made = cls(path)
        os.close(lock)
        for folder in (made.locks, made.metrics, *(made.temporary(place) for place in range(workers))):
            folder.mkdir(mode=0o700)
        return made

    @property
    def locks(self) -> Path:
        """The locks of `serialize`."""
        return self.path / "locks"

    @property
    def metrics(self) -> Path:
        """What the workers count."""
        return self.path / "metrics"

    def temporary(self, place: int) -> Path:
        """A worker's TMPDIR: what it leaves there when it is killed goes with the rest."""
        return self.path / f"tmp-{place + 1}"

    def sweep(self) -> None:
        """Remove what dead workers have left here, and other dead gateways beside it."""
        home.sweep(self.path.parent)
        for folder in self.path.glob("tmp-*"):
            home.sweep(folder)

    def leave(self) -> None:
        """We are done here."""
        home.remove(self.path, self._lock)
