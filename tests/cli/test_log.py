"""`estgw log`: the requests of a log, by user, label and result."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from estgw import logs
from estgw.cli import log as command
from estgw.cli import main as command_line
from tests.kit.csr import csr
from tests.kit.processes import ROOT


def event(name: str, request_id: str = "aa", **fields: Any) -> dict[str, Any]:
    return {"request_id": request_id, **fields, "event": name, "level": "info", "timestamp": "2026-11-29T10:11:12.5Z"}


def request(request_id: str, status: int = 200, **fields: Any) -> dict[str, Any]:
    given = {"operation": "simpleenroll", "path": "/x", "peer": "192.0.2.1", "ms": 5.0}
    return event("request", request_id, status=status, **given | fields)


LOG = [
    event("listening", addresses="127.0.0.1:8443"),
    event("handler stderr", "a1", handler="simpleenroll", line="p7: so far so good"),
    request("a1", user="p7", identity="p7", subject="CN=p7"),
    event("handler stderr", "b2", handler="authorize", line="looked up p7"),
    event("handler stderr", "c3", handler="simpleenroll", line="of another request"),
    event("handler stderr", "b2", handler="authorize", line="and not found"),
    request("b2", 403, user="p7", identity="p7", reason="not ours to certify: CN=evil", label="lab7"),
    request("c3", 500, user="p8", identity="p8", reason="exit 1"),
    request("d4", 401, claimed_user="p7", reason="wrong user name or password"),
    request("e5", 403, identity="CN=p9", reason="your certificate is revoked"),
    request("f6", 202, user="p8", identity="p8"),
]


def written(file: Path, *events: Any) -> Path:
    file.write_text("".join(json.dumps(each) + "\n" for each in events or LOG))
    return file


def main(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = command_line.main(["log", *(str(argument) for argument in arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


DAY = "2026-11-29\n"
"""The day of all events here: the first line that is printed."""


def ids(out: str) -> list[str]:
    return [line.split()[-1] for line in out.splitlines() if "  " in line and not line.startswith("    ")]


def test_log_prints_the_last_failure_of_a_user(tmp_path, capsys):
    file = written(tmp_path / "gateway.log")
    status, out, err = main(capsys, file, "--user", "p7", "--failures", "--last", "1")
    assert (status, err) == (0, "")
    assert out == f"{DAY}10:11:12  401  simpleenroll  192.0.2.1 as p7  wrong user name or password  5.0 ms  d4\n"


def test_log_prints_the_lines_of_scripts_below_their_request(tmp_path, capsys):
    file = written(tmp_path / "gateway.log")
    _, out, _ = main(capsys, file, "--user", "p7", "--failures", "--last", "2")
    assert out.splitlines()[1:4] == [
        logs.request_line(LOG[6]),
        "    authorize: looked up p7",
        "    authorize: and not found",
    ]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], ["a1", "b2", "c3", "d4", "e5", "f6"]),
        (["--failures"], ["b2", "c3", "d4", "e5"]),
        (["--user", "p7"], ["a1", "b2", "d4"]),
        (["--user", "p9"], ["e5"]),  # a certificate whose whole subject is CN=p9
        (["--label", "lab7"], ["b2"]),
        (["--label", "", "--user", "p7"], ["a1", "d4"]),
        (["--last", "2"], ["e5", "f6"]),
    ],
)
def test_log_filters_by_failure_user_label_and_number(tmp_path, capsys, options, wanted):
    status, out, err = main(capsys, written(tmp_path / "gateway.log"), *options)
    assert (status, ids(out), err) == (0, wanted, "")


def test_log_says_in_words_that_nothing_was_found(tmp_path, capsys):
    file = written(tmp_path / "gateway.log")
    status, out, err = main(capsys, file, "--user", "p1\x1b[2J", "--failures", "--label", "lab7")
    assert (status, out) == (1, "")
    assert err == f"estgw: {file}: none of its 6 requests is a failure of user p1\\x1b[2J under label lab7\n"


def test_log_prints_other_lines_of_a_request_below_it_too(tmp_path, capsys):
    events = [event("headers dropped", "a1", handler="x", headers="Server"), request("a1")]
    _, out, _ = main(capsys, written(tmp_path / "gateway.log", *events))
    assert out.splitlines()[2] == "    headers dropped  headers=Server"


def test_log_prints_the_hint_of_a_refusal_at_the_end_or_on_the_next_line(tmp_path, capsys):
    events = [request("a1", 403, hint="short\x1b"), request("a2", 403, hint="long " * 30)]
    _, out, _ = main(capsys, written(tmp_path / "gateway.log", *events))
    lines = out.splitlines()[1:]
    assert len(lines) == 3
    assert lines[0].endswith("  next: short\\x1b")
    assert lines[2].startswith("    next: long long ")


def test_log_shows_a_client_that_went_away_as_a_failure(tmp_path, capsys):
    events = [event("client went away", "a1", operation="simpleenroll", path="/x", user="p7", identity="p7")]
    status, out, _ = main(capsys, written(tmp_path / "gateway.log", *events), "--failures", "--user", "p7")
    assert (status, out) == (0, f"{DAY}10:11:12  gone  simpleenroll  p7  client went away  a1\n")


def test_control_characters_of_a_log_are_escaped(tmp_path, capsys):
    events = [
        event("handler stderr", "a1", handler="simple\x1b[2Jenroll", line="\x1b[31mred\nline"),
        request("a1", 403, identity="p\x1b7", reason="no\r\n10:00:00  200  forged"),
    ]
    _, out, _ = main(capsys, written(tmp_path / "gateway.log", *events))
    assert len(out.splitlines()) == 3
    assert all(line.isprintable() for line in out.splitlines())


@pytest.mark.parametrize("options", [[], ["--last", "4"]])
def test_log_prints_each_date_once_before_its_requests(tmp_path, capsys, options):
    days = ["2026-11-29", "2026-11-29", "2026-11-30", "no date"]
    events = [{**request(f"a{at}"), "timestamp": f"{day}T10:11:12.5Z"} for at, day in enumerate(days)]
    del events[-1]["timestamp"]
    _, out, _ = main(capsys, written(tmp_path / "gateway.log", *events), *options)
    lines = out.splitlines()
    assert [lines[0], lines[3], lines[5]] == ["2026-11-29", "2026-11-30", "no date"]
    assert [line.split()[-1] for line in lines if "simpleenroll" in line] == ["a0", "a1", "a2", "a3"]


def test_log_finds_a_wrong_password_in_the_log_of_a_gateway(gateway, tmp_path, capsys):
    gateway.post("simpleenroll", csr("device-1"), login="p7-of-the-log:wrong")
    (tmp_path / "gateway.log").write_text(gateway.log_text)
    status, out, _ = main(capsys, tmp_path / "gateway.log", "--user", "p7-of-the-log", "--last", "1")
    assert status == 0
    assert "  401  simpleenroll  127.0.0.1 as p7-of-the-log  wrong user name or password  " in out


@pytest.mark.parametrize("last", ["0", "-1", "1001", "x", "1.5"])
def test_log_refuses_a_number_beyond_the_bounds_of_last(tmp_path, capsys, last):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["log", str(written(tmp_path / "gateway.log")), f"--last={last}"])
    assert ended.value.code == 2
    assert f"invalid number from 1 to 1000 value: '{last}'" in capsys.readouterr().err


# Malformed logs.


def test_log_of_a_text_log_says_how_to_get_one_in_json(tmp_path, capsys):
    file = tmp_path / "gateway.log"
    file.write_text("10:11:12  200  simpleenroll\n10:11:13  403  simpleenroll\n")
    status, out, err = main(capsys, file)
    assert (status, out) == (1, "")
    assert (
        f"{file}: 2 lines are not of a log in JSON, the first of them line 1; they are left out. In conf.yaml, " in err
    )
    assert "log: {format: json} makes such a log" in err
    assert "none of its 0 requests is there" in err


@pytest.mark.parametrize("line", [b"[1]", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000, b"NaN", b"x" * 3_000_000])
def test_a_line_that_is_not_json_is_counted_and_the_others_are_read(tmp_path, capsys, line):
    file = written(tmp_path / "gateway.log")
    file.write_bytes(file.read_bytes() + line + b"\n\n" + json.dumps(request("z9")).encode() + b"\n")
    status, out, err = main(capsys, file)
    assert (status, ids(out)[-2:]) == (0, ["f6", "z9"])
    assert f"1 lines are not of a log in JSON, the first of them line {len(LOG) + 1}; they are left out" in err


def test_log_reports_that_the_last_line_is_cut_off(tmp_path, capsys):
    file = written(tmp_path / "gateway.log")
    file.write_bytes(file.read_bytes()[:-20])
    status, out, err = main(capsys, file)
    assert (status, ids(out)) == (0, ["a1", "b2", "c3", "d4", "e5"])
    assert err == f"estgw: {file}: the last line is cut off and left out\n"


@pytest.mark.parametrize(
    "fields", [{"status": "abc"}, {"status": None}, {"ms": []}, {"identity": {}}, {"timestamp": 7}]
)
def test_a_field_of_another_type_does_not_stop_the_log(tmp_path, capsys, fields):
    status, out, _ = main(capsys, written(tmp_path / "gateway.log", request("a1") | fields))
    assert (status, ids(out)) == (0, ["a1"])


def test_a_missing_log_is_named(tmp_path, capsys):
    status, out, err = main(capsys, tmp_path / "nowhere")
    assert (status, out, err) == (1, "", f"estgw: {tmp_path}/nowhere: No such file or directory\n")


def test_a_compressed_log_is_read_as_far_as_it_is_intact(tmp_path, capsys):
    file = tmp_path / "gateway.log.1.gz"
    packed = gzip.compress(written(tmp_path / "plain", *[request(f"{at:010x}") for at in range(5000)]).read_bytes())
    file.write_bytes(packed)
    status, out, err = main(capsys, file, "--last", "1")
    assert (status, ids(out), err) == (0, [f"{4999:010x}"], "")
    file.write_bytes(packed[: len(packed) // 2])
    status, out, err = main(capsys, file)
    assert (status, err) == (0, f"estgw: {file}: the last line is cut off and left out\n")
    assert 0 < len(ids(out)) < 5000
    file.write_bytes(packed[:200] + bytes(200) + packed[400:])
    status, _, err = main(capsys, file)
    assert "Traceback" not in err


def test_log_reads_standard_input(tmp_path, capsys, monkeypatch):
    raw = written(tmp_path / "gateway.log").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    status, out, _ = main(capsys, "-", "--user", "p8")
    assert (status, ids(out)) == (0, ["c3", "f6"])


def test_log_ends_silently_when_its_reader_ends_early(tmp_path):
    file = written(tmp_path / "gateway.log", *[request(f"{at:010x}") for at in range(20_000)])
    line = f"{sys.executable} -m estgw log {file} | head -n 2"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ids(done.stdout), done.stderr) == ([f"{0:010x}"], "")


@pytest.mark.exhaustive
def test_memory_does_not_grow_with_the_log(tmp_path):
    """200 MB of log, with requests that never end and one with many lines, fit in 300 MB of address space."""
    word = json.dumps(event("handler stderr", "HERE", handler="x", line="y" * 4000)).encode() + b"\n"
    script = tmp_path / "script"
    script.write_text(f"""
