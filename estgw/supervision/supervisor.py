"""The supervisor: it starts the workers, replaces those that end, and passes on SIGHUP and SIGTERM.

Theory of operation.  Each worker has a slot (`worker_slot`) with a listening socket for each address (SO_REUSEPORT) and
a control channel (`control_channel`).  The supervisor opens the sockets and keeps them open, so connections that the
kernel has queued for a worker that died wait for the next one.  The supervisor never reads a key, serves no request and
starts no thread.

A reload takes two steps.  The supervisor reads the file once and sends its text to all workers: `prepare`.  If each one
answers `prepared`, all are told to `adopt`; if one refuses, all are told to `abandon`, and the log has its faults.  So
workers never serve different configurations.  A worker that starts meanwhile has the old one and is started again.

Every few seconds each worker gets a `ping`.  One that has not answered `MISSED` of them is killed, and replaced as any
other that ends.  systemd hears that the service is alive if no worker owes an answer and one at least is ready.

A worker that ends early is started again after a pause that doubles up to `LONGEST_PAUSE`.  If no worker has ever been
ready, the supervisor gives up, because the fault lies in the configuration or the machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from estgw.callout import shortage
from estgw.callout.home import INTERVAL
from estgw.callout.process import memory_file
from estgw.config.fields import split_address
from estgw.config.model import Config
from estgw.errors import ConfigError
from estgw.gateway.drain import linger
from estgw.gateway.labels import Snapshot
from estgw.gateway.notices import Notices
from estgw.gateway.reload import told
from estgw.gateway.service_manager import ALIVE, READY, ServiceManager
from estgw.logs import log
from estgw.metrics.endpoint import exposed
from estgw.metrics.meter import DIRECTORY_VARIABLE, meter
from estgw.metrics.table import OF_ALL, RESTARTS, WORKERS
from estgw.supervision import load_check
from estgw.supervision.control_channel import Orders
from estgw.supervision.directory import Directory
from estgw.supervision.worker_slot import End, WorkerSlot
from estgw.tls import sockets

MARGIN = 10.0
"""Seconds beyond `drain_timeout` until workers that have not ended are killed."""
ANSWER = 30.0
"""Seconds in which a worker must have read another configuration."""
PING = 3.0
"""Seconds between pings; less if systemd's watchdog is impatient."""
MISSED = 5
"""Unanswered pings after which a worker is killed."""


