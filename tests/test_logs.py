"""The log: structured lines, escaped, with nothing secret."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from estgw import logs
from tests.kit.keys import KEY_PEM
from tests.kit.restore import logging_as_before


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Restore the log's configuration after each test."""
    with logging_as_before():
        yield


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(form: str, say: Callable[[], Any], level: str = "info", stream: io.StringIO | None = None) -> str:
    stream = stream or io.StringIO()
    logs.configure(form, level, stream)
    say()
    return stream.getvalue()


def test_a_json_line_has_event_level_timestamp_and_fields():
    text = written("json", lambda: logs.log.info("request", status=200, subject="CN=Zoë"))
    line = json.loads(text)
    assert text.count("\n") == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("timestamp"))
    assert line == {"event": "request", "level": "info", "status": 200, "subject": "CN=Zoë"}


def test_each_line_is_written_at_once():
    """Several processes write to one file; only one write keeps a line together."""
    parts: list[str] = []

    class Counted(io.StringIO):
        def write(self, text: str) -> int:
            parts.append(text)
            return super().write(text)

    written("json", lambda: [logs.log.info("request", subject="x" * size) for size in (1, 10_000)], stream=Counted())
    assert len(parts) == 2
    assert all(part.endswith("}\n") for part in parts)


def test_every_line_has_the_number_of_the_worker():
    stream = io.StringIO()
    logs.configure("json", "info", stream, worker=3)
    logs.log.info("request")
    logging.getLogger("aiohttp").warning("odd")
    assert [json.loads(line)["worker"] for line in stream.getvalue().splitlines()] == [3, 3]


def test_a_text_line_has_event_and_fields_without_escapes():
    text = written("text", lambda: logs.log.info("reloaded", labels=2))
    assert "reloaded" in text
    assert "labels=2" in text
    assert "\x1b" not in text


GOOD = {
    "status": 200, "ms": 17.3, "method": "POST", "path": "/.well-known/est/python/simpleenroll", "peer": "127.0.0.1",
    "tls": "TLSv1.3", "operation": "simpleenroll", "label": "python", "user": "estuser", "identity": "estuser",
    "subject": "CN=device-1", "serial": "1A2B", "request_id": "54fc6a5c05",
}  # fmt: skip


def line_of(form: str = "text", stream: io.StringIO | None = None, **fields: object) -> str:
    return written(form, lambda: logs.log.info("request", **{**GOOD, **fields}), stream=stream).removesuffix("\n")


def test_a_request_on_a_terminal_begins_with_status_operation_and_client():
    time, _, rest = line_of().partition("  ")
    assert re.fullmatch(r"\d\d:\d\d:\d\d", time)
    assert rest == "200  python/simpleenroll  estuser  for CN=device-1  serial 1A2B  17.3 ms  54fc6a5c05"


def test_a_refusal_on_a_terminal_has_its_whole_reason_before_the_rest():
    reason = "the CSR lacks " + ", ".join(f"attribute {number}" for number in range(30))
    rest = line_of(status=400, reason=reason).partition("  ")[2]
    assert rest.startswith(f"400  python/simpleenroll  estuser  {reason}  ")


@pytest.mark.parametrize("subject", ["CN=a", "CN=" + "a" * 60, "CN=" + "a" * 400])
@pytest.mark.parametrize("identity", ["", "ann", "CN=" + "b" * 60 + ",O=Example", "u" * 400])
def test_a_good_request_takes_120_columns_at_most(subject, identity):
    line = line_of(subject=subject, identity=identity)
    assert len(line) <= 120
    assert line.endswith("serial 1A2B  17.3 ms  54fc6a5c05")


def test_a_request_without_an_operation_shows_its_path():
    rest = line_of(status=404, operation=None, label=None, identity=None, reason="No such EST operation here.")
    assert "404  /.well-known/est/python/simpleenroll  127.0.0.1  No such EST operation here." in rest


def test_the_status_has_a_colour_on_a_terminal_only():
    assert "\x1b[33m403\x1b[0m" in line_of(stream=Terminal(), status=403)
    assert "\x1b" not in line_of(status=403)


def test_json_keeps_every_field_of_a_request():
    line = json.loads(line_of("json"))
    assert {key: line[key] for key in GOOD} == GOOD


@pytest.mark.parametrize(
    ("form", "stream", "is_json"),
    [("auto", io.StringIO, True), ("auto", Terminal, False), ("json", Terminal, True)],
)
def test_auto_writes_text_on_a_terminal_and_json_elsewhere(form, stream, is_json):
    text = written(form, lambda: logs.log.info("request"), stream=stream())
    assert text.startswith("{") is is_json


