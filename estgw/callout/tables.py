"""The contract's tables as Markdown: `python -m estgw.callout.tables handlers/README.md` writes them in place."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from estgw.callout.contract import ENV_VARS
from estgw.callout.verdicts import EXIT_STATUS, OTHERWISE, ExitStatus
from estgw.est.bounds import UPPER_BOUNDS

_MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def environment() -> str:
    """The environment, one row per variable, a heading row per group."""

    def rows() -> Iterator[str]:
        yield "| name | value | set when |"
        yield "| --- | --- | --- |"
        group = ""
        for row in ENV_VARS:
            if row.group != group:
                group = row.group
                yield f"| **{group}** | | |"
            yield f"| `{row.name}` | {row.meaning} | {row.when} |"

    return "\n".join(rows()) + "\n"


def exit_status() -> str:
    """The exit statuses, and what the client gets for each."""

    def verdict(status: int | None) -> str:
        return "yes" if status is None else str(status)

    def line(row: ExitStatus, exit_text: str, name: str) -> str:
        verdicts = f"{row.handler} | {verdict(row.authorize)} | {verdict(row.authenticate)}"
        return f"| {exit_text} | {name} | {verdicts} | {row.sees} |"

    def rows() -> Iterator[str]:
        yield "| exit | sysexits name | handler | `authorize` | `authenticate` | the client sees |"
        yield "| --- | --- | --- | --- | --- | --- |"
        for row in EXIT_STATUS:
            yield line(row, str(row.exit), row.name)
        yield line(OTHERWISE, OTHERWISE.name, "")
        yield "| over time | | 504 | 504 | 504 | fixed text with the request id |"
        yield "| too many running | | 503 | 503 | 503 | fixed text, `Retry-After` |"

    return "\n".join(rows()) + "\n"


def upper_bounds() -> str:
    """The longest values of a name's attributes, one row per bound."""
    bounds: dict[int, list[str]] = {}
    for name, bound in UPPER_BOUNDS.values():
        bounds.setdefault(bound, []).append(f"`{name}`")
    rows = "".join(f"| {', '.join(sorted(bounds[bound]))} | {bound} |\n" for bound in sorted(bounds))
    return f"| attribute | characters |\n| --- | --- |\n{rows}"


TABLES = {"ENV_VARS": environment, "EXIT_STATUS": exit_status, "UPPER_BOUNDS": upper_bounds}


def fill(text: str, tables: Mapping[str, Callable[[], str]] = TABLES) -> str:
    """Replace what stands between the markers `<!-- table: NAME -->` and `<!-- end -->` by these tables."""
    return _MARKED.sub(lambda found: found[1] + tables[found[2]]() + found[3], text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(fill(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
