"""Slow down the guessing of passwords: each failure delays the next attempts of its client address (RFC 7030 6).

Theory of operation.  An address has a record of its failures and of the time at which its next attempt may begin.  Each
failure doubles the delay between two attempts, up to `guess_delay`.  An attempt runs inside `turn`:

1. It passes the gate of its address, which admits `SIDE_BY_SIDE` attempts at once.  The results of these are not known
   yet, so they cost no delay.  Without the gate, a client could send thousands at once and learn all results.
2. It waits until the delay is over (`wait`).  If that or the gate takes longer than `PATIENCE`, the client gets a 429.
3. The caller reports `failed` or `succeeded`.  Success removes the failures of that user name only.  Otherwise a client
   with a password of its own could guess another user's at full speed by using its own in between.

Other addresses are not affected.  All tables are bounded.
"""

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
"""The delay in seconds after the first failure; each further failure doubles it."""
FORGET = 300.0
"""The record of an address is deleted after so many seconds without a failure."""
PATIENCE = 20.0
"""The longest wait of an attempt, in seconds; an attempt that would wait longer is refused."""
SIDE_BY_SIDE = 8
"""Attempts of one address that may run at once."""
ADDRESSES = 8192
"""Addresses that are remembered; the one that failed longest ago is forgotten first."""
NAMES = 16
"""User names that are counted apart for one address.  Failures of further names are removed only by `FORGET`."""


@dataclass
class _Record:
    failures: int = 0
    of: dict[bytes, int] = field(default_factory=dict)
    """The failures that a right password removes, by user name (as `_digest`)."""
    last: float = 0.0
    next: float = 0.0


class _Gate(asyncio.Semaphore):
    def __init__(self, of: int) -> None:
        super().__init__(max(1, SIDE_BY_SIDE // of))
        self.visitors = 0


class Throttle:
    """The failures of client addresses; an IPv6 /64 counts as one address."""

    def __init__(self, most: float, of: int = 1) -> None:
        """`most` is the longest delay in seconds; 0 turns the throttle off.

        `of` is the number of processes.  Each knows only the failures that it has seen, so each multiplies the delay by
        this number; all together then let an address guess as fast as one process would.
        """
        self.most = most
        self._of = of
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._gates: dict[str, _Gate] = {}

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Wait until this address may try, and admit the attempt in the context, which calls `failed` or `succeeded`.

        Raises `TooManyGuesses` when the wait would be too long.
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
        """Wait for the end of this address's delay.  Attempts at the same time wait one after the other.

        Raises `TooManyGuesses` when the wait would be too long.
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
        """Record a failed attempt to authenticate as `user`."""
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
        """Record a right password: remove the failures of this user name and of no other."""
        key = _key(address)
        record = self._records.get(key)
        if record is None:
            return
        record.failures -= record.of.pop(_digest(user), 0)
        if not record.failures:
            del self._records[key]

    def _delay(self, record: _Record) -> float:
        # The exponent is bounded too: after thousands of failures the power would overflow a float.
        return self._of * min(self.most, FIRST * 2.0 ** min(record.failures - 1, 30))


def _digest(user: str) -> bytes:
    """A user name in 16 bytes, since a client may send names of thousands of characters."""
    return hashlib.blake2b(user.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _key(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