@pytest.mark.parametrize(("level", "seen"), [("debug", 3), ("info", 2), ("warning", 1)])
def test_only_lines_of_the_configured_level_are_written(level, seen):
    def say() -> None:
        logs.log.debug("a")
        logs.log.info("b")
        logs.log.warning("c")

    assert written("json", say, level).count("\n") == seen


def test_every_line_in_a_request_has_its_id():
    def say() -> None:
        with structlog.contextvars.bound_contextvars(request_id="0123"):
            logs.log.info("a")
        logs.log.info("b")

    first, second = map(json.loads, written("json", say).splitlines())
    assert first["request_id"] == "0123"
    assert "request_id" not in second


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "value", ["a\nstatus=200", "\x1b[2J", "\r", "\x85", "\u2028", "\ud800", "\0", 'a" status="200', "\u202e"]
)
def test_no_value_makes_a_second_line_or_moves_the_cursor(form, value):
    text = written(form, lambda: logs.log.info("request", subject=value))
    assert text.count("\n") == 1
    assert text.removesuffix("\n").isprintable()
    if form == "json":
        assert json.loads(text)["event"] == "request"


def test_a_json_line_has_the_traceback_of_an_exception():
    def say() -> None:
        try:
            raise ZeroDivisionError("no")
        except ZeroDivisionError:
            logs.log.exception("unexpected error")

    line = json.loads(written("json", say))
    assert "ZeroDivisionError: no" in line["exception"]
    assert line["level"] == "error"


def test_errors_of_the_logging_module_are_json_lines_too():
    def say() -> None:
        logging.getLogger("aiohttp.server").error("oh\nno %s", "x")
        logging.getLogger("asyncio").info("not this")

    line = json.loads(written("json", say))
    assert (line["event"], line["logger"], line["level"]) == ("oh\\nno x", "aiohttp.server", "error")


def test_tracebacks_of_the_logging_module_are_json_lines_too():
    def say() -> None:
        try:
            raise ZeroDivisionError("no")
        except ZeroDivisionError:
            logging.getLogger("asyncio").exception("oh")

    assert "ZeroDivisionError: no" in json.loads(written("json", say))["exception"]


def test_python_warnings_are_json_lines_too():
    def say() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)  # pytest has captured warnings itself
            warnings.warn("a name of 65 characters", UserWarning, stacklevel=1)

    line = json.loads(written("json", say))
    assert "a name of 65 characters" in line["event"]
    assert line["level"] == "warning"


# Escaping.


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain Zoë €", "plain Zoë €"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x85", r"\x85"),
        ("\u2028", r"\u2028"),
        ("\ud800", r"\ud800"),
        ("", ""),
    ],
)
def test_escape_replaces_control_characters(text, escaped):
    assert logs.escape(text) == escaped


@given(st.text(st.characters()))
def test_escaped_text_is_printable(text):
    assert logs.escape(text).isprintable()


def test_request_ids_are_ten_hex_digits_and_unique():
    made = {logs.new_request_id() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch("[0-9a-f]{10}", one) for one in made)


# A script's stderr.

KEY = KEY_PEM.decode()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"before\n{KEY}after", "before\n[private key removed]\nafter"),
        (KEY + KEY, "[private key removed]\n[private key removed]\n"),
        (KEY[:100], "[private key removed]"),
        (KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"), "[private key removed]\n"),
        (KEY.replace("PRIVATE", "EC PRIVATE"), "[private key removed]\n"),
        (KEY.replace("\n", "\\n"), "[private key removed]\\n"),
        ("-----BEGIN PUBLIC KEY-----\n", "-----BEGIN PUBLIC KEY-----\n"),
    ],
    ids=["among text", "two", "cut off", "encrypted", "EC", "in one line", "a public one"],
)
def test_private_keys_are_removed_from_stderr(text, masked):
    assert logs.masked(text) == masked


def test_stderr_lines_leave_out_empty_lines_and_escape_bytes():
    raw = b"one\n\n  \r\ntwo\r\nZo\xc3\xab \xff\n"
    assert logs.stderr_lines(raw, truncated=False) == ["one", "two", "Zoë \\xff"]
    assert logs.stderr_lines(b"", truncated=False) == []


def test_a_stderr_line_is_shortened():
    assert logs.stderr_lines(b"x" * 5000, truncated=True) == ["x" * 4096, "[stderr cut off here]"]


def test_a_full_disk_under_the_log_fails_no_request() -> None:
    full = open("/dev/full", "w")  # noqa: SIM115 - closing it fails, too
    try:
        logs.configure("json", "info", full)
        for _ in range(100):
            logs.log.info("request", status=200, reason="x" * 1000)
        logging.getLogger("aiohttp").warning("a line of the standard library")
    finally:
        with contextlib.suppress(OSError):
            full.close()