class Supervisor:
    """The workers of one gateway."""

    def __init__(self, config_file: Path, snapshot: Snapshot, listen: str | None = None) -> None:
        """`listen` replaces the configured addresses, and sockets that systemd passes replace both."""
        self._manager = ServiceManager()
        self._passed = self._manager.sockets()
        self._file = config_file
        self._first = snapshot
        self._settings: Config = snapshot.settings
        self._listen = (listen,) if listen else self._settings.server.listen
        if self._passed:
            self._listen = tuple(sockets.endpoint(sock.getsockname()) for sock in self._passed)
        self._config = memory_file("conf", snapshot.encode())
        self._notices = Notices(config_file, self._settings)
        self._generation = 0
        self._directory = Directory.make(self._settings.server.workers)
        self._slots = [WorkerSlot(index, self) for index in range(self._settings.server.workers)]
        self._addresses: list[tuple[str, int]] = []
        self._has_started = False
        """Whether a worker has ever been ready; until then, a worker that can't start is not started again."""
        self._ending = asyncio.Event()
        self._hangup = asyncio.Event()
        self._empty = asyncio.Event()

    async def run(self, ready: Callable[[str], None]) -> None:
        """Serve until SIGTERM or SIGINT; `ready` gets the URL once all workers accept connections.

        Raises `ConfigError` or OSError when no worker could start.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(shortage.note)
        self._all_up: asyncio.Future[bool] = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._hangup.set)
        try:
            async with exposed(self._settings.metrics.listen, OF_ALL, self._is_ready, self._directory.metrics):
                pinging = loop.create_task(self._ping_now_and_then())
                try:
                    await self._supervise(ready)
                finally:
                    self._notices.close()
                    await self._end()
                    pinging.cancel()
        finally:
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            self._directory.leave()
            os.close(self._config)
        log.info("stopped")

    async def _supervise(self, ready: Callable[[str], None]) -> None:
        self._open_first()
        for slot in self._slots:
            self._start(slot)
        if not await self._all_up:
            return
        self._notices.adopt(self._first)
        port = self._addresses[0][1]
        log.info("listening", addresses=", ".join(self._listen), port=port, workers=len(self._slots))
        ready(f"https://{sockets.endpoint((self._settings.server.name, port))}")
        self._manager.say(READY)
        aside = [asyncio.create_task(self._reload_when_told()), asyncio.create_task(self._sweep_now_and_then())]
        await self._ending.wait()
        for task in aside:
            task.cancel()
        await linger(self._settings.server.drain_delay)
        log.info("draining", seconds=self._settings.server.drain_timeout)

    def _is_ready(self) -> bool:
        """Whether a worker accepts connections, and will: not from the order to stop on."""
        return not self._ending.is_set() and any(slot.is_ready for slot in self._slots)

    # Sockets.

    def _open_first(self) -> None:
        """Open and listen on the sockets of all workers: connections wait in them while the workers start."""
        for sock in self._passed:
            self._addresses.append(sock.getsockname()[:2])
        for address in self._listen if not self._passed else ():
            host, port = split_address(address)
            if port:
                # With SO_REUSEPORT another gateway of the same user could share the port and take half of the
                # connections.
                sockets.bind(host, port).close()
            first = sockets.bind(host, port, shared=True)
            self._addresses.append((host, first.getsockname()[1]))
            self._slots[0].sockets.append(first)
        for slot in self._slots:
            slot.sockets = slot.sockets or self._opened()
        for slot in self._slots:
            for sock in slot.sockets:
                sockets.listen(sock)

    def _opened(self) -> list[socket.socket]:
        if self._passed:  # all workers take connections from the same queue, which stays when this process ends
            return [sock.dup() for sock in self._passed]
        return [sockets.bind(*address, shared=True) for address in self._addresses]

    # Workers.

    def _start(self, slot: WorkerSlot) -> None:
        slot.timer = None
        slot.generation = self._generation
        counted = self._settings.metrics.listen is not None
        environment = {**os.environ, "TMPDIR": str(self._directory.temporary(slot.index))}
        if counted:
            environment[DIRECTORY_VARIABLE] = str(self._directory.metrics)
        orders = Orders(
            slot=slot.index,
            of=len(self._slots),
            directory=str(self._directory.path),
            config_file=str(self._file),
            config=self._config,
            log_format=self._settings.log.format,
            log_level=self._settings.log.level,
            metrics=counted,
        )
        try:
            # Not listening yet: a worker listens when it is ready, and until then the others get new connections.
            slot.sockets = slot.sockets or self._opened()
            slot.start(orders, environment)
        except OSError as fault:
            if not self._all_up.done():
                self._all_up.set_exception(fault)
                return
            pause = slot.pause()
            log.error("worker could not start", worker=slot.index + 1, reason=str(fault), again_in=pause)
            self._start_later(slot, pause)

    def _start_later(self, slot: WorkerSlot, pause: float) -> None:
        slot.timer = asyncio.get_running_loop().call_later(pause, self._start, slot)

    def on_ready(self, slot: WorkerSlot) -> None:
        """A worker accepts connections."""
        assert slot.process is not None
        log.info("worker started", worker=slot.index + 1, pid=slot.process.pid)
        self._count()
        for each in self._slots:
            if not self._has_started and each.process is None:  # it died before any worker was ready
                self._start_later(each, each.pause())
        self._has_started = True
        if all(each.is_ready for each in self._slots) and not self._all_up.done():
            self._all_up.set_result(True)

    def on_end(self, slot: WorkerSlot, end: End) -> None:
        """Start another worker, unless all are to end."""
        self._count()
        self._directory.sweep()
        if self._settings.metrics.listen is not None:
            meter.forget(self._directory.metrics, slot.index)
        if not any(each.process for each in self._slots):
            self._empty.set()
        if self._ending.is_set():
            return
        if not self._has_started:
            self._give_up(slot, end)
            return
        meter.add(RESTARTS)
        if slot.generation != self._generation:
            self._start(slot)
            return
        pause = slot.pause(end.lasted)
        fields = {"faults": slot.faults} if slot.faults != slot.known_faults else {}
        slot.known_faults = slot.faults
        log.error("worker ended", worker=slot.index + 1, pid=end.pid, end=str(end), again_in=pause, **fields)
        if not end.was_ready and slot.deaths > 1:
            slot.close_sockets()
        self._start_later(slot, pause)

    def _give_up(self, slot: WorkerSlot, end: End) -> None:
        """A worker could not start.  If it reports faults, they hold for all; if not, wait for the other workers."""
        if self._all_up.done():
            return
        if slot.faults:
            self._all_up.set_exception(ConfigError(slot.faults))
        elif not any(each.process for each in self._slots):
            self._all_up.set_exception(ChildProcessError(f"no worker could start: the last one's end was {end}"))

    def _count(self) -> None:
        meter.set(WORKERS, sum(slot.is_ready for slot in self._slots))

    # Signals.

    def _on_stop(self) -> None:
        self._ending.set()
        if not self._all_up.done():
            self._all_up.set_result(False)

    async def _end(self) -> None:
        """Let all workers drain.  New connections are refused."""
        self._ending.set()
        for slot in self._slots:
            slot.close_sockets()
            if slot.timer is not None:
                slot.timer.cancel()
            if slot.process is not None:
                slot.process.terminate()
        if not any(slot.process for slot in self._slots):
            return
        try:
            async with asyncio.timeout(self._settings.server.drain_timeout + MARGIN):
                await self._empty.wait()
        except TimeoutError:
            late = [slot for slot in self._slots if slot.process]
            log.error("workers did not end in time, and are killed", workers=[slot.index + 1 for slot in late])
            for slot in late:
                if slot.process is not None:
                    slot.process.kill()
            await self._empty.wait()

    async def _ping_now_and_then(self) -> None:
        pause = min(PING, (self._manager.watchdog or 60) / (2 * MISSED))
        while True:
            for slot in self._slots:
                slot.ping()
            await asyncio.sleep(pause)
            for slot in self._slots:
                if slot.missed >= MISSED and slot.process is not None:
                    seconds = round(slot.missed * pause, 1)
                    text = f"it has not answered for {seconds} seconds"
                    log.error("worker killed", worker=slot.index + 1, pid=slot.process.pid, reason=text)
                    slot.process.kill()
            if any(slot.is_ready for slot in self._slots) and not any(slot.owes_an_answer for slot in self._slots):
                self._manager.say(ALIVE)

    async def _sweep_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            self._directory.sweep()

    async def _reload_when_told(self) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            with told(self._file):
                snapshot = Snapshot.take(self._file, demo=self._first.demo)
                await self._agree_on(snapshot)
                self._notices.adopt(snapshot)

    async def _agree_on(self, snapshot: Snapshot) -> None:
        """Let all workers take the configuration, or none; raises `ConfigError` with what the first finds."""
        fresh = memory_file("conf", snapshot.encode())
        asked = {slot: slot.process for slot in self._slots if slot.is_ready}
        try:
            async with asyncio.timeout(ANSWER):
                found = await asyncio.gather(*(slot.ask(fresh) for slot in asked))
        except TimeoutError:
            # A worker that does not answer does not serve requests either.
            found = [slot.give_up() for slot in asked]
        if any(found):
            for slot in asked:
                slot.say("abandon")
            os.close(fresh)
            raise ConfigError(next(faults for faults in found if faults))
        os.close(self._config)
        self._config = fresh
        self._generation += 1
        for slot in self._slots:
            if slot.process is not None and slot.process is asked.get(slot):
                slot.say("adopt")
                slot.generation = self._generation
            elif slot.process is not None:  # it was started with the old configuration, and is started again
                slot.process.terminate()
            elif slot.timer is not None:
                slot.timer.cancel()
                slot.deaths = 0
                self._start(slot)


def serve(config_file: Path, *, listen: str | None, ready: Callable[[str], None], demo: str | None = None) -> None:
    """Run a gateway of several processes until SIGTERM or SIGINT.  Raises `ConfigError` or OSError."""
    snapshot = Snapshot.take(config_file, demo=demo)
    load_check.require_loadable(config_file, snapshot)

    async def main() -> None:
        await Supervisor(config_file, snapshot, listen).run(ready)

    asyncio.run(main())
