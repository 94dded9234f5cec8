"""What the page costs its reader: the time until it is there, and how long it is ever busy."""

from __future__ import annotations

import itertools
import time

import pytest
from playwright.sync_api import expect

from tests.page import samples
from tests.page.conftest import Look
from tests.page.shown import shown

pytestmark = [pytest.mark.client("chromium"), pytest.mark.slow]

LONG = 100.0
"""Milliseconds for which a page may be busy at most: a person notices more (RAIL)."""
ROUNDS = 4
"""Other programs take the processor at times, so the best of several rounds counts."""


def test_10000_rows_and_200_a_second_never_make_the_page_stutter(look: Look):
    kept = [
        samples.refusal(each, each % 3600, "linking", 400, "the CSR was signed for another connection", "")
        for each in range(10_000)
    ]
    more = itertools.count(10_000)
    with shown(*kept) as page:
        tab = look.at(page.url)
        expect(tab.locator("#count")).to_contain_text("10,000 transactions", timeout=20_000)
        tab.evaluate("document.querySelector('#list').scrollTop = 900")
        worst = []
        for _ in range(ROUNDS):
            tab.wait_for_timeout(200)
            tab.evaluate("window.longTasks.length = 0")
            began = time.monotonic()
            for beat in range(1, 51):
                page.add(*[{**kept[0], "id": f"{next(more):010x}"} for _ in range(10)])
                tab.wait_for_timeout(max(0.0, (began + beat * 0.05 - time.monotonic()) * 1000))
            worst.append(max(tab.evaluate("window.longTasks"), default=0))
            if worst[-1] < LONG:
                break
        assert min(worst) < LONG, f"busy for so many milliseconds, in each round: {worst}"
        newest = next(more) - 1
        tab.evaluate("document.querySelector('#list').scrollTop = 0")
        tab.locator(f"tr[data-id='{newest:010x}']").wait_for()
        expect(tab.locator("#count")).to_contain_text("10,000 transactions")


def test_filtering_10000_rows_is_no_long_task(look: Look):
    kept = [samples.record(each, each % 3600, "cacerts") for each in range(10_000)]
    with shown(*kept) as page:
        tab = look.at(page.url)
        expect(tab.locator("#count")).to_contain_text("10,000 transactions", timeout=20_000)
        worst = []
        for text in ("c", "ca", "status:2xx", "op:cacerts 14:5"):
            tab.evaluate("window.longTasks.length = 0")
            tab.fill("#filter", text)
            tab.wait_for_timeout(400)
            worst.append(max(tab.evaluate("window.longTasks"), default=0))
        assert sorted(worst)[1] < LONG, worst


def test_the_list_is_there_before_what_draws_a_record_is_loaded(look: Look):
    """Ten modules and five style sheets at most come before the first row; a tenth of a second on an idle machine."""
    with shown(*[samples.record(each, each, "cacerts") for each in range(200)]) as page:
        window = look.window()
        window.add_init_script(
            "new MutationObserver(() => { if (!window.firstRow && document.querySelector('#rows button'))"
            " window.firstRow = performance.now(); }).observe(document, { childList: true, subtree: true });"
        )
        times = []
        for _ in range(5):
            tab = look.at(page.url, window)
            tab.wait_for_function("performance.getEntriesByName(`${location.origin}/js/view.js`).length")
            before = tab.evaluate(
                "performance.getEntriesByType('resource').filter((each) => each.startTime < window.firstRow)"
                ".map((each) => each.name)"
            )
            names = [name.rpartition("/")[2] for name in before if "/api/" not in name or name.endswith(".js")]
            assert len(names) <= 16, names
            assert not {"detail.js", "copy.js", "asn1.js", "oids.js"} & set(names)
            times.append(tab.evaluate("window.firstRow"))
            tab.close()
        assert min(times) < 1500, times
