"""Answers that are repeated without running the handler: `X-EST-Cache: SECONDS` of a script that answers a GET.

An answer may depend on all that the script can see.  So the key is the script's file and its whole environment, except
for the variables that identify one request or one connection.  Requests share an answer only if they differ in nothing
that the script can see.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from estgw.callout.cgi import Output
from estgw.callout.contract import ENV_VARS
from estgw.callout.sources import stamp

MAXIMUM_BYTES = 16 << 20
"""The bound on all kept answers: a client that varies the key, by its query for instance, evicts other answers."""
MAXIMUM_ANSWERS = 1000

_PASSING = frozenset(row.name for row in ENV_VARS if row.passing)


class Cache:
    """The answers of one configuration; a reload begins with an empty one.  `clock` gives seconds."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[float, Output]] = OrderedDict()
        self._bytes = 0
        self._programs: set[Path] = set()

    def get(self, program: Path, environment: Mapping[str, str]) -> Output | None:
        """The kept answer of this handler, if there is one and it has not expired."""
        if program not in self._programs:  # most handlers never ask for it, and the key costs more than this look
            return None
        key = _key(program, environment)
        until, output = self._kept.get(key, (0.0, None))
        if output is not None and time.monotonic() >= until:
            self._drop(key)
            return None
        return output

    def put(self, program: Path, environment: Mapping[str, str], output: Output) -> None:
        """Keep an answer for `output.keep` seconds."""
        size = len(output.body)
        if not output.keep or size > MAXIMUM_BYTES:
            return
        key = _key(program, environment)
        if key in self._kept:
            self._drop(key)
        while self._kept and (len(self._kept) >= MAXIMUM_ANSWERS or self._bytes + size > MAXIMUM_BYTES):
            self._drop(next(iter(self._kept)))
        self._kept[key] = (time.monotonic() + output.keep, output)
        self._bytes += size
        self._programs.add(program)

    def _drop(self, key: bytes) -> None:
        _, output = self._kept.pop(key)
        self._bytes -= len(output.body)


def _key(program: Path, environment: Mapping[str, str]) -> bytes:
    """The key as a digest, because the environment may hold a password."""
    try:
        file: object = stamp(program.stat())
    except OSError:
        file = None  # the script is gone: whatever was kept was another's
    seen = sorted((name, value) for name, value in environment.items() if name not in _PASSING)
    return hashlib.sha256(os.fsencode(repr((str(program), file, seen)))).digest()
