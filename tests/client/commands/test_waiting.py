"""202: the time of the next try, and the next try (RFC 7030 4.2.3)."""

from __future__ import annotations

import datetime as dt
import time
from email.utils import format_datetime
from pathlib import Path

import pytest

from estgw.client.commands import waiting
from estgw.client.commands.report import Report
from estgw.client.faults import Exit, TryLater
from estgw.client.transport.answers import delay
from estgw.est import csr
from tests.client import rogue
from tests.client.common import NEW


def test_a_202_exits_3_and_says_when_to_try_again(holder, anchor, estclient, enroller, tmp_path):
    later = rogue.reply(202, content_type=None, Retry_After="90")
    with rogue.Server(holder, enroller(simpleenroll=later)) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW, "--json")
    assert ended.status == Exit.TRY_LATER
    assert "Send the same request again in 90 s" in ended.err
    assert ended.json["retry_after"] == 90
    assert "--reuse-key device.key" in ended.err
    assert (tmp_path / "device.key").exists()
    assert not (tmp_path / "device.pem").exists()


def test_wait_signs_the_request_again_for_every_connection(holder, anchor, estclient, enroller):
    count = [0]

    def later(_):
        count[0] += 1
        return rogue.reply(202, content_type=None, Retry_After="1") if count[0] < 3 else ...

    with rogue.Server(holder, enroller(simpleenroll=later)) as server:
        began = time.monotonic()
        assert (
            estclient("enroll", "-u", server.url, "-c", anchor, *NEW, "--wait", "30", "--no-csrattrs").status
            == Exit.DONE
        )
        assert time.monotonic() - began >= 2
    assert [request.connection for request in server.requests] == [1, 2, 3]
    parsed = [csr.parse(request.body) for request in server.requests]
    assert len({one.spki for one in parsed}) == 1
    for sent, one in zip(server.requests, parsed, strict=True):
        assert one.text_attribute(csr.CHALLENGE_PASSWORD) == sent.binding


def test_a_retry_after_beyond_wait_ends_the_run_at_once():
    slept: list[float] = []

    def attempt():
        raise TryLater("later", seconds=100, when=dt.datetime.now(dt.UTC))

    report = Report("enroll", as_json=False, is_verbose=False)
    with pytest.raises(TryLater):
        waiting.until_done(attempt, 99, report, sleep=slept.append)
    assert not slept


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", 1),
        ("99999999999999", 366 * 86400),
        (None, None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
    ],
)
def test_retry_after_in_seconds_is_read_within_bounds(text, seconds):
    assert delay(text, dt.datetime.now(dt.UTC)) == seconds


IMPOSSIBLE = [
    "Sun, 99 Nov 2026 12:00:00 GMT",
    "Sun, 99 Nov 2026",
    "Sun, 01 Nov 99999 12:00:00 GMT",
    "Sun, 01 Nov 99999999999999999999 12:00:00 GMT",
    "Sun, 01 Nov 2026 99999999999999999999:00:00 GMT",
    "Sunday, 31-Feb-26 12:00:00 GMT",
    "Sun Nov 31 12:00:00 2026",
]


@pytest.mark.parametrize("text", IMPOSSIBLE)
def test_a_retry_after_that_does_not_exist_is_an_invalid_answer(ask, text):
    for status in (202, 503):
        ended = ask(rogue.reply(status, content_type=None, Retry_After=text), "enroll", *NEW, "--no-csrattrs")
        assert ended.status == Exit.INVALID_ANSWER
        assert f"the server's Retry-After is a date that does not exist: {text!r}" in ended.err
        Path("device.key").unlink()


def test_a_date_out_of_bounds_without_a_day_is_ignored():
    assert delay("1 Nov 99999999999999999999 12:00:00 GMT", dt.datetime.now(dt.UTC)) is None


def test_retry_after_as_a_date_is_turned_into_seconds():
    now = dt.datetime(2026, 11, 23, 12, 0, 0, tzinfo=dt.UTC)
    assert delay(format_datetime(now + dt.timedelta(seconds=75), usegmt=True), now) == 75
    assert delay(format_datetime(now - dt.timedelta(days=1), usegmt=True), now) == 1
    assert delay("Mon, 23 Nov 2026 12:00:30 -0000", now) == 30


def test_a_503_with_retry_after_exits_3(holder, anchor, estclient):
    busy = rogue.reply(503, b"the CA sleeps", "text/plain", Retry_After="5")
    with rogue.Server(holder, lambda _: busy) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW, "--no-csrattrs")
    assert ended.status == Exit.TRY_LATER
    assert "the CA sleeps" in ended.err


def test_a_retry_after_date_of_a_server_is_reported_in_seconds(holder, anchor, estclient, enroller):
    """RFC 9110 10.2.3: Retry-After may be a date, here half a minute ahead."""
    when = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)
    later = rogue.reply(202, content_type=None, Retry_After=format_datetime(when, usegmt=True))
    with rogue.Server(holder, enroller(simpleenroll=later)) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW, "--json", "--wait", "10")
    assert ended.status == Exit.TRY_LATER
    assert 20 <= ended.json["retry_after"] <= 30


def test_a_missing_retry_after_gets_a_default(holder, anchor, estclient, enroller):
    later = rogue.reply(202, content_type=None)
    with rogue.Server(holder, enroller(simpleenroll=later)) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW, "--json")
    assert (ended.status, ended.json["retry_after"]) == (Exit.TRY_LATER, 60)
