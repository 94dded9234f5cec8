"""What a participant has besides the list: the editor over HTTP and in a browser, the hand, and how one stands."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.sync_api import expect

from tests.page import samples
from tests.page.conftest import Look
from tests.page.shown import SHEET, Shown, shown

BASH = "#!/bin/bash\necho one\n"
NAME = "openssl/simpleenroll"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    script = tmp_path / "handlers" / NAME
    script.parent.mkdir(parents=True)
    script.write_text(BASH)
    script.chmod(0o755)
    (tmp_path / "handlers/openssl/settings.sh").write_text("profile=client\n")
    return tmp_path


@pytest.fixture
def desk(folder: Path) -> Iterator[Shown]:
    with shown(*samples.lesson(), folder=folder) as running:
        yield running


def get(desk: Shown, path: str) -> Any:
    response, body = desk.ask("GET", path)
    assert response.status == 200, response.status
    return json.loads(body)


def put(desk: Shown, text: bytes, *, name: str = NAME, instead: str = BASH, **headers: str) -> tuple[int, Any]:
    digest = hashlib.sha256(instead.encode()).hexdigest()
    headers.setdefault("Origin", desk.base)
    path = f"/api/file?{urlencode({'name': name, 'instead': digest})}"
    response, body = desk.ask("PUT", path, body=text, **headers)
    return response.status, json.loads(body) if body else None


def test_a_file_is_read_saved_and_undone(desk, folder):
    assert [each["name"] for each in get(desk, "/api/files")["files"]] == ["openssl/settings.sh", NAME]
    assert get(desk, f"/api/file?name={NAME}")["text"] == BASH
    status, saved = put(desk, b"#!/bin/bash\necho two\n")
    assert (status, saved["error"]) == (200, None)
    assert (folder / "handlers" / NAME).read_text() == "#!/bin/bash\necho two\n"
    (version,) = get(desk, f"/api/file?name={NAME}")["versions"]
    assert get(desk, f"/api/file?name={NAME}&version={version['version']}")["text"] == BASH


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "http://127.0.0.1:1"])
def test_another_site_saves_nothing_and_raises_no_hand(desk, folder, origin):
    assert put(desk, b"#!/bin/bash\n", Origin=origin) == (403, None)
    assert desk.ask("POST", "/api/hand/up", Origin=origin)[0].status == 403
    assert (folder / "handlers" / NAME).read_text() == BASH
    assert not get(desk, "/api/standing")["hand"]


def test_a_body_needs_a_token_a_length_and_a_bound(desk, folder):
    assert put(desk, b"#!/bin/bash\n", Authorization="Bearer " + "0" * 32) == (403, None)
    status, answer = put(desk, b"#" * 70_000)
    assert (status, answer["error"]) == (
        200,
        f"{NAME} would have 70000 bytes, and 65536 is the most; nothing was saved",
    )
    place = urlsplit(desk.base)
    for header, value, wanted in (("Content-Length", str(100 << 20), 413), ("Transfer-Encoding", "chunked", 411)):
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
        connection.putrequest("PUT", f"/api/file?name={NAME}&instead=")
        for name, text in (("Authorization", f"Bearer {desk.token}"), ("Origin", desk.base), (header, value)):
            connection.putheader(name, text)
        connection.endheaders()
        began = time.monotonic()
        assert connection.getresponse().status == wanted
        assert time.monotonic() - began < 5, "a refusal does not wait for the body"
        connection.close()
    assert (folder / "handlers" / NAME).read_text() == BASH


def test_a_syntax_error_and_a_path_outside_are_told_in_words(desk):
    status, answer = put(desk, b"#!/bin/bash\nif\n")
    assert status == 200
    assert answer["error"].startswith(f"{NAME}:")
    status, answer = put(desk, b"x", name="../conf.yaml")
    assert "is none of the files that can be edited here" in answer["error"]


def test_a_hand_stays_raised_until_it_is_lowered(desk, folder):
    assert not get(desk, "/api/facts")["hand"]
    _, body = desk.ask("POST", "/api/hand/up", Origin=desk.base)
    assert json.loads(body) == {"hand": True, "error": None}
    assert get(desk, "/api/standing")["hand"]
    assert (folder / ".estgw/hand").exists(), "a restart of the gateway does not lower it"
    desk.ask("POST", "/api/hand/down", Origin=desk.base)
    assert not get(desk, "/api/facts")["hand"]


def test_a_standing_has_the_last_request_and_the_last_refusal_with_its_hint(desk):
    found = get(desk, "/api/standing")
    requests = [each for each in samples.lesson() if each["kind"] != "replay"]
    assert found["last"]["id"] == requests[-1]["id"]
    refused = [each for each in requests if (each["outcome"]["status"] or 600) >= 400]
    assert found["refusal"]["id"] in {each["id"] for each in refused}
    assert found["refusal"]["hint"]


def test_five_refusals_in_a_row_are_counted_and_a_question_for_credentials_is_none(folder):
    refusal = next(each for each in samples.lesson() if each["outcome"]["status"] == 400)
    challenge = {**refusal, "outcome": {**refusal["outcome"], "status": 401}, "auth": {"scheme": None}}
    with shown(*[{**refusal, "id": f"00000000{number:02}"} for number in range(5)], folder=folder) as desk:
        assert get(desk, "/api/standing")["refusals"] == 5
        desk.add({**challenge, "id": "0000000aaa"})
        assert get(desk, "/api/standing")["refusals"] == 0


@pytest.mark.parametrize(
    ("content", "labs"),
    [
        ('{"1": {"verify": "done"}, "2": {"401": "not yet"}}', {"1": {"verify": "done"}, "2": {"401": "not yet"}}),
        ("[1]", {}),
        ('{"1": 3}', {}),
        ("{", {}),
        ("[" * 100_000, {}),
        (" " * (300 << 10), {}),
        (None, {}),
    ],
)
def test_the_labs_are_those_of_the_file_and_a_spoiled_one_counts_as_none(desk, folder, content, labs):
    (folder / ".estgw").mkdir()
    if content is not None:
        (folder / ".estgw/labs.json").write_text(content)
    assert get(desk, "/api/standing")["labs"] == labs


def test_labs_are_listed_shown_and_checked_for_the_viewer_of_all_alone(folder):
    label = "b" * 32
    with shown(folder=folder, tokens={label: "iot"}) as desk:
        assert "First" in get(desk, "/api/labs")["said"]
        assert get(desk, "/api/labs/1") == {"said": SHEET.format(1), "error": None}
        response, body = desk.ask("POST", "/api/labs/1/check", Origin=desk.base)
        assert json.loads(body) == {"said": "check of lab 1\n", "error": None}
        _, body = desk.ask("POST", "/api/labs/2/start", Origin=desk.base)
        assert json.loads(body) == {"said": "", "error": "conf.yaml can't be read"}
        assert desk.ask("POST", "/api/labs/1/check", Origin="https://evil.example")[0].status == 403
        assert desk.ask("POST", "/api/labs/1/check", token=label, Origin=desk.base)[0].status == 404
        for path in ("/api/labs/1/solve", "/api/labs/001/check", "/api/labs/-c/check"):
            assert desk.ask("POST", path, Origin=desk.base)[0].status == 404
        assert response.status == 200


@pytest.mark.client("chromium-headless-shell")
def test_a_lab_is_read_and_checked_in_a_browser(look: Look, desk: Shown):
    tab = look.at(desk.url)
    tab.get_by_role("button", name="Labs").click()
    sheet = tab.get_by_role("region", name="Sheet")
    expect(sheet.get_by_role("heading")).to_have_text("Lab 1: A sheet")
    expect(sheet.get_by_text("Two lines of one paragraph.")).to_be_visible()
    expect(sheet.locator("pre").first).to_have_text("est=https://localhost:8443 # <b>")
    expect(sheet.get_by_role("button", name="Copy")).to_have_count(1)
    expect(sheet.get_by_text("Nothing.")).to_be_hidden()
    sheet.get_by_text("Hint: the solution").click()
    expect(sheet.get_by_text("Nothing.")).to_be_visible()
    tab.get_by_role("combobox", name="Lab").select_option("2")
    expect(sheet.get_by_role("heading")).to_have_text("Lab 2: A sheet")
    tab.get_by_role("button", name="Check", exact=True).click()
    expect(tab.locator("#labs .said")).to_contain_text("check of lab 2")
    tab.get_by_role("button", name="Start", exact=True).click()
    expect(tab.locator("#labs .said")).to_contain_text("conf.yaml can't be read")
    tab.get_by_role("button", name="Edit scripts").click()
    expect(tab.locator("#labs")).to_be_hidden()
    expect(tab.get_by_role("textbox", name="Text of the file")).to_be_visible()


@pytest.mark.client("chromium-headless-shell")
def test_a_script_is_edited_undone_and_replayed_in_a_browser(look: Look, desk: Shown, folder: Path):
    script = folder / "handlers" / NAME
    replayed = []

    def replay(identifier: str) -> dict[str, Any]:
        replayed.append(identifier)
        origin = next(each for each in samples.lesson() if each["id"] == identifier)
        return {**origin, "id": "00000000ff", "kind": "replay", "of": identifier}

    desk.replays = replay
    tab = look.at(desk.url)
    tab.get_by_role("button", name="Edit scripts").click()
    text = tab.get_by_role("textbox", name="Text of the file")
    expect(text).to_have_value(BASH)
    text.fill("#!/bin/bash\nif\n")
    tab.get_by_role("button", name="Save", exact=True).click()
    said = tab.locator("#editor .said")
    expect(said).to_contain_text("syntax error")
    assert script.read_text() == BASH
    text.fill("#!/bin/bash\necho two\n")
    text.press("Control+s")
    expect(said).to_have_text("Saved. The next request runs it.")
    assert script.read_text() == "#!/bin/bash\necho two\n"
    tab.get_by_role("button", name="Undo the last save").click()
    expect(said).to_contain_text("as it was before the last save")
    assert script.read_text() == BASH
    tab.get_by_role("button", name="Save and replay").click()
    expect(tab.locator("#detail h2")).to_contain_text("a replay")
    assert len(replayed) == 1
    tab.get_by_role("button", name="Raise your hand").click()
    expect(tab.get_by_role("button", name="Lower your hand")).to_have_attribute("aria-pressed", "true")
    tab.get_by_role("button", name="Back to the list").click()
    expect(tab.locator("#rows button").first).to_be_visible()
