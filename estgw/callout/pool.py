"""Pool workers: for each script a few processes that serve callouts one after the other.

Theory of operation.  A pool worker is a child of the warm parent that stays (`worker.serve`).  The gateway has a socket
to each; a callout is one packet with four descriptors, and the answer is the exit status and whether the worker can
serve another.  A worker that can't be restored to a fresh state, or has served its share, or finds that a module of its
script was edited, is not used again.  A callout that a worker has not begun (`Unread`) is given to another one, at most
`TRIES` times; a callout that has begun is never repeated.
"""

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
"""After this many workers in a row that could not begin, a callout fails."""


class Pool:
    """A `runners.Runner` by pool workers: at most `size` for each script, replaced after `requests` callouts."""

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
        """Run a Python script to its end in a pool worker.  Waits while all are busy."""
        async with self._places.setdefault(program, asyncio.Semaphore(self._size)):
            for _ in range(TRIES):
                with environment_file(program, env) as environment, process.memory_files(stdin) as files:
                    callout = _Callout(self._take(program), limits.file, (environment, *files))
                    try:
                        return await process.supervise(callout, files, limits)
                    except Unread:
                        continue
                    finally:
                        self._give_back(program, callout.worker)
        raise CouldNotStart(f"{program}: {TRIES} workers died before they began")

    def close(self) -> None:
        """End the workers: the idle ones now, the others after their callout."""
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
    """The worker has not begun the callout: it was dead, or a module of its script had been edited."""


class Worker:
    """One pool worker, and our end of the socket to it."""

    def __init__(self, warm: Warm, program: Path, requests: int) -> None:
        self.program = program
        self.callout: _Callout | None = None
        self._socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._spoilt = self._closed = False
        asyncio.get_running_loop().add_reader(self._socket, self._receive)
        # The worker's end stays open here until the worker has it.  Otherwise a worker that is still being forked would
        # look like a dead one.
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
        """Send a callout; the worker must be idle."""
        try:
            socket.send_fds(self._socket, [json.dumps(file_limit).encode()], descriptors)
        except ConnectionError:
            self._give_up(Unread())

    def close(self) -> None:
        """Close the socket: the worker ends by itself."""
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
            # It is dead; the parent reports how it ended.
            self._spoilt = True
            asyncio.get_running_loop().remove_reader(self._socket)
            return
        match json.loads(packet):
            case [int(code), bool(fit)]:
                self._spoilt |= not fit
                if self.callout is not None:
                    self.callout.settle(code)
            case _:
                self._give_up(Unread())

    def _give_up(self, fault: BaseException) -> None:
        self._spoilt = True
        asyncio.get_running_loop().remove_reader(self._socket)
        if self.callout is not None:
            self.callout.fail(fault)

    def _died(self, job: asyncio.Future[int | None]) -> None:
        fault = job.exception()
        if self._closed:
            return
        if self.callout is not None and not self.callout.ended.done():
            # Its answer, or the fact that the request was never read, may be on the socket already.
            self._receive()
        if fault is not None:
            self._give_up(fault)
        elif self.callout is not None:
            self.callout.settle(job.result())
        else:
            log.info("an idle worker ended", handler=self.program.name, code=job.result())


class _Callout:
    """One callout in a pool worker, as a `process.Child`."""

    def __init__(self, worker: Worker, file_limit: int, descriptors: Sequence[int]) -> None:
        self.worker = worker
        self.ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        worker.callout = self
        worker.send(file_limit, descriptors)

    def settle(self, code: int | None) -> None:
        """Record that it has ended."""
        if not self.ended.done():
            self.ended.set_result(code)

    def fail(self, fault: BaseException) -> None:
        """Record that it has not begun."""
        if not self.ended.done():
            self.ended.set_exception(fault)

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the worker and all processes that the script has started."""
        self.worker.job.signal_group(number)

    async def finish(self) -> int | None:
        """End the worker and its group, if the callout has not ended or the worker can't be used again."""
        if not self.ended.done() or not self.worker.is_fit:
            try:
                self.settle(await self.worker.job.finish())
            except CouldNotStart as fault:
                self.fail(fault)
        self.worker.callout = None
        return self.ended.result()
