"""rfc_coverage.md: every requirement has a row, and every row an existing test or the reason for having none."""

from __future__ import annotations

import ast
import functools
import re

import pytest

from tests.kit.processes import ROOT

TABLE = ROOT / "tests/rfc_coverage.md"

# The number of requirements of each part: U1 to U12 and so on.
PARTS = {"U": 12, "T": 17, "A": 12, "Z": 7, "K": 14, "E": 25, "POP": 13, "F": 10, "G": 16, "Q": 13, "X": 4}
IDS = [f"{part}{number}" for part, last in PARTS.items() for number in range(1, last + 1)]

TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
REASON = re.compile(r"Why not: \S.{15,}")
TEXT = TABLE.read_text(encoding="utf-8")
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in TEXT.splitlines()
    if re.match(r"\| [A-Z]+\d+ \|", line)
]


@functools.cache
def names_in(path: str) -> set[str]:
    """The tests of a file, by the names that pytest collects."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_requirement_has_one_row_in_its_order():
    assert [row[0] for row in ROWS] == IDS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_has_a_test_that_exists_or_a_reason(row):
    _, requirement, evidence = row
    assert requirement
    named = TEST.findall(evidence)
    assert named or REASON.match(evidence)
    assert evidence.count("::") == len(named)
    require(named)


def test_the_tests_named_above_the_table_exist():
    named = TEST.findall(TEXT.partition("\n| ")[0])
    assert named
    require(named)


def require(named: list[tuple[str, str]]) -> None:
    for path, name in named:
        assert (ROOT / path).is_file(), path
        assert name in names_in(path), f"{path} has no {name}"
