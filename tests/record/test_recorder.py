"""The recorder of one process: its thread, its bounds, and what a fault costs."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import structlog

from estgw.config.model import Recording
from estgw.errors import ConfigError
from estgw.record.recorder import Recorder, recorder
from estgw.record.ring import Ring
from tests.callout import calls
from tests.record.tapes import taped, verdict
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
    assert [kept.id for _, kept in made.ring.since(0)] == [f"{number:010x}" for number in range(10, 20)]
    files = sorted((tmp_path / "records").iterdir())
    assert [json.loads(path.read_text())["id"] for path in files] == [f"{number:010x}" for number in range(20)]


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


def test_a_request_in_memory_alone_needs_no_thread(tmp_path):
    async def scene() -> Recorder:
        made = Recorder(Recording(keep=5), tmp_path / "conf.yaml")
        before = threading.active_count()
        made.keep(taped(calls.full(tmp_path)), verdict)
        made.close()
        assert threading.active_count() == before
        return made

    made = asyncio.run(scene())
    assert made.ring is not None
    (kept,) = (entry for _, entry in made.ring.since(0))
    assert kept.record()["request"]["csr"]["subject"] == "CN=device-1,O=Ours"


def test_a_record_that_cannot_be_made_costs_that_record_alone(tmp_path):
    broken = taped(calls.full(tmp_path))
    broken.callouts.append(None)  # type: ignore[arg-type]

    async def scene() -> Recorder:
        made = Recorder(Recording(keep=5), tmp_path / "conf.yaml")
        made.keep(broken, verdict)
        made.keep(taped(calls.full(tmp_path)), verdict)
        made.close()
        return made

    with structlog.testing.capture_logs() as lines:
        made = asyncio.run(scene())
    assert [line["event"] for line in lines] == ["a record is lost"]
    assert made.ring is not None
    assert made.ring.last == 1


@pytest.mark.parametrize("requests", [1_500, pytest.param(50_000, marks=[pytest.mark.slow, pytest.mark.exhaustive])])
def test_memory_stays_within_its_bound_over_many_requests(requests):
    """What a request left behind would be 8 bytes at least, a reference; over 1,000 requests that shows."""
    bound = 1 << 20
    ring = Ring(10_000, bound)
    gc.collect()
    tracemalloc.start()
    try:
        taken = []
        for last in (500, requests):
            for number in range(ring.last, last):
                text = json.dumps(numbered(number, text=f"{number:010}" * 20))
                ring.add(json.loads(text))
            gc.collect()
            taken.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert ring.last == requests
    assert 200 < len(ring.since(0)) < 400  # it was full at 500
    full, later = taken
    assert full < 1.25 * bound, full
    assert later - full < 6_000, taken
