"""Records of one gateway process, kept in memory for the live page and written to files.

Theory of operation.  The event loop fills a tape for each request.  A moment after the answer it makes a draft of the
tape, which has no secrets any more, and puts it into the ring.  Nothing is described there until somebody looks, and a
record in memory needs no thread.  For files, a thread makes the record of each draft and writes it (`writer`).
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from collections.abc import Callable
from pathlib import Path

from estgw.config.model import Recording
from estgw.errors import ConfigError
from estgw.logs import log, new_request_id
from estgw.record import build, folder
from estgw.record.build import Kept
from estgw.record.digests import Digests
from estgw.record.draft import draft
from estgw.record.explain import Bindings
from estgw.record.folder import Folder, RecordError
from estgw.record.ring import Made, Record, Ring
from estgw.record.tape import Connection, Tape, Verdict
from estgw.record.writer import Writer

GATHER = 0.2
"""Seconds in which tapes gather: one draft after the other costs less, as the processor has the code at hand."""
AT_ONCE = 32
"""Tapes that wait at most."""


def recorder(settings: Recording, config_file: Path) -> Recorder | None:
    """The recorder of a gateway process; None if nothing is recorded.  Raises `ConfigError`."""
    if not settings.is_on:
        return None
    try:
        return Recorder(settings, config_file)
    except OSError as fault:
        raise ConfigError([f"record.dir: {fault.filename}: {fault.strerror}"]) from None


class Recorder:
    """What a gateway process records.  Its methods are for the event loop."""

    def __init__(self, settings: Recording, config_file: Path) -> None:
        """Make the directory for the files, if there is one.  Raises OSError."""
        self.ring = Ring(settings.keep, settings.memory) if settings.keep else None
        """The newest records, for the live page; None: `record.keep` is 0."""
        self.bindings = Bindings()
        self._directory = settings.dir
        self._writer = Writer(Folder(settings.dir, settings.files)) if settings.dir else None
        self._digests = Digests(config_file.absolute().parent)
        self._waiting: list[tuple[Tape, Callable[[], Verdict], float]] = []

    def keep(self, tape: Tape, end: Callable[[], Verdict]) -> None:
        """Record a request whose answer is ready, a moment later; `end` completes the tape then."""
        self._waiting.append((tape, end, time.monotonic()))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(GATHER, self._draft_all, context=contextvars.Context())
        elif len(self._waiting) >= AT_ONCE:
            self._draft_all()

    def _draft_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            self._draft(*each)

    def _draft(self, tape: Tape, end: Callable[[], Verdict], ended: float) -> None:
        try:
            made = draft(tape, end(), self._digests, ended, for_thread=self._writer is not None)
            kept = Kept(made.pack())
        except Exception:  # noqa: BLE001 - a fault here costs one record
            log.exception("a record is lost", request_id=tape.id)
            return
        finally:
            tape.clear()
        if self.ring is not None:
            self.ring.put(kept)
        if self._writer is not None:
            self._writer.put(functools.partial(build.record, made), 2 * kept.size)

    def failed(self, connection: Connection, reason: str, hint: str | None) -> None:
        """Record a handshake that has failed."""
        self.add(build.handshake(new_request_id(), connection, reason, hint))

    def add(self, record: Record) -> None:
        """Keep a record that is made already, such as that of a replay."""
        made = Made(record)
        if self.ring is not None:
            self.ring.put(made)
        if self._writer is not None:
            self._writer.put(made.record, made.size)

    async def find(self, identifier: str) -> Record:
        """The record with that id, in memory or as a file; raises `RecordError`."""
        self._draft_all()
        found = self.ring.get(folder.require_id(identifier)) if self.ring is not None else None
        if found is not None:
            return found.record()
        if self._directory is None:
            raise RecordError(f"{identifier}: no such record, or it is gone (record.keep)")
        return await asyncio.to_thread(_from_file, self._directory, identifier)

    def close(self) -> None:
        """Record what waits, and write it."""
        self._draft_all()
        if self._writer is not None:
            self._writer.close()


def _from_file(directory: Path, identifier: str) -> Record:
    return folder.read(folder.find(directory, identifier))
