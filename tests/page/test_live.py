"""The connection: cut, silent, refused, from several pages at once."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from estgw.page import events
from tests.page import samples
from tests.page.conftest import Look
from tests.page.line import line
from tests.page.shown import Shown, shown

pytestmark = [pytest.mark.client("chromium-headless-shell"), pytest.mark.slow, pytest.mark.exhaustive]


HIDE = """
(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}
"""


def some(number: int, first: int) -> list[dict[str, object]]:
    return [samples.record(each, each, "cacerts") for each in range(first, first + number)]


def numbers(page: Page) -> list[int]:
    """The numbers of the rows in sight, oldest first, from their ids."""
    ids = page.locator("#rows tr:not(.space)").evaluate_all("(rows) => rows.map((row) => row.dataset.id)")
    return [int(each, 16) - 0x8F0C21AB00 for each in ids][::-1]


def test_a_cut_line_says_offline_and_resumes_without_a_gap(look: Look):
    with shown(*some(5, 1)) as page, line(page) as way:
        tab = look.at(way.url)
        expect(tab.locator("#state-words")).to_have_text("live")
        way.cut()
        expect(tab.locator("#state-words")).to_contain_text("offline, next try in")
        expect(tab.locator("#announce")).to_contain_text("offline")
        page.add(*some(7, 6))
        way.mend()
        expect(tab.locator("#state-words")).to_have_text("live", timeout=15_000)
        page.add(*some(1, 13))
        tab.locator(f"tr[data-id='{0x8F0C21AB00 + 13:010x}']").wait_for()
        assert numbers(tab) == list(range(1, 14))


def test_an_hour_of_sleep_costs_nothing_but_a_new_connection(look: Look):
    with shown(*some(5, 1)) as page, line(page) as way:
        window = look.window()
        window.clock.install()
        tab = look.at(way.url, window)
        expect(tab.locator("#state-words")).to_have_text("live")
        opened = way.opened
        way.sleep()
        page.add(*some(3, 6))
        tab.wait_for_timeout(500)
        assert numbers(tab) == [1, 2, 3, 4, 5]
        window.clock.fast_forward("01:00:00")
        for _ in range(10):  # the browser may try its other connections first, which are as dead
            if tab.locator(f"tr[data-id='{0x8F0C21AB00 + 8:010x}']").count():
                break
            tab.wait_for_timeout(300)
            window.clock.fast_forward("00:00:15")
        assert numbers(tab) == list(range(1, 9))
        expect(tab.locator("#state-words")).to_have_text("live")
        assert way.opened > opened


def test_what_is_gone_for_good_is_told(look: Look):
    with shown(*some(5, 1), keep=10) as page, line(page) as way:
        tab = look.at(way.url)
        expect(tab.locator("#state-words")).to_have_text("live")
        way.cut()
        expect(tab.locator("#state-words")).to_contain_text("offline")
        page.add(*some(30, 6))
        way.mend()
        expect(tab.locator("#count")).to_contain_text("20 missed", timeout=15_000)


def test_two_pages_at_once_see_the_same(look: Look, page: Shown):
    window = look.window()
    first, second = look.at(page.url, window), look.at(page.url, window)
    page.add(samples.enrolment(99, 500))
    for tab in (first, second):
        tab.locator("tr[data-id='8f0c21ab63']").wait_for()
    assert numbers(first) == numbers(second)


def test_too_many_pages_are_told_to_wait_and_served_when_one_has_gone(look: Look, page: Shown, monkeypatch):
    monkeypatch.setattr(events, "LISTENERS", 1)
    monkeypatch.setattr(events, "GLANCE", 0.1)
    first = look.at(page.url)
    second = look.at(page.url, ready="#state[data-state=busy]")
    expect(second.locator("#state-words")).to_contain_text("too many pages listen, next try in")
    first.close()
    expect(second.locator("#state-words")).to_have_text("live", timeout=15_000)


def test_a_page_without_its_token_says_where_it_is(look: Look, page: Shown):
    tab = look.at(f"{page.base}/", ready="#locked:not([hidden])")
    assert "the link that the gateway printed" in tab.inner_text("#locked-words")
    assert page.ring.last
    assert tab.locator("#rows tr:not(.space)").count() == 0
    tab.fill("#token", "nonsense")
    tab.keyboard.press("Enter")
    expect(tab.locator("#locked-words")).to_contain_text("That is no token")
    tab.fill("#token", page.url)  # the whole link will do
    tab.keyboard.press("Enter")
    tab.locator("#rows button").first.wait_for()


def test_a_page_of_an_earlier_gateway_says_so(look: Look, page: Shown):
    tab = look.at(f"{page.base}/#{'0' * 32}", ready="#locked:not([hidden])")
    assert "each start makes a new one" in tab.inner_text("#locked-words")
    expect(tab.locator("#state-words")).to_have_text("locked")


def test_the_token_stays_in_its_tab_and_out_of_the_address(look: Look, page: Shown):
    window = look.window()
    tab = look.at(page.url, window)
    assert page.token not in tab.url
    assert tab.evaluate("[document.cookie, localStorage.length]") == ["", 0]
    assert tab.evaluate("Object.values(sessionStorage)") == [page.token]
    tab.reload()
    tab.locator("#rows button").first.wait_for()
    assert not [url for url in look.requests[1:] if page.token in url]
    other = look.at(f"{page.base}/", window, ready="#locked:not([hidden])")
    assert other.evaluate("sessionStorage.length") == 0


def test_a_new_link_in_the_same_tab_is_followed(look: Look, page: Shown):
    tab = look.at(f"{page.base}/#{'0' * 32}", ready="#locked:not([hidden])")
    tab.evaluate(f"location.hash = '#{page.token}'")
    tab.locator("#rows button").first.wait_for()


def test_a_hidden_page_lets_go_of_its_stream_and_comes_back(look: Look, page: Shown, monkeypatch):
    monkeypatch.setattr(events, "GLANCE", 0.1)
    window = look.window()
    window.clock.install()
    tab = look.at(page.url, window)
    tab.evaluate(HIDE, True)
    window.clock.fast_forward("00:01:01")
    expect(tab.locator("#state-words")).to_have_text("asleep while hidden")
    page.add(samples.enrolment(99, 500))
    tab.evaluate(HIDE, False)
    tab.locator("tr[data-id='8f0c21ab63']").wait_for()
    expect(tab.locator("#state-words")).to_have_text("live")
