"""Programs and processes: run one to its end, wait for a condition, find a free port, see who is alive."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
PATH = "/usr/local/bin:/usr/bin:/bin"
DEADLINE = 60.0
"""Seconds after which a test that waits fails; a busy machine starts a Python program ten times slower."""

T = TypeVar("T")


def run(
    *command: str | Path, stdin: bytes = b"", status: int | None = 0, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, which must be the one expected; None is any."""
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=DEADLINE, check=False, **options)
    assert status is None or done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done


def until(found: Callable[[], T | None]) -> T:
    """Wait for something; a test that waits longer than `DEADLINE` fails."""
    end = time.monotonic() + DEADLINE
    while True:
        if result := found():
            return result
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on, for a server that can't be told to take any."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def dead(pid: int) -> bool:
    return not alive(pid)
