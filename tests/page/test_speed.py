"""What the page costs its reader: the processor time until it is there, and the longest it is ever busy.

Tasks of the browser's main thread are measured by the processor time that they take, which a busy machine does not make
longer: on an idle one that is how long they last.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.page import samples
from tests.page.conftest import Look
from tests.page.shown import shown

pytestmark = [pytest.mark.client("chromium-headless-shell"), pytest.mark.slow, pytest.mark.exhaustive]

LONG = 100.0
"""Milliseconds for which a page may be busy at most: a person notices more."""
MOST = 400.0
"""Milliseconds of work before the first row, of which the start of the browser's process takes half or more."""
CATEGORIES = ["disabled-by-default-devtools.timeline", "blink.user_timing", "__metadata"]
FIRST_ROW = """
new MutationObserver(() => {
  if (!window.hasRow && document.querySelector("#rows button")) {
    window.hasRow = true;
    performance.mark("first row");
  }
}).observe(document, { childList: true, subtree: true });
"""


class Trace:
    """What the main thread of one page did."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    @property
    def tasks(self) -> list[dict[str, Any]]:
        named = {
            (each["pid"], each["tid"]): each["args"]["name"] for each in self.events if each["name"] == "thread_name"
        }
        return [
            each
            for each in self.events
            if each["name"] == "RunTask" and named.get((each["pid"], each["tid"])) == "CrRendererMain"
        ]

    @property
    def longest(self) -> float:
        """Milliseconds of processor time of the longest task."""
        return max(float(each.get("tdur", 0)) for each in self.tasks) / 1000

    def until(self, mark: str) -> float:
        """Milliseconds of processor time of all tasks that began before a mark."""
        (at,) = [each["ts"] for each in self.events if each["name"] == mark]
        return sum(float(each.get("tdur", 0)) for each in self.tasks if each["ts"] < at) / 1000


@contextlib.contextmanager
def traced(browser: Browser, tab: Page) -> Iterator[Trace]:
    found = Trace()
    browser.start_tracing(page=tab, categories=CATEGORIES)
    yield found
    found.events = json.loads(browser.stop_tracing())["traceEvents"]
    assert len(found.tasks) > 10


def test_10000_rows_and_200_a_second_never_keep_the_page_busy(look: Look, browser: Browser):
    reason = "the CSR was signed for another connection"
    kept = [samples.refusal(each, each % 3600, "linking", 400, reason, "") for each in range(10_000)]
    more = itertools.count(10_000)
    with shown(*kept) as page:
        tab = look.window().new_page()
        with traced(browser, tab) as trace:
            tab.goto(page.url)
            expect(tab.locator("#count")).to_contain_text("10,000 transactions", timeout=20_000)
            began = time.monotonic()
            for beat in range(1, 61):
                if beat == 30:
                    tab.evaluate("document.querySelector('#list').scrollTop = 900")
                page.add(*[{**kept[0], "id": f"{next(more):010x}"} for _ in range(10)])
                tab.wait_for_timeout(max(0.0, (began + beat * 0.05 - time.monotonic()) * 1000))
        assert trace.longest < LONG
        newest = next(more) - 1
        tab.evaluate("document.querySelector('#list').scrollTop = 0")
        tab.locator(f"tr[data-id='{newest:010x}']").wait_for()
        expect(tab.locator("#count")).to_contain_text("10,000 transactions")


def test_the_filter_and_a_detail_among_10000_rows_are_no_long_tasks(look: Look, browser: Browser):
    kept = [samples.enrolment(each, each % 3600) for each in range(50)]
    rows = ({**kept[each % 50], "id": f"{each:010x}"} for each in range(10_000))
    with shown(*rows) as page:
        tab = look.at(page.url)
        expect(tab.locator("#count")).to_contain_text("10,000 transactions", timeout=20_000)
        with traced(browser, tab) as trace:
            for text in ("c", "ca", "status:2xx", "op:simpleenroll 14:5"):
                tab.fill("#filter", text)
                tab.wait_for_timeout(300)
            tab.locator("#rows button").first.click()
            tab.locator("#detail svg").wait_for()
        assert trace.longest < LONG


def test_the_first_row_waits_for_little_work_and_not_for_what_draws_a_record(look: Look, browser: Browser):
    with shown(*[samples.record(each, each, "cacerts") for each in range(200)]) as page:
        window = look.window()
        window.add_init_script(FIRST_ROW)
        work = []
        for _ in range(3):
            tab = window.new_page()
            with traced(browser, tab) as trace:
                tab.goto(page.url)
                tab.wait_for_selector("#rows button")
                tab.wait_for_function("performance.getEntriesByName(`${location.origin}/js/view.js`).length")
            work.append(trace.until("first row"))
            before = tab.evaluate(
                "performance.getEntriesByType('resource')"
                ".filter((each) => each.startTime < performance.getEntriesByName('first row')[0].startTime)"
                ".map((each) => each.name)"
            )
            names = [name.rpartition("/")[2] for name in before if "/api/" not in name]
            assert set(names) - {"icon.svg"} == {"index.css", "index.js"}
            tab.close()
        assert min(work) < MOST
