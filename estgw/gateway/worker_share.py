"""Which of several gateway processes this one is, and what part of everything is its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WorkerShare:
    """A process's place among `of` that serve the same addresses; `index` counts from 0."""

    index: int = 0
    of: int = 1
    directory: Path | None = None
    """Private, and the same for all of them; None where there is but one."""

    def part(self, whole: int) -> int:
        """Our part of a number: all parts add up to the whole, but that nobody goes without."""
        return max(1, whole // self.of + (self.index < whole % self.of))


ALONE = WorkerShare()
