"""202: repeat the request later, within the time of `--wait` (RFC 7030 4.2.3)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from estgw.client.commands.report import Report
from estgw.client.faults import TryLater

T = TypeVar("T")


def until_done(
    attempt: Callable[[], T],
    patience: float,
    report: Report,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Repeat `attempt` while it raises `TryLater`, for at most `patience` seconds in all.

    Each pause is at least as long as Retry-After says, as RFC 7030 4.2.3 demands.  Raises the last `TryLater` when the
    next try would come after `patience`.
    """
    end = clock() + patience
    while True:
        try:
            return attempt()
        except TryLater as later:
            if clock() + later.seconds > end:
                raise
            if not later.said:
                report.say("The server does not say when to try again.")
            report.detail(f"The next try is in {later.seconds} s.")
            _pause(later.seconds, report, clock, sleep)


def _pause(seconds: float, report: Report, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    due = clock() + seconds
    while (left := due - clock()) > 0:
        report.progress(f"Waiting for the server: next try in {left:.0f} s")
        sleep(min(left, 1.0))
