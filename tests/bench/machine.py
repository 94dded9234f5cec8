"""Measurements: CPU time and memory of a server with all its processes, and the noise of the machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu(pid: int) -> float:
    """Seconds of CPU of a process, its descendants, and the ended processes that these have waited for."""
    return sum(sum(map(int, fields[11:15])) for fields in _tree(pid)) / _TICKS


def cpu_alive(pid: int) -> float:
    """The same without ended processes: a server without its scripts.

    Two of the servers ignore SIGCHLD, so the time of their scripts can't be measured.
    """
    return sum(sum(map(int, fields[11:13])) for fields in _tree(pid)) / _TICKS


def cpu_itself(pid: int) -> float:
    """Seconds of CPU of the process alone."""
    return sum(map(int, _stat(pid)[11:13])) / _TICKS


def cpu_of_children(pid: int) -> float:
    """Seconds of CPU of the process's living children, each alone."""
    return sum(sum(map(int, _stat(child)[11:13])) for child in _children(pid)) / _TICKS


def faults(pid: int) -> int:
    """Page faults of a process's descendants, ended or not, without its living children themselves.

    A page that a child copies because it was forked is one of them.
    """
    parents = sum(int(_stat(child)[7]) for child in _children(pid))
    return sum(sum(map(int, fields[7:9])) for fields in _tree(pid)) - int(_stat(pid)[7]) - parents


def resident(pid: int) -> float:
    """Megabytes of memory of the process itself."""
    return int(_stat(pid)[21]) * _PAGE / 1e6


def _stat(pid: int) -> list[str]:
    """The fields of proc_pid_stat(5) from the third on; the second may contain any character."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _tree(pid: int) -> Iterator[list[str]]:
    try:
        fields, below = _stat(pid), _children(pid)
    except OSError:  # it has just ended, and its time counts for its parent
        return
    yield fields
    for child in below:
        yield from _tree(child)


def loop() -> float:
    """Milliseconds of a fixed piece of work, which differ only by the noise of the machine."""
    began = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"the same", b"each time", 40_000)
    return (time.perf_counter() - began) * 1000


def start() -> float:
    """Milliseconds that `bash -c :` takes."""
    began = time.perf_counter()
    subprocess.run(["bash", "-c", ":"], check=True)
    return (time.perf_counter() - began) * 1000
