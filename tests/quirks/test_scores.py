"""The scoreboard: what it says, whom it answers, and its bounds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import resources

import pytest

from estgw.quirks import scores
from estgw.quirks.scores import Scores
from estgw.quirks.seen import Exchange, Handshake, Place
from estgw.quirks.table import QUIRKS
from tests.kit.csr import csr
from tests.page.conftest import browser, look

__all__ = ["browser", "look"]

PLAIN = Exchange(
    quirk="endless-401",
    place=Place.MAIN,
    client="ann",
    address="192.0.2.1",
    agent="test/1",
    connection=1,
    came=0.0,
    left=0.0,
    method="POST",
    operation="simpleenroll",
    status=401,
    scheme="basic",
)
SHAKEN = Handshake("expired", Place.OWN, "192.0.2.1", 1, "certificate expired")


def verdicts(board):
    return {one["client"]: {q: v["verdict"] for q, v in one["verdicts"].items()} for one in board.table()["clients"]}


@pytest.fixture
def board(serving):
    """A server and its scoreboard."""
    made = Scores(["lab.example", "192.0.2.9"])
    served = serving(pages=made)
    served.server._observer = made.note
    return made, served


def test_a_request_on_the_wire_becomes_a_verdict(board):
    made, served = board
    with served.peer() as peer:
        for _ in range(2):
            peer.ask(
                "POST",
                "quirk-endless-401.ann/simpleenroll",
                csr("d"),
                Authorization=peer.right,
                Content_Type="application/pkcs10",
            )
        peer.ask("GET", "quirk-pop-wanted/csrattrs", User_Agent="test/1")
        status, headers, body = peer.ask("GET", "/scores")
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    found = json.loads(body)
    assert found["format"] == 1
    assert [row["quirk"] for row in found["quirks"]] == list(QUIRKS)
    assert verdicts(made) == {
        "127.0.0.1 test/1": {"pop-wanted": "untried"},
        "ann": {"endless-401": "pass"},
    }
    (ann,) = [one for one in found["clients"] if one["client"] == "ann"]
    assert ann["verdicts"]["endless-401"]["evidence"] == ["it sent its password 2 times"]


def test_a_handshake_counts_for_the_client_that_its_address_named_last():
    board = Scores()
    board.note(SHAKEN)
    board.note(PLAIN)
    board.note(replace(SHAKEN, quirk="unknown-ca"))
    assert verdicts(board) == {"ann": {"endless-401": "pass", "unknown-ca": "pass"}, "192.0.2.1": {"expired": "pass"}}


def test_a_client_without_a_name_is_its_address_and_user_agent():
    board = Scores()
    board.note(replace(PLAIN, client=""))
    assert list(verdicts(board)) == ["192.0.2.1 test/1"]


@pytest.mark.parametrize("path", ["/", "/scores", "/scores.js", "/scores.css"])
def test_every_page_has_a_strict_policy(board, path):
    with board[1].peer() as peer:
        status, headers, body = peer.ask("GET", path)
        assert (status, bool(body)) == (200, True)
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert peer.ask("POST", path)[0] == 405


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8450", "127.0.0.1:1", "[::1]:1", "Lab.Example", "192.0.2.9:1"]
)
def test_own_hosts_get_the_scores(board, host):
    with board[1].peer() as peer:
        assert peer.ask("GET", "/scores", Host=host)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "192.0.2.10", "localhost.evil.example", "", "a b", "[::2]"])
def test_another_host_gets_an_empty_403(board, host):
    """A name of another site can be made to lead here (DNS rebinding)."""
    with board[1].peer() as peer:
        status, headers, body = peer.ask("GET", "/scores", Host=host)
    assert (status, body) == (403, b"")
    assert "Content-Security-Policy" in headers


def test_the_page_has_no_inline_script_and_sets_text_only():
    static = resources.files("estgw.quirks").joinpath("static")
    page = static.joinpath("index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|style=|https?:", page)
    code = static.joinpath("scores.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(|\.srcdoc", code)
    assert "textContent" in code


def test_a_hostile_name_stays_text_in_the_json():
    board = Scores()
    board.note(replace(PLAIN, client="", agent="<script>alert(1)</script>"))
    assert json.loads(json.dumps(board.table()))["clients"][0]["client"] == "192.0.2.1 <script>alert(1)</script>"


def test_the_control_characters_of_a_user_agent_are_made_visible(fresh):
    with fresh.peer() as peer:
        peer.ask("GET", "quirk-none/cacerts", User_Agent="a\x1b[31mb" + "x" * 500)
    assert fresh.exchanges[-1].agent.startswith("a\\x1b[31mb")
    assert len(fresh.exchanges[-1].agent) < 150


def test_the_board_remembers_so_many_clients_and_forgets_the_oldest():
    board = Scores()
    for number in range(scores.MOST_CLIENTS + 50):
        board.note(replace(PLAIN, client=f"c{number}", address=f"a{number}"))
    found = verdicts(board)
    assert len(found) == scores.MOST_CLIENTS
    assert "c49" not in found
    assert next(iter(found)) == f"c{scores.MOST_CLIENTS + 49}"
    assert len(board._last) == scores.MOST_CLIENTS


def test_the_board_remembers_the_last_events_of_a_client():
    board = Scores()
    for number in range(scores.MOST_EVENTS * 3):
        board.note(replace(PLAIN, scheme="basic" if number < 20 else ""))
    assert verdicts(board) == {"ann": {"endless-401": "untried"}}


def test_the_board_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(scores, "MOST_BYTES", 100_000)
    board = Scores()
    for number in range(20):
        board.note(replace(PLAIN, client=f"c{number}", csr=bytes(30_000)))
    assert list(verdicts(board)) == ["c19", "c18", "c17"]


@pytest.mark.client("chromium-headless-shell")
def test_a_browser_shows_the_verdicts_as_they_come_and_markup_as_text(board, look):
    _, served = board
    markup = "<img src=x onerror=alert(1)>"
    with served.peer() as peer:
        peer.ask("GET", "quirk-pop-wanted/csrattrs", User_Agent=markup)
        shown = look.at(f"https://127.0.0.1:{served.server.port}/", ready="section", ignore_https_errors=True)
        assert shown.locator("h2").all_inner_texts() == [f"127.0.0.1 {markup}"]
        for _ in range(2):
            peer.enrol("endless-401.ann")
    row = shown.locator("section", has=shown.get_by_role("heading", name="ann")).locator("tr[data-verdict=pass]")
    row.wait_for()
    assert row.locator("td").nth(1).inner_text() == "endless-401"
    assert shown.locator("#state").inner_text() == "2 clients"
