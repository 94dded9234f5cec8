"""Records of one gateway process: made and written by a thread, kept in memory for the live page.

Theory of operation.  The event loop fills a tape for each request and puts it into a queue when the answer is ready.
One thread takes the tapes in their order, makes the record of each, writes it as JSON if files are wanted, and hands
record and size to the event loop, which adds it to the ring.  So nothing is built, written or serialised on the event
loop.  If the thread can't keep up, records are lost and not requests: the queue is bounded in number and in bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from estgw.callout import shortage
from estgw.config.model import Recording
from estgw.errors import ConfigError
from estgw.est import certs
from estgw.logs import log, new_request_id
from estgw.record import build, folder, ring
from estgw.record.build import Digests
from estgw.record.explain import Bindings
from estgw.record.folder import Folder, RecordError, file_name
from estgw.record.ring import Record, Ring
from estgw.record.tape import Connection, Tape, Verdict

WAITING = 1000
"""Records that may wait for the thread."""
WAITING_BYTES = 64 << 20
"""Bytes of bodies and outputs that may wait for it."""
FIXED = 24 << 10
"""Bytes that a record takes in memory without bodies and outputs."""
REPEATED = 4
"""How often a record repeats a body at most: as base64, as a CSR, and in the environment of two scripts."""
PAUSE = 0.02
"""Seconds that the thread waits for more records before it begins: each time it wakes costs the event loop a moment."""
QUIET = 60.0
"""Seconds between two warnings that records are lost."""
PATIENCE = 5.0
"""Seconds that the end of the process waits for records that are not written yet."""


@dataclass(frozen=True)
class _Job:
    make: Callable[[], Record]
    size: int
    """Bytes that it holds while it waits, roughly."""


def recorder(settings: Recording, config_file: Path) -> Recorder | None:
    """The recorder of a gateway process; None if nothing is recorded.  Raises `ConfigError`."""
    if not settings.is_on:
        return None
    try:
        return Recorder(settings, config_file)
    except OSError as fault:
        raise ConfigError([f"record.dir: {fault.filename}: {fault.strerror}"]) from None


class Recorder:
    """What a gateway process records."""

    def __init__(self, settings: Recording, config_file: Path) -> None:
        """Make the directory for the files, if there is one.  Raises OSError."""
        self.ring = Ring(settings.keep, settings.memory) if settings.keep else None
        """The newest records, for the live page; None: `record.keep` is 0."""
        self.bindings = Bindings()
        self.numbers = itertools.count(1)
        """Of the connections."""
        self._directory = settings.dir
        self._folder = Folder(settings.dir, settings.files) if settings.dir else None
        self._scripts_from = config_file.absolute().parent
        self._digests = Digests()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._jobs = self._bytes = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._warned: dict[str, float] = {}

    def keep(self, tape: Tape, verdict: Verdict) -> None:
        """Record a request whose answer is ready.  On the event loop."""
        ended = time.monotonic()
        if verdict.issued is not None:
            _read(verdict.issued)
        size = len(tape.call.http.body) if tape.call else 0
        size += len(verdict.reply.body) if verdict.reply else 0
        size += sum(len(ran.outcome.stdout) + len(ran.outcome.stderr) for ran in tape.callouts if ran.outcome)
        self._put(lambda: build.record(tape, verdict, self._scripts_from, self._digests, ended), size)

    def failed(self, connection: Connection, reason: str, hint: str | None) -> None:
        """Record a handshake that has failed.  On the event loop."""
        identifier = new_request_id()
        self._put(lambda: build.handshake(identifier, connection, reason, hint), 0)

    def add(self, record: Record) -> None:
        """Keep a record that is made already, such as that of a replay.  On the event loop."""
        self._put(lambda: record, 0)

    async def find(self, identifier: str) -> Record:
        """The record with that id, in memory or as a file; raises `RecordError`."""
        found = self.ring.get(folder.require_id(identifier)) if self.ring is not None else None
        if found is not None:
            return found
        if self._directory is None:
            raise RecordError(f"{identifier}: no such record, or it is gone (record.keep)")
        return await asyncio.to_thread(_from_file, self._directory, identifier)

    def close(self) -> None:
        """Write what waits, and end the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(PATIENCE)

    def _put(self, make: Callable[[], Record], size: int) -> None:
        self._loop = asyncio.get_running_loop()
        with self._lock:
            if self._jobs >= WAITING or self._bytes + size > WAITING_BYTES:
                is_full = True
            else:
                is_full = False
                self._jobs += 1
                self._bytes += size
        if is_full:
            self._warn("more records wait to be written than fit in memory; the requests are not delayed")
        elif self._is_running():
            self._queue.put(_Job(make, size))

    def _is_running(self) -> bool:
        """Start the thread if it does not run; False if the machine has none."""
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="record", daemon=True)
            try:
                thread.start()
            except RuntimeError as fault:
                self._warn(shortage.words(fault) or str(fault))
                with self._lock:
                    self._jobs = self._bytes = 0
                return False
            self._thread = thread
        return True

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            time.sleep(PAUSE)
            made = []
            while True:
                try:
                    made.append(self._do(job))
                except Exception:  # noqa: BLE001 - a fault here costs one record
                    log.exception("a record is lost")
                with self._lock:
                    self._jobs -= 1
                    self._bytes -= job.size
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    self._queue.put(None)  # for the outer loop
                    break
                job = following
            self._hand_over(made)

    def _hand_over(self, made: list[tuple[Record, int]]) -> None:
        """Give records to the ring, all in one turn of the event loop."""
        kept, loop = self.ring, self._loop
        if kept is None or loop is None:
            return

        def add() -> None:
            for record, size in made:
                kept.add(record, size)

        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(add)

    def _do(self, job: _Job) -> tuple[Record, int]:
        record = job.make()
        if self._folder is None:
            return record, FIXED + REPEATED * job.size
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        content = text.encode("utf-8", "backslashreplace")  # a header may have lone surrogates
        try:
            self._folder.write(file_name(record), content)
        except OSError as fault:
            self._warn(self._folder.words(fault))
        return record, ring.in_memory(len(content))

    def _warn(self, reason: str) -> None:
        """Say that records are lost, once a minute for each reason."""
        now = time.monotonic()
        if now - self._warned.get(reason, -QUIET) >= QUIET:
            self._warned[reason] = now
            log.warning("records are lost", reason=reason)


def _from_file(directory: Path, identifier: str) -> Record:
    return folder.read(folder.find(directory, identifier))


def _read(certificate: x509.Certificate) -> None:
    """Let cryptography parse what a record shows: it warns of odd names, and warnings are silenced for all threads."""
    with certs.without_warnings():
        _ = certificate.subject, certs.san(certificate)
