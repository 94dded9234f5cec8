"""Pool workers: for each script a few processes that serve callouts one after the other.

Theory of operation.  A pool worker is a child of the warm parent that stays (`worker.serve`).  The gateway has a socket
to each; a callout is one packet with four descriptors for each script, and the answer is the exit status and whether
the worker can serve another.  A worker that can't be restored to a fresh state, or has served its share, or finds that
a module of its script was edited, is not used again.  A callout that a worker has not begun (`Unread`) is given to
another one, at most `TRIES` times; a callout that has begun is never repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeAlias, TypeVar

from estgw.callout import process
from estgw.callout.job import Job, laid_out
from estgw.callout.language import Language
from estgw.callout.process import CouldNotStart, Limits, Outcome, Script, Stage
from estgw.callout.warm import Warm
from estgw.logs import log

Programs: TypeAlias = tuple[Path, ...]
"""What a worker runs: one script, or a decision and the handler that follows it."""
T = TypeVar("T")

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
        self._idle: dict[Programs, list[Worker]] = {}
        self._places: dict[Programs, asyncio.Semaphore] = {}
        self._closed = False

    async def run(self, program: Path, env: Mapping[str, str], stdin: bytes, limits: Limits) -> Outcome:
        """Run a Python script to its end in a pool worker.  Waits while all are busy."""

        async def wait(callout: _Callout, stages: Sequence[Stage]) -> Outcome:
            return await process.supervise(callout, stages[0].files, limits)

        return await self._serve((Script(program, env, stdin, limits),), wait)

    async def run_both(self, first: Script, second: Script) -> tuple[Outcome, Outcome | None]:
        """Run two Python scripts of one directory in one worker, as `Warm.run_both` does in a new child."""

        async def wait(callout: _Callout, stages: Sequence[Stage]) -> tuple[Outcome, Outcome | None]:
            return await process.supervise_both(callout, *stages)

        return await self._serve((first, second), wait)

    async def _serve(self, scripts: Sequence[Script], wait: Callable[[_Callout, Sequence[Stage]], Awaitable[T]]) -> T:
        """Give the scripts to a worker of theirs, and wait for their end."""
        programs = tuple(script.program for script in scripts)
        async with self._places.setdefault(programs, asyncio.Semaphore(self._size)):
            for _ in range(TRIES):
                with contextlib.ExitStack() as files:
                    stages = [files.enter_context(laid_out(script)) for script in scripts]
                    callout = _Callout(self._take(programs), stages)
                    try:
                        return await wait(callout, stages)
                    except Unread:
                        continue
                    finally:
                        self._give_back(programs, callout.worker)
        raise CouldNotStart(f"{programs[0]}: {TRIES} workers died before they began")

    def close(self) -> None:
        """End the workers: the idle ones now, the others after their callout."""
        self._closed = True
        for workers in self._idle.values():
            for worker in workers:
                worker.close()
        self._idle.clear()

    def _take(self, programs: Programs) -> Worker:
        idle = self._idle.setdefault(programs, [])
        while idle:
            worker = idle.pop()
            if worker.is_fit:
                return worker
            worker.close()
        return Worker(self._warm, programs, self._requests)

    def _give_back(self, programs: Programs, worker: Worker) -> None:
        if worker.is_fit and not self._closed:
            self._idle[programs].append(worker)
        else:
            worker.close()


class Unread(Exception):
    """The worker has not begun the callout: it was dead, or a module of its script had been edited."""


class Worker:
    """One pool worker, and our end of the socket to it."""

    def __init__(self, warm: Warm, programs: Programs, requests: int) -> None:
        self.program = programs[-1]
        self.callout: _Callout | None = None
        self._socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._spoilt = self._closed = False
        asyncio.get_running_loop().add_reader(self._socket, self._receive)
        # The worker's end stays open here until the worker has it.  Otherwise a worker that is still being forked would
        # look like a dead one.
        self.job: Job = warm.ask(
            self.program, "work", [str(program) for program in programs], requests,
            descriptors=[self._theirs.fileno()], on_begin=self._theirs.close,
        )  # fmt: skip
        self.job.ended.add_done_callback(self._died)

    @property
    def is_fit(self) -> bool:
        """Whether it can take another request."""
        return not self._spoilt and not self.job.ended.done()

    def send(self, stages: Sequence[Stage]) -> None:
        """Send a callout; the worker must be idle."""
        bounds = json.dumps([[stage.limits.file, stage.limits.stdout] for stage in stages]).encode()
        descriptors = [descriptor for stage in stages for descriptor in stage.descriptors]
        try:
            socket.send_fds(self._socket, [bounds], descriptors)
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

    def __init__(self, worker: Worker, stages: Sequence[Stage]) -> None:
        self.worker = worker
        self.ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        worker.callout = self
        worker.send(stages)

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
