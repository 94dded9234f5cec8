"""A lab and its steps, and what a check says of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeVar

from estgw.labs.evidence import Evidence

Try = TypeVar("Try")


class Outcome(Enum):
    """What a check says of a step."""

    DONE = "done"
    NOT_YET = "not yet"
    WRONG = "wrong"


class Finding(NamedTuple):
    """The outcome of a step, in a sentence for its reader."""

    outcome: Outcome
    sentence: str


@dataclass(frozen=True)
class Step:
    """One step of a lab."""

    name: str
    check: Callable[[Evidence], Finding]


@dataclass(frozen=True)
class Lab:
    """A lab: its number, and the steps that are checked, in their order."""

    number: int
    steps: tuple[Step, ...]

    def check(self, evidence: Evidence) -> dict[str, Finding]:
        """The finding of each step, by its name."""
        return {step.name: step.check(evidence) for step in self.steps}


def done(sentence: str) -> Finding:
    """The step is done."""
    return Finding(Outcome.DONE, sentence)


def not_yet(sentence: str) -> Finding:
    """Nothing was tried; the sentence says what to do."""
    return Finding(Outcome.NOT_YET, sentence)


def wrong(sentence: str) -> Finding:
    """Something was tried, and the sentence says what is wrong with it."""
    return Finding(Outcome.WRONG, sentence)


def judged(tries: Sequence[Try], fault: Callable[[Try], str], said: str, todo: str) -> Finding:
    """Done if one of the tries has no fault; else the fault of the last one; without any, what is to do."""
    faults = [fault(each) for each in tries]
    if "" in faults:
        return done(said)
    return wrong(faults[-1]) if faults else not_yet(todo)
