"""Guessing passwords is made slow: a failure costs its client address a growing delay (RFC 7030 6)."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from dataclasses import dataclass

from estgw.errors import TooManyGuesses

FIRST = 0.05
"""Seconds after the first failure; each further one doubles it."""
FORGET = 300.0
"""Seconds without a failure after which an address starts anew."""
PATIENCE = 20.0
"""Seconds an attempt is made to wait for its turn; past that it is turned away."""
ADDRESSES = 8192
"""How many addresses are remembered; the one that failed longest ago goes first."""


@dataclass
class _Record:
    failures: int = 0
    last: float = 0.0
    next: float = 0.0


class Throttle:
    """Failures by client address (an IPv6 /64 counts as one); others are not touched."""

    def __init__(self, most: float) -> None:
        """`most` is the longest delay in seconds; 0 turns the throttle off."""
        self.most = most
        self._records: OrderedDict[str, _Record] = OrderedDict()

    async def wait(self, address: str) -> None:
        """Wait for this address's turn to try; attempts side by side wait one after another.

        Raises `TooManyGuesses` when the turn is too far off.
        """
        key, now = _key(address), time.monotonic()
        record = self._records.get(key)
        if record is None or not self.most:
            return
        if now - record.last > FORGET:
            del self._records[key]
            return
        start = max(now, record.next)
        if start - now > PATIENCE:
            raise TooManyGuesses(retry_after=int(start - now) + 1)
        record.next = start + self._delay(record)
        await asyncio.sleep(start - now)

    def failed(self, address: str) -> None:
        """Note a failure."""
        key, now = _key(address), time.monotonic()
        record = self._records.setdefault(key, _Record())
        if now - record.last > FORGET:
            record.failures = 0
        record.failures += 1
        record.last = now
        record.next = max(record.next, now + self._delay(record))
        self._records.move_to_end(key)
        while len(self._records) > ADDRESSES:
            self._records.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """A right password clears the record."""
        self._records.pop(_key(address), None)

    def _delay(self, record: _Record) -> float:
        # The exponent is bounded before the power is: a long night of guesses must not overflow a float.
        return min(self.most, FIRST * 2.0 ** min(record.failures - 1, 30))


def _key(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
