"""Records as files: what is written, what is removed, and what is refused when it is read."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from estgw.record import folder
from estgw.record.folder import Folder, RecordError
from estgw.record.gates import GATES


def sound(**changes: Any) -> dict[str, Any]:
    """The least that counts as a record."""
    gates = [{"name": gate.value, "result": "skip", "reason": "", "ms": 0.0} for gate in GATES]
    made: dict[str, Any] = {
        "format": 1,
        "id": "0123456789",
        "at": "2026-11-29T15:02:37.114Z",
        "kind": "request",
        "connection": {"number": 1, "request": 1, "peer": "127.0.0.1", "port": 50000, "at": "2026-11-29T15:02:37.014Z"},
        "tls": {},
        "gates": gates,
        "callouts": [],
        "outcome": {"status": None, "gate": None, "reason": "", "hint": None},
        "ms": 1.5,
    }
    return made | changes


def refusal(path: Path) -> str:
    with pytest.raises(RecordError) as refused:
        folder.read(path)
    return str(refused.value).removeprefix(f"{path}: ")


def name(number: int) -> str:
    return f"20261129T15000{number}.000-000000000{number}.json"


def test_a_record_is_written_privately_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        made = Folder(tmp_path / "records", 10)
        made.write(name(1), b"{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "records").stat().st_mode) == 0o700
    (file,) = (tmp_path / "records").iterdir()
    assert (file.name, file.read_text(), stat.S_IMODE(file.stat().st_mode)) == (name(1), "{}", 0o600)


def test_the_name_has_the_time_and_the_id():
    assert folder.file_name(sound()) == "20261129T150237.114-0123456789.json"


def test_the_oldest_files_go_and_other_files_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("a person's own")
    made = Folder(tmp_path, 2)
    for number in range(5):
        made.write(name(number), b"{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name(3), name(4), "notes.txt"]


def test_an_incomplete_file_of_a_killed_process_is_removed_and_a_fresh_one_stays(tmp_path):
    old, fresh = tmp_path / f".{name(1)}.part", tmp_path / f".{name(2)}.part"
    for path in (old, fresh):
        path.write_text("{")
    os.utime(old, (time.time() - 100, time.time() - 100))
    Folder(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == [fresh.name]
    assert folder.names(tmp_path) == []


def test_a_fault_while_writing_leaves_nothing(tmp_path, monkeypatch):
    made = Folder(tmp_path, 10)
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        made.write(name(1), b"{}")
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path):
    made = Folder(tmp_path / "records", 10)
    (tmp_path / "records" / f".{name(1)}.part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        made.write(name(1), b"{}")
    assert not (tmp_path / "elsewhere").exists()


# Reading.


def test_a_record_is_found_by_its_id(tmp_path):
    path = tmp_path / folder.file_name(sound())
    path.write_text(json.dumps(sound()))
    assert folder.find(tmp_path, "0123456789") == path
    assert folder.read(path)["id"] == "0123456789"


@pytest.mark.parametrize("text", ["../0123456789", "0123456789/", "", "012345678", "0123456789a", "ABCDEF0123", "*"])
def test_an_id_that_is_none_is_refused(tmp_path, text):
    with pytest.raises(RecordError, match="is no id of a record"):
        folder.find(tmp_path, text)


def test_an_id_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RecordError, match="has no record 0123456789"):
        folder.find(tmp_path, "0123456789")


def test_a_missing_directory_names_the_setting(tmp_path):
    with pytest.raises(RecordError, match=r"No such file or directory; `record: \{dir: records\}`"):
        folder.names(tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no record: it is not JSON, or is cut off"),
        (json.dumps(sound())[:-10], "no record: it is not JSON, or is cut off"),
        ("[" * 100_000, "no record: it is not JSON, or is cut off"),
        ("[]", 'JSON, and no record: it has no "format"'),
        ("{}", 'JSON, and no record: it has no "format"'),
        (json.dumps(sound(format=2)), "a record of format 2, and this version of estgw reads format 1"),
        (json.dumps(sound(format="x" * 1000)), f"a record of format {'x' * 40}, and"),
        (json.dumps(sound(id="../../etc")), 'no sound record: "id" or "kind" has an impossible value'),
        (json.dumps(sound(kind="story")), 'no sound record: "id" or "kind" has an impossible value'),
        (json.dumps(sound(gates=[])), 'no sound record: "gates" are not the eight, in their order'),
        (json.dumps(sound(gates=[1] * 8)), 'no sound record: "gates" is missing or not of the kind: list of objects'),
        (
            json.dumps(sound(callouts=["x"])),
            'no sound record: "callouts" is missing or not of the kind',
        ),
        (json.dumps(sound(request="x")), 'no sound record: "request" is missing or not of the kind: object or null'),
        (json.dumps(sound(outcome=None)), 'no sound record: "outcome" is missing or not of the kind: object'),
        (json.dumps(sound(ms=float("nan"))), 'no sound record: "ms" is missing or not of the kind: number'),
        (json.dumps(sound(at="2026-11-29T15:02:37")), 'no sound record: "at" is missing or not of the kind: time'),
        (json.dumps(sound(label="\ud800")), 'no sound record: "label" is missing or not of the kind: text or null'),
    ],
)
def test_what_is_no_record_is_refused_in_words(tmp_path, content, words):
    path = tmp_path / "record.json"
    path.write_text(content)
    assert refusal(path).startswith(words)


def test_a_file_of_one_gibibyte_is_refused_at_once(tmp_path):
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    started = time.monotonic()
    assert refusal(path) == "larger than 16 MiB, so it is no record"
    assert time.monotonic() - started < 2


def test_unknown_keys_are_ignored(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(sound(invented_later={"a": 1})))
    assert folder.read(path)["kind"] == "request"


# The configuration.


def test_a_directory_that_can_be_made_is_no_fault_and_is_not_made_by_the_check(tmp_path):
    assert folder.faults(tmp_path / "records") == []
    assert not (tmp_path / "records").exists()


def test_faults_of_the_directory_are_sentences(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    assert folder.faults(tmp_path / "file") == [f"record.dir: {tmp_path}/file is no directory"]
    assert folder.faults(tmp_path / "none/records") == [
        f"record.dir: {tmp_path}/none is no directory, so records can't be made in it"
    ]
    (fault,) = folder.faults(tmp_path / "open")
    assert fault.endswith(f"chmod 700 {tmp_path}/open")
