"""A worker: one gateway process of several, which the supervisor starts and tells when to reload."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from estgw import logs
from estgw.callout import shortage, spawn
from estgw.errors import ConfigError
from estgw.gateway.labels import Snapshot
from estgw.gateway.server import Server
from estgw.gateway.state import State
from estgw.gateway.worker_share import WorkerShare
from estgw.logs import log
from estgw.metrics.meter import meter
from estgw.metrics.table import OF_WORKERS
from estgw.supervision import control_channel
from estgw.supervision.control_channel import Orders
from estgw.supervision.directory import Directory


def main() -> None:
    """Serve until the supervisor ends it.  The orders are the last argument."""
    orders = Orders.read(sys.argv[-1])
    spawn.disown_inheritance()  # scripts must not inherit the supervisor's descriptors
    logs.configure(orders.log_format, orders.log_level, worker=orders.slot + 1)
    if orders.metrics:
        meter.switch_on(OF_WORKERS, place=orders.slot)
    sys.exit(asyncio.run(_Worker(orders).run()))


class _Worker:
    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._config_file = Path(orders.config_file)
        self._directory = Directory(Path(orders.directory))
        self._share = WorkerShare(orders.slot, orders.of, self._directory.locks)
        self._channel = socket.socket(fileno=orders.channel)
        self._channel.setblocking(False)
        self._prepared: State | None = None

    async def run(self) -> int:
        """The exit status."""
        loop = asyncio.get_running_loop()
        sockets = [socket.socket(fileno=descriptor) for descriptor in self._orders.sockets]
        try:
            self._server = Server(self._config_file, self._snapshot(self._orders.config), self._share)
            with contextlib.closing(self._server):
                loop.add_reader(self._channel, self._hear)
                await self._server.run(sockets, lambda _: self._say("ready"), _on_hangup)
        except ConfigError as refusal:
            self._say("refused", refusal.faults)
            return 1
        except OSError as fault:  # another program has the port
            self._say("refused", [str(fault)])
            return 1
        finally:
            loop.remove_reader(self._channel)
            for each in (self._channel, *sockets):
                each.close()
            self._directory.leave()
        return 0

    def _hear(self) -> None:
        try:
            heard = control_channel.hear(self._channel)
        except BlockingIOError:
            return
        if heard is None:
            log.error("the supervisor has ended")
            asyncio.get_running_loop().remove_reader(self._channel)
            self._server.stop()
            return
        word, _, descriptors = heard
        match word:
            case "ping":
                self._say("pong")
            case "prepare":
                self._prepare(self._snapshot(descriptors[0]))
            case "adopt" if self._prepared is not None:
                self._server.adopt(self._prepared)
                self._prepared = None
            case "abandon" if self._prepared is not None:
                self._prepared.caller.retire()
                self._prepared = None

    def _snapshot(self, descriptor: int) -> Snapshot:
        return Snapshot.decode(self._config_file, control_channel.content(descriptor))

    def _prepare(self, snapshot: Snapshot) -> None:
        try:
            self._prepared = self._server.load(snapshot)
        except ConfigError as refusal:
            self._say("refused", refusal.faults)
        except (OSError, MemoryError) as fault:
            self._say("refused", [shortage.words(fault) or str(fault)])
        else:
            self._say("prepared")

    def _say(self, word: str, faults: Sequence[str] = ()) -> None:
        with contextlib.suppress(OSError):  # the supervisor has ended; `_hear` is about to read that
            control_channel.say(self._channel, word, faults)


def _on_hangup() -> None:
    """Ignore SIGHUP: a reload comes from the supervisor, to all workers or to none."""
