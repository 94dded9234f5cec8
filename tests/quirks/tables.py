"""The tables of docs/judge-my-client.md, made from the code: `python -m tests.quirks.tables` writes them in place."""

from __future__ import annotations

from pathlib import Path

from estgw.callout import tables
from estgw.quirks.clients import PLACEHOLDERS
from estgw.quirks.table import QUIRKS
from tests.quirks.measured import MEASURED, result

PAGE = Path(__file__).resolve().parents[2] / "docs/judge-my-client.md"


def quirks() -> str:
    """The quirks, one row each, with the verdicts of real clients."""
    rows = [
        f"| `{row.name}` | {row.server} | {row.client} | {row.clause} | "
        + " | ".join(result(verdicts, row.name) for verdicts in MEASURED.values())
        + " |\n"
        for row in QUIRKS.values()
    ]
    head = f"| quirk | the server … | a good client … | see | {' | '.join(MEASURED)} |\n"
    return head + "| --- " * (4 + len(MEASURED)) + "|\n" + "".join(rows)


def placeholders() -> str:
    """The placeholders of a command."""
    rows = [f"| `{{{name}}}` | {meaning} |\n" for name, meaning in PLACEHOLDERS.items()]
    return "| in a command | becomes |\n| --- | --- |\n" + "".join(rows)


TABLES = {"QUIRKS": quirks, "PLACEHOLDERS": placeholders}


def filled(page: str) -> str:
    """The page with today's tables."""
    return tables.fill(page, TABLES)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
