"""Print the branch coverage of folders of `estgw`, and fail below their floors: `make coverage`, a part of `make test`.

slipcover measures the test processes.  Gateways, commands and scripts that a test starts as processes of their own are
not measured, so a folder's figure is a lower bound; folders that are mostly tested in that way are left out.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MEASURED = Path("dist/coverage.json")
FLOORS = {
    "auth": 95,
    "cmc": 98,
    "cmc_service": 96,
    "cms": 96,
    "commandline": 85,
    "config": 97,
    "est": 97,
    "register": 87,
    "tls": 94,
}
"""Percent of the lines and branches of a folder; a floor rises with the figure that is printed."""


def by_folder(measured: Mapping[str, Any]) -> dict[str, float]:
    """Percent of the lines and branches that have run, for each folder of `estgw`."""
    hit: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for name, file in measured["files"].items():
        parts = Path(name).parts
        folder = parts[parts.index("estgw") + 1] if "estgw" in parts else name
        for kind in ("lines", "branches"):
            ran, missed = len(file[f"executed_{kind}"]), len(file[f"missing_{kind}"])
            hit[folder] += ran
            there[folder] += ran + missed
    return {key: 100 * hit[key] / there[key] if there[key] else 100.0 for key in sorted(there)}


def main() -> int:
    """Print the table; returns 1 if a folder is below its floor."""
    found = by_folder(json.loads(MEASURED.read_text(encoding="utf-8")))
    below = [folder for folder, floor in FLOORS.items() if found[folder] < floor]
    for folder, floor in FLOORS.items():
        print(f"{found[folder]:5.1f} % of {floor} %  {folder}")
    for folder in below:
        print(f"coverage: too few lines and branches of estgw/{folder} have run", file=sys.stderr)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
