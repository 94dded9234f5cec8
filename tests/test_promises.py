"""The README's numbered promises: each has a row in SECURITY.md, which names a test that exists."""

from __future__ import annotations

import ast
import re

import pytest

from tests.kit.processes import ROOT

README = (ROOT / "README.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| .* \| `(.*)` \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)


def test_each_promise_has_a_row() -> None:
    promises = re.findall(r"^(\d+)\. ", README.partition("\n## Promises\n")[2], re.MULTILINE)
    assert [number for number, _ in ROWS] == promises
    assert len(promises) >= 16


@pytest.mark.parametrize("test", [test for _, test in ROWS])
def test_each_row_names_a_test(test: str) -> None:
    file, _, function = test.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
