"""(p) Opening the live page in Chromium: until its first row is there, beside an empty page of the same server.

The empty page shows what the browser and the machine take for themselves.  The tabs take turns, each in a new one.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping

from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.bench.rounds import Figures, Row, median, spread
from tests.bench.run import Run
from tests.bench.targets import Target
from tests.page import samples
from tests.page.shown import Shown, shown

RECORDS = 200
OPENED = 15
"""How often each page is opened."""
WANTED = 100.0
"""Milliseconds until the first row."""
EMPTY = (
    b"<!doctype html><html lang=en><meta charset=utf-8><title>empty</title><link rel=icon href=/icon.svg><p>Empty.\n"
)
# A page that is asked from outside would work for the answer: it tells by itself.
TELL = """
const tell = (what, ms) => console.info(`measured ${what} ${ms}`);
new PerformanceObserver((list) => {
  for (const each of list.getEntries()) if (each.name === "first-contentful-paint") tell("paint", each.startTime);
}).observe({ type: "paint", buffered: true });
new MutationObserver((_, observer) => {
  if (!document.querySelector("#rows button")) return;
  observer.disconnect();
  tell("row", performance.now());
}).observe(document, { childList: true, subtree: true });
"""


def measure(run: Run) -> tuple[list[Row], list[Target]]:
    program = shutil.which("chromium-headless-shell")
    if program is None:
        run.say("chromium-headless-shell is not installed and left out: tests/install-clients")
        return [], []
    with opened(program) as (window, page):
        add_empty(page)
        found = rounds(window, {"an empty page": f"{page.base}/empty.html", "the page": page.url}, run)
    rows = [
        {
            "part": "p",
            "what": name,
            **{f"first {what} ms": round(median(times, what)) for what in ("paint", "row") if what in times[0]},
            "noise": spread([each["paint"] for each in times]),
        }
        for name, times in found.items()
    ]
    return rows, [
        Target("p", "ms from the link to the first row", median(found["the page"], "row"), WANTED, at_most=True)
    ]


@contextlib.contextmanager
def opened(program: str) -> Iterator[tuple[BrowserContext, Shown]]:
    """A window of a browser, and a page with records to look at."""
    records = [samples.record(each, each, "cacerts") for each in range(RECORDS)]
    with sync_playwright() as playwright, shown(*records) as page:
        browser: Browser = playwright.chromium.launch(executable_path=program)
        window = browser.new_context()
        window.add_init_script(TELL)
        yield window, page
        browser.close()


def add_empty(page: Shown) -> None:
    page.application.files["/empty.html"] = ("text/html; charset=utf-8", EMPTY)


def rounds(window: BrowserContext, links: Mapping[str, str], run: Run) -> dict[str, list[Figures]]:
    """The times of each link, which take turns; the first round warms the browser up."""
    found: dict[str, list[Figures]] = {name: [] for name in links}
    for number in range(1 + (3 if run.quick else OPENED)):
        for name, link in links.items():
            times = time_of(window, link, {"paint"} if "empty" in name else {"paint", "row"})
            if number:
                found[name].append(times)
            run.say(f"round {number}: {name}")
    return found


def time_of(window: BrowserContext, link: str, wanted: set[str]) -> Figures:
    """Milliseconds from the start of a navigation in a new tab to each of the marks."""
    found: Figures = {}

    def hear(text: str) -> None:
        if text.startswith("measured "):
            _, what, ms = text.split(" ")
            found[what] = float(ms)

    tab = window.new_page()
    tab.on("console", lambda said: hear(said.text))
    with tab.expect_console_message(lambda _: wanted <= found.keys()):
        tab.goto(link)
    tab.close()
    return found
