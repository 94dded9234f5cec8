"""The commands of docs/2012.md are run, and print what it shows."""

from __future__ import annotations

import pytest

from tests.kit import documents
from tests.kit.processes import ROOT
from tests.kit.workspace import Workspace

PAGE = ROOT / "docs/2012.md"
DRAFT_SECTIONS = ("4.2.3", "4.3.1.1", "4.3.1.2", "4.5", "5.1", "5.2", "5.3.1", "5.6.1")
"""The eight caveats of the slides."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # forty commands, on a busy machine


@pytest.mark.client("curl")
def test_every_command_of_the_page_about_2012_prints_what_the_page_shows(own_lab: Workspace) -> None:
    followed = 0
    with documents.shell(own_lab) as shell:
        for block in documents.blocks(PAGE):
            shell.follow(block)
            followed += block.is_run
    assert followed >= 20


def test_the_page_about_2012_has_all_eight_caveats_with_a_command_each() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for number, section in enumerate(DRAFT_SECTIONS, start=1):
        assert f"\n| {section}, now " in text
        answer = text.partition(f"**{number}. ")[2].partition(f"**{number + 1}. ")[0]
        assert "<!-- run -->" in answer
