"""Guessing passwords is made slow: a failure costs its client address a growing delay (RFC 7030 6)."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from estgw.errors import TooManyGuesses

FIRST = 0.05
"""Seconds after the first failure; each further one doubles it."""
FORGET = 300.0
"""Seconds without a failure after which an address starts anew."""
PATIENCE = 20.0
"""Seconds an attempt is made to wait for its turn; past that it is turned away."""
SIDE_BY_SIDE = 8
"""How many attempts of an address are under way at once: nobody knows yet that they fail, so they cost no delay."""
ADDRESSES = 8192
"""How many addresses are remembered; the one that failed longest ago goes first."""
NAMES = 16
"""How many user names of an address are told apart; failures of further ones only time forgives."""


@dataclass
class _Record:
    failures: int = 0
    of: dict[bytes, int] = field(default_factory=dict)
    """How many of them a right password may take back, by the user name that was tried."""
    last: float = 0.0
    next: float = 0.0


class _Gate(asyncio.Semaphore):
    def __init__(self, of: int) -> None:
        super().__init__(max(1, SIDE_BY_SIDE // of))
        self.visitors = 0


class Throttle:
    """Failures by client address (an IPv6 /64 counts as one); others are not touched."""

    def __init__(self, most: float, of: int = 1) -> None:
        """`most` is the longest delay in seconds; 0 turns the throttle off.

        `of` so many processes each know of the failures that they have seen themselves.  Each lets an address wait so
        many times as long, and so all of them together let it guess as fast as one would.
        """
        self.most = most
        self._of = of
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._gates: dict[str, _Gate] = {}

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """One attempt of this address, from its turn until `failed` or `succeeded` has been told.

        Raises `TooManyGuesses` when the turn is too far off.
        """
        if not self.most:
            yield
            return
        key = _key(address)
        gate = self._gates.setdefault(key, _Gate(self._of))
        gate.visitors += 1
        try:
            try:
                async with asyncio.timeout(PATIENCE):
                    await gate.acquire()
            except TimeoutError:
                raise TooManyGuesses(retry_after=int(PATIENCE)) from None
            try:
                await self.wait(address)
                yield
            finally:
                gate.release()
        finally:
            gate.visitors -= 1
            if not gate.visitors:
                del self._gates[key]

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

    def failed(self, address: str, user: str) -> None:
        """Note a failure to prove that one is `user`."""
        key, name, now = _key(address), _digest(user), time.monotonic()
        record = self._records.setdefault(key, _Record())
        if now - record.last > FORGET:
            record.failures = 0
            record.of.clear()
        record.failures += 1
        if name in record.of or len(record.of) < NAMES:
            record.of[name] = record.of.get(name, 0) + 1
        record.last = now
        record.next = max(record.next, now + self._delay(record))
        self._records.move_to_end(key)
        while len(self._records) > ADDRESSES:
            self._records.popitem(last=False)

    def succeeded(self, address: str, user: str) -> None:
        """A right password takes back the failures of the same user name, and no other's.

        Else somebody with a password of his own could guess another's at full speed, with his own in between.
        """
        key = _key(address)
        record = self._records.get(key)
        if record is None:
            return
        record.failures -= record.of.pop(_digest(user), 0)
        if not record.failures:
            del self._records[key]

    def _delay(self, record: _Record) -> float:
        # The exponent is bounded before the power is: a long night of guesses must not overflow a float.
        return self._of * min(self.most, FIRST * 2.0 ** min(record.failures - 1, 30))


def _digest(user: str) -> bytes:
    """A user name in 16 bytes: a client may choose one of thousands."""
    return hashlib.blake2b(user.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _key(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
