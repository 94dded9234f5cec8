"""Slow down the guessing of passwords, by client address and user name (RFC 7030 6).

Theory of operation.  There are two bounds.  An address and a user name together have a record of their failures: each
failure doubles the delay between two attempts, up to `guess_delay`.  So a participant who guesses at one user does not
delay the others behind the same address.  And an address has a bound for all user names together: `BURST` failures in
advance, then as many an hour as guesses at `USERS` users.  So trying one password with many names is slow, too.  An
attempt runs inside `turn`:

1. It passes the gate of its address and user name, which admits `SIDE_BY_SIDE` attempts at once.  The results of these
   are not known yet, so they cost no delay.  Without the gate, a client could send thousands at once and learn all
   results.
2. It waits until the delay of its address and user name is over.
3. It passes the gate of its address and waits for the delay of the address, if that is past its bound.
4. The caller reports `failed` or `succeeded`.  Success removes the failures of that user name at that address and of
   no other.  Otherwise a client with a password of its own could guess another user's at full speed by using its own
   in between.  It removes nothing from the bound of the address.

A password that is remembered passes without all this (`is_quiet`), as long as the address has no failure.

If a gate or a wait takes longer than `PATIENCE`, the client gets a 429.  Other addresses are not affected.  All tables
are bounded.  An address forgets the user name that failed longest ago when it has more than `NAMES`.  Forcing that with
failures of other names takes `NAMES / USERS` times `guess_delay` by the bound of the address: longer than waiting.
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
"""The delay in seconds after the first failure of an address and a user name; each further failure doubles it."""
USERS = 8
"""An address may guess, over all user names, as often as at so many users."""
BURST = 32
"""The failures of an address, over all user names, before this bound delays its attempts."""
FORGET = 300.0
"""The failures of an address and a user name are forgotten after so many seconds without another."""
PATIENCE = 20.0
"""The longest wait of an attempt, in seconds; an attempt that would wait longer is refused."""
SIDE_BY_SIDE = 8
"""Attempts of one address and user name that may run at once, and attempts of one address."""
ADDRESSES = 8192
"""Addresses that are remembered; the one that failed longest ago is forgotten first."""
NAMES = 16
"""User names that are remembered for one address; the one that failed longest ago is forgotten first."""


@dataclass
class _Failures:
    """Those of one address with one user name."""

    count: int = 0
    last: float = 0.0
    next: float = 0.0
    """The time at which the next attempt may begin."""


@dataclass
class _Address:
    of: OrderedDict[bytes, _Failures] = field(default_factory=OrderedDict)
    """By user name (as `_digest`)."""
    full_until: float = 0.0
    """The failures of all names, each as a length of time, fill this address's bound until then."""
    trying: int = 0
    """Attempts that wait for the bound or are being verified."""


class _Gate(asyncio.Semaphore):
    visitors = 0


