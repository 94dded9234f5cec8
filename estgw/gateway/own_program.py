"""Run `estgw` in a process of its own, out of the event loop's way: it reads the configuration anew."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])
_PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from estgw.cli.main import main; sys.exit(main())"


async def run(arguments: Sequence[str], stdin: bytes, seconds: float) -> tuple[int, bytes, bytes]:
    """The exit status of a command line of `estgw`, and what it printed on standard output and standard error.

    Raises OSError if it can't be started, and TimeoutError when it was ended for taking too long.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", _PROGRAM, _ROOT, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            stdout, stderr = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    assert process.returncode is not None
    return process.returncode, stdout, stderr
