"""Targets of the gateway, and whether it meets them."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.rounds import Row


@dataclass(frozen=True)
class Target:
    """A figure of this run, which should be at least `wanted`, or at most."""

    part: str
    what: str
    measured: float
    wanted: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted

    def row(self) -> Row:
        """One line of the table."""
        sign = "≤" if self.at_most else "≥"
        return {
            "part": self.part,
            "target": self.what,
            "wanted": f"{sign} {self.wanted:g}",
            "measured": round(self.measured, 3),
            "": "met" if self.met else "MISSED",
        }
