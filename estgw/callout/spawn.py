"""Start any program by posix_spawn, in a group and with an environment of its own.  Nothing here is about EST."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from estgw.callout.process import CouldNotStart, Files, Limits, Outcome, memory_files, supervise


async def run(program: Path, env: Mapping[str, str], stdin: bytes, limits: Limits) -> Outcome:
    """Run a program to its end.  argv is its path, the working directory the one that it lies in.

    It gets a new session (so nothing can prompt on a terminal, and a timeout signals the whole group), umask 077,
    default signals and three descriptors.  When this returns or is cancelled, its process group is gone.  Raises
    `CouldNotStart`.
    """
    with memory_files(stdin) as files:
        return await supervise(_Process(program, env, files, limits.file), files, limits)


@contextlib.contextmanager
def inherited_file_limit(size: int) -> Iterator[None]:
    """Limit the files of programs started inside to `size` bytes.

    Our own soft limit is lowered meanwhile, so that the child has the limit from its first instruction.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    bounds = [limit for limit in (size, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def disown_inheritance() -> None:
    """Give programs default signals and no inherited file; to be called once, at the start of the gateway.

    exec passes on ignored and blocked signals.  With SIGCHLD ignored no exit status is available, and a refusal would
    look like success.  A caught signal is reset by exec, so ignored signals get an empty handler here.  An inherited
    file may hold a secret; files that Python opens are closed by exec (PEP 446).
    """
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor > 2:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself
                os.set_inheritable(descriptor, False)
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # these two are restored at each start
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _ignore)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing, like SIG_IGN."""


class _Process:
    """A child process, started by exec."""

    def __init__(self, program: Path, env: Mapping[str, str], files: Files, file_limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        try:
            self._pid = _start(program, env, files, file_limit)
            self._descriptor = self._watch()
        except OSError as fault:
            raise CouldNotStart.by(program, fault) from fault

    def _watch(self) -> int:
        """A descriptor that is readable when it ends.

        A process that can't be watched is killed, and OSError is raised.
        """
        try:
            descriptor = os.pidfd_open(self._pid)
            try:
                self._loop.add_reader(descriptor, self._note_end)
            except BaseException:
                os.close(descriptor)
                raise
        except BaseException:
            self.signal_group(signal.SIGKILL)
            os.waitpid(self._pid, 0)
            raise
        return descriptor

    def _note_end(self) -> None:
        self._loop.remove_reader(self._descriptor)
        if not self.ended.done():
            self.ended.set_result(None)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to its process group: to all that it has started, unless they have left the group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, number)

    async def finish(self) -> int:
        """Kill what is left of the group, then reap the leader.

        In this order, because until the leader is reaped no other process group can get its id.
        """
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self.signal_group(signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)  # noqa: ASYNC222 - it has been killed
        return os.waitstatus_to_exitcode(status)


def _start(program: Path, env: Mapping[str, str], files: Files, file_limit: int) -> int:
    """Start a program as `run` promises, and return its process id.  Raises OSError.

    posix_spawn takes half the time of `subprocess`.  It can't set the working directory or the umask, which a child
    inherits, so both are changed in this process meanwhile.  The thread of `record.recorder` may run at that time, and
    gives absolute paths and modes.
    """
    with _surroundings(program.parent), inherited_file_limit(file_limit):
        try:
            return os.posix_spawn(
                program,
                (program,),
                env,
                file_actions=[(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(files)],
                setsid=True,
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores these two
            )
        except NotImplementedError:  # this Python was built for a C library from before 2017
            stdin, stdout, stderr = files
            child = subprocess.Popen(
                [program], stdin=stdin, stdout=stdout, stderr=stderr, env=env, start_new_session=True
            )
            child.returncode = 0  # it is ours to wait for, not the object's
            return child.pid


@contextlib.contextmanager
def _surroundings(directory: Path) -> Iterator[None]:
    """Working directory and umask for what is started inside."""
    ours, mask = os.open(".", os.O_PATH | os.O_CLOEXEC), os.umask(0o077)
    try:
        os.chdir(directory)
        yield
    finally:
        os.fchdir(ours)
        os.close(ours)
        os.umask(mask)
