"""How the page looks: no part hidden at any width, and the pictures in the README.

`PICTURES=write make test-page` takes the pictures anew; without that, they are compared with nothing but their size, as
each machine has its own letters.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.kit.cases import some
from tests.kit.processes import ROOT
from tests.page import png
from tests.page.conftest import Look
from tests.page.shown import Shown

IMAGES = ROOT / "docs/images"
SCHEMES = ("light", "dark")
WIDTH, HEIGHT = 1360, 800
LARGEST = 200_000
"""Bytes of a picture, so that the repository stays small."""

chromium = pytest.mark.client("chromium-headless-shell")


def picture(scheme: str) -> Path:
    return IMAGES / f"page-{scheme}.png"


def opened(look: Look, page: Shown, **options: Any) -> Page:
    tab = look.at(page.url, **options)
    tab.locator("tr[data-id='8f0c21ab12'] button").click()
    expect(tab.locator("#detail h2")).to_have_text("simpleenroll, refused by linking")
    tab.locator("#detail svg").wait_for()
    return tab


@chromium
@pytest.mark.parametrize("scheme", some(SCHEMES, 2))
def test_the_picture_of_the_readme_shows_the_page(look: Look, page: Shown, scheme: str):
    # Without motion, so that each picture is the same on one machine.
    size = ViewportSize(width=WIDTH, height=HEIGHT)
    tab = opened(look, page, size=size, color_scheme=scheme, reduced_motion="reduce")
    expect(tab.locator("#count")).to_contain_text("17 transactions")
    tab.mouse.move(0, 0)
    taken = tab.screenshot(animations="disabled")
    assert png.size(taken) == (WIDTH, HEIGHT)
    if os.environ.get("PICTURES") == "write":
        IMAGES.mkdir(exist_ok=True)
        picture(scheme).write_bytes(png.packed(taken))
    back = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == {"light": "rgb(251, 251, 250)", "dark": "rgb(23, 24, 27)"}[scheme]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_picture_of_the_readme_is_there_and_small(scheme):
    content = picture(scheme).read_bytes()
    assert png.size(content) == (WIDTH, HEIGHT)
    assert len(content) < LARGEST
    readme = (ROOT / "README.md").read_text()
    assert f"docs/images/{picture(scheme).name}" in readme


@chromium
@pytest.mark.parametrize(
    "width", [360, 1400, *(pytest.param(width, marks=pytest.mark.exhaustive) for width in (768, 1024, 2560, 3840))]
)
def test_nothing_is_cut_off_at_any_width(look: Look, page: Shown, width: int):
    tab = look.at(page.url, size=ViewportSize(width=width, height=max(640, width // 2)))
    wide = "document.documentElement.scrollWidth <= innerWidth"
    assert tab.evaluate(wide)
    assert tab.evaluate("document.querySelector('#list').scrollWidth <= document.querySelector('#list').clientWidth")
    for identifier in ("8f0c21ab12", "8f0c21ab0c", "8f0c21ab0b"):
        if not tab.locator(f"tr[data-id='{identifier}']").is_visible():
            tab.get_by_role("button", name="Back to the list").click()
        tab.locator(f"tr[data-id='{identifier}'] button").click()
        expect(tab.locator("#detail .head")).to_contain_text(identifier)
        tab.evaluate("document.querySelectorAll('#detail details').forEach((each) => { each.open = true; })")
        tab.wait_for_timeout(200)
        assert tab.evaluate(wide)
        beyond = tab.evaluate(
            "(() => { const box = document.querySelector('#detail'); const right = box.getBoundingClientRect().right;"
            " return [...box.querySelectorAll('*')].filter((each) => each.getBoundingClientRect().right > right + 1)"
            ".filter((each) => each.checkVisibility() && !each.closest('pre, .asn1'))"
            ".map((each) => each.outerHTML.slice(0, 100)); })()"
        )
        assert beyond == []


@chromium
@pytest.mark.exhaustive
def test_a_telephone_shows_one_record_and_goes_back_to_the_list(look: Look, page: Shown):
    tab = look.at(page.url, size=ViewportSize(width=360, height=740))
    row = tab.locator("tr[data-id='8f0c21ab12']")
    row.locator("button").click()
    expect(tab.locator("#detail h2")).to_be_visible()
    expect(row).not_to_be_visible()
    tab.get_by_role("button", name="Back to the list").click()
    expect(row).to_be_visible()
    row.locator("button").click()
    expect(tab.locator("#detail h2")).to_be_visible()
    tab.go_back()
    expect(row).to_be_visible()
    tab.go_forward()
    expect(tab.locator("#detail h2")).to_have_text("simpleenroll, refused by linking")


@chromium
@pytest.mark.exhaustive
def test_paper_shows_the_open_record_without_buttons(look: Look, page: Shown):
    tab = opened(look, page)
    tab.emulate_media(media="print")
    assert tab.locator("#detail h2").is_visible()
    assert tab.locator(".gates").is_visible()
    assert not tab.locator(".buttons").is_visible()
    assert not tab.locator("#list").is_visible()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert (
        tab.evaluate("document.querySelector('#detail').scrollHeight - document.querySelector('#detail').clientHeight")
        <= 1
    )
    tab.pdf()


def test_filters_of_a_picture_are_undone():
    """Two lines of two pixels under each filter of ISO/IEC 15948 9.2, by hand."""
    first, wanted = bytes([10, 20, 30, 40, 50, 60]), bytes([15, 25, 35, 45, 55, 65])
    by_filter = {
        0: wanted,
        1: bytes([15, 25, 35, 30, 30, 30]),
        2: bytes([5, 5, 5, 5, 5, 5]),
        3: bytes([10, 15, 20, 18, 18, 18]),
        4: bytes([5, 5, 5, 5, 5, 5]),
    }
    for kind, line in by_filter.items():
        assert list(png.unfiltered(b"\0" + first + bytes([kind]) + line, 6, 3)) == [first, wanted], kind
