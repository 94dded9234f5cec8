"""A gateway and its page in a browser: from the client's request to a replay of it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.kit.csr import csr
from tests.kit.live_page import paged
from tests.kit.workspace import Workspace
from tests.page.conftest import Look

pytestmark = [pytest.mark.client("chromium-headless-shell"), pytest.mark.slow]


@pytest.mark.client("curl")
def test_a_policy_is_edited_by_what_the_page_shows(look: Look, own_lab: Workspace, tmp_path: Path):
    """A lesson: enrol, see it, send it again with the copied curl, change the policy, replay, compare."""
    with paged(own_lab) as (gateway, link):
        tab = look.at(
            f"{link.base}#{link.token}",
            look.window(permissions=["clipboard-read", "clipboard-write"]),
            ready="#nothing:not([hidden])",
        )
        gateway.post("simpleenroll", csr("lesson"))
        began = time.monotonic()
        newest = tab.locator("#rows tr:not(.space)").first
        expect(newest.locator(".c-answer")).to_have_text("200 issued")
        assert time.monotonic() - began < 1
        expect(newest.locator(".c-reason")).to_have_text("CN=lesson")
        newest.locator("button").click()
        expect(tab.locator("#detail h2")).to_have_text("simpleenroll, issued")
        expect(tab.locator(".gates li[data-tone=good]")).to_have_count(8)

        tab.get_by_role("button", name="Copy as curl").click()
        tab.locator(".said pre").wait_for()
        command = str(tab.evaluate("navigator.clipboard.readText()")).replace("PLACEHOLDER", "estpwd")
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=os.environ, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        expect(tab.locator("#rows tr:not(.space)")).to_have_count(2)

        own_lab.edit("handlers/openssl/simpleenroll", "#### Policy", 'refuse "no lessons today"\n#### Policy')
        tab.get_by_role("button", name="Replay", exact=True).click()
        expect(tab.locator("#detail h2")).to_have_text("simpleenroll, a replay, refused by handler", timeout=30_000)
        expect(tab.locator("#detail .hint")).to_contain_text("no lessons today", ignore_case=True)
        tab.get_by_role("button", name="Compare with its origin").click()
        differences = tab.get_by_role("table", name="Differences")
        expect(differences.locator("tr", has_text="outcome.status").locator("td")).to_have_text(["200", "403"])
