"""The gateway's side of the warm parent: start it, ask it for children, replace it when it dies.

Theory of operation.  Python handlers spend most of their time on imports.  So the gateway starts one process, the warm
parent (`forkserver`), which imports them once and then forks a child for each callout.  Three objects work together:

    Warm          in the gateway: one control socket to the parent; a queue of packets that wait for room in it
    Job           in the gateway: one child, from the request for it until its end
    _Parent       in the parent: forks, signals and reaps children, and reports each step

The gateway never forks itself, since it has keys, sockets and threads.  The parent has none of them.  Descriptors for
environment, stdin, stdout and stderr travel with the packet (SCM_RIGHTS).

Three rules keep each script from running twice and from running unnoticed:

1. A child reports `began` itself, before its first line runs, on the parent's socket.  When the gateway reads the end
   of that socket, it knows of every child that has begun.
2. The parent writes the number of the request that it works on into a file (`_note`).  If it dies, the gateway fails
   that request, because it may be the cause; it asks the next parent for all others that have not begun.
3. A child that outlives the parent is an orphan: the gateway watches it by a pidfd, and the child writes its exit
   status into its environment's header, where the gateway finds it.

The packets are listed in `forkserver`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from estgw.callout import interpreter, process, spawn
from estgw.callout.job import PATIENCE, Job, laid_out
from estgw.callout.process import CouldNotStart, Limits, Outcome, Script
from estgw.logs import log

PACKET = 64 * 1024
STILLBORN = 3
"""After this many parents in a row have died before they were ready, requests are refused."""

# The search path is that of an interpreter that runs a script, except for the first entry: where this package lies.
_BEGIN = (
    "import sys; modules = set(sys.modules); sys.path[0] = sys.argv[1]; "
    "from estgw.callout import forkserver; forkserver.main(int(sys.argv[2]), modules, sys.argv[3], sys.argv[4:])"
)
_ROOT = str(Path(__file__).resolve().parents[2])
# The interpreter reads these at its start, and the contract promises them.  HOME keeps it from a user's own modules.
_ENVIRONMENT = {"LC_CTYPE": "C.UTF-8", "TZ": "UTC", "HOME": "/nonexistent"}


def _order(program: Path, limits: Limits) -> tuple[str, int, int]:
    """A script as it stands in a packet: its path, and the bounds on its files and its stdout in bytes."""
    return str(program), limits.file, limits.stdout


class Warm:
    """The warm parent of one gateway process; it is started by `start`, or when it is first needed."""

    def __init__(self, file_limit: int = process.FILE_LIMIT, *, home: Path | None = None) -> None:
        """`file_limit` is the largest file that a child may write, in bytes.

        `home` is the gateway's private directory, which the parent removes when the gateway has died.
        """
        self._file_limit = file_limit
        self._home = home
        self._preload: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._note = self._words = -1  # its stdout, which has the number of its current request, and its stderr
        self._ready = False
        self._stillborn = 0
        self._numbers = 0
        self._jobs: dict[int, Job] = {}
        self._outbox: deque[tuple[bytes, Sequence[int], Job | None]] = deque()

    @property
    def pid(self) -> int | None:
        """The parent's process id; None when there is none."""
        return self._process.pid if self._process else None

    @property
    def is_ready(self) -> bool:
        """Whether its imports are done; requests that come earlier wait for that."""
        return self._process is not None and self._ready

    def start(self, preload: Sequence[str] = ()) -> None:
        """Start it, if it does not run.  It does its imports while the gateway goes on.  Raises OSError.

        `preload` are modules to import besides those of `forkserver.PRELOADED`, also by each later parent.  One that
        runs already does not change.
        """
        self._preload = tuple(dict.fromkeys((*self._preload, *preload)))
        if self._process is not None:
            return
        with contextlib.ExitStack() as ours_alone:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours_alone.enter_context(ours)
            with theirs:
                note = process.memory_file("warm-stdout", interpreter.NOTE.pack(0))
                ours_alone.callback(os.close, note)
                words = process.memory_file("warm-stderr")
                ours_alone.callback(os.close, words)
                arguments = (_ROOT, str(theirs.fileno()), str(self._home or ""), *self._preload)
                with spawn.inherited_file_limit(self._file_limit):
                    self._process = subprocess.Popen(
                        [sys.executable, "-c", _BEGIN, *arguments],
                        stdin=subprocess.DEVNULL,
                        stdout=note,
                        stderr=words,
                        env=_ENVIRONMENT,
                        cwd="/",
                        pass_fds=[theirs.fileno()],
                        start_new_session=True,
                    )
            ours_alone.pop_all()
        ours.setblocking(False)
        self._control, self._note, self._words, self._ready = ours, note, words, False
        asyncio.get_running_loop().add_reader(ours, self._receive)

    async def run(self, program: Path, env: Mapping[str, str], stdin: bytes, limits: Limits) -> Outcome:
        """Run a Python script to its end in a new child.  The promises of `spawn.run` hold."""
        with laid_out(Script(program, env, stdin, limits)) as stage:
            job = self.ask(program, "run", [_order(program, limits)], descriptors=stage.descriptors)
            return await process.supervise(job, stage.files, limits)

    async def run_both(self, first: Script, second: Script) -> tuple[Outcome, Outcome | None]:
        """Run two Python scripts of one directory in a new child, the second if the first exits with 0.

        Each has all that `run` promises.  The second outcome is None if the second script has not begun: because of the
        first one's end, or because the first has left something behind in the process that a new one would not have.
        """
        with laid_out(first) as one, laid_out(second) as two:
            scripts = [_order(script.program, script.limits) for script in (first, second)]
            descriptors = (*one.descriptors, *two.descriptors)
            job = self.ask(first.program, "run", scripts, descriptors=descriptors)
            return await process.supervise_both(job, one, two)

    def ask(
        self,
        program: Path,
        word: str,
        *details: object,
        descriptors: Sequence[int],
        on_begin: Callable[[], None] = lambda: None,
    ) -> Job:
        """Ask for a child.  The descriptors must stay open until it has begun or ended."""
        self._numbers += 1
        packet = json.dumps([word, self._numbers, *details]).encode()
        job = self._jobs[self._numbers] = Job(self, self._numbers, program, packet, descriptors, on_begin)
        self._dispatch([job])
        return job

    def signal(self, job: Job, number: signal.Signals) -> None:
        """Signal a child's group by way of the parent, which reaps, so that the pid still is the child's."""
        if self._process is None:
            return
        waiting = next((item for item in self._outbox if item[2] is job), None)
        if waiting is None:
            self._post(json.dumps(["signal", job.number, int(number)]).encode(), ())
        else:
            self._outbox.remove(waiting)
            self.settle(job, -number)

    def settle(self, job: Job, code: int | None = None, fault: Exception | None = None) -> None:
        """Record that a child has ended, or that it could not be started."""
        self._jobs.pop(job.number, None)
        if job.ended.done():
            return
        if fault is None:
            job.ended.set_result(code)
        else:
            job.ended.set_exception(fault)

    def give_up(self) -> None:
        """Kill a parent that does not answer.  `_replace` then starts another."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the parent and all children that are left."""
        if self._process is None:
            return
        self._part()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        self._process.kill()
        self._process.wait()
        self._process = None
        for job in list(self._jobs.values()):
            self.settle(job)

    def _dispatch(self, jobs: list[Job]) -> None:
        try:
            self.start()
        except OSError as fault:
            for job in jobs:
                self.settle(job, fault=CouldNotStart.by(job.program, fault, "no warm parent: "))
            return
        for job in jobs:
            self._post(job.packet, job.descriptors, job)

    def _post(self, packet: bytes, descriptors: Sequence[int], job: Job | None = None) -> None:
        self._outbox.append((packet, descriptors, job))
        if len(self._outbox) == 1:
            self._empty_outbox()

    def _empty_outbox(self) -> None:
        assert self._control is not None
        loop = asyncio.get_running_loop()
        while self._outbox:
            packet, descriptors, _ = self._outbox[0]
            try:
                socket.send_fds(self._control, [packet], descriptors)
            except BlockingIOError:  # the kernel keeps about ten unread packets; the others wait here
                loop.add_writer(self._control, self._empty_outbox)
                return
            except ConnectionError:  # it has just died; `_receive` is about to read the end of the socket
                break
            self._outbox.popleft()
        loop.remove_writer(self._control)

    def _receive(self) -> None:
        assert self._control is not None
        try:
            packet = self._control.recv(PACKET)
        except (BlockingIOError, ConnectionError):
            # It died with a packet of ours unread.  Linux reports that once, before the packets that are still queued.
            # Those report which scripts began.  Treating this error as the end would run them again.
            return
        if not packet:
            self._replace()
            return
        match json.loads(packet):
            case ["ready"]:
                self._ready, self._stillborn = True, 0
            case ["began", int(number), int(pid)] if job := self._jobs.get(number):
                job.pid = pid
                job.on_begin()
            case ["ended", int(number), int(code)] if job := self._jobs.get(number):
                self.settle(job, code)
            case ["failed", int(number), int(error)] if job := self._jobs.get(number):
                self.settle(job, fault=CouldNotStart.by(job.program, OSError(error, os.strerror(error))))

    def _part(self) -> tuple[int, bytes]:
        """Close our end.  Returns the number of its current request, and its last words on stderr."""
        assert self._control is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._control)
        loop.remove_writer(self._control)
        self._control.close()
        self._outbox.clear()
        (at,) = interpreter.NOTE.unpack(os.pread(self._note, interpreter.NOTE.size, 0))
        words = os.pread(self._words, PACKET, max(0, os.fstat(self._words).st_size - PACKET))
        os.close(self._note)
        os.close(self._words)
        return at, words

    def _replace(self) -> None:
        """Start another parent after this one has died.

        Each child that had begun reported so before the socket closed; it goes on as an orphan.  Requests that have not
        begun are repeated, except for the parent's current one, which might kill the next parent as well.
        """
        assert self._process is not None
        at, words = self._part()
        self._process.kill()
        code = self._process.wait()
        self._process = None
        log.error("the warm parent died", code=code, stderr=words.decode("utf-8", "backslashreplace"))
        for job in [job for job in self._jobs.values() if job.pid is not None and not job.is_orphan]:
            job.become_orphan()
        for job in [job for job in self._jobs.values() if job.pid is None and job.told is not None]:
            self.settle(job, -signal.SIGKILL)
        waiting = [job for job in self._jobs.values() if job.pid is None]
        suspects = [job for job in waiting if job.number == at]
        if not self._ready:
            self._stillborn += 1
            suspects = waiting if self._stillborn >= STILLBORN else []
        for job in suspects:
            self.settle(job, fault=CouldNotStart(f"{job.program}: the warm parent died at it"))
        again = [job for job in waiting if job not in suspects]
        if again or self._ready or self._stillborn < STILLBORN:
            self._dispatch(again)
