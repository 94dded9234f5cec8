"""The page in a browser: what one sees, by mouse and by keyboard."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.page import samples
from tests.page.conftest import Look
from tests.page.shown import Shown, shown

pytestmark = [pytest.mark.client("chromium-headless-shell"), pytest.mark.slow]

LINKING, POLICY, HOSTILE, ENROLLED, CMC, CSRATTRS, REPLAY, HANDSHAKE = (
    f"8f0c21ab{number:02x}" for number in (18, 9, 12, 20, 11, 2, 19, 5)
)


def row(page: Page, identifier: str) -> Any:
    return page.locator(f"tr[data-id='{identifier}']")


def opened(page: Page, identifier: str) -> Any:
    """Open a record, and wait for its detail."""
    row(page, identifier).click()
    expect(page.locator("#detail .head")).to_contain_text(identifier)
    return page.locator("#detail")


def texts(page: Page, column: str) -> list[str]:
    return page.locator(f"#rows .{column}").all_inner_texts()


# The list.


def test_a_new_row_is_there_within_a_second(look: Look, page: Shown):
    tab = look.at(page.url)
    began = time.monotonic()
    page.add(samples.enrolment(99, 500, "brand-new"))
    row(tab, "8f0c21ab63").wait_for()
    assert time.monotonic() - began < 1
    assert row(tab, "8f0c21ab63").locator(".c-reason").inner_text() == "CN=brand-new"
    assert texts(tab, "c-time")[0] == "15:03:20"  # the newest is on top


def test_each_kind_has_a_row_in_words(look: Look, page: Shown):
    tab = look.at(page.url)
    found = dict(
        zip(
            texts(tab, "c-time"),
            zip(texts(tab, "c-operation"), texts(tab, "c-answer"), texts(tab, "c-reason"), strict=True),
            strict=True,
        )
    )
    assert found["15:02:41"] == ("simpleenroll", "200 issued", "CN=device-1")
    assert found["15:02:37"] == ("simpleenroll", "400 refused", "linking: the CSR was signed for another connection")
    assert found["14:57:00"][1] == "403 refused"
    assert found["14:56:10"][1:] == ("401 log in", "password: wrong password for estuser")
    assert found["14:56:08"][:2] == ("handshake", "failed")
    assert found["14:55:24"] == ("iot / simpleenroll", "202 later", "handler: waits for approval; come back in 60 s")
    assert found["14:59:20"][:2] == ("/.well-known/est/nothing", "404 unknown")
    assert row(tab, REPLAY).get_by_text("replay").count() == 1


def test_the_heading_says_which_gateway_it_is(look: Look, page: Shown):
    tab = look.at(page.url)
    expect(tab.locator("#name")).to_have_text("lab")
    expect(tab.locator("#url")).to_have_text("https://localhost:8443")
    expect(tab.locator("#count")).to_contain_text("17 transactions")
    expect(tab.locator("#state-words")).to_have_text("live")


def test_an_empty_page_says_what_will_come(look: Look):
    with shown() as page:
        tab = look.at(page.url, ready="#nothing:not([hidden])")
        assert "Each request and each failed handshake becomes a row here" in tab.inner_text("#nothing")


def test_pause_holds_new_rows_back_and_resume_shows_them(look: Look, page: Shown):
    tab = look.at(page.url)
    tab.get_by_role("button", name="Pause").click()
    page.add(samples.enrolment(99, 500), samples.enrolment(98, 501))
    tab.get_by_role("button", name="Resume, 2 new").click()
    row(tab, "8f0c21ab63").wait_for()
    expect(tab.locator("#pause")).to_have_text("Pause")


def test_rows_that_come_do_not_move_what_is_read(look: Look):
    with shown(*[samples.record(number, number, "cacerts") for number in range(1, 500)]) as page:
        tab = look.at(page.url)
        tab.evaluate("document.querySelector('#list').scrollTop = 5000")
        seen = tab.locator("#rows tr:not(.space)").nth(12)
        identifier = seen.get_attribute("data-id")
        assert identifier
        before = row(tab, identifier).bounding_box()
        page.add(*[samples.record(number, number, "cacerts") for number in range(500, 530)])
        expect(tab.locator("#count")).to_contain_text("529 transactions")
        assert row(tab, identifier).bounding_box() == before


def test_only_rows_in_sight_exist(look: Look):
    with shown(*[samples.record(number, number, "cacerts") for number in range(1, 3000)]) as page:
        tab = look.at(page.url)
        expect(tab.locator("#count")).to_contain_text("2,999 transactions")
        assert tab.locator("#rows tr").count() < 60
        assert tab.get_attribute("#table", "aria-rowcount") == "3000"
        tab.evaluate("document.querySelector('#list').scrollTop = 1e9")
        row(tab, f"{0x8F0C21AB00 + 1:010x}").wait_for()


# The filter.


FILTERS = {
    "status:4xx": 7,
    "status:401": 3,
    "status:failed": 1,
    "label:iot": 2,
    "label:-": 15,
    "op:csrattrs": 1,
    "who:device-3": 1,
    "gate:linking": 1,
    "kind:replay": 1,
    "kind:handshake": 1,
    "estuser status:2xx": 5,
    "-status:2xx -kind:handshake": 7,
    '"another connection"': 1,
    "nothing-has-this": 0,
}


def test_the_filter_shows_what_fits(look: Look, page: Shown):
    tab = look.at(page.url)
    for text, number in FILTERS.items():
        tab.fill("#filter", text)
        expect(tab.locator("#rows tr:not(.space)"), text).to_have_count(number)


def test_the_filter_and_the_open_record_stay_over_a_reload(look: Look, page: Shown):
    tab = look.at(page.url)
    tab.fill("#filter", "gate:linking")
    expect(tab.locator("#rows tr:not(.space)")).to_have_count(1)
    opened(tab, LINKING)
    assert tab.url == f"{page.base}/#q=gate:linking&id={LINKING}"
    assert page.token not in tab.url
    tab.reload()
    expect(tab.locator("#rows tr:not(.space)")).to_have_count(1)
    expect(tab.locator("#detail h2")).to_have_text("simpleenroll, refused by linking")
    assert tab.input_value("#filter") == "gate:linking"


def test_a_new_row_that_does_not_fit_is_not_shown(look: Look, page: Shown):
    tab = look.at(page.url)
    tab.fill("#filter", "status:4xx")
    expect(tab.locator("#rows tr:not(.space)")).to_have_count(7)
    page.add(samples.enrolment(99, 500), samples.unauthorized(98, 501, "no credentials", "Log in."))
    row(tab, "8f0c21ab62").wait_for()
    assert row(tab, "8f0c21ab63").count() == 0
    expect(tab.locator("#count")).to_contain_text("8 of 19 transactions")


# The detail.


def test_a_refusal_shows_its_hint_its_gate_and_both_bindings(look: Look, page: Shown):
    tab = look.at(page.url)
    detail = opened(tab, LINKING)
    assert detail.locator("h2").inner_text() == "simpleenroll, refused by linking"
    hint = detail.locator(".hint")
    assert "The CSR was signed for another connection." in hint.inner_text()
    assert hint.locator("code").all_inner_texts() == ["estclient"]
    gates = detail.locator(".gates li").all_inner_texts()
    assert [text.split()[0] for text in gates] == list(samples.GATES)
    assert gates[5].split() == ["linking", "refused"]
    assert gates[6].split() == ["authorize", "not", "reached"]
    assert detail.locator("dd", has_text=samples.EXPECTED).count() == 1
    assert detail.locator("dd", has_text=samples.FOUND).count() == 1
    assert detail.locator("mark").all_inner_texts() == [samples.EXPECTED[:8], samples.FOUND[:8]]


def test_the_timeline_has_the_handshake_the_401_before_the_gates_and_the_answer(look: Look, page: Shown):
    tab = look.at(page.url)
    opened(tab, LINKING)
    picture = tab.locator("#detail svg")
    told = picture.get_attribute("aria-label")
    assert told is not None
    steps = [
        "handshake, TLS 1.3, 2.1 ms",
        "POST simpleenroll, no credentials",
        "401 log in",
        "POST simpleenroll, Basic estuser",
        "CSR: EC P-256",
        "linking: the CSR was signed for another connection",
        "authorize, handler: not reached",
        "400 refused",
    ]
    places = [told.find(step) for step in steps]
    assert -1 not in places
    assert places == sorted(places)
    assert picture.locator(".deciding").count() == 2
    opened(tab, ENROLLED)
    told = tab.locator("#detail svg").get_attribute("aria-label") or ""
    assert "authorize; exit 0, 6.1 ms; handler; exit 0, 13 ms; 200 issued, 17 ms" in told


def test_a_callout_shows_its_script_its_end_and_what_it_said(look: Look, page: Shown):
    tab = look.at(page.url)
    detail = opened(tab, POLICY)
    script = detail.locator("details", has_text="handlers/openssl/authorize").first
    assert script.get_attribute("open") is not None  # it decided
    assert "exit 77" in script.inner_text()
    assert "policy: CN=device-5 is not CN=estuser" in script.inner_text()
    script.get_by_text("Environment").click()
    expect(script.locator("tr", has_text="EST_PASSWORD")).to_contain_text("[removed]")


@pytest.mark.exhaustive
def test_a_handshake_that_failed_has_a_detail(look: Look, page: Shown):
    tab = look.at(page.url)
    detail = opened(tab, HANDSHAKE)
    assert detail.locator("h2").inner_text() == "TLS handshake, failed"
    assert "openssl-ca/cacert.pem" in detail.locator(".hint").inner_text()
    assert detail.get_by_role("button", name="Copy as curl").count() == 0


def test_asn1_is_drawn_when_it_is_opened(look: Look, page: Shown):
    tab = look.at(page.url)
    detail = opened(tab, ENROLLED)
    assert not [url for url in look.requests if "/vendor/" in url]
    detail.get_by_text("ASN.1 of the CSR").click()
    tree = detail.locator(".asn1").first
    tree.wait_for()
    shown_tree = tree.inner_text()
    assert "SEQUENCE" in shown_tree
    assert "2.5.4.3" in shown_tree
    assert "commonName" in shown_tree
    assert "device-1" in shown_tree


@pytest.mark.exhaustive
def test_asn1_that_is_nested_without_end_is_refused_at_once(look: Look, page: Shown):
    deep = b""
    for _ in range(20_000):
        deep = b"\x30\x83" + len(deep).to_bytes(3, "big") + deep
    record = samples.enrolment(99, 500)
    record["request"] |= {"csr": None, "body": samples.b64(deep), "length": len(deep)}
    page.add(record)
    tab = look.at(page.url)
    detail = opened(tab, "8f0c21ab63")
    detail.get_by_text("ASN.1 of the request").click()
    detail.get_by_text("This is nested too deeply for this view.").wait_for()


def test_cmc_and_csrattrs_are_in_words(look: Look, page: Shown):
    tab = look.at(page.url)
    detail = opened(tab, CMC)
    detail.get_by_text("Request in words").wait_for()
    assert "PKCS#10" in detail.inner_text()
    assert "PKIResponse" in detail.inner_text()
    detail = opened(tab, CSRATTRS)
    detail.get_by_text("Answer in words").wait_for()


@pytest.mark.exhaustive
def test_a_record_that_is_gone_says_so(look: Look):
    with shown(*samples.lesson(), keep=20) as page:
        tab = look.at(page.url)
        for first in (100, 110, 120):
            page.add(*[samples.record(number, number, "cacerts") for number in range(first, first + 10)])
            row(tab, f"{0x8F0C21AB00 + first + 9:010x}").wait_for()
        tab.evaluate("document.querySelector('#list').scrollTop = 1e9")
        row(tab, LINKING).click()
        expect(tab.locator("#detail [role=alert]")).to_have_text("This record is no longer kept.")


@pytest.mark.exhaustive
def test_a_record_without_its_optional_parts_is_shown(look: Look):
    with shown(samples.least(1), samples.unreadable(2, 501)) as page:
        tab = look.at(page.url)
        assert texts(tab, "c-operation") == ["not HTTP", "not HTTP"]
        detail = opened(tab, "8f0c21ab02")
        assert detail.locator("h2").inner_text() == "not HTTP, refused by path"
        assert "something that is no HTTP" in (detail.locator("svg").get_attribute("aria-label") or "")
        assert detail.get_by_role("button", name="Copy as curl").count() == 0
        opened(tab, "8f0c21ab01")


def test_a_record_of_another_format_is_refused_in_words(look: Look):
    with shown(samples.least(1) | {"format": 2}) as page:
        tab = look.at(page.url)
        row(tab, "8f0c21ab01").click()
        expect(tab.locator("#detail [role=alert]")).to_have_text(
            "This record has format 2, and this page reads format 1."
        )


# What peers send.


def test_markup_and_control_characters_of_a_peer_stay_text(look: Look, page: Shown):
    tab = look.at(page.url)
    detail = opened(tab, HOSTILE)
    for _ in range(3):  # what is folded may hold further folded parts
        tab.evaluate("document.querySelectorAll('#detail details.folded').forEach((each) => { each.open = true; })")
        tab.wait_for_timeout(100)
    assert detail.locator(".folded:not([open])").count() == 0
    assert tab.title() == "simpleenroll, refused by authorize \u2013 estgw"
    assert tab.locator("#detail img, #detail script, #rows img, #rows script").count() == 0
    everything = tab.evaluate("document.body.textContent")
    assert samples.MARKUP in everything
    assert r"\x1b[31mred\u202egnp.exe\u200b\u2066end" in everything
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]", everything)
    named = tab.evaluate(
        "[...document.querySelectorAll('[title], [aria-label]')].map((e) => e.title + e.ariaLabel).join('')"
    )
    assert not re.search("[\x00-\x1f\u202e\u2066]", named)


def test_compared_records_of_a_peer_stay_text_too(look: Look, page: Shown):
    tab = look.at(f"{page.base}/#{page.token}")
    tab.goto(f"{page.base}/#id={HOSTILE},{POLICY}")
    tab.locator(".compare").first.wait_for()
    assert tab.locator("#detail img, #detail script").count() == 0
    assert samples.MARKUP in tab.inner_text("#detail")


# Compare, replay, save.


def test_two_records_are_compared_with_what_differs_first(look: Look, page: Shown):
    tab = look.at(page.url)
    opened(tab, POLICY)
    tab.get_by_role("button", name="Compare with").click()
    row(tab, ENROLLED).click()
    table = tab.get_by_role("table", name="Differences")
    table.wait_for()
    assert tab.url.endswith(f"id={POLICY},{ENROLLED}")
    assert table.locator("tbody th").first.inner_text() == "outcome.status"
    cells = {
        cells[0]: cells[1:]
        for cells in (line.locator("th, td").all_inner_texts() for line in table.locator("tbody tr").all())
    }
    assert cells["outcome.gate"] == ["authorize", "none"]
    assert cells["response.status"] == ["403", "200"]
    assert cells["gates.authorize.result"] == ["refuse", "pass"]
    assert not [path for path in cells if path in ("id", "at", "ms", "issued.serial")]
    tab.get_by_text("Different each time").click()
    grey = tab.get_by_role("table", name="Different each time")
    expect(grey).to_contain_text("connection.port")


def test_a_replay_is_compared_with_its_origin_by_one_button(look: Look, page: Shown):
    tab = look.at(page.url)
    opened(tab, REPLAY)
    tab.get_by_role("button", name="Compare with its origin").click()
    expect(tab.get_by_role("table", name="Differences")).to_contain_text("outcome.status")
    assert tab.url.endswith(f"id={POLICY},{REPLAY}")


def test_replay_adds_a_row_that_names_its_origin(look: Look, page: Shown):
    page.replays = lambda identifier: samples.replayed(99, 500) | {"of": identifier}
    tab = look.at(page.url)
    opened(tab, POLICY)
    tab.get_by_role("button", name="Replay", exact=True).click()
    expect(tab.locator("#detail .head")).to_contain_text(f"replays {POLICY}")
    assert page.replayed == [POLICY]
    assert row(tab, POLICY).count() == 1


@pytest.mark.exhaustive
def test_a_replay_that_fails_says_why(look: Look, page: Shown):
    tab = look.at(page.url)
    opened(tab, POLICY)
    tab.get_by_role("button", name="Replay", exact=True).click()
    expect(tab.locator(".said [role=alert]")).to_have_text("its body was cut, so it can't be replayed")


@pytest.mark.exhaustive
def test_without_replay_there_is_no_button(look: Look):
    with shown(*samples.lesson(), replays=False) as page:
        tab = look.at(page.url)
        opened(tab, POLICY)
        assert tab.get_by_role("button", name="Replay", exact=True).count() == 0


def test_records_are_saved_as_json_and_har(look: Look, page: Shown, tmp_path: Path):
    tab = look.at(page.url)
    opened(tab, POLICY)
    tab.get_by_text("More…").click()
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Save as JSON").click()
    assert download.value.suggested_filename == f"estgw-{POLICY}.json"
    download.value.save_as(tmp_path / "one.json")
    assert json.loads((tmp_path / "one.json").read_text())["id"] == POLICY
    tab.fill("#filter", "status:4xx")
    expect(tab.locator("#rows tr:not(.space)")).to_have_count(7)
    tab.get_by_text("Export…").click()
    expect(tab.locator("#export-what")).to_have_text("The 7 records that the filter shows.")
    with tab.expect_download() as download:
        tab.get_by_role("button", name="HAR 1.2", exact=True).click()
    download.value.save_as(tmp_path / "all.har")
    assert len(json.loads((tmp_path / "all.har").read_text())["log"]["entries"]) == 7
