"""The trainer's page in a browser: rows, a raised hand, a reset."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Look, browser, look
from tests.workshop.conftest import Course

pytestmark = [pytest.mark.slow, pytest.mark.client("chromium-headless-shell")]

__all__ = ["browser", "look"]


def test_a_trainer_sees_a_hand_and_resets_a_participant(look: Look, shared: Course) -> None:
    trainer = shared.seat("trainer")
    window = look.window(ignore_https_errors=True)
    shared.enrol("p01")
    shared.page("p01", "POST", "/api/hand/up")
    tab = look.at(f"https://127.0.0.1:{trainer.page_port}/#{trainer.token}", window, ready="#p01")
    row = tab.locator("#p01")
    expect(row).to_contain_text("raised hand")
    expect(tab.locator("#count")).to_have_text(re.compile("2 participants, (1 calls|2 call) for you"))
    expect(row).to_contain_text("200 issued")
    row.get_by_role("button", name="Lower the hand of p01").click()
    expect(row).not_to_contain_text("raised hand")
    tab.on("dialog", lambda dialog: dialog.accept())
    tab.get_by_role("button", name="Reset p02").click()
    expect(tab.locator("#said")).to_contain_text("p02 is reset; the old files are in")
    look.wrong[:] = [each for each in look.wrong if not each.startswith("a dialog: Reset p02?")]


def test_each_handout_is_one_printed_page(look: Look, shared: Course) -> None:
    shared.run("handouts", shared.own)
    # The longest host name of a course in practice makes the longest lines.
    text = (shared.folder / "handouts/all.html").read_text().replace("localhost", "est.workshop.laboratory.example.org")
    (shared.folder / "handouts/long.html").write_text(text)
    window = look.window()
    tab = window.new_page()
    tab.goto(f"file://{shared.folder}/handouts/long.html")
    printed = tab.pdf(format="A4", prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page[^s]", printed)) == 2
    assert text.count("<section>") == 2


def test_without_the_token_the_page_shows_nothing(look: Look, shared: Course) -> None:
    port = shared.seat("trainer").page_port
    tab = look.at(
        f"https://127.0.0.1:{port}/#{'0' * 32}", look.window(ignore_https_errors=True), ready="#locked:not([hidden])"
    )
    expect(tab.locator("#participants tr")).to_have_count(0)
