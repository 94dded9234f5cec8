"""Records to files: a thread makes them from what the event loop hands over, and writes them.

If the thread can't keep up, files are lost and not requests: the queue is bounded in number and in bytes.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from estgw.callout import shortage
from estgw.logs import log
from estgw.record.folder import Folder, file_name
from estgw.record.ring import Record

WAITING = 1000
"""Records that may wait for the thread."""
WAITING_BYTES = 64 << 20
"""Bytes of them, roughly."""
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


class Writer:
    """Writes the records of one process into a folder; its thread begins with the first one."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._jobs = self._bytes = 0
        self._thread: threading.Thread | None = None
        self._warned: dict[str, float] = {}

    def put(self, make: Callable[[], Record], size: int) -> None:
        """Write a record, which the thread makes.  `size` is the bytes that it holds until then."""
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

    def close(self) -> None:
        """Write what waits, and end the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(PATIENCE)

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
        while True:
            is_first = self._queue.empty()
            job = self._queue.get()
            if job is None:
                return
            if is_first:
                time.sleep(PAUSE)
            try:
                self._write(job.make())
            except Exception:  # noqa: BLE001 - a fault here costs one record
                log.exception("a record is lost")
            with self._lock:
                self._jobs -= 1
                self._bytes -= job.size

    def _write(self, record: Record) -> None:
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        content = text.encode("utf-8", "backslashreplace")  # a header may have lone surrogates
        try:
            self._folder.write(file_name(record), content)
        except OSError as fault:
            self._warn(self._folder.words(fault))

    def _warn(self, reason: str) -> None:
        """Say that records are lost, once a minute for each reason."""
        now = time.monotonic()
        if now - self._warned.get(reason, -QUIET) >= QUIET:
            self._warned[reason] = now
            log.warning("records are lost", reason=reason)
