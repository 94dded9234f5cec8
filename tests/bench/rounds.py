"""Rounds in which the candidates take turns, so that noise affects all of them, and statistics of the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.bench import machine

Figures = dict[str, float]
Candidate = Callable[[], Figures]
Row = dict[str, Any]
Key = TypeVar("Key", bound=Hashable)


@dataclass
class Noise:
    """The times of two fixed pieces of work, measured throughout the run."""

    loops: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)

    def listen(self) -> None:
        self.loops.append(machine.loop())
        self.starts.append(machine.start())

    def row(self) -> Row:
        return {
            "a fixed loop": f"{statistics.median(self.loops):.2f} ms {spread(self.loops)}",
            "bash -c :": f"{statistics.median(self.starts):.2f} ms {spread(self.starts)}",
        }


def interleave(
    candidates: Mapping[Key, Candidate], rounds: int, noise: Noise, say: Callable[[str], None]
) -> dict[Key, list[Figures]]:
    """Each candidate's figures in each round. Every second round is reversed, so that a trend affects all alike."""
    found: dict[Key, list[Figures]] = {key: [] for key in candidates}
    for number in range(rounds):
        noise.listen()
        for key in candidates if number % 2 == 0 else reversed(list(candidates)):
            found[key].append(candidates[key]())
            say(f"round {number + 1} of {rounds}: {key}")
    noise.listen()
    return found


def median(rounds: Sequence[Figures], name: str) -> float:
    """The median of a figure over all rounds."""
    return statistics.median(figures[name] for figures in rounds)


def ratio(above: Sequence[Figures], below: Sequence[Figures], name: str) -> float:
    """The median of the ratios of a figure, each within one round."""
    return statistics.median(a[name] / b[name] if b[name] else 0 for a, b in zip(above, below, strict=True))


def spread(figures: Sequence[float]) -> str:
    """Half the distance between the quartiles, as a part of the median."""
    if len(figures) < 2:
        return "?"
    low, middle, high = statistics.quantiles(figures, n=4, method="inclusive")
    return f"±{(high - low) / 2 / middle:.0%}" if middle else "?"
