"""What systemd is told, if it started this process: ready, alive (sd_notify(3), sd_watchdog_enabled(3))."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import MutableMapping

READY, ALIVE = "READY=1", "WATCHDOG=1"


class ServiceManager:
    """The service manager of this process.  Without one, nothing is said."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        """Takes its variables out of the environment: they are for this process and not for its children."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        is_ours = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        # An @ stands for the null byte of an abstract address.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog = int(microseconds) / 1e6 if address and is_ours and microseconds.isdecimal() else None
        """Seconds after which systemd ends this service unless it hears `ALIVE`; None: it does not expect that."""

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
