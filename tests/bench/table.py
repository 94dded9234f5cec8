"""The result as text that fits a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.rounds import Row


def render(result: Mapping[str, Any]) -> str:
    """The whole result."""
    lines = ["; ".join(f"{name}: {value}" for name, value in result["machine"].items()), ""]
    for title, rows in result["parts"].items():
        lines += [title, "", *table(rows), ""]
    if result["targets"]:
        lines += ["Targets", "", *table(result["targets"]), ""]
    return "\n".join(lines)


def table(rows: Sequence[Row]) -> list[str]:
    """Rows as aligned columns, numbers to the right; a row may lack cells that others have."""
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "part"))
    cells = [columns, *([_text(row.get(name, "")) for name in columns] for row in rows)]
    right = [all(isinstance(row.get(name, 0), int | float) for row in rows) for name in columns]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    return [
        "  ".join(
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
