"""Viewers of a page: a token each, and the records that they may see."""

from __future__ import annotations

import asyncio
import re
import stat
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from estgw.config.fields import LABEL
from estgw.record.ring import Entry, Ring

TOKEN = re.compile("[0-9a-f]{32}")
MOST = 1000
"""Tokens of one page."""
_SIZE = 256 << 10


class View:
    """The records of a ring, or those of one label: what one viewer sees."""

    def __init__(self, ring: Ring, label: str | None = None) -> None:
        """`label` is the only one to be seen; None is all, requests without one and failed handshakes included."""
        self._ring = ring
        self.label = label

    @property
    def last(self) -> int:
        """The number of the newest record of the ring, whether it is seen here or not."""
        return self._ring.last

    @property
    def first(self) -> int:
        """The number of the oldest record that the ring still has."""
        return self._ring.first

    def get(self, identifier: str) -> Entry | None:
        """The record of that id; None if it is not here."""
        entry = self._ring.get(identifier)
        return entry if entry is not None and self._shows(entry) else None

    def since(self, number: int) -> list[tuple[int, Entry]]:
        """The records after that number, oldest first, each with its own number."""
        return [each for each in self._ring.since(number) if self._shows(each[1])]

    def listening(self) -> AbstractContextManager[asyncio.Event]:
        """As the ring's."""
        return self._ring.listening()

    def _shows(self, entry: Entry) -> bool:
        return self.label is None or entry.label == self.label


Tokens = Mapping[str, str | None]
"""Each token, and the label that its viewer sees; None is all."""


def read(path: Path) -> dict[str, str | None]:
    """The tokens in a file: one a line, and behind it the label that it is for, if it is not for all.

    Raises ValueError with a sentence for a file that can't be used, or that others can read.
    """
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise ValueError(f"{path}: others can read it, or write to it; chmod 600 {path}")
            text = file.read(_SIZE + 1).decode("ascii")
    except OSError as fault:
        raise ValueError(f"{path}: {fault.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not ASCII") from None
    found: dict[str, str | None] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        token, _, label = line.strip().partition(" ")
        if not token or token.startswith("#"):
            continue
        if not TOKEN.fullmatch(token) or (label and not LABEL.fullmatch(label)):
            raise ValueError(
                f"{path}:{number}: 32 digits of 0-9 and a-f are expected, and a label behind them or nothing"
            )
        found[token] = label or None
    if not 0 < len(found) <= MOST or len(text) > _SIZE:
        raise ValueError(f"{path}: from 1 to {MOST} tokens are expected")
    return found