class Throttle:
    """The failures of client addresses and user names; an IPv6 /64 counts as one address."""

    def __init__(self, most: float, of: int = 1) -> None:
        """`most` is the longest delay in seconds; 0 turns the throttle off.

        `of` is the number of processes.  Each knows only the failures that it has seen, so each multiplies the delays
        by this number; all together then let an address guess as fast as one process would.
        """
        self.most = most
        self._of = of
        self._addresses: OrderedDict[str, _Address] = OrderedDict()
        self._gates: dict[tuple[str, bytes | None], _Gate] = {}

    def is_quiet(self, address: str, user: str) -> bool:
        """Whether nothing delays this attempt: no failure of the address is known, and none of its attempts is open.

        Only then may a password that is remembered pass without `turn`.  Otherwise a client could send many guesses at
        once and learn the right one at once from its answer, while the wrong ones wait.
        """
        if not (self._addresses or self._gates):
            return True
        key = _key(address)
        return not (key in self._addresses or (key, None) in self._gates or (key, _digest(user)) in self._gates)

    @asynccontextmanager
    async def turn(self, address: str, user: str) -> AsyncIterator[None]:
        """Wait until this address may try this user, and admit the attempt, which calls `failed` or `succeeded`.

        Raises `TooManyGuesses` when the wait would be too long.
        """
        if not self.most:
            yield
            return
        key = _key(address)
        async with self._gate(key, _digest(user)):
            await self._wait_for_user(address, user)
            async with self._gate(key, None), self._attempt(key):
                yield

    @asynccontextmanager
    async def _gate(self, key: str, name: bytes | None) -> AsyncIterator[None]:
        """Admit `SIDE_BY_SIDE` at once of an address and user name, or of the address (None)."""
        gate = self._gates.setdefault((key, name), _Gate(max(1, SIDE_BY_SIDE // self._of)))
        gate.visitors += 1
        try:
            try:
                async with asyncio.timeout(PATIENCE):
                    await gate.acquire()
            except TimeoutError:
                raise TooManyGuesses(retry_after=int(PATIENCE)) from None
            try:
                yield
            finally:
                gate.release()
        finally:
            gate.visitors -= 1
            if not gate.visitors:
                del self._gates[key, name]

    async def _wait_for_user(self, address: str, user: str) -> None:
        """Wait for the end of the delay of this address and user name.  Attempts at the same time wait in turn."""
        known, name, now = self._addresses.get(_key(address)), _digest(user), time.monotonic()
        failures = known.of.get(name) if known else None
        if known is None or failures is None:
            return
        if now - failures.last > FORGET:
            del known.of[name]
            return
        start = max(now, failures.next)
        if start - now > PATIENCE:
            raise TooManyGuesses(retry_after=int(start - now) + 1)
        failures.next = start + self._delay(failures)
        await asyncio.sleep(start - now)

    @asynccontextmanager
    async def _attempt(self, key: str) -> AsyncIterator[None]:
        """Wait until the address is within its bound; an attempt counts as a failure until its result is known."""
        known, now = self._known(key), time.monotonic()
        cost = self._cost()
        wait = max(known.full_until, now) + (known.trying + 1 - max(1, BURST // self._of)) * cost - now
        if wait > PATIENCE:
            raise TooManyGuesses(retry_after=int(wait) + 1)
        known.trying += 1
        try:
            if wait > 0:
                await asyncio.sleep(wait)
            yield
        finally:
            known.trying -= 1
            if not (known.trying or known.of or known.full_until > time.monotonic()):
                self._addresses.pop(key, None)

    def failed(self, address: str, user: str) -> None:
        """Record a failed attempt to authenticate as `user`."""
        key, name, now = _key(address), _digest(user), time.monotonic()
        known = self._known(key)
        known.full_until = max(known.full_until, now) + self._cost()
        failures = known.of.setdefault(name, _Failures())
        if now - failures.last > FORGET:
            failures.count = 0
        failures.count += 1
        failures.last = now
        failures.next = max(failures.next, now + self._delay(failures))
        known.of.move_to_end(name)
        self._addresses.move_to_end(key)
        while len(known.of) > NAMES:
            known.of.popitem(last=False)

    def succeeded(self, address: str, user: str) -> None:
        """Record a right password: remove the failures of this user name at this address and of no other."""
        known = self._addresses.get(_key(address))
        if known is not None:
            known.of.pop(_digest(user), None)

    def _known(self, key: str) -> _Address:
        known = self._addresses.setdefault(key, _Address())
        while len(self._addresses) > ADDRESSES:
            self._addresses.popitem(last=False)
        return known

    def _delay(self, failures: _Failures) -> float:
        # The exponent is bounded too: after thousands of failures the power would overflow a float.
        return self._of * min(self.most, FIRST * 2.0 ** min(failures.count - 1, 30))

    def _cost(self) -> float:
        """The time for which one failure fills the bound of an address."""
        return self._of * self.most / USERS


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
