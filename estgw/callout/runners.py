"""Which runner runs what: `exec` starts a program, `fork` and `pool` know Python scripts by their `#!` line."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from estgw.callout import process, shortage
from estgw.callout.interpreter import Stamp, stamp
from estgw.callout.pool import Pool
from estgw.callout.process import CouldNotStart, Limits, Outcome
from estgw.callout.warm import Warm
from estgw.metrics.meter import meter
from estgw.metrics.table import CALLOUT_SECONDS, CALLOUTS

_PYTHON = re.compile(r"python(3(\.\d+)?)?")
_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"


class Language(Enum):
    """What a script's `#!` line says."""

    OURS = "the gateway's own Python"
    PYTHON = "another Python, or ours with options"
    OTHER = "no Python"


def language(program: Path) -> Language:
    """Read the `#!` line; a file that can't be run is OTHER, as exec has the right words for it."""
    try:
        return _language(program)
    except OSError:
        return Language.OTHER


def _language(program: Path) -> Language:
    """The same; raises OSError."""
    with program.open("rb") as file:
        first = file.readline(256)
    if not first.startswith(b"#!") or not os.access(program, os.X_OK):
        return Language.OTHER
    command, *options = os.fsdecode(first[2:]).split() or [""]
    if Path(command).name == "env" and options:
        command, *options = options
        ours = command in ("python", "python3", _VERSION)
    else:
        ours = _is_this_interpreter(command)
    if not _PYTHON.fullmatch(Path(command).name):
        return Language.OTHER
    return Language.OURS if ours and not options else Language.PYTHON


def _is_this_interpreter(path: str) -> bool:
    """The same program in the same virtual environment, or out of one: with another's libraries it is another."""
    theirs, ours = Path(path), Path(sys.executable)
    return theirs.resolve() == ours.resolve() and _environment(theirs) == _environment(ours)


def _environment(interpreter: Path) -> Path | None:
    """The virtual environment that an interpreter's path lies in."""
    home = interpreter.parent.parent
    return home.resolve() if (home / "pyvenv.cfg").exists() else None


def forks(runner: str, written_in: Language) -> bool:
    """Whether a script needs the warm parent."""
    if runner == "auto":
        return written_in is Language.OURS
    return runner != "exec" and written_in is not Language.OTHER


def _end(outcome: Outcome) -> str:
    """How it ended, in a word for the metrics."""
    if outcome.timed_out or outcome.flooded:
        return "timeout" if outcome.timed_out else "flood"
    if outcome.exit is None:
        return f"signal-{outcome.signal}" if outcome.signal else "unknown"
    return str(outcome.exit)


class Runners:
    """The runners of one configuration.  Without a warm parent everything is started by exec."""

    def __init__(self, warm: Warm | None = None, pool: Pool | None = None, folder: Path | None = None) -> None:
        """`folder` is that of the configuration: the metrics name scripts as seen from there."""
        self._folder = folder
        self._warm = warm
        self._pool = pool
        self._languages: dict[Path, tuple[Stamp, Language]] = {}

    async def run(self, runner: str, program: Path, env: Mapping[str, str], stdin: bytes, limits: Limits) -> Outcome:
        """Run a program by `auto`, `exec`, `fork` or `pool`; one that is no Python script by exec all the same."""
        began, by, run, name = time.monotonic(), "exec", process.run, self._name(program)
        if self._warm is not None and forks(runner, self._language(program)):
            by, run = "fork", self._warm.run
            if runner == "pool" and self._pool is not None:
                by, run = "pool", self._pool.run
        try:
            outcome = await run(program, env, stdin, limits)
        except CouldNotStart:
            meter.add(CALLOUTS, name, by, "not-started")
            raise
        meter.add(CALLOUTS, name, by, _end(outcome))
        meter.observe(CALLOUT_SECONDS, time.monotonic() - began, name)
        return outcome

    def _name(self, program: Path) -> str:
        """The script's path from the configuration's folder, or its name if it lies elsewhere."""
        if self._folder is not None and program.is_relative_to(self._folder):
            return str(program.relative_to(self._folder))
        return program.name

    def close(self) -> None:
        """Another configuration has taken over: no worker of this one is kept."""
        if self._pool is not None:
            self._pool.close()

    def _language(self, program: Path) -> Language:
        """The script's language, read again when the file is another."""
        try:
            now = stamp(program.stat())
            known = self._languages.get(program)
            if known is None or known[0] != now:
                known = self._languages[program] = (now, _language(program))
        except OSError as fault:
            if shortage.words(fault):
                raise
            return Language.OTHER
        return known[1]
