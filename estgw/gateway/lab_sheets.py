"""The labs in the page: `estgw lab` for a participant that has a browser alone."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from estgw.gateway import own_program

SECONDS = 90.0
"""How long a check may take: some replay requests."""
_NOT_YET = 3


class LabSheets:
    """Shows, starts and checks the labs of one workspace, one at a time."""

    def __init__(self, config_file: Path) -> None:
        self._config_file = config_file
        self._turn = asyncio.Semaphore(1)

    async def run(self, what: str, number: str) -> tuple[str, str]:
        """What `estgw lab` says, and why it failed or empty; `what` is list, show (Markdown), start or check."""
        arguments = ["lab", what, *([number] if number else []), "-c", str(self._config_file.absolute())]
        arguments += ["--markdown"] if what == "show" else []
        try:
            async with self._turn:
                status, stdout, stderr = await own_program.run(arguments, b"", SECONDS)
        except TimeoutError:  # which is an OSError, too
            return "", f"this took more than {SECONDS:.0f} s and was ended"
        except OSError as fault:
            return "", f"the lab could not be run: {fault.strerror}"
        said = stdout.decode("utf-8", "replace")
        if status not in (0, _NOT_YET):
            words = stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit status {status}"]
            return said, words[-1].removeprefix("estgw: ")
        if what == "start":
            os.kill(os.getpid(), signal.SIGHUP)  # the gateway reads what the lab has added to conf.yaml
        return said, ""
