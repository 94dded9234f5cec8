"""Persistent workers: for each script a few processes that answer one request after the other."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from estgw.callout import process
from estgw.callout.job import Job, environment_file
from estgw.callout.language import Language
from estgw.callout.process import CouldNotStart, Limits, Outcome
from estgw.callout.warm import Warm
from estgw.logs import log

TRIES = 3
"""Workers that may turn out to be of no use, one after the other, before a request is refused."""


class Pool:
    """Workers of all scripts, `size` at most of each, ended after `requests`; a `runners.Runner`."""

    languages: ClassVar = frozenset({Language.OURS, Language.PYTHON})
    needs_warm: ClassVar = True

    def __init__(self, warm: Warm, size: int, requests: int) -> None:
        self._warm = warm
        self._size = size
        self._requests = requests
        self._idle: dict[Path, list[Worker]] = {}
        self._places: dict[Path, asyncio.Semaphore] = {}
        self._closed = False

    async def run(self, program: Path, env: Mapping[str, str], stdin: bytes, limits: Limits) -> Outcome:
        """Run a Python script to its end in a worker; waits for one when all are busy."""
        async with self._places.setdefault(program, asyncio.Semaphore(self._size)):
            for _ in range(TRIES):
                with environment_file(program, env) as environment, process.memory_files(stdin) as files:
                    turn = Turn(self._take(program), limits.file, (environment, *files))
                    try:
                        return await process.supervise(turn, files, limits)
                    except Unread:
                        continue
                    finally:
                        self._give_back(program, turn.worker)
        raise CouldNotStart(f"{program}: {TRIES} workers died before they began")

    def close(self) -> None:
        """End the workers: the idle ones now, the others after what they are doing."""
        self._closed = True
        for workers in self._idle.values():
            for worker in workers:
                worker.close()
        self._idle.clear()

    def _take(self, program: Path) -> Worker:
        idle = self._idle.setdefault(program, [])
        while idle:
            worker = idle.pop()
            if worker.is_fit:
                return worker
            worker.close()
        return Worker(self._warm, program, self._requests)

    def _give_back(self, program: Path, worker: Worker) -> None:
        if worker.is_fit and not self._closed:
            self._idle[program].append(worker)
        else:
            worker.close()


class Unread(Exception):
    """The worker has not begun with the request: it was dead, or found itself out of date."""


class Worker:
    """One process, and our end of the socket to it."""

    def __init__(self, warm: Warm, program: Path, requests: int) -> None:
        self.program = program
        self.turn: Turn | None = None
        self._socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._spoilt = self._closed = False
        asyncio.get_running_loop().add_reader(self._socket, self._receive)
        # Its end stays open here until it has it, or a death would look like one of a worker that never lived.
        self.job: Job = warm.ask(
            program, "work", str(program), requests,
            descriptors=[self._theirs.fileno()], on_begin=self._theirs.close,
        )  # fmt: skip
        self.job.ended.add_done_callback(self._died)

    @property
    def is_fit(self) -> bool:
        """Whether it can take another request."""
        return not self._spoilt and not self.job.ended.done()

    def send(self, file_limit: int, descriptors: Sequence[int]) -> None:
        """Hand over a request; it is the only one."""
        try:
            socket.send_fds(self._socket, [json.dumps(file_limit).encode()], descriptors)
        except ConnectionError:
            self._give_up(Unread())

    def close(self) -> None:
        """No more requests: it ends by itself."""
        if self._closed:
            return
        self._closed = self._spoilt = True
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._theirs.close()

    def _receive(self) -> None:
        try:
            packet = self._socket.recv(256)
        except BlockingIOError:
            return
        except ConnectionError:  # it died with the request unread
            self._give_up(Unread())
            return
        if not packet:
            # Dead; how, the parent will say.
            self._spoilt = True
            asyncio.get_running_loop().remove_reader(self._socket)
            return
        match json.loads(packet):
            case [int(code), bool(fit)]:
                self._spoilt |= not fit
                if self.turn is not None:
                    self.turn.settle(code)
            case _:
                self._give_up(Unread())

    def _give_up(self, fault: BaseException) -> None:
        self._spoilt = True
        asyncio.get_running_loop().remove_reader(self._socket)
        if self.turn is not None:
            self.turn.fail(fault)

    def _died(self, job: asyncio.Future[int | None]) -> None:
        fault = job.exception()
        if self._closed:
            return
        if self.turn is not None and not self.turn.ended.done():
            # Its last word, or that the request lies there unread, may be known on the socket already.
            self._receive()
        if fault is not None:
            self._give_up(fault)
        elif self.turn is not None:
            self.turn.settle(job.result())
        else:
            log.info("an idle worker ended", handler=self.program.name, code=job.result())


class Turn:
    """One request in a worker; what `process.supervise` wants of a child."""

    def __init__(self, worker: Worker, file_limit: int, descriptors: Sequence[int]) -> None:
        self.worker = worker
        self.ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        worker.turn = self
        worker.send(file_limit, descriptors)

    def settle(self, code: int | None) -> None:
        """It has ended."""
        if not self.ended.done():
            self.ended.set_result(code)

    def fail(self, fault: BaseException) -> None:
        """It has not begun."""
        if not self.ended.done():
            self.ended.set_exception(fault)

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the worker and all that the script has started."""
        self.worker.job.signal_group(number)

    async def finish(self) -> int | None:
        """A worker that is still at it, or has been spoilt, ends here with its whole group."""
        if not self.ended.done() or not self.worker.is_fit:
            try:
                self.settle(await self.worker.job.finish())
            except CouldNotStart as fault:
                self.fail(fault)
        self.worker.turn = None
        return self.ended.result()
