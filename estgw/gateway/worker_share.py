"""The share of one gateway process in the limits of all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WorkerShare:
    """One of `of` processes that serve the same addresses; `index` counts from 0."""

    index: int = 0
    of: int = 1
    directory: Path | None = None
    """A private directory that all of them share; None if there is one process only."""

    def part(self, whole: int) -> int:
        """This process's share of a limit.  Shares sum to the limit, but each is at least 1."""
        return max(1, whole // self.of + (self.index < whole % self.of))


ALONE = WorkerShare()
