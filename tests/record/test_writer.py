"""The thread that writes records: its bounds, and what a fault costs."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import structlog

from estgw.record import writer as writers
from estgw.record.folder import Folder
from estgw.record.writer import Writer
from tests.record.test_folder import sound


def numbered(number: int) -> dict[str, Any]:
    return sound(id=f"{number:010x}")


def writer(tmp_path: Path) -> Writer:
    return Writer(Folder(tmp_path / "records", 100))


def test_records_are_made_in_a_thread_of_their_own(tmp_path):
    threads = []

    def make() -> dict[str, Any]:
        threads.append(threading.current_thread().name)
        return numbered(1)

    made = writer(tmp_path)
    made.put(make, 0)
    made.close()
    assert threads == ["record"]
    assert len(list((tmp_path / "records").iterdir())) == 1


def test_a_full_queue_loses_records_and_delays_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "WAITING", 5)
    held = threading.Event()

    def slow() -> dict[str, Any]:
        held.wait(10)
        return numbered(0)

    made = writer(tmp_path)
    with structlog.testing.capture_logs() as lines:
        started = time.monotonic()
        made.put(slow, 0)
        for number in range(1, 50):
            made.put(lambda number=number: numbered(number), 0)  # type: ignore[misc]
        spent = time.monotonic() - started
        held.set()
        made.close()
    assert spent < 1
    assert len(list((tmp_path / "records").iterdir())) == 5
    assert [line["event"] for line in lines] == ["records are lost"], "one warning a minute"


def test_records_that_hold_too_many_bytes_while_they_wait_are_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "WAITING_BYTES", 1000)
    made = writer(tmp_path)
    with structlog.testing.capture_logs() as lines:
        made.put(lambda: numbered(1), 600)
        made.put(lambda: numbered(2), 600)
        made.close()
    assert [path.name[20:30] for path in (tmp_path / "records").iterdir()] == [numbered(1)["id"]]
    assert [line["event"] for line in lines] == ["records are lost"]


def test_a_record_that_cannot_be_made_costs_that_record_alone(tmp_path):
    made = writer(tmp_path)
    with structlog.testing.capture_logs() as lines:
        made.put(lambda: {"id": "no time in it"}, 0)
        made.put(lambda: numbered(1), 0)
        made.close()
    assert [line["event"] for line in lines] == ["a record is lost"]
    assert len(list((tmp_path / "records").iterdir())) == 1


def test_no_thread_left_costs_records_and_no_request(tmp_path, monkeypatch):
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    made = writer(tmp_path)
    with structlog.testing.capture_logs() as lines:
        made.put(lambda: numbered(1), 0)
        made.put(lambda: numbered(2), 0)
        made.close()
    assert len(lines) == 1
    assert "no process or thread can be started" in lines[0]["reason"]
