"""What a callout tells whoever records its request; nothing is told where nobody does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

from estgw.callout.process import Outcome
from estgw.callout.sources import Stamp
from estgw.callout.verdicts import Kind


class Ran(NamedTuple):
    """One callout that has ended, was answered from the cache, or could not start."""

    kind: Kind
    script: Path
    runner: str
    """`exec`, `fork` or `pool`."""
    environment: Mapping[str, str]
    stamp: Stamp | None
    """Which version of the script's file has run; None if there is no such file."""
    outcome: Outcome | None = None
    """None: nothing has run."""
    waited: float = 0.0
    """Seconds until a slot was free."""
    ran: float = 0.0
    """Seconds from there to its end."""
    cached: bool = False
    fault: str = ""
    """Why it could not start."""


What: TypeAlias = tuple[Kind, Path, str, Mapping[str, str], Stamp | None]
"""The first fields of `Ran`, which are known before it runs."""


class Observer(Protocol):
    """Takes note of the callouts of one request."""

    def callout(self, ran: Ran) -> None:
        """Take note of one; called on the event loop."""


class Watch:
    """Takes the times of one callout, and tells an observer when it has ended."""

    def __init__(self, observer: Observer, what: What) -> None:
        self._observer = observer
        self._what = what
        self._asked = self._began = time.monotonic()

    def begin(self) -> None:
        """A slot is free."""
        self._began = time.monotonic()

    def cached(self) -> None:
        """A kept answer takes its place."""
        self._observer.callout(Ran(*self._what, cached=True))

    def end(self, outcome: Outcome) -> None:
        """It has ended."""
        self._observer.callout(Ran(*self._what, outcome, self._began - self._asked, outcome.seconds))

    def could_not_start(self, reason: str) -> None:
        """It could not be started."""
        self._observer.callout(Ran(*self._what, waited=self._began - self._asked, fault=reason))


def note(watches: tuple[Watch | None, Watch | None], outcomes: tuple[Outcome, Outcome | None]) -> None:
    """Two scripts of one process have ended; the second may not have begun."""
    for watch, outcome in zip(watches, outcomes, strict=True):
        if watch is not None and outcome is not None:
            watch.end(outcome)
