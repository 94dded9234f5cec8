"""Distinguish a machine that is short of a resource from a bug, and say what to raise or lower."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Mapping
from typing import Any

from estgw.logs import log

_DESCRIPTORS = "no descriptor is free: raise `ulimit -n`, or lower server.max_connections or callouts.max_running"
_STARTS = "no process or thread can be started: raise `ulimit -u` or systemd's TasksMax, or lower callouts.max_running"
_MEMORY = "no memory is free: lower callouts.max_running or server.max_connections, or add some"
_SPACE = "no space is left on a device: make room"

_BY_NUMBER: Mapping[int, str] = {
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: "no descriptor is free on the whole machine: raise fs.file-max",
    errno.EAGAIN: _STARTS,
    errno.ENOMEM: _MEMORY,
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: "a disk quota is used up: make room",
}
_BY_SQLITE: Mapping[str, str] = {"SQLITE_FULL": _SPACE, "SQLITE_NOMEM": _MEMORY}

PUBLIC = "The server is short of resources; try again later."
"""The sentence for the client."""
QUIET = 10.0
"""Seconds between two log lines about the same shortage outside a request."""
_said: dict[str, float] = {}


def words(fault: BaseException | None) -> str | None:
    """The words for the shortage that this fault, or a cause of it, reports; None if there is none."""
    while fault is not None:
        if found := _words(fault):
            return found
        fault = fault.__cause__
    return None


def _words(fault: BaseException) -> str | None:
    match fault:
        case MemoryError():
            return _MEMORY
        case OSError():
            found = _BY_NUMBER.get(fault.errno or 0)
            return f"{found} ({fault.filename})" if found and fault.filename else found
        case RuntimeError() if str(fault) == "can't start new thread":
            return _STARTS
    return _BY_SQLITE.get(getattr(fault, "sqlite_errorname", ""))


def report(event: str, fault: BaseException) -> bool:
    """Log a shortage, at most every `QUIET` seconds.  Returns whether the fault was one."""
    found = words(fault)
    if found is None:
        return False
    key, now = f"{event}: {found}", time.monotonic()
    if now - _said.get(key, -QUIET) >= QUIET:
        _said[key] = now
        log.error(event, reason=found)
    return True


def note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An event loop's exception handler: one line for a shortage, the usual traceback for anything else."""
    fault = context.get("exception")
    if fault is None or not report(str(context.get("message")), fault):
        loop.default_exception_handler(context)
