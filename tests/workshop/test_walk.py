"""A participant with nothing but a browser and curl does labs 1, 2 and 3; the trainer's page shows them done."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import Look, browser, look
from tests.workshop.conftest import Course, laid_out

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.client("chromium-headless-shell"),
    pytest.mark.client("curl"),
    pytest.mark.timeout(600),  # three labs, on a busy machine
]

__all__ = ["browser", "look"]

LINE = "# allowed_suffix example.org || refuse "


@pytest.fixture
def walk(python: Path) -> Iterator[Course]:
    """A workshop of one, whose records and scripts no other test has touched."""
    with laid_out(python, 1) as made:
        made.run("handouts", made.own)
        with made.served():
            yield made


class Laptop:
    """A user of no rights on it, with Bash, curl and openssl, and with no estgw."""

    def __init__(self, home: Path, password: str) -> None:
        self._home, self._password = home, password

    def paste(self, commands: str) -> str:
        """Run what stands on the page, with the password of the handout typed in; standard output and error."""
        os.chown(self._home, 65534, 65534)
        done = subprocess.run(
            ["bash", "-c", commands.replace("PASSWORD", self._password)],
            cwd=self._home,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self._home)},
            user=65534,
            group=65534,
            extra_groups=(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return done.stdout


@pytest.fixture
def home() -> Iterator[Path]:
    """A home directory; those that pytest makes are closed to other users."""
    folder = Path(tempfile.mkdtemp(prefix="estgw-test-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def fact(handout: str, name: str) -> str:
    """A line of the handout's table."""
    found = re.search(rf"<dt>{re.escape(name)}</dt><dd><code>(.*?)</code>", handout)
    assert found is not None, name
    return html.unescape(found[1])


def commands(tab: Page, number: int) -> list[str]:
    """The boxes of a lab's sheet that have a button to copy them, without those that need estgw."""
    tab.get_by_label("Lab", exact=True).select_option(str(number))
    expect(tab.locator(".sheet h2").first).to_contain_text(f"Lab {number}: ")
    boxes = tab.locator(".sheet > .block:has(button)").locator("pre").all_inner_texts()
    return [box for box in boxes if not re.search(r"^(estgw|sed -i) ", box)]


def check(tab: Page, outcomes: list[str]) -> str:
    """Press Check, wait until the steps have these outcomes, and return what it says."""
    tab.get_by_role("button", name="Check").click()
    rows = re.compile("".join(rf".*\n  {outcome}\b" for outcome in outcomes))
    expect(tab.locator("#labs .said")).to_have_text(rows, use_inner_text=True)
    return tab.locator("#labs .said").inner_text()


def test_labs_1_to_3_are_done_with_a_browser_and_curl_and_the_trainer_sees_it(
    look: Look, walk: Course, home: Path
) -> None:
    handout = (walk.folder / "handouts/p01.html").read_text()
    laptop = Laptop(home, fact(handout, "Password"))
    tab = look.at(fact(handout, "Your page"), look.window(ignore_https_errors=True), ready="button:has-text('Labs')")
    tab.get_by_role("button", name="Labs").click()
    expect(tab.locator(".sheet")).to_contain_text(f"est={fact(handout, 'EST server')}")

    # Lab 1: the fingerprint is compared by eye, and the rest is pasted.
    first = commands(tab, 1)
    check(tab, ["not yet"] * 4)
    said = laptop.paste("\n".join(first))
    assert fact(handout, "Fingerprint of the CA (SHA-256)") in said
    assert "lab1.pem: OK" in said
    assert said.endswith("200\n")
    check(tab, ["done"] * 4)

    # Lab 2, from Start.
    second = commands(tab, 2)
    tab.get_by_role("button", name="Start").click()
    expect(tab.locator("#labs .said")).to_contain_text("Lab 2 begins")
    said = laptop.paste("\n".join(second))
    assert re.findall(r"^(?:curl ends with )?(\d+)$", said, re.MULTILINE) == [
        "60", "404", "401", "401", "400", "400", "403", "403",
    ]  # fmt: skip
    check(tab, ["done"] * 8)

    # Lab 3: three requests, then the policy in the page's editor.
    third = commands(tab, 3)
    tab.get_by_role("button", name="Start").click()
    expect(tab.locator("#labs .said")).to_contain_text("Lab 3 begins")
    assert laptop.paste("\n".join(third)).count(": 200\n") == 3
    check(tab, ["done", *["not yet"] * 4])
    tab.get_by_role("button", name="Edit scripts").click()
    text = tab.get_by_role("textbox", name="Text of the file")
    expect(text).to_have_value(re.compile(re.escape(LINE)))
    go_to(tab, LINE, 0)
    for _ in "# ":
        tab.keyboard.press("Delete")
    tab.get_by_role("button", name="Save and replay").click()
    expect(tab.locator("main")).to_contain_text("simpleenroll, a replay, refused by handler")
    expect(tab.locator("main")).to_contain_text("not ours to certify: DNS:lab3.example.net")
    tab.get_by_role("button", name="Labs").click()
    assert "write your own" in check(tab, ["done"] * 4 + ["wrong"])

    tab.get_by_role("button", name="Edit scripts").click()
    line = LINE.removeprefix("# ")
    go_to(tab, line, len(line) + 1)
    tab.keyboard.type("sorry, this workshop is for example.org: ")
    tab.keyboard.press("Control+s")
    expect(tab.locator("#editor")).to_contain_text("Saved. The next request runs it.")
    tab.get_by_role("button", name="Back to the list").click()
    tab.locator("#rows tr", has_text="CN=lab3.example.net").filter(has_text="issued").click()
    tab.get_by_role("button", name="Replay", exact=True).click()
    expect(tab.locator("#rows tr[role=row]").first).to_contain_text("sorry, this workshop is for example.org: not ours")
    tab.get_by_role("button", name="Labs").click()
    assert "sorry, this workshop" in check(tab, ["done"] * 5)

    trainer = walk.seat("trainer")
    row = look.at(
        f"https://localhost:{trainer.page_port}/#{trainer.token}", look.window(ignore_https_errors=True), ready="#p01"
    ).locator("#p01")
    expect(row).to_contain_text("1, 2, 3")


def go_to(tab: Page, text: str, columns: int) -> None:
    """Put the cursor of the editor into the line that begins so, by keys."""
    area = tab.get_by_role("textbox", name="Text of the file")
    above = [line.startswith(text) for line in area.input_value().splitlines()].index(True)
    area.click()
    for key in ("Control+Home", *["ArrowDown"] * above, *["ArrowRight"] * columns):
        tab.keyboard.press(key)
