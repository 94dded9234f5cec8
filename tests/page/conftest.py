from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

from tests.kit.processes import DEADLINE
from tests.page import samples
from tests.page.shown import Shown, shown

WATCH = """
window.longTasks = [];
new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((entry) => entry.duration)))
  .observe({ type: "longtask", buffered: true });
window.violations = [];
addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


SIZE = ViewportSize(width=1400, height=880)


class Look:
    """A browser's windows on pages.  What no page may do is collected, and fails the test at its end."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._common = browser.contexts[0]
        self._own: list[BrowserContext] = []
        self._pages: list[Page] = []
        self.wrong: list[str] = []
        self.requests: list[str] = []

    def window(self, **options: Any) -> BrowserContext:
        """A window of its own, with a storage of its own."""
        self._own.append(new_window(self._browser, **options))
        return self._own[-1]

    def at(
        self,
        url: str,
        window: BrowserContext | None = None,
        *,
        ready: str = "#rows button",
        size: ViewportSize = SIZE,
        **options: Any,
    ) -> Page:
        """Open a link, and wait for the first row.  `options` are for a window of its own."""
        page = (window or (self.window(**options) if options else self._common)).new_page()
        self._pages.append(page)
        page.set_viewport_size(size)
        own = url.partition("#")[0].rstrip("/")
        page.on("pageerror", lambda fault: self.wrong.append(f"an exception: {fault}"))
        page.on("console", lambda said: self._hear(said.type, said.text))
        page.on("dialog", lambda dialog: self.wrong.append(f"a dialog: {dialog.message}"))
        page.on("request", lambda request: self._note(request.url, own))
        page.goto(url)
        page.wait_for_selector(ready)
        return page

    def _hear(self, kind: str, text: str) -> None:
        # The browser itself says so when a request fails, as those do that find the gateway away.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.wrong.append(f"{kind}: {text}")

    def _note(self, url: str, own: str) -> None:
        self.requests.append(url)
        if not url.startswith((f"{own}/", f"blob:{own}/")):
            self.wrong.append(f"a foreign request: {url}")

    def close(self) -> None:
        for page in self._pages:
            if not page.is_closed():
                self.wrong += page.evaluate("window.violations")
                page.close()
        for window in self._own:
            window.close()


def new_window(browser: Browser, **options: Any) -> BrowserContext:
    window = browser.new_context(viewport=SIZE, **options)
    window.add_init_script(WATCH)
    return window


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium without the window around a page, which would cost as much again; one page stays open.

    An empty page of this site stays in it, so that the next ones need no process of their own: half the work of a test.
    """
    program = shutil.which("chromium-headless-shell")
    assert program is not None  # the marker has skipped the test
    expect.set_options(timeout=1000 * DEADLINE)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=["--renderer-process-limit=1"])
        empty = new_window(running).new_page()
        empty.route("**/*", lambda route: route.fulfill(body=""))
        empty.goto("http://127.0.0.1/")
        yield running
        running.close()


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    """Windows on pages; nothing wrong may happen in them."""
    made = Look(browser)
    yield made
    made.close()
    assert made.wrong == []


@pytest.fixture
def page() -> Iterator[Shown]:
    """The page over the records of a lesson."""
    with shown(*samples.lesson()) as running:
        yield running
