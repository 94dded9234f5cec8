"""Many cases of one claim: some in each run, all in `make test-all`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def some(cases: Iterable[Any], every: int) -> list[Any]:
    """Arguments for `parametrize`: each `every`th case as it is, from the first, and the others marked `exhaustive`."""
    made = []
    for number, case in enumerate(cases):
        marks = [pytest.mark.exhaustive] if number % every else []
        made.append(pytest.param(*case if isinstance(case, tuple) else (case,), marks=marks))
    return made
