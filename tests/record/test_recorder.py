"""The recorder of one process: its thread, its bounds, and what a fault costs."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import structlog

from estgw.config.model import Recording
from estgw.errors import ConfigError
from estgw.record import recorder as recorders
from estgw.record.recorder import Recorder, recorder
from estgw.record.ring import Ring
from tests.record.test_folder import sound


def numbered(number: int, **changes: Any) -> dict[str, Any]:
    return sound(id=f"{number:010x}", **changes)


def into(directory: Path, keep: int = 0) -> Recording:
    """The settings for files in a directory."""
    return Recording(keep=keep).model_copy(update={"dir": directory})


def recorded(tmp_path: Path, count: int, settings: Recording) -> Recorder:
    """A recorder that has been given so many records and has ended."""

    async def scene() -> Recorder:
        made = Recorder(settings, tmp_path / "conf.yaml")
        for number in range(count):
            made.add(numbered(number))
        await asyncio.to_thread(made.close)
        await asyncio.sleep(0)
        return made

    return asyncio.run(scene())


def test_nothing_is_made_where_nothing_is_recorded(tmp_path):
    before = threading.active_count()
    assert recorder(Recording(), tmp_path / "conf.yaml") is None
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []


def test_records_reach_ring_and_files_in_their_order(tmp_path):
    made = recorded(tmp_path, 20, into(tmp_path / "records", keep=10))
    assert made.ring is not None
    assert [record["id"] for _, record in made.ring.since(0)] == [f"{number:010x}" for number in range(10, 20)]
    files = sorted((tmp_path / "records").iterdir())
    assert [json.loads(path.read_text())["id"] for path in files] == [f"{number:010x}" for number in range(20)]


def test_records_are_made_in_a_thread_of_their_own(tmp_path):
    threads = []

    class Noted(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            threads.append(threading.current_thread().name)
            return super().__getitem__(key)

    async def scene() -> None:
        made = Recorder(into(tmp_path / "records"), tmp_path / "conf.yaml")
        made.add(Noted(numbered(1)))
        await asyncio.to_thread(made.close)

    asyncio.run(scene())
    assert set(threads) == {"record"}


def test_a_ring_alone_writes_no_file(tmp_path):
    made = recorded(tmp_path, 3, Recording(keep=10))
    assert made.ring is not None
    assert made.ring.last == 3
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_refuses_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as refused:
        recorder(into(tmp_path / "file/records"), tmp_path / "conf.yaml")
    assert refused.value.faults == [f"record.dir: {tmp_path}/file/records: Not a directory"]


def test_a_full_queue_loses_records_and_delays_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(recorders, "WAITING", 5)
    held = threading.Event()

    class Slow(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            held.wait(10)
            return super().__getitem__(key)

    async def scene() -> tuple[Recorder, float]:
        made = Recorder(into(tmp_path / "records"), tmp_path / "conf.yaml")
        started = time.monotonic()
        made.add(Slow(numbered(0)))
        for number in range(1, 50):
            made.add(numbered(number))
        spent = time.monotonic() - started
        held.set()
        await asyncio.to_thread(made.close)
        return made, spent

    with structlog.testing.capture_logs() as lines:
        _, spent = asyncio.run(scene())
    assert spent < 1
    assert len(list((tmp_path / "records").iterdir())) == 5
    assert [line["event"] for line in lines] == ["records are lost"], "one warning a minute"


def test_a_record_that_cannot_be_made_costs_that_record_alone(tmp_path):
    async def scene() -> None:
        made = Recorder(into(tmp_path / "records"), tmp_path / "conf.yaml")
        made.add({"id": "no time in it"})
        made.add(numbered(1))
        await asyncio.to_thread(made.close)

    with structlog.testing.capture_logs() as lines:
        asyncio.run(scene())
    assert [line["event"] for line in lines] == ["a record is lost"]
    assert len(list((tmp_path / "records").iterdir())) == 1


def test_no_thread_left_costs_records_and_no_request(tmp_path, monkeypatch):
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scene() -> None:
        made = Recorder(Recording(keep=5), tmp_path / "conf.yaml")
        made.add(numbered(1))
        made.add(numbered(2))
        made.close()

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with structlog.testing.capture_logs() as lines:
        asyncio.run(scene())
    assert len(lines) == 1
    assert "no process or thread can be started" in lines[0]["reason"]


@pytest.mark.parametrize("requests", [5_000, pytest.param(50_000, marks=[pytest.mark.slow, pytest.mark.exhaustive])])
def test_memory_stays_within_its_bound_over_many_requests(requests):
    bound = 1 << 20
    ring = Ring(10_000, bound)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(requests):
            text = json.dumps(numbered(number, text=f"{number:010}" * 20))
            ring.add(json.loads(text))
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ring.last == requests
    kept = ring.since(0)
    assert len(kept) > 200
    assert used < 1.25 * bound, used
