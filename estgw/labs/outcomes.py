"""What the last checks said, in .estgw/labs.json of a workspace, and when each lab was started."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from estgw.labs import files
from estgw.labs.step import Finding, Outcome

OUTCOMES = Path(".estgw/labs.json")
"""`{"1": {"step": "done" | "not yet" | "wrong", …}, …}`; a trainer's page reads it, too."""
STARTS = Path(".estgw/labs-started.json")
"""`{"1": "2026-11-29T15:00:00.000Z", …}`."""
MOST = 1 << 20
"""Bytes of such a file that are read."""


def outcomes(workspace: Path) -> dict[str, dict[str, str]]:
    """The outcomes of each lab by its number; what is no outcome is left out."""
    known = {outcome.value for outcome in Outcome}
    return {
        number: {str(step): word for step, word in steps.items() if word in known}
        for number, steps in _read(workspace / OUTCOMES).items()
        if isinstance(steps, dict)
    }


def keep(workspace: Path, number: int, findings: Mapping[str, Finding]) -> None:
    """Write down what a check said.  Raises OSError."""
    found = {step: finding.outcome.value for step, finding in findings.items()}
    _write(workspace / OUTCOMES, {**outcomes(workspace), str(number): found})


def started(workspace: Path, number: int) -> str:
    """When the lab was started last, as in `at` of a record; empty: never."""
    found = _read(workspace / STARTS).get(str(number))
    return found if isinstance(found, str) else ""


def start(workspace: Path, number: int, at: str) -> None:
    """Write down that a lab begins, and forget what a check said of it.  Raises OSError."""
    _write(workspace / STARTS, {**_read(workspace / STARTS), str(number): at})
    _write(workspace / OUTCOMES, {**outcomes(workspace), str(number): {}})


def _read(path: Path) -> dict[str, object]:
    """The object in a file; empty if there is none."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MOST))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, content: Mapping[str, object]) -> None:
    files.make_directory(path.parent)
    files.write(path, json.dumps(content, indent=1), mode=0o600)
