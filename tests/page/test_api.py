"""What the page answers over HTTP: each refusal with its status and an empty body, and each resource."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from estgw.config import csrattrs_yaml
from estgw.page import app, explain, guard, serving
from tests.kit.processes import ROOT, until
from tests.page import samples
from tests.page.shown import Shown, shown

LESSON = samples.lesson()
ENROLLED, CMC, CSRATTRS, KEYGEN, HANDSHAKE = (f"8f0c21ab{number:02x}" for number in (20, 11, 2, 10, 5))


@pytest.fixture(scope="module")
def page() -> Iterator[Shown]:
    with shown(*LESSON) as running:
        yield running


def get(page: Shown, path: str) -> Any:
    response, body = page.ask("GET", path)
    assert response.status == 200
    return json.loads(body)


def status(page: Shown, method: str, path: str, **given: Any) -> int:
    """The status of a refusal, which must have an empty body and the headers of all answers."""
    response, body = page.ask(method, path, **given)
    assert body == b""
    assert_headers(response)
    return response.status


def assert_headers(response: http.client.HTTPResponse) -> None:
    for name, value in guard.HEADERS.items():
        assert response.headers[name] == value
    assert "Set-Cookie" not in response.headers


API = ["/api/facts", "/api/records", f"/api/records/{ENROLLED}", "/api/events", "/api/export", "/api/nothing"]


@pytest.mark.parametrize("path", API)
def test_nothing_is_told_without_the_token(page, path):
    assert status(page, "GET", path, token="") == 403
    assert status(page, "GET", path, token="0" * 32) == 403
    assert status(page, "POST", path, token="0" * 32) == 403


@pytest.mark.parametrize("path", API)
def test_a_cookie_is_no_token_and_another_gateways_token_is_none_here(page, path):
    """Browsers send a cookie to each port of a host, so to each gateway there."""
    with shown() as other:
        assert status(page, "GET", path, token=other.token) == 403
    for cookie in (page.token, f"token={page.token}", f"Authorization=Bearer {page.token}"):
        assert status(page, "GET", path, token="", Cookie=cookie) == 403


@pytest.mark.parametrize("path", [*API, "/", "/index.js"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8444", "localhost.evil.example"])
def test_a_foreign_host_is_refused_with_the_right_token_too(page, path, host):
    assert status(page, "GET", path, Host=host) == 403


def test_a_name_of_hosts_is_ours():
    with shown(hosts=frozenset({"lab.example"})) as named:
        assert named.ask("GET", "/", Host="LAB.example:8444")[0].status == 200
        assert status(named, "GET", "/", Host="other.example") == 403


def test_the_files_need_no_token_and_have_the_policy(page):
    for path, kind in (
        ("/", "text/html"),
        ("/index.js", "text/javascript"),
        ("/index.css", "text/css"),
        ("/js/view.js", "text/javascript"),
    ):
        response, body = page.ask("GET", path, token="")
        assert response.status == 200
        assert body
        assert response.headers["Content-Type"].startswith(kind)
        assert_headers(response)


def test_the_policy_allows_our_own_files_and_nothing_else():
    policy = dict(part.split(" ", 1) for part in guard.HEADERS["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert policy["require-trusted-types-for"] == "'script'"


@pytest.mark.parametrize(
    "path",
    ["/app.py", "/../app.py", "/js/../../app.py", "/%2e%2e/app.py", "/vendor/asn1js/LICENSE", "/js/", "//js/main.js"],
)
def test_only_the_files_of_the_page_are_served(page, path):
    assert status(page, "GET", path) == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/api/records", "GET"),
        ("DELETE", f"/api/records/{ENROLLED}", "GET"),
        ("PUT", "/api/events", "GET"),
        ("GET", f"/api/replay/{ENROLLED}", "POST"),
        ("POST", "/", "GET, HEAD"),
    ],
)
def test_another_method_is_refused_with_the_one_to_use(page, method, path, allowed):
    response, body = page.ask(method, path, Origin=page.base)
    assert (response.status, body, response.headers["Allow"]) == (405, b"", allowed)


@pytest.mark.parametrize(
    "path",
    ["/api/records/", "/api/records/a/b", "/api/records/a%2Fb", "/api/records/..%2f..", f"/api/records/{'a' * 33}",
     "/api/records/ABC", "/api/records/0000000000", "/api/records/0000000000/explain", "/api/", "/api"],
)  # fmt: skip
def test_an_id_that_is_none_is_not_found(page, path):
    assert status(page, "GET", path) == 404


def test_a_body_of_10_megabytes_is_refused_unread(page):
    response, body = page.ask("POST", f"/api/replay/{ENROLLED}", body=b"x" * 10_000_000, Origin=page.base)
    assert (response.status, body, response.headers["Connection"]) == (413, b"", "close")
    assert status(page, "GET", "/api/records", body=b"x") == 413
    assert status(page, "POST", "/", body=b"{}") == 413


def test_a_target_for_proxies_is_not_found(page):
    """Its authority would take the place of Host (RFC 9112 3.2.2)."""
    assert status(page, "GET", "http://evil.example/api/facts", Host="localhost") == 404


def test_what_is_no_http_gets_an_empty_400(page):
    for sent in (b"nonsense\r\n\r\n", b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", int(page.base.rpartition(":")[2]))) as raw:
            raw.sendall(sent)
            answer = raw.makefile("rb").read()
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
        assert rest == b""
        assert b"Content-Security-Policy" in head


def test_a_header_that_is_too_long_is_refused(page):
    assert status(page, "GET", "/api/facts", X_Long="a" * 20_000) == 400


@pytest.mark.parametrize("query", ["since=-1", "since=x", f"since={'9' * 16}", "since="])
def test_a_number_that_is_none_is_refused(page, query):
    assert status(page, "GET", f"/api/records?{query}") == 400


def test_an_event_id_that_is_none_is_refused(page):
    assert status(page, "GET", "/api/events", Last_Event_ID="x") == 400
    assert status(page, "GET", "/api/events", Last_Event_ID="9" * 16) == 400


# Resources.


def test_the_facts_are_those_of_the_gateway(page):
    assert get(page, "/api/facts") == {
        "name": "lab",
        "url": "https://localhost:8443",
        "folder": "/lab",
        "config": "/lab/conf.yaml",
        "anchor": "/lab/openssl-ca/anchors.pem",
        "replay": True,
        "edit": False,
        "labs": False,
        "hand": None,
        "label": None,
    }


def test_the_rows_are_all_records_in_short(page):
    found = get(page, "/api/records")
    assert found["last"] == len(LESSON)
    assert [row["id"] for row in found["rows"]] == [record["id"] for record in LESSON]
    assert [row["n"] for row in found["rows"]] == list(range(1, len(LESSON) + 1))
    refused = next(row for row in found["rows"] if row["gate"] == "linking")
    assert (refused["status"], refused["user"], refused["request"]) == (400, "estuser", 2)
    later = get(page, f"/api/records?since={len(LESSON) - 2}")
    assert [row["n"] for row in later["rows"]] == [len(LESSON) - 1, len(LESSON)]


def test_a_record_is_told_whole(page):
    for record in LESSON:
        assert get(page, f"/api/records/{record['id']}") == record


def test_cmc_and_csrattrs_are_explained_in_words(page):
    words = get(page, f"/api/records/{CMC}/explain")
    assert words["request"].startswith("SignedData")
    assert "PKCS#10" in words["request"]
    assert "PKIResponse" in words["response"]
    words = get(page, f"/api/records/{CSRATTRS}/explain")
    assert words["request"] is None
    attributes = csrattrs_yaml.read((ROOT / "handlers/openssl/csrattrs.yaml").read_bytes(), ROOT)
    assert csrattrs_yaml.read(words["response"].encode(), ROOT) == attributes
    assert get(page, f"/api/records/{ENROLLED}/explain") == {"request": None, "response": None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"body": samples.b64(b"\x30\x03\x02\x01")}, "this can't be read: "),
        ({"body": "[removed]"}, "holds a secret"),
        ({"cut": True}, "too long to be kept whole"),
        ({"body": "no base64!"}, "this can't be read: "),
    ],
)
def test_a_message_that_cant_be_read_is_explained_by_its_fault(change, words):
    record = next(record for record in LESSON if record["id"] == CMC)
    with shown({**record, "request": {**record["request"], **change}}) as page:
        assert words in get(page, f"/api/records/{CMC}/explain")["request"]


def test_a_long_explanation_is_cut(monkeypatch):
    monkeypatch.setattr(explain, "LONGEST", 40)
    record = next(record for record in LESSON if record["id"] == CMC)
    text = explain.explained(record)["request"]
    assert text is not None
    assert text[40:].startswith("\n... ")
    assert text.endswith(" more characters\n")


def test_a_failure_of_the_page_is_an_empty_500(page, monkeypatch):
    def fail(_record: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(explain, "explained", fail)
    assert status(page, "GET", f"/api/records/{CMC}/explain") == 500


# Replay.


def test_a_replay_needs_our_own_origin(page):
    path = f"/api/replay/{ENROLLED}"
    before = len(page.replayed)
    for origin in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": page.base + "0"}):
        assert status(page, "POST", path, **origin) == 403
    assert len(page.replayed) == before


def test_a_replay_tells_its_new_record(page):
    page.replays = lambda identifier: samples.replayed(90, 470) | {"of": identifier}
    response, body = page.ask("POST", f"/api/replay/{ENROLLED}", Origin=page.base)
    told = json.loads(body)
    assert (response.status, told["error"]) == (200, None)
    assert get(page, f"/api/records/{told['id']}")["of"] == ENROLLED
    page.replays = None


def test_a_replay_that_fails_says_why(page):
    page.replays = None
    told = json.loads(page.ask("POST", f"/api/replay/{ENROLLED}", Origin=page.base)[1])
    assert told == {"id": None, "error": "its body was cut, so it can't be replayed"}


def test_a_replay_of_nothing_is_not_found(page):
    assert status(page, "POST", "/api/replay/0000000000", Origin=page.base) == 404
    with shown(*LESSON, replays=False) as without:
        assert status(without, "POST", f"/api/replay/{ENROLLED}", Origin=without.base) == 404
        assert get(without, "/api/facts")["replay"] is False


def test_more_replays_than_may_wait_are_refused(page, monkeypatch):
    monkeypatch.setattr(app, "REPLAYS", 0)
    response, body = page.ask("POST", f"/api/replay/{ENROLLED}", Origin=page.base)
    assert (response.status, body, response.headers["Retry-After"]) == (503, b"", "5")


# Export.


def test_json_of_one_record_is_the_record(page):
    response, body = page.ask("GET", f"/api/export?id={ENROLLED}")
    assert response.headers["Content-Disposition"] == f'attachment; filename="estgw-{ENROLLED}.json"'
    assert json.loads(body) == next(record for record in LESSON if record["id"] == ENROLLED)
    assert_headers(response)


def test_json_of_several_records_is_an_array_oldest_first(page):
    found = get(page, f"/api/export?format=json&id={ENROLLED},{CMC}&id={HANDSHAKE}")
    assert [record["id"] for record in found] == [HANDSHAKE, CMC, ENROLLED]
    assert [record["id"] for record in get(page, "/api/export")][: len(LESSON)] == [record["id"] for record in LESSON]


def test_an_export_leaves_out_what_is_gone(page):
    assert get(page, f"/api/export?id={ENROLLED},0000000000")["id"] == ENROLLED
    assert status(page, "GET", "/api/export?id=0000000000") == 404


@pytest.mark.parametrize("query", ["format=xml", "format=", "id=" + ",".join(["0"] * 501)])
def test_an_export_that_cant_be_is_refused(page, query):
    assert status(page, "GET", f"/api/export?{query}") == 400


# Bounds.


def test_connections_above_the_bound_are_closed(monkeypatch):
    monkeypatch.setattr(serving, "CONNECTIONS", 3)
    with shown(*LESSON) as page:
        place = ("127.0.0.1", int(page.base.rpartition(":")[2]))
        held = [socket.create_connection(place) for _ in range(3)]
        with socket.create_connection(place) as more:
            more.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert more.recv(1) == b""
        for each in held:
            each.close()
        assert until(lambda: _answers(page))


def _answers(page: Shown) -> bool:
    try:
        return page.ask("GET", "/api/facts")[0].status == 200
    except OSError:
        return False


def test_a_connection_that_sends_no_whole_request_is_closed(monkeypatch):
    monkeypatch.setattr(serving, "IDLE", 0.3)
    with shown() as page, socket.create_connection(("127.0.0.1", int(page.base.rpartition(":")[2]))) as slow:
        slow.settimeout(10)
        slow.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        began = time.monotonic()
        assert slow.recv(1) == b""
        assert time.monotonic() - began < 5
