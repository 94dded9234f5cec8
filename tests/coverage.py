"""Print the branch coverage of `estgw` by folder, and fail below the floor: `make coverage`, a part of `make test`.

slipcover measures the test processes.  Gateways, commands and scripts that a test starts as processes of their own are
not measured, so a folder's figure is a lower bound.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MEASURED = Path("dist/coverage.json")
FLOOR = 75.0
"""Percent of all lines and branches; it rises with the figure that is printed."""


def by_folder(measured: Mapping[str, Any]) -> dict[str, float]:
    """Percent of the lines and branches that have run, for each folder of `estgw` and for `all`."""
    hit: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for name, file in measured["files"].items():
        parts = Path(name).parts
        folder = parts[parts.index("estgw") + 1] if "estgw" in parts else name
        for kind in ("lines", "branches"):
            ran, missed = len(file[f"executed_{kind}"]), len(file[f"missing_{kind}"])
            for key in (folder, "all"):
                hit[key] += ran
                there[key] += ran + missed
    return {key: 100 * hit[key] / there[key] if there[key] else 100.0 for key in sorted(there)}


def main() -> int:
    """Print the table; returns 1 below the floor."""
    found = by_folder(json.loads(MEASURED.read_text(encoding="utf-8")))
    for folder, percent in found.items():
        print(f"{percent:5.1f} %  {folder}")
    if found["all"] >= FLOOR:
        return 0
    print(f"coverage: {found['all']:.1f} % of lines and branches is below the floor of {FLOOR} %", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
