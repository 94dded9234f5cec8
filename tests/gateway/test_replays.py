"""Replays for the live page: a process of its own for each, and the new record in ring and files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from estgw.config import loading
from estgw.config.model import Recording
from estgw.gateway import replays
from estgw.gateway.replays import Replays
from estgw.record.folder import RecordError
from estgw.record.recorder import Recorder
from tests.kit.csr import csr
from tests.kit.workspace import Workspace
from tests.record.kit import Record, recording

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recorded(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, Path, Record]]:
    own = lab.copy(tmp_path_factory.mktemp("replays") / "lab")
    with recording(own) as running:
        record = running.of(lambda: running.gateway.post("simpleenroll", csr("device-5")))
        running.of(lambda: running.gateway.get("nowhere"))
    yield own, running.gateway.config, record


def settings(config: Path, keep: int = 10) -> Recording:
    return loading.load(config).record.model_copy(update={"keep": keep})


def test_a_replay_becomes_a_record_of_its_own_and_nothing_is_issued(recorded):
    lab, config, origin = recorded
    before = lab.books()

    async def scene() -> tuple[Record, Any]:
        recorder = Recorder(settings(config), config)
        made = dict(await Replays(recorder, config).replay(origin["id"]))
        await asyncio.to_thread(recorder.close)
        return made, await recorder.find(made["id"])

    made, kept = asyncio.run(scene())
    assert (made["kind"], made["of"], made["outcome"]["status"]) == ("replay", origin["id"], 200)
    assert made["id"] != origin["id"]
    assert kept == made
    (file,) = (lab.path / "records").glob(f"*-{made['id']}.json")
    assert json.loads(file.read_text()) == made
    assert lab.books() == before


def test_a_record_in_memory_alone_is_replayed_too(recorded):
    _, config, origin = recorded

    async def scene() -> Record:
        recorder = Recorder(Recording(keep=10), config)
        assert recorder.ring is not None
        recorder.ring.add(origin)
        made = await Replays(recorder, config).replay(origin["id"])
        await asyncio.to_thread(recorder.close)
        return dict(made)

    assert asyncio.run(scene())["of"] == origin["id"]


@pytest.mark.parametrize(
    ("identifier", "words"),
    [("../../etc/passwd", "is no id of a record"), ("0123456789", "has no record 0123456789")],
)
def test_an_id_that_is_not_there_is_refused_in_words(recorded, identifier, words):
    _, config, _ = recorded

    async def scene() -> None:
        await Replays(Recorder(settings(config), config), config).replay(identifier)

    with pytest.raises(RecordError, match=words):
        asyncio.run(scene())


def test_a_configuration_with_a_fault_is_told_in_its_own_words(recorded, tmp_path):
    _, config, origin = recorded
    (tmp_path / "conf.yaml").write_text("server: [")

    async def scene() -> None:
        await Replays(Recorder(settings(config), config), tmp_path / "conf.yaml").replay(origin["id"])

    with pytest.raises(RecordError, match=r"conf\.yaml"):
        asyncio.run(scene())


def test_a_replay_that_takes_too_long_is_ended(recorded, monkeypatch):
    lab, config, origin = recorded
    script = lab.path / "handlers/openssl/simpleenroll"
    before = script.read_text()
    script.write_text("#!/bin/bash\nsleep 25\n")
    monkeypatch.setattr(replays, "SECONDS", 4.0)

    async def scene() -> None:
        await Replays(Recorder(settings(config), config), config).replay(origin["id"])

    try:
        with pytest.raises(RecordError, match="took more than 4 s and was ended"):
            asyncio.run(scene())
    finally:
        script.write_text(before)


def test_too_many_replays_at_once_are_refused(recorded, monkeypatch):
    _, config, origin = recorded
    monkeypatch.setattr(replays, "WAITING", -replays.AT_ONCE)

    async def scene() -> None:
        await Replays(Recorder(settings(config), config), config).replay(origin["id"])

    with pytest.raises(RecordError, match="too many replays at once"):
        asyncio.run(scene())
