"""Everything without a mouse, and for people who do not see the screen."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.kit.processes import until
from tests.page import samples
from tests.page.conftest import Look
from tests.page.shown import Shown, shown

pytestmark = [pytest.mark.client("chromium-headless-shell"), pytest.mark.slow]


def focused(page: Page) -> str:
    """The id of the focused row, or the id or text of another focused element."""
    focus = "document.activeElement"
    return str(page.evaluate(f"{focus}.closest('#rows tr')?.dataset.id || {focus}.id || {focus}.innerText"))


def test_all_by_keyboard(look: Look, page: Shown):
    page.replays = lambda identifier: samples.replayed(99, 500) | {"of": identifier}
    tab = look.at(page.url)
    press = tab.keyboard.press
    press("/")
    until(lambda: focused(tab) == "filter")
    tab.keyboard.type("status:4xx")
    expect(tab.locator("#rows tr:not(.space)")).to_have_count(7)
    press("ArrowDown")
    expect(tab.locator("#detail h2")).to_have_text("simpleenroll, refused by linking")
    until(lambda: focused(tab) == "8f0c21ab12")
    press("ArrowDown")
    expect(tab.locator("#detail h2")).to_have_text("simpleenroll, refused by requires")
    until(lambda: focused(tab) == "8f0c21ab11")
    press("End")
    until(lambda: focused(tab) == "8f0c21ab06")
    press("Home")
    until(lambda: focused(tab) == "8f0c21ab12")
    press("Enter")
    expect(tab.locator("#detail .head")).to_contain_text("request 8f0c21ab12")
    press("Tab")
    until(lambda: focused(tab) in ("detail", "Replay"))
    while focused(tab) != "Replay":
        press("Tab")
    press("Enter")
    expect(tab.locator("#detail .head")).to_contain_text("replays 8f0c21ab12")
    press("Escape")  # the detail closes, and the focus goes to its row
    expect(tab.locator("#detail")).to_contain_text("Choose a transaction")
    press("Escape")  # the filter is cleared
    expect(tab.locator("#rows tr:not(.space)")).to_have_count(18)
    assert tab.input_value("#filter") == ""


@pytest.mark.exhaustive
def test_two_records_are_compared_by_keyboard(look: Look, page: Shown):
    tab = look.at(page.url)
    press = tab.keyboard.press
    press("ArrowDown")
    expect(tab.locator("#detail h2")).to_have_text("simpleenroll, issued")
    tab.locator("#compare").focus()
    press("Enter")
    assert focused(tab) == "8f0c21ab14"
    press("ArrowDown")
    press("ArrowDown")
    press("Enter")
    expect(tab.locator("#detail h2")).to_have_text("Two transactions, compared")
    assert tab.url.endswith("id=8f0c21ab14,8f0c21ab12")
    press("Escape")
    expect(tab.locator("#detail")).to_contain_text("Choose a transaction")


@pytest.mark.exhaustive
def test_escape_ends_a_comparison_that_has_not_begun(look: Look, page: Shown):
    tab = look.at(page.url)
    tab.keyboard.press("ArrowDown")
    expect(tab.locator("#detail h2")).to_have_text("simpleenroll, issued")
    tab.locator("#compare").click()
    expect(tab.locator("#compare")).to_have_text("Choose the second…")
    tab.keyboard.press("Escape")
    expect(tab.locator("#compare")).to_have_text("Compare")
    assert tab.url.endswith("id=8f0c21ab14")


@pytest.mark.exhaustive
def test_the_focus_stays_in_its_row_while_others_come(look: Look, page: Shown):
    tab = look.at(page.url)
    for _ in range(3):
        tab.keyboard.press("ArrowDown")
    assert focused(tab) == "8f0c21ab12"
    page.add(*[samples.record(number, number, "cacerts") for number in range(100, 105)])
    tab.locator(f"tr[data-id='{0x8F0C21AB00 + 104:010x}']").wait_for()
    assert focused(tab) == "8f0c21ab12"
    tab.keyboard.press("ArrowUp")
    assert focused(tab) == "8f0c21ab13"


@pytest.mark.exhaustive
def test_the_focus_is_visible(look: Look, page: Shown):
    tab = look.at(page.url)
    for key, style in (
        ("ArrowDown", "getComputedStyle(document.activeElement, '::after')"),
        ("/", "getComputedStyle(document.activeElement)"),
    ):
        tab.keyboard.press(key)
        assert tab.evaluate(f"{style}.outlineStyle") == "solid"
        assert tab.evaluate(f"{style}.outlineWidth") == "2px"


@pytest.mark.exhaustive
def test_the_list_is_a_table_of_buttons_to_a_screen_reader(look: Look, page: Shown):
    tab = look.at(page.url)
    snapshot = tab.locator("#list").aria_snapshot()
    lines = [line.strip() for line in snapshot.splitlines()]
    assert lines[0] == '- region "Transactions":'
    assert lines[1] == '- table "Transactions, the newest first":'
    assert [line for line in lines if line.startswith("- columnheader")][:6] == [
        f'- columnheader "{name}"' for name in ("time, UTC", "who", "operation", "answer", "decided by", "ms")
    ]
    assert '- row "15:02:41 estuser simpleenroll 200 issued CN=device-1 17":' in lines
    assert '- button "15:02:41"' in lines
    assert '- button "↻ replay 15:02:39"' in lines
    assert '- cell "400 refused"' in lines


@pytest.mark.exhaustive
def test_the_detail_is_headings_lists_and_buttons_to_a_screen_reader(look: Look, page: Shown):
    tab = look.at(page.url)
    tab.locator("tr[data-id='8f0c21ab12']").click()
    expect(tab.locator("#detail h2")).to_have_text("simpleenroll, refused by linking")
    snapshot = tab.locator("#detail").aria_snapshot()
    lines = [line.strip() for line in snapshot.splitlines()]
    for wanted in (
        '- heading "simpleenroll, refused by linking" [level=2]',
        '- button "Replay"',
        '- button "Copy as curl"',
        '- list "The eight gates":',
        '- listitem "refused, 0.1 ms, the CSR was signed for another connection": linking refused',
        '- heading "Certificate request" [level=3]',
    ):
        assert wanted in lines
    assert 'img "Timeline: handshake, TLS 1.3, 2.1 ms; POST simpleenroll, no credentials; ' in snapshot


@pytest.mark.exhaustive
def test_there_is_one_live_region_and_it_tells_new_rows_together(look: Look, page: Shown):
    tab = look.at(page.url)
    assert tab.locator("[aria-live]").count() == 1
    tab.wait_for_timeout(4_500)  # the rows that were there already are not news
    page.add(*[samples.record(number, number, "cacerts") for number in range(100, 105)])
    expect(tab.locator("#announce")).to_have_text("5 new transactions", timeout=10_000)


@pytest.mark.exhaustive
def test_nothing_on_the_page_moves_by_itself(look: Look, page: Shown):
    tab = look.at(page.url, reduced_motion="no-preference")
    assert tab.evaluate("document.getAnimations().length") == 0


@pytest.mark.exhaustive
def test_keys_of_the_page_do_nothing_in_its_texts(look: Look):
    with shown(*samples.lesson()) as page:
        tab = look.at(page.url)
        tab.fill("#filter", "a/b")
        tab.keyboard.press("/")
        assert tab.input_value("#filter") == "a/b/"


# How much two colours differ (WCAG 2.2, 1.4.3): at least 4.5 for text.
CONTRAST = """
() => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).map(Number).slice(0, 3).map((each) => each / 255)
      .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const opaque = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    if (![...node.childNodes].some((each) => each.nodeType === 3 && each.data.trim())) continue;
    if (!node.checkVisibility() || node.matches(":disabled, :disabled *")) continue;
    const style = getComputedStyle(node);
    const colour = node instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(colour), light(opaque(node))].sort((one, other) => other - one);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${node.textContent.slice(0, 30)}: ${colour} on ${opaque(node)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(look: Look, page: Shown, scheme: str):
    tab = look.at(page.url, color_scheme=scheme)
    for identifier in ("8f0c21ab12", "8f0c21ab03", "8f0c21ab14", "8f0c21ab0c"):
        tab.locator(f"tr[data-id='{identifier}']").click()
        expect(tab.locator("#detail .head")).to_contain_text(identifier)
        tab.evaluate("document.querySelectorAll('#detail details.folded').forEach((each) => { each.open = true; })")
        tab.wait_for_timeout(200)
        assert tab.evaluate(CONTRAST) == []
