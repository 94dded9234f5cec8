"""One run of a client's command: in a directory of its own, without a shell, bounded in time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO

from estgw.quirks.faults import CannotRunError
from estgw.quirks.kept import MAXIMUM_FILE, STDOUT, Kept, new_files


def run(words: Sequence[str], directory: Path, seconds: float, own: Collection[bytes]) -> Kept:
    """Run a command in a directory and return what it has left behind.

    After `seconds` it is killed, with everything that it has started in its process group.  `own` are the SHA-256 of
    certificates that are not the client's.  Raises `CannotRunError` if there is no such program.
    """
    before = set(new_files(directory, ()))
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                words, cwd=directory, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        except OSError as fault:
            raise CannotRunError(f"{words[0]}: {fault.strerror}") from None
        status: int | None = None
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(seconds)
        finally:
            # What the command left running would meet the next quirk.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        streams = [_head(out), _head(err)]
    files = {STDOUT: streams[0], **new_files(directory, before)}
    return Kept(status, files, streams[1], own)


def _head(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(MAXIMUM_FILE)
