"""The runners: `exec` starts any program, `fork` and `pool` run Python scripts.

Each is a `Runner`; the configuration names one by its key in `KINDS`, or says `auto`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol, cast

from estgw.callout import shortage, spawn
from estgw.callout.language import Language, language, read_language
from estgw.callout.pool import Pool
from estgw.callout.process import CouldNotStart, Limits, Outcome, Script
from estgw.callout.sources import Stamp, stamp, version_of
from estgw.callout.warm import Warm
from estgw.metrics.meter import meter
from estgw.metrics.table import CALLOUT_SECONDS, CALLOUTS


class Runner(Protocol):
    """One way to run a program to its end, with all promises of `spawn.run`."""

    languages: ClassVar[frozenset[Language]]
    """The languages that it can run."""
    needs_warm: ClassVar[bool]
    """Whether it needs the warm parent."""

    async def run(self, program: Path, env: Mapping[str, str], stdin: bytes, limits: Limits) -> Outcome:
        """Run a program.  Raises `CouldNotStart`."""

    def close(self) -> None:
        """Start nothing more, because another configuration is in use."""


class PairRunner(Runner, Protocol):
    """A runner that can run a decision and the handler that follows it in one process."""

    async def run_both(self, first: Script, second: Script) -> tuple[Outcome, Outcome | None]:
        """Run two scripts of one directory, the second if the first exits with 0.

        Each has the promises of `spawn.run`.  The second outcome is None if the second script has not begun; where
        the first has exited with 0, it must then be run by `run`.
        """


class Exec:
    """Starts a process for each callout."""

    languages: ClassVar = frozenset(Language)
    needs_warm: ClassVar = False

    async def run(self, program: Path, env: Mapping[str, str], stdin: bytes, limits: Limits) -> Outcome:
        """Run a program by posix_spawn."""
        return await spawn.run(program, env, stdin, limits)

    def close(self) -> None:
        """Do nothing: each run starts and ends its own process."""


class Fork:
    """Runs a Python script in a child of the warm parent, which has loaded its libraries."""

    languages: ClassVar = frozenset({Language.OURS, Language.PYTHON})
    needs_warm: ClassVar = True

    def __init__(self, warm: Warm) -> None:
        """`warm` outlives the configuration, and is not closed with it."""
        self._warm = warm

    async def run(self, program: Path, env: Mapping[str, str], stdin: bytes, limits: Limits) -> Outcome:
        """Run a script in a child of its own."""
        return await self._warm.run(program, env, stdin, limits)

    async def run_both(self, first: Script, second: Script) -> tuple[Outcome, Outcome | None]:
        """Run two scripts in one child."""
        return await self._warm.run_both(first, second)

    def close(self) -> None:
        """Do nothing: each run starts and ends its own process."""


KINDS: Mapping[str, type[Runner]] = {"exec": Exec, "fork": Fork, "pool": Pool}


def can_run(asked: str, written_in: Language) -> bool:
    """Whether the runner that the configuration names knows this language."""
    return asked == "auto" or written_in in KINDS[asked].languages


def choose(asked: str, written_in: Language) -> str:
    """The key of the runner for a script: the one asked for, or exec if that can't run the language.

    `auto` forks what is written for the gateway's own interpreter.
    """
    if asked == "auto":
        return "fork" if written_in is Language.OURS else "exec"
    return asked if can_run(asked, written_in) else "exec"


def needs_warm(asked: str, program: Path) -> bool:
    """Whether a script needs the warm parent."""
    return KINDS[choose(asked, language(program))].needs_warm


def _end(outcome: Outcome) -> str:
    """The end of a callout as a label of the metrics."""
    if outcome.timed_out or outcome.flooded:
        return "timeout" if outcome.timed_out else "flood"
    if outcome.exit is None:
        return f"signal-{outcome.signal}" if outcome.signal else "unknown"
    return str(outcome.exit)


class Runners:
    """The runners of one configuration; exec replaces one that it lacks."""

    def __init__(self, table: Mapping[str, Runner] | None = None, folder: Path | None = None) -> None:
        """`folder` is that of the configuration: the metrics name scripts as seen from there."""
        self._folder = folder
        self._table: Mapping[str, Runner] = {"exec": Exec(), **(table or {})}
        self._languages: dict[Path, tuple[Stamp, Language]] = {}
        self._names: dict[Path, str] = {}

    @classmethod
    def warm(cls, warm: Warm, pool: Pool, folder: Path | None = None) -> Runners:
        """All three."""
        return cls({"fork": Fork(warm), "pool": pool}, folder)

    async def run(self, asked: str, program: Path, env: Mapping[str, str], stdin: bytes, limits: Limits) -> Outcome:
        """Run a program by the runner asked for, or by the one that can run it."""
        by = self.choice(asked, program)
        try:
            outcome = await self._table[by].run(program, env, stdin, limits)
        except CouldNotStart:
            meter.add(CALLOUTS, self._name(program), by, "not-started")
            raise
        self._count(program, by, outcome)
        return outcome

    def for_both(self, asked: tuple[str, str], programs: tuple[Path, Path]) -> str | None:
        """The key of the runner that runs both scripts in one process: they have it in common, and a directory."""
        first, second = map(self.choice, asked, programs)
        is_one = first == second and programs[0].parent == programs[1].parent
        return first if is_one and hasattr(self._table[first], "run_both") else None

    async def run_both(self, by: str, first: Script, second: Script) -> tuple[Outcome, Outcome | None]:
        """Run two scripts by the runner that `for_both` has found, as `PairRunner.run_both` does."""
        try:
            one, two = await cast("PairRunner", self._table[by]).run_both(first, second)
        except CouldNotStart:
            meter.add(CALLOUTS, self._name(first.program), by, "not-started")
            raise
        self._count(first.program, by, one)
        if two is not None:
            self._count(second.program, by, two)
        return one, two

    def choice(self, asked: str, program: Path) -> str:
        """The key of the runner that will run a program."""
        by = choose(asked, self._language(program)) if len(self._table) > 1 else "exec"
        return by if by in self._table else "exec"

    def version(self, program: Path) -> Stamp | None:
        """Which version of a script's file the last `choice` has seen; None if there is no such file."""
        known = self._languages.get(program)
        return version_of(program) if known is None else known[0]

    def _count(self, program: Path, by: str, outcome: Outcome) -> None:
        meter.add(CALLOUTS, self._name(program), by, _end(outcome))
        meter.observe(CALLOUT_SECONDS, outcome.seconds, self._name(program))

    def _name(self, program: Path) -> str:
        """The script's path from the configuration's folder, or its name if it lies elsewhere."""
        name = self._names.get(program)
        if name is None:
            inside = self._folder is not None and program.is_relative_to(self._folder)
            name = self._names[program] = str(program.relative_to(self._folder or "")) if inside else program.name
        return name

    def close(self) -> None:
        """Close all runners, because another configuration is in use."""
        for runner in self._table.values():
            runner.close()

    def _language(self, program: Path) -> Language:
        """The script's language, read again when the file is another."""
        try:
            now = stamp(program.stat())
            known = self._languages.get(program)
            if known is None or known[0] != now:
                known = self._languages[program] = (now, read_language(program))
        except OSError as fault:
            if shortage.words(fault):
                raise
            self._languages.pop(program, None)
            return Language.OTHER
        return known[1]