import sys
word = {word!r}
for at in range(25_000):
    sys.stdout.buffer.write(word.replace(b"HERE", b"%010x" % at))
for at in range(25_000):
    sys.stdout.buffer.write(word)
""")
    limit = 300_000_000
    reading = f"ulimit -v {limit // 1000}; {sys.executable} {script} | {sys.executable} -m estgw log - --last 1000"
    done = subprocess.run(["bash", "-c", reading], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == "estgw: -: none of its 0 requests is there\n"


def test_lines_that_wait_for_their_request_are_limited(monkeypatch):
    monkeypatch.setattr(command, "WAITING", 10_000)
    monkeypatch.setattr(command, "REQUEST", 2_000)
    many = [event("handler stderr", f"{at}", handler="x", line="y" * 100) for at in range(100)]
    much = [event("handler stderr", "z", handler="x", line="y" * 100) for _ in range(100)]
    lines = [*many, *much, request("0"), request("99"), request("z")]
    reader = command.Reader(io.BytesIO("".join(json.dumps(line) + "\n" for line in lines).encode()))
    found = {entry["request_id"]: words for entry, words in reader.entries()}
    assert found["0"] == []
    assert len(found["99"]) == 1
    assert len(found["z"]) < 10
    assert found["z"][-1] == "    [further lines are left out]"
