"""The contract's tables as Markdown, and the document that holds them."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from estgw.callout import tables
from estgw.callout.contract import ENV_VARS
from estgw.callout.verdicts import EXIT_STATUS, OTHERWISE
from tests.kit.processes import ROOT, run

DOCUMENT = ROOT / "handlers/README.md"


def cells(table: str) -> list[list[str]]:
    """The rows below the heading."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


@pytest.mark.parametrize("table", tables.TABLES.values())
def test_every_row_of_a_table_has_as_many_cells_as_its_head(table):
    head, rule, *rows = table().splitlines()
    columns = head.count("|")
    assert re.fullmatch(r"\|( --- \|)+", rule)
    assert {line.count("|") - line.count(r"\|") for line in [rule, *rows]} == {columns}


def test_the_table_of_variables_has_every_row_and_group():
    found = cells(tables.environment())
    assert [row[0] for row in found if row[0].startswith("`")] == [f"`{row.name}`" for row in ENV_VARS]
    groups = [row[0].strip("*| ") for row in found if row[0].startswith("**")]
    assert groups == list(dict.fromkeys(row.group for row in ENV_VARS))


def test_the_table_of_exit_statuses_has_every_row():
    found = cells(tables.exit_status())
    assert [row[0] for row in found[: len(EXIT_STATUS)]] == [str(row.exit) for row in EXIT_STATUS]
    assert found[0][2:5] == ["200", "yes", "yes"]
    assert found[len(EXIT_STATUS)][0] == OTHERWISE.name
    assert [row[0].rstrip(" |") for row in found[len(EXIT_STATUS) + 1 :]] == ["over time", "too many running"]


def test_fill_replaces_only_the_text_between_the_marks():
    text = "one\n<!-- table: EXIT_STATUS -->\nold\n<!-- end -->\ntwo\n<!-- table: ENV_VARS -->\n<!-- end -->\n"
    made = tables.fill(text)
    assert made == (
        f"one\n<!-- table: EXIT_STATUS -->\n{tables.exit_status()}<!-- end -->\n"
        f"two\n<!-- table: ENV_VARS -->\n{tables.environment()}<!-- end -->\n"
    )
    assert tables.fill(made) == made
    assert tables.fill("no marks\n") == "no marks\n"


def test_fill_refuses_an_unknown_table():
    with pytest.raises(KeyError):
        tables.fill("<!-- table: NOBODY -->\n<!-- end -->\n")


def test_the_document_has_the_current_tables():
    """`python -m estgw.callout.tables handlers/README.md` writes them."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert tables.fill(text) == text
    assert text.count("<!-- table: ") == len(tables.TABLES)


def test_the_module_as_a_program_writes_the_tables(tmp_path):
    copy = Path(shutil.copy(DOCUMENT, tmp_path / "README.md"))
    before = copy.read_text(encoding="utf-8")
    copy.write_text(re.sub(r"(<!-- table: \w+ -->\n).*?(<!-- end -->)", r"\1\2", before, flags=re.DOTALL))
    run(sys.executable, "-m", "estgw.callout.tables", copy, cwd=ROOT)
    assert copy.read_text(encoding="utf-8") == before
