"""Two pictures of part h, as SVG: enrolments per second over clients, and the CPU time of one enrolment by part.

`make bench PICTURES=write` draws them from its result, and writes them and their table to docs/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.rivals import OURS
from tests.bench.rounds import Row
from tests.bench.table import table
from tests.kit.processes import ROOT

PAGE = ROOT / "docs/figures.md"
RATE, CPU = ROOT / "docs/images/bench-rate.svg", ROOT / "docs/images/bench-cpu.svg"
PARTS = {"gateway": "#3b6ea5", "parent": "#8fb3d9", "children": "#d98f3b"}
"""Parts of a gateway, and their colours."""
TICKS = [base * 10**power for power in range(1, 4) for base in (1, 2, 5)]
OTHER = "#888888"
"""The colour of a server whose parts are not known."""
_LEFT_OUT = {"part", "what", "server CPU ms", "client CPU ms"}
"""Columns of part h that the page does without."""
_BLOCK = re.compile(r"(<!-- figures -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Write the page's table, and both pictures."""
    result = json.loads((ROOT / "dist/bench.json").read_text())
    rows = rows_of(result, "h")
    PAGE.write_text(filled(PAGE.read_text(), result))
    draw_rate(rows, RATE)
    draw_cpu(rows, CPU)


def rows_of(result: Mapping[str, Any], part: str) -> list[Row]:
    """The rows of one part of a result."""
    return [row for rows in result["parts"].values() for row in rows if row.get("part") == part]


def filled(page: str, result: Mapping[str, Any]) -> str:
    """The page with the machine, the table of part h and the targets of this result."""
    machine = "; ".join(f"{name}: {value}" for name, value in result["machine"].items())
    rows = [{name: value for name, value in row.items() if name not in _LEFT_OUT} for row in rows_of(result, "h")]
    targets = [row for row in result["targets"] if row["part"] == "h"]
    text = "\n".join([machine, "", *table(rows), "", *table(targets)])
    return _BLOCK.sub(lambda found: f"{found[1]}```text\n{text}\n```\n{found[2]}", page)


def draw_rate(rows: Sequence[Row], file: Path) -> None:
    """Enrolments per second over clients, with new connections and with those kept alive."""
    figure, axes = _figure(2)
    for axis, how in zip(axes, ("fresh", "kept alive"), strict=True):
        for who in _servers(rows):
            mine = [row for row in rows if (row["by"], row["TLS"]) == (who, how)]
            axis.plot([str(row["clients"]) for row in mine], [row["per second"] for row in mine], marker="o", label=who)
        axis.set(title=f"connections {how}", xlabel="clients", ylabel="enrolments per second", yscale="log")
        low, high = axis.get_ylim()
        axis.set_yticks([tick for tick in TICKS if low <= tick <= high], minor=False)
        axis.minorticks_off()
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.grid(axis="y", alpha=0.3)
    axes[0].legend(frameon=False, fontsize=8)
    _save(figure, file)


def draw_cpu(rows: Sequence[Row], file: Path) -> None:
    """CPU time of one enrolment by 8 clients with new connections: gateway, warm parent, and their children."""
    figure, (axis,) = _figure(1)
    mine = {row["by"]: row for row in rows if (row["clients"], row["TLS"]) == (8, "fresh")}
    for place, (who, row) in enumerate(mine.items()):
        left = 0.0
        parts = {name: row[f"{name} CPU ms"] for name in PARTS} if who in OURS else {who: row["server CPU ms"]}
        for name, width in parts.items():
            axis.barh(place, width, left=left, color=PARTS.get(name, OTHER))
            left += width
        axis.text(left, place, f" {left:.1f} ms", va="center", fontsize=8)
    for name, colour in PARTS.items():
        axis.barh(0, 0, color=colour, label=name)
    axis.set_yticks(range(len(mine)), mine)
    axis.invert_yaxis()
    axis.margins(x=0.1)
    axis.set(xlabel="milliseconds of CPU for one enrolment, 8 clients, new connections")
    axis.legend(frameon=False, fontsize=8)
    _save(figure, file)


def _servers(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["by"] for row in rows))


def _figure(axes: int) -> tuple[Any, Sequence[Any]]:
    import matplotlib  # installed by `make bench PICTURES=write` alone

    matplotlib.use("svg")
    # Text stays text, and the same figures make the same file.
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "estgw", "font.family": "sans-serif"}
    matplotlib.rcParams |= {"axes.spines.top": False, "axes.spines.right": False}
    from matplotlib import pyplot

    figure, found = pyplot.subplots(1, axes, figsize=(10, 4), squeeze=False)
    return figure, found[0]


def _save(figure: Any, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
