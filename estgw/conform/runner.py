"""One run: is the server there, then one case after the other, whatever the server does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from OpenSSL import SSL

from estgw.client.faults import ClientError, Dropped, InvalidAnswer, NoConnection, Untrusted, UsageError, clean
from estgw.conform import facts
from estgw.conform.case import Case, Counts, Result
from estgw.conform.line import Transcript
from estgw.conform.model import Finding, Level, Setup, Status
from estgw.conform.probe import JUNK, Form, Probe
from estgw.conform.table import missing
from estgw.errors import Malformed
from estgw.est import certs

_PATIENCE = 3
"""Cases in a row without any connection after which the run ends."""
_LONGEST_SEEN = 600


class CannotRun(Exception):
    """The server can't be judged at all; the text says why and what to do."""


@dataclass
class Report:
    """A whole run."""

    url: str
    results: list[Result] = field(default_factory=list)
    issued: int = 0
    """Certificates that the server has handed out."""
    seconds: float = 0.0
    ended_early: str = ""
    """Why cases were left out; empty when none was."""

    @property
    def counts(self) -> Counts:
        """How many cases ended how."""
        return Counts.count(self.results)

    def exit_status(self, *, strict: bool) -> int:
        """0 for no FAIL (`strict`: and no WARN), 1 for some, 3 if a case could not be judged."""
        bad = any(each.is_bad or each.is_surprise for each in self.results)
        warned = any(each.status is Status.WARN and each.reason is None for each in self.results)
        if bad or (strict and warned):
            return 1
        return 3 if self.ended_early or any(each.status is Status.ERROR for each in self.results) else 0


def run(
    setup: Setup,
    cases: Iterable[Case],
    command: Callable[[Case], str],
    expected: Mapping[str, str] | None = None,
    tell: Callable[[Result], None] | None = None,
) -> Report:
    """Run cases against a server; raises `CannotRun` when it is not there or not to be trusted.

    `command` makes the command that repeats one case, `expected` has reasons by case, `tell` gets each result.
    """
    began = time.monotonic()
    probe = Probe(setup)
    _look(probe)
    report = Report(setup.place.url("cacerts").rpartition("/")[0])
    silent = 0
    for case in cases:
        if report.ended_early:
            result = Result(case, Status.ERROR, f"not run: {report.ended_early}")
        else:
            result = _judge(probe, case)
            if result.status is not Status.SKIP:
                silent = silent + 1 if result.status is Status.ERROR else 0
            if silent >= _PATIENCE:
                report.ended_early = f"{_PATIENCE} cases in a row could not be carried out"
        result.command = command(case)
        result.reason = (expected or {}).get(case.id)
        result.seen = probe.login.masked(clean(result.seen, _LONGEST_SEEN))
        result.exchange = [probe.login.masked(line) for line in result.exchange]
        report.results.append(result)
        if tell is not None:
            tell(result)
    report.issued = probe.issued
    report.seconds = time.monotonic() - began
    return report


def _look(probe: Probe) -> None:
    """Connect once, learn the challenges, and try the password on a request that can't be issued."""
    try:
        facts.cacerts(probe)
        probe.post(lambda _: JUNK, Form(with_login=False))
        if probe.login.is_given:
            probe.post(lambda _: JUNK)
    except UsageError as fault:
        raise CannotRun(str(fault)) from None
    except (NoConnection, Untrusted) as fault:
        if not _was_asked(probe) or not isinstance(fault, Dropped):
            raise CannotRun(str(fault)) from None
    except ClientError:
        pass  # an answer, if a bad one: the cases judge it


def _was_asked(probe: Probe) -> bool:
    """Whether a request went out last, so that the fault is in place of its answer, and not of a connection."""
    return bool(lines := probe.transcript.lines) and lines[-1].startswith(">")


def _judge(probe: Probe, case: Case) -> Result:
    probe.transcript = Transcript()
    began = time.monotonic()
    status, seen = _outcome(probe, case)
    lines = probe.transcript.lines
    return Result(case, status, seen, lines, seconds=time.monotonic() - began)


def _outcome(probe: Probe, case: Case) -> tuple[Status, str]:
    try:
        for need in case.needs:
            if (what := missing(need, probe.setup, probe)) is not None:
                return Status.SKIP, what
        return Status.PASS, case.run(probe)
    except Finding as finding:
        return finding.status, finding.seen
    except InvalidAnswer as fault:
        return _broken(case), str(fault)
    except (NoConnection, Untrusted) as fault:
        # A server that takes a connection and a request and then says nothing has answered wrongly.
        return (_broken(case) if _was_asked(probe) else Status.ERROR), str(fault)
    except (ClientError, Malformed, OSError, SSL.Error, *certs.UNREADABLE) as fault:
        return Status.ERROR, f"{type(fault).__name__}: {fault}"


def _broken(case: Case) -> Status:
    return Status.FAIL if case.level is Level.MUST else Status.WARN
