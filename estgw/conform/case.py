"""What a case is, and how one or all of them ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from estgw.conform.model import Level, Need, Status
from estgw.conform.probe import Probe


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    """Unique within its group."""
    group: str
    level: Level
    clause: str
    """Where the requirement stands, such as `RFC 7030 4.2.3`."""
    rows: tuple[str, ...]
    """The requirements that it tests, by the ids of tests/rfc_coverage.md; empty for what no RFC asks."""
    expected: str
    """What is sent and what a good server answers, in a sentence."""
    run: Callable[[Probe], str]
    """Returns what was seen when the server is right, and raises a `Finding` otherwise."""
    needs: tuple[Need, ...] = ()

    @property
    def id(self) -> str:
        """Such as `enroll.issue`."""
        return f"{self.group}.{self.name}"


@dataclass
class Result:
    """How one case ended."""

    case: Case
    status: Status
    seen: str
    """What the server did, or what is missing."""
    exchange: list[str] = field(default_factory=list)
    """Requests and answers without credentials, one line each."""
    command: str = ""
    """The command that runs this case alone."""
    seconds: float = 0.0
    reason: str | None = None
    """Why the user expects it to fail; None if the user does not."""

    @property
    def is_bad(self) -> bool:
        """Whether it is a FAIL that nobody expected."""
        return self.status is Status.FAIL and self.reason is None

    @property
    def is_surprise(self) -> bool:
        """Whether the user expects it to fail, and it passes."""
        return self.status is Status.PASS and self.reason is not None


@dataclass(frozen=True)
class Counts:
    """How many cases ended how."""

    of: dict[Status, int]
    passed: int
    """MUST cases that passed, those with a warning among them."""
    failed: int
    untested: int

    @classmethod
    def count(cls, results: Iterable[Result]) -> Counts:
        """Count results."""
        found = list(results)
        of = {status: sum(each.status is status for each in found) for status in Status}
        must = [each.status for each in found if each.case.level is Level.MUST]
        passed = sum(status in (Status.PASS, Status.WARN) for status in must)
        bad = must.count(Status.FAIL)
        return cls(of, passed, bad, len(must) - passed - bad)

    @property
    def line(self) -> str:
        """The last line of a report."""
        return f"MUST: {self.passed} passed, {self.failed} failed, {self.untested} not tested"
