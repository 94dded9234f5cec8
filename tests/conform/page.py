"""The tables of cases in docs/judge-my-server.md: `python -m tests.conform.page` rewrites them."""

from __future__ import annotations

import re

from estgw.conform import table
from estgw.conform.model import Need
from tests.rooms import ROOT

PAGE = ROOT / "docs/judge-my-server.md"
_BLOCK = re.compile(r"(?<=<!-- cases -->\n).*?(?=<!-- end -->)", re.DOTALL)
_ROWS = re.compile(r"(?<=<!-- rows -->\n).*?(?=<!-- end -->)", re.DOTALL)
_NEEDS = {
    Need.ISSUE: "",
    Need.PASSWORD: "`-p`",
    Need.LOGIN: "",
    Need.LABEL: "`--label`",
    Need.RA: "`--ra-cert`",
    Need.OTHER: "`--other-cert`",
    Need.SECRET: "`--decrypt-key`",
    Need.DIGEST: "Digest",
    Need.KEYGEN: "",
    Need.CMC: "",
    Need.TLS12: "TLS 1.2",
    Need.TLS13: "TLS 1.3",
}


def cases() -> str:
    """A table row for each case."""
    lines = ["", "| case | level | clause | what is expected | needs |", "| --- | --- | --- | --- | --- |"]
    for case in table.CASES:
        issues = "" if Need.ISSUE not in case.needs else "issues"
        needs = ", ".join(filter(None, [issues, *(_NEEDS[need] for need in case.needs)]))
        lines.append(f"| `{case.id}` | {case.level.value} | {case.clause} | {case.expected} | {needs} |")
    return "\n".join([*lines, "", ""])


def rows() -> str:
    """A line for each requirement that can't be tested from outside."""
    return "\n".join(["", *(f"- {row}: {why}." for row, why in table.UNTESTABLE.items()), "", ""])


def rewritten(page: str) -> str:
    """The page with today's tables."""
    return _ROWS.sub(lambda _: rows(), _BLOCK.sub(lambda _: cases(), page))


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
