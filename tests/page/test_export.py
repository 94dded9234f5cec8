"""Records as HAR 1.2, checked against its rules."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from estgw.page import export, har
from estgw.page.viewers import View
from estgw.record.ring import Made, Ring
from tests.page import samples

LESSON = samples.lesson()
BASE = "https://localhost:8443"


def as_har(*records: dict[str, Any]) -> Any:
    return json.loads("".join(export.pieces(list(map(Made, records)), "har", BASE)))["log"]


def only(record: dict[str, Any]) -> Any:
    (entry,) = as_har(record)["entries"]
    return entry


def the(gate: str | None, operation: str = "simpleenroll", kind: str = "request") -> dict[str, Any]:
    return next(
        record
        for record in LESSON
        if record["kind"] == kind and record["operation"] == operation and record["outcome"]["gate"] == gate
    )


def test_a_file_has_what_har_12_requires():
    log = as_har(*LESSON)
    assert log["version"] == "1.2"
    assert log["creator"]["name"] == "estgw"
    for entry in log["entries"]:
        assert {"startedDateTime", "time", "request", "response", "cache", "timings"} <= entry.keys()
        request, response = entry["request"], entry["response"]
        assert {
            "method",
            "url",
            "httpVersion",
            "cookies",
            "headers",
            "queryString",
            "headersSize",
            "bodySize",
        } <= request.keys()
        assert {
            "status",
            "statusText",
            "httpVersion",
            "cookies",
            "headers",
            "content",
            "redirectURL",
        } <= response.keys()
        timings = entry["timings"]
        # HAR 1.2: `time` is the sum of the timings, `ssl` and what is -1 aside.
        assert entry["time"] == pytest.approx(
            sum(timings[name] for name in ("connect", "send", "wait", "receive") if timings[name] > 0)
        )


def test_a_failed_handshake_is_left_out_and_counted():
    log = as_har(*LESSON)
    assert len(log["entries"]) == len(LESSON) - 1
    assert log["comment"] == "1 failed handshakes have no request and are not in this file"
    assert as_har(the(None))["comment"] == ""


def test_a_request_has_its_body_as_text_and_its_address():
    entry = only(the(None))
    assert entry["request"]["method"] == "POST"
    assert entry["request"]["url"] == f"{BASE}/.well-known/est/simpleenroll"
    assert entry["request"]["httpVersion"] == "HTTP/1.1"
    assert entry["request"]["postData"]["mimeType"] == "application/pkcs10"
    assert base64.b64encode(entry["request"]["postData"]["text"].encode()).decode() == the(None)["request"]["body"]
    assert entry["response"]["content"]["mimeType"].startswith("application/pkcs7-mime")


def test_a_body_that_is_no_text_is_base64_and_says_so():
    record = the(None)
    record = {
        **record,
        "request": {**record["request"], "body": samples.b64(b"\xff\xfe")},
        "response": {**record["response"], "body": samples.b64(b"\xff")},
    }
    entry = only(record)
    assert (entry["request"]["postData"]["text"], entry["request"]["postData"]["_encoding"]) == ("//4=", "base64")
    assert (entry["response"]["content"]["text"], entry["response"]["content"]["encoding"]) == ("/w==", "base64")


def test_a_secret_that_was_removed_stays_a_word():
    assert only(the(None, "serverkeygen"))["response"]["content"]["text"] == "[removed]"


def test_a_refusal_says_which_gate_decided():
    entry = only(the("linking"))
    assert entry["comment"] == "linking: the CSR was signed for another connection"
    assert entry["_estgw"]["outcome"]["gate"] == "linking"
    assert entry["timings"]["ssl"] == -1  # it is the second request on its connection


def test_a_replay_names_its_origin():
    assert only(the(None, kind="replay"))["comment"] == "a replay of 8f0c21ab09"


@pytest.mark.parametrize("target", ["/x?a=1&b=&c=%20", "//[::bad", "/x?" + "&" * 2000])
def test_a_target_that_is_no_url_costs_nothing(target):
    record = the(None)
    entry = har.entry({**record, "request": {**record["request"], "line": f"GET {target} HTTP/1.1"}}, BASE)
    assert entry is not None
    assert entry["request"]["url"] == BASE + target
    expected = [("a", "1"), ("b", ""), ("c", " ")] if target.startswith("/x?a") else []
    assert [(each["name"], each["value"]) for each in entry["request"]["queryString"]] == expected


def test_the_ring_gives_the_records_that_are_asked_for_once():
    ring = Ring(100, 1 << 30)
    for record in LESSON:
        ring.add(record)
    ids = [LESSON[3]["id"], LESSON[1]["id"], LESSON[3]["id"], "0000000000"]
    assert [entry.record() for entry in export.chosen(View(ring), ids)] == [LESSON[1], LESSON[3]]
    assert [entry.record() for entry in export.chosen(View(ring), [])] == LESSON


def test_no_records_are_an_empty_array_and_an_empty_har():
    assert json.loads("".join(export.pieces([], "json", BASE))) == []
    assert as_har()["entries"] == []
