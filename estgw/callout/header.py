"""The head of an environment file: where a child reports to the gateway, and the gateway may stop it.

An environment travels to a child as a file in memory, which both see.  If the warm parent dies, the gateway still finds
the exit status there.  Where one child runs a decision and then the handler, each script has an environment file, and
the heads say how far the child has come.
"""

from __future__ import annotations

import mmap
import os
import struct
import time

_STATUS = struct.Struct("=i")
_ENDED = struct.Struct("=d")
_BEGUN, _STOP, _ENDED_AT = 4, 5, 8
SIZE = 16
"""Bytes before the environment."""
_UNKNOWN = 0x7FFFFFFF


def blank() -> bytes:
    """The head of a script that has not begun."""
    return _STATUS.pack(_UNKNOWN) + bytes(SIZE - _STATUS.size)


def parse(text: bytes) -> dict[bytes, bytes]:
    """An environment from what follows the head: `NAME=value`, each with a final NUL."""
    pairs = (entry.partition(b"=") for entry in text.split(b"\0") if entry)
    return {name: value for name, _, value in pairs}


# By the file's descriptor.


def read(descriptor: int) -> dict[bytes, bytes]:
    """The environment."""
    return parse(os.pread(descriptor, os.fstat(descriptor).st_size, SIZE))


def status(descriptor: int) -> int | None:
    """The exit status, negative for a signal; None as long as none is reported."""
    (code,) = _STATUS.unpack(os.pread(descriptor, _STATUS.size, 0))
    return None if code == _UNKNOWN else code


def ended_at(descriptor: int) -> float:
    """The monotonic time, in seconds, at which the status was reported."""
    (moment,) = _ENDED.unpack(os.pread(descriptor, _ENDED.size, _ENDED_AT))
    return float(moment)


def has_begun(descriptor: int) -> bool:
    """Whether the second script of a child has begun."""
    return os.pread(descriptor, 1, _BEGUN) == b"\1"


def stop(descriptor: int, wanted: bool = True) -> None:
    """Ask the child not to go on to its second script, or take that back."""
    os.pwrite(descriptor, bytes([wanted]), _STOP)


# The child's side.


class Page:
    """The file of one script, mapped into the child's memory: its descriptor may be closed."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, 0)

    def environment(self) -> dict[bytes, bytes]:
        """The variables."""
        return parse(self._map[SIZE:])

    def report(self, code: int) -> None:
        """Report an exit status, negative for a signal, and the time."""
        _ENDED.pack_into(self._map, _ENDED_AT, time.monotonic())
        _STATUS.pack_into(self._map, 0, code)

    def begin(self) -> None:
        """Report that the second script begins."""
        self._map[_BEGUN] = 1

    @property
    def is_stopped(self) -> bool:
        """Whether the gateway does not want the second script any more."""
        return self._map[_STOP] == 1

    def close(self) -> None:
        """Give the memory back."""
        self._map.close()
