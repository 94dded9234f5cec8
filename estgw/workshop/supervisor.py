"""`estgw workshop serve`: the gateways of all participants and the trainer's page, started and kept alive.

Theory of operation.  Each is a child process in a process group of its own.  One that dies is started again after a
pause, which doubles up to `LONGEST`; what its scripts have left behind is killed first.  Every second the memory of
each participant is added up, and one that has too much loses its largest process.  Orders come through the control
socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from estgw.logs import log
from estgw.workshop import checking, control, identity, layout, plan
from estgw.workshop.fault import WorkshopError
from estgw.workshop.plan import Seat, Workshop

LOG = "gateway.log"
SHORTEST, LONGEST = 0.5, 30.0
"""Seconds until a process that has died is started again."""
SETTLED = 60.0
"""Seconds after which a process counts as well."""
LOOK = 1.0
"""Seconds between two looks at the memory."""
UP = 60.0
"""Seconds after which a workshop is announced, even if some process does not listen yet."""
DRAIN = 10.0
"""Seconds that running requests get, when a gateway is reset or the workshop ends."""


class Child:
    """A gateway, or the trainer's page."""

    def __init__(self, workshop: Workshop, seat: Seat) -> None:
        self._workshop, self.seat = workshop, seat
        self.process: asyncio.subprocess.Process | None = None
        self.starts = 0
        self.killed = 0
        """Processes that were killed because of memory."""
        self.memory = 0
        self._wanted = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def log(self) -> Path:
        """Where it says why it has ended."""
        return self.seat.folder / LOG

    async def listens(self, host: str) -> bool:
        """Whether its last port is open: a gateway opens the page first."""
        port = self.seat.page_port if self.seat.id == plan.TRAINER else self.seat.port
        return await asyncio.to_thread(checking.listens, host, port)

    @property
    def state(self) -> dict[str, Any]:
        """As JSON values, for `status`."""
        running = self.process is not None and self.process.returncode is None
        return {
            "id": self.seat.id,
            "pid": self.process.pid if self.process is not None and running else None,
            "restarts": max(0, self.starts - 1),
            "memory": self.memory,
            "killed": self.killed,
        }

    def want(self) -> None:
        """Let it run, from now on."""
        self._wanted.set()

    async def keep(self) -> None:
        """Start it whenever it is wanted and has ended, for ever."""
        pause = SHORTEST
        while True:
            await self._wanted.wait()
            began = time.monotonic()
            self._ended.clear()
            try:
                await self._start()
                assert self.process is not None
                status = await self.process.wait()
            except OSError as fault:
                status = fault.errno or 1
            finally:
                self._ended.set()
            if not self._wanted.is_set():
                continue
            log.warning(
                "ended, and is started again",
                participant=self.seat.id,
                status=status,
                seconds=pause,
                reason_in=str(self.log),
            )
            await asyncio.to_thread(identity.end_all, self.seat)
            pause = SHORTEST if time.monotonic() - began > SETTLED else min(LONGEST, pause * 2)
            await asyncio.sleep(pause)

    async def _start(self) -> None:
        trainer = self.seat.id == plan.TRAINER
        program = (*identity.module("trainer"), str(self._workshop.folder / "trainer.json"))
        gateway = (*identity.ESTGW, "serve", "-c", "conf.yaml")
        command = identity.confined(self._workshop, self.seat, program if trainer else gateway, LOG)
        self.starts += 1
        self.process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.seat.folder,
            env=identity.ENVIRONMENT,
            stdin=asyncio.subprocess.DEVNULL,
            umask=0o077,
            start_new_session=True,
        )

    async def stop(self) -> None:
        """Let running requests finish, then kill what is left of the participant, and stay away."""
        self._wanted.clear()
        self.send(signal.SIGTERM)
        if self.process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), DRAIN)
            if self.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                await self._ended.wait()
        await asyncio.to_thread(identity.end_all, self.seat)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def weigh(self, found: list[tuple[int, int, int]]) -> None:
        """Add up the memory of a participant; the largest process goes if it is too much."""
        if self.seat.uid is None:
            own = self.process.pid if self.process is not None else 0
            self.memory = sum(resident for pid, _, resident in found if pid == own)
            return
        mine = [(resident, pid) for pid, uid, resident in found if uid == self.seat.uid]
        self.memory = sum(resident for resident, _ in mine)
        if self.memory > self._workshop.memory << 20:
            resident, pid = max(mine)
            self.killed += 1
            log.warning("too much memory", participant=self.seat.id, megabytes=self.memory >> 20, killed=resident >> 20)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Supervisor:
    """All processes of a workshop."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        seats = plan.seats(workshop) if workshop.isolated else plan.seats(workshop)[:1]
        self._children = {child.seat.id: child for child in (Child(workshop, seat) for seat in seats)}
        trainer = plan.trainer(workshop)
        self._children[trainer.id] = Child(workshop, trainer)
        self._ending = asyncio.Event()
        self._changing = asyncio.Lock()

    async def run(self, ready: Callable[[list[Path]], None]) -> None:
        """Serve until SIGTERM or SIGINT; SIGHUP goes to all gateways.

        `ready` gets the logs of those that do not listen, `UP` seconds after the start or earlier if all do.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        loop.add_signal_handler(signal.SIGHUP, self._hangup)
        for child in self._children.values():
            identity.end_all(child.seat)  # what a supervisor that was killed has left
            if child.seat.id != plan.TRAINER:
                layout.mount(self.workshop, child.seat)
            child.want()
        tasks = [loop.create_task(child.keep()) for child in self._children.values()]
        tasks.append(loop.create_task(self._watch_memory()))
        path = self.workshop.folder / layout.RUN / "control"
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._converse, path, limit=control.LINE)
        if self.workshop.isolated:
            os.chown(path, 0, self.workshop.uid_base)
        path.chmod(0o660)
        try:
            ready([child.log for child in await self._late()])
            await self._ending.wait()
        finally:
            server.close()
            path.unlink(missing_ok=True)
            await asyncio.gather(*(child.stop() for child in self._children.values()))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for seat in plan.seats(self.workshop) if self.workshop.disk else ():
                layout.unmount(self.workshop, seat)

    async def _late(self) -> list[Child]:
        """Wait until all processes listen; those that do not in time, or when the workshop ends before."""
        host = layout.own_address(self.workshop).strip("[]")
        late, deadline = list(self._children.values()), time.monotonic() + UP
        while True:
            late = [child for child in late if not await child.listens(host)]
            if not late or self._ending.is_set() or time.monotonic() > deadline:
                return late
            await asyncio.sleep(0.2)

    def _hangup(self) -> None:
        for name, child in self._children.items():
            if name != plan.TRAINER:
                child.send(signal.SIGHUP)

    async def _watch_memory(self) -> None:
        while True:
            found = await asyncio.to_thread(identity.processes)
            for child in self._children.values():
                child.weigh(found)
            await asyncio.sleep(LOOK)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError):
            try:
                order = json.loads(await asyncio.wait_for(reader.readline(), 5))
                answer = await self._do(order)
            except (WorkshopError, OSError) as fault:
                answer = {"error": str(fault)}
            except (ValueError, TypeError, KeyError, AttributeError):
                answer = {"error": "no order"}
            writer.write(json.dumps({"error": None, **answer}).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _do(self, order: dict[str, Any]) -> dict[str, Any]:
        match order["do"]:
            case "status":
                return {"children": [child.state for child in self._children.values()]}
            case "reset":
                return {"old": str(await self._reset(str(order["who"])))}
            case "rename":
                return await self._rename()
            case _:
                raise KeyError(order["do"])

    async def _reset(self, name: str) -> Path:
        seat = plan.seat(self.workshop, name)
        async with self._changing:
            if not self.workshop.isolated:
                return await asyncio.to_thread(layout.reset, self.workshop, seat)
            child = self._children[name]
            await child.stop()
            try:
                return await asyncio.to_thread(layout.reset, self.workshop, seat)
            finally:
                child.want()

    async def _rename(self) -> dict[str, Any]:
        """Take the names of workshop.yaml from now on: gateways reload, the trainer's page starts again."""
        async with self._changing:
            self.workshop = plan.load(self.workshop.folder)
            self._hangup()
            trainer = self._children[plan.TRAINER]
            await trainer.stop()
            trainer.want()
            return {}


def serve(workshop: Workshop, ready: Callable[[list[Path]], None]) -> None:
    """Run a workshop in the foreground until SIGTERM or Ctrl-C.  Raises `WorkshopError` or OSError."""
    asked = [plan.trainer(workshop), *plan.seats(workshop)]
    if missing := [seat.folder.name for seat in asked if not workshop.disk and not layout.is_whole(seat)]:
        raise WorkshopError(f"{missing[0]} is not complete; run estgw workshop init {workshop.folder} again")
    if control.ask(workshop.folder / layout.RUN / "control", do="status") is not None:
        raise WorkshopError(f"{workshop.folder} is served already")

    async def main() -> None:
        await Supervisor(workshop).run(ready)

    sys.stdout.flush()
    asyncio.run(main())
