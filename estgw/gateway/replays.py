"""Replays for the live page: `estgw replay` in a process of its own, out of the event loop's way.

The gateway's own process serves clients meanwhile, and a replay can't change its state: it reads the configuration
anew, and ends with its copy of the CA.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from estgw.gateway import own_program
from estgw.record import folder
from estgw.record.folder import RecordError
from estgw.record.recorder import Recorder
from estgw.record.ring import Record

AT_ONCE = 2
"""Replays that run at the same time; others wait."""
SECONDS = 120.0
"""How long a replay may take, its copy of the CA included."""
WAITING = 16
"""Replays that may wait."""
_DONE = (0, 3)
"""Exit statuses of a replay whose outcome is the same, or differs."""


class Replays:
    """Repeats recorded requests of one gateway process."""

    def __init__(self, recorder: Recorder, config_file: Path) -> None:
        self._recorder = recorder
        self._config_file = config_file
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._asked = 0

    async def replay(self, identifier: str) -> Record:
        """Replay the record with that id; the new record, of kind `replay`, which the ring and the files get, too.

        Raises `RecordError` in words for a person.
        """
        origin = await self._recorder.find(identifier)
        if self._asked >= AT_ONCE + WAITING:
            raise RecordError("too many replays at once; try again soon")
        self._asked += 1
        try:
            async with self._slots:
                made = await self._run(json.dumps(origin).encode())
        finally:
            self._asked -= 1
        self._recorder.add(made)
        return made

    async def _run(self, origin: bytes) -> Record:
        arguments = ["replay", "-", "--json", "-c", str(self._config_file.absolute())]
        try:
            status, stdout, stderr = await own_program.run(arguments, origin, SECONDS)
        except TimeoutError:  # which is an OSError, too
            raise RecordError(f"the replay took more than {SECONDS:.0f} s and was ended") from None
        except OSError as fault:
            raise RecordError(f"a replay could not start: {fault.strerror}") from None
        if status not in _DONE:
            words = stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit status {status}"]
            raise RecordError(words[-1].removeprefix("estgw: "))
        return folder.parse(json.dumps(json.loads(stdout)["record"]).encode(), "the replay")
