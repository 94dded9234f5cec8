"""The report on a terminal: a line for each case as it ends, then what to look at, then the counts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from estgw.client.faults import clean
from estgw.conform.case import Result
from estgw.conform.model import Status
from estgw.conform.runner import Report
from estgw.conform.table import UNTESTABLE

_COLOURS = {Status.PASS: "32", Status.FAIL: "31;1", Status.WARN: "33", Status.ERROR: "35;1", Status.SKIP: "2"}
_WIDTH = 110
_LINES = 60
"""Lines of an exchange; the other forms have all of them."""


def line(result: Result, *, coloured: bool = False) -> str:
    """One case: status, id, what was seen."""
    status = f"{result.status.value:5}"
    if coloured and result.status in _COLOURS:
        status = f"\x1b[{_COLOURS[result.status]}m{status}\x1b[0m"
    seen = clean(result.seen, 200).replace("\n", " ")
    known = f" (expected: {result.reason})" if result.reason and result.status in (Status.FAIL, Status.WARN) else ""
    known += " (expected to fail, and it passes: take it off the list)" if result.is_surprise else ""
    return f"{status} {result.case.id:22} {seen}{known}"


def details(report: Report) -> Iterator[str]:
    """What a person has to know about each FAIL and ERROR, and about WARNs in fewer words."""
    for result in report.results:
        if result.is_bad or (result.status is Status.ERROR and result.exchange):
            yield ""
            yield f"{result.status.value} {result.case.id}: {result.case.clause}"
            yield from _filled("expected", result.case.expected)
            yield from _filled("seen", result.seen)
            yield f"  alone:    {result.command}"
            for text in result.exchange[:_LINES]:
                yield f"    {text}"
            if len(result.exchange) > _LINES:
                yield f"    [{len(result.exchange) - _LINES} more lines: --html, --json]"


def summary(report: Report) -> Iterator[str]:
    """The counts; the line about MUST is the last one."""
    of = report.counts.of
    counted = ", ".join(f"{of[status]} {status.value}" for status in Status if of[status])
    yield ""
    yield f"{report.url}: {counted}; {report.issued} certificates issued, {report.seconds:.0f} s"
    if report.ended_early:
        yield f"The run ended early: {report.ended_early}."
    yield from _untested()
    yield report.counts.line


def _untested() -> Iterator[str]:
    text = f"Not to be seen from outside: {', '.join(UNTESTABLE)} (docs/judge-my-server.md says why)."
    yield from textwrap.wrap(text, _WIDTH)


def _filled(label: str, text: str) -> Iterator[str]:
    start = f"  {label}:".ljust(12)
    yield from textwrap.wrap(text.replace("\n", " "), _WIDTH, initial_indent=start, subsequent_indent=" " * 12)
