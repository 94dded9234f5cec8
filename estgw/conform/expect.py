"""`--expect`: a file of cases that are known to fail, each with its reason."""

from __future__ import annotations

from pathlib import Path

from estgw.client import files
from estgw.client.faults import UsageError, clean
from estgw.conform.table import CASES


def read(path: Path) -> dict[str, str]:
    """Lines `case reason`; empty ones and those that begin with # are left out.  Raises `UsageError`."""
    known = {case.id for case in CASES}
    found: dict[str, str] = {}
    for number, line in enumerate(files.read(path).decode("utf-8", "replace").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        case, _, reason = text.partition(" ")
        if case not in known:
            raise UsageError(f"{path}:{number}: there is no case {clean(case, 80)!r}; estgw conform --list names them")
        if not reason.strip():
            raise UsageError(f"{path}:{number}: {case} without a reason")
        found[case] = clean(reason.strip(), 300)
    return found
