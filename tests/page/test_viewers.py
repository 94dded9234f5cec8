"""Viewers of one page: tokens of a file, and records of one label alone."""

from __future__ import annotations

import json
import re

import pytest

from estgw.page import viewers
from tests.page import samples
from tests.page.shown import Shown, shown

ALL, IOT, OTHER = "a" * 32, "b" * 32, "c" * 32


def test_a_file_of_tokens_has_one_a_line_and_a_label_behind_it(tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"# a course\n{ALL}\n\n{IOT} iot\n")
    file.chmod(0o600)
    assert viewers.read(file) == {ALL: None, IOT: "iot"}


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("", 0o600, "from 1 to 1000 tokens are expected"),
        ("abc\n", 0o600, ":1: 32 digits of 0-9 and a-f are expected"),
        (f"{ALL} a/b\n", 0o600, ":1: 32 digits"),
        (f"{ALL} a b\n", 0o600, ":1: 32 digits"),
        ("ä\n", 0o600, "not ASCII"),
        (f"{ALL}\n", 0o644, "others can read it"),
        (None, 0, "No such file"),
    ],
)
def test_a_file_of_tokens_that_cannot_be_used_is_told_in_words(tmp_path, text, mode, words):
    file = tmp_path / "tokens"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    with pytest.raises(ValueError, match=re.escape(words)):
        viewers.read(file)


LABELLED = [
    {**record, "label": label} for record, label in zip(samples.lesson(), ["iot", "other", None] * 99, strict=False)
]


@pytest.fixture
def page():
    with shown(*LABELLED, tokens={IOT: "iot", OTHER: "other"}) as running:
        yield running


def get(page: Shown, path: str, token: str) -> tuple[int, bytes]:
    response, body = page.ask("GET", path, token=token)
    return response.status, body


def test_a_viewer_of_a_label_sees_its_rows_alone(page):
    status, body = get(page, "/api/records", IOT)
    assert status == 200
    found = json.loads(body)["rows"]
    assert [row["id"] for row in found] == [each["id"] for each in LABELLED if each["label"] == "iot"]
    assert json.loads(get(page, "/api/export", IOT)[1]) == [each for each in LABELLED if each["label"] == "iot"]
    assert len(json.loads(get(page, "/api/records", page.token)[1])["rows"]) == len(LABELLED)


def test_the_records_of_another_label_are_not_there(page):
    foreign = next(each["id"] for each in LABELLED if each["label"] == "other")
    for path in (f"/api/records/{foreign}", f"/api/records/{foreign}/explain", f"/api/export?id={foreign}"):
        assert get(page, path, IOT)[0] == 404
        assert get(page, path, OTHER)[0] == 200
    origin = page.base
    assert page.ask("POST", f"/api/replay/{foreign}", token=IOT, Origin=origin)[0].status == 404
    assert page.replayed == []


def test_the_stream_of_a_viewer_has_no_rows_of_others_and_counts_them_not_as_lost(page):
    import http.client
    from urllib.parse import urlsplit

    place = urlsplit(page.base)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    connection.request("GET", "/api/events", headers={"Authorization": f"Bearer {IOT}", "Last-Event-ID": "1"})
    response = connection.getresponse()
    page.add({**LABELLED[1], "id": "0000000001"}, {**LABELLED[0], "id": "0000000002"})
    text = b""
    while b"0000000002" not in text:
        text += response.readline()
    connection.close()
    assert b"0000000001" not in text
    assert b"lost" not in text


def test_a_viewer_of_a_label_can_edit_nothing(tmp_path):
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers/a").write_text("text\n")
    with shown(tokens={IOT: "iot"}, folder=tmp_path) as page:
        assert page.ask("GET", "/api/files", token=IOT)[0].status == 404
        assert page.ask("GET", "/api/file?name=a", token=IOT)[0].status == 404
        put = page.ask("PUT", "/api/file?name=a&instead=", token=IOT, body=b"x", Origin=page.base)
        assert put[0].status == 404
        assert page.ask("GET", "/api/files")[0].status == 200
        assert (tmp_path / "handlers/a").read_text() == "text\n"
