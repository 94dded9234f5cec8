"""The gateway's end of the warm parent: starts it, asks it for children, replaces it when it dies.

What is asked and answered is written down in `forkserver`.
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

from estgw.callout import interpreter, process
from estgw.callout.job import PATIENCE, Job, environment_file
from estgw.callout.process import CouldNotStart, Limits, Outcome
from estgw.logs import log

PACKET = 64 * 1024
STILLBORN = 3
"""Parents that die before they are ready, one after the other, before requests are refused."""

# Its search path is that of an interpreter that runs a script, but for the first entry, which says where we are.
_BEGIN = (
    "import sys; modules = set(sys.modules); sys.path[0] = sys.argv[1]; "
    "from estgw.callout import forkserver; forkserver.main(int(sys.argv[2]), modules, sys.argv[3])"
)
_ROOT = str(Path(__file__).resolve().parents[2])
# What the interpreter reads at its start and the contract promises; HOME keeps it away from a user's own modules.
_ENVIRONMENT = {"LC_CTYPE": "C.UTF-8", "TZ": "UTC", "HOME": "/nonexistent"}


class Warm:
    """The warm parent, as long as the gateway lives; it is started by `start`, or when it is first needed."""

    def __init__(self, file_limit: int = process.FILE_LIMIT, *, home: Path | None = None) -> None:
        """`file_limit` is the largest file that a child may write, in bytes.

        `home` is the gateway's private directory, which the parent removes when the gateway has died.
        """
        self._file_limit = file_limit
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._note = self._words = -1  # its stdout, where it says what it is at, and its stderr
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
        """Whether it has done its imports; what is asked before waits for that."""
        return self._process is not None and self._ready

    def start(self) -> None:
        """Start it, if it does not run; it gets ready while we go on.  Raises OSError."""
        if self._process is not None:
            return
        with contextlib.ExitStack() as ours_alone:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours_alone.enter_context(ours)
            with theirs:
                note = process.memory_file("warm-stdout", interpreter.HEADER.pack(0))
                ours_alone.callback(os.close, note)
                words = process.memory_file("warm-stderr")
                ours_alone.callback(os.close, words)
                with process.inherited_file_limit(self._file_limit):
                    self._process = subprocess.Popen(
                        [sys.executable, "-c", _BEGIN, _ROOT, str(theirs.fileno()), str(self._home or "")],
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
        """Run a Python script to its end in a child of its own; all that `process.run` promises holds."""
        with environment_file(program, env) as environment, process.memory_files(stdin) as files:
            job = self.ask(program, "run", str(program), limits.file, descriptors=(environment, *files))
            return await process.supervise(job, files, limits)

    def ask(
        self,
        program: Path,
        word: str,
        *details: object,
        descriptors: Sequence[int],
        on_begin: Callable[[], None] = lambda: None,
    ) -> Job:
        """Ask for a child; the descriptors must stay open until it has begun or ended."""
        self._numbers += 1
        packet = json.dumps([word, self._numbers, *details]).encode()
        job = self._jobs[self._numbers] = Job(self, self._numbers, program, packet, descriptors, on_begin)
        self._dispatch([job])
        return job

    def signal(self, job: Job, number: signal.Signals) -> None:
        """Signal a child's group; only the parent knows for sure that the number still is that child's."""
        if self._process is None:
            return
        waiting = next((item for item in self._outbox if item[2] is job), None)
        if waiting is None:
            self._post(json.dumps(["signal", job.number, int(number)]).encode(), ())
        else:
            self._outbox.remove(waiting)
            self.settle(job, -number)

    def settle(self, job: Job, code: int | None = None, fault: Exception | None = None) -> None:
        """A child has ended, or there will be none."""
        self._jobs.pop(job.number, None)
        if job.ended.done():
            return
        if fault is None:
            job.ended.set_result(code)
        else:
            job.ended.set_exception(fault)

    def give_up(self) -> None:
        """The parent does not do what it is told: end it, which starts another."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the parent, and with it whatever of its children is left."""
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
            except BlockingIOError:  # the kernel keeps ten or so unread packets; the rest waits here
                loop.add_writer(self._control, self._empty_outbox)
                return
            except ConnectionError:  # it has just died, and we are about to be told
                break
            self._outbox.popleft()
        loop.remove_writer(self._control)

    def _receive(self) -> None:
        assert self._control is not None
        try:
            packet = self._control.recv(PACKET)
        except (BlockingIOError, ConnectionError):
            # It died with something of ours unread: Linux says so before it hands out what the dead has said, and says
            # so once.  Who has begun is in that; whoever took it for the end would have scripts run twice.
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
        """Close our end; returns the number of the child it was at, and what it said on stderr."""
        assert self._control is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._control)
        loop.remove_writer(self._control)
        self._control.close()
        self._outbox.clear()
        (at,) = interpreter.HEADER.unpack(os.pread(self._note, interpreter.HEADER.size, 0))
        words = os.pread(self._words, PACKET, max(0, os.fstat(self._words).st_size - PACKET))
        os.close(self._note)
        os.close(self._words)
        return at, words

    def _replace(self) -> None:
        """The parent is dead: another one, at once.

        Every child that it had forked has said so before this socket closed; those go on, as orphans.  What has not
        begun is asked for again, but for the one that the parent was at: it might kill the next one as well.
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
