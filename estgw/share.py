"""Which of several gateway processes this one is, and what part of everything is its own."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Share:
    """A process's place among `of` that serve the same addresses; `index` counts from 0."""

    index: int = 0
    of: int = 1
    directory: Path | None = None
    """Private, and the same for all of them; None where there is but one."""

    def part(self, whole: int) -> int:
        """Our part of a number: all parts add up to the whole, but that nobody goes without."""
        return max(1, whole // self.of + (self.index < whole % self.of))

    def secret(self, common: bytes) -> bytes:
        """Our own secret, made from one that several gateways know: the same in the same place of each."""
        if self.of == 1:
            return common
        return hmac.digest(common, f"estgw worker {self.index + 1}".encode(), hashlib.sha256)


ALONE = Share()
