"""The data that all parts of a run share."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.load import Load
from tests.bench.rounds import Noise
from tests.kit.workspace import Workspace


def pattern(path: Path) -> Workspace:
    """The demo's workspace.  To its Python scripts each request is another one: the load is one CSR all the time."""
    made = Workspace.demo(path)
    for name in ("simpleenroll", "simplereenroll"):
        made.edit(
            f"handlers/python/{name}", "once(timedelta(minutes=10), ", "once(timedelta(minutes=10), os.urandom(8), "
        )
    return made


@dataclass(frozen=True)
class Run:
    """One run of the benchmarks."""

    directory: Path
    pattern: Workspace
    load: Load
    quick: bool
    noise: Noise = field(default_factory=Noise)

    @property
    def rounds(self) -> int:
        return 2 if self.quick else 5

    @property
    def seconds(self) -> float:
        """The duration of a round of one cell."""
        return 0.7 if self.quick else 1.5

    def say(self, words: str) -> None:
        """Print progress, if stderr is a terminal."""
        if sys.stderr.isatty():
            print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)
