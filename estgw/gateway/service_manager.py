"""What systemd passes to this process and is told, if it started it.

Its sockets (sd_listen_fds(3)), ready (sd_notify(3)), alive (sd_watchdog_enabled(3)).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import MutableMapping

from estgw.tls.sockets import inherited

READY, ALIVE = "READY=1", "WATCHDOG=1"
_FIRST = 3
"""The first descriptor that systemd passes."""


class ServiceManager:
    """The service manager of this process.  Without one, nothing is said."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        """Takes its variables out of the environment: they are for this process and not for its children."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        is_ours = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        passed, heir = environment.pop("LISTEN_FDS", ""), environment.pop("LISTEN_PID", "")
        environment.pop("LISTEN_FDNAMES", None)
        self._passed = int(passed) if passed.isdecimal() and heir == str(os.getpid()) else 0
        # An @ stands for the null byte of an abstract address.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog = int(microseconds) / 1e6 if address and is_ours and microseconds.isdecimal() else None
        """Seconds after which systemd ends this service unless it hears `ALIVE`; None: it does not expect that."""

    def sockets(self) -> list[socket.socket]:
        """The listening sockets that systemd has opened for this process; to be called once.  Raises `ConfigError`."""
        return [inherited(descriptor) for descriptor in range(_FIRST, _FIRST + self._passed)]

    def say(self, word: str) -> None:
        """Send one word.  A systemd that can't be reached is no reason to end."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(word.encode(), self._address)

    async def feed(self) -> None:
        """Say for ever that this process is alive: its event loop turns."""
        while self.watchdog:
            self.say(ALIVE)
            await asyncio.sleep(self.watchdog / 3)
