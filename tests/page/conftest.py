from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

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


class Look:
    """A browser's windows on pages.  What no page may do is collected, and fails the test at its end."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.wrong: list[str] = []
        self.requests: list[str] = []

    def window(self, width: int = 1400, height: int = 880, **options: Any) -> BrowserContext:
        """A window of its own, with a storage of its own."""
        context = self._browser.new_context(viewport={"width": width, "height": height}, **options)
        context.add_init_script(WATCH)
        self._contexts.append(context)
        return context

    def at(
        self, url: str, window: BrowserContext | None = None, *, ready: str = "#rows button", **options: Any
    ) -> Page:
        """Open a link, and wait for the first row."""
        page = (window or self.window(**options)).new_page()
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
        for context in self._contexts:
            for page in context.pages:
                self.wrong += page.evaluate("window.violations")
            context.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium as Debian ships it."""
    program = shutil.which("chromium")
    assert program is not None  # the marker has skipped the test
    expect.set_options(timeout=1000 * DEADLINE)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program)
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
