"""Programs run as a participant: under a user id of its own, with a /tmp of its own, and with bounds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from estgw.workshop.fault import WorkshopError
from estgw.workshop.plan import Seat, Workshop

ROOT = str(Path(__file__).resolve().parents[2])
_RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); "
ESTGW = (sys.executable, "-I", "-c", f"{_RUN}from estgw.cli.main import main; sys.exit(main())", ROOT)
"""The command line of `estgw`, from wherever this process has it."""
ESTCLIENT = (sys.executable, "-I", "-c", f"{_RUN}from estgw.client.__main__ import main; sys.exit(main())", ROOT)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "2"}
"""Two arenas: each thread of a gateway would have one of its own otherwise, which costs 10 MB."""
TMP = 64
"""MiB of a participant's /tmp, /var/tmp and /dev/shm together."""
FILE_SIZE = 256 << 20
"""Bytes of the largest file that a participant's process may write."""
SECONDS = 120.0

# As root, in a mount namespace of its own, before the user id changes.
_PRIVATE = f"""
mount -t tmpfs -o size={TMP}m,nr_inodes=20k,mode=1777,nosuid,nodev tmpfs /tmp
mount --bind /tmp /var/tmp
mount --bind /tmp /dev/shm
echo 500 >/proc/self/oom_score_adj
"""


def module(name: str) -> tuple[str, ...]:
    """The command line that calls `main()` of a module of this folder."""
    return (sys.executable, "-I", "-c", f"{_RUN}from estgw.workshop.{name} import main; sys.exit(main())", ROOT)


def run_as(seat: Seat, command: Sequence[str], stdin: bytes = b"", *, output: IO[bytes] | None = None) -> bytes:
    """Run a command to its end as a participant, in its directory, and return what it prints.

    With `output`, that goes to this file.  Raises `WorkshopError` with the last line of its standard error if it fails.
    """
    with subprocess.Popen(
        _wrapped(seat, _BOUNDS, command),
        stdin=subprocess.PIPE,
        stdout=output or subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=seat.folder,
        env=ENVIRONMENT,
        umask=0o077,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(stdin, SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise WorkshopError(f"{seat.id}: {Path(command[0]).name} took more than {SECONDS:.0f} s") from None
    if process.returncode:
        words = stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit status {process.returncode}"]
        raise WorkshopError(f"{seat.id}: {words[-1].removeprefix('estgw: ')}")
    return stdout or b""


def confined(workshop: Workshop, seat: Seat, command: Sequence[str], log: str) -> list[str]:
    """The command line of a participant's gateway, for root to run.

    Its log goes to the file `log` in its own directory, as its own user: root opens nothing there.  Its standard output
    is dropped, since that has the link of the page with the token.
    """
    rotated = f'test "$(stat -c %s {log} 2>/dev/null || echo 0)" -lt 10000000 || mv {log} {log}.1'
    logged = f'{rotated}; exec "$@" 2>>{log} >/dev/null'
    return _wrapped(seat, Bounds(workshop.tasks, workshop.memory), ["sh", "-c", logged, "sh", *command])


class Bounds(NamedTuple):
    """What the processes of a participant may have."""

    tasks: int
    memory: int
    """MiB of one process."""


_BOUNDS = Bounds(300, 1024)
"""Of commands that a trainer gives: a participant's files, such as openssl.cnf, decide what these do."""


def _wrapped(seat: Seat, bounds: Bounds, command: Sequence[str]) -> list[str]:
    """A command line for root to run, which is the command as a participant."""
    if seat.uid is None:
        own = ["setpriv", "--pdeathsig=TERM", "--"] if shutil.which("setpriv") else []
        return [*own, *command]
    limits = [f"--nproc={bounds.tasks}", f"--data={bounds.memory << 20}", f"--fsize={FILE_SIZE}", "--core=0"]
    identity = [f"--reuid={seat.uid}", f"--regid={seat.uid}", "--clear-groups", "--no-new-privs"]
    # A gateway ends with the supervisor, even if that is killed.
    identity += ["--pdeathsig=TERM", "--inh-caps=-all", "--bounding-set=-all"]
    # prlimit runs after setpriv: the program that setpriv itself starts is still found with root's rights.
    inside = ["setpriv", *identity, "--", "prlimit", *limits, "--", *command]
    return ["unshare", "--mount", "--", "sh", "-ec", f'{_PRIVATE}exec "$@"', "sh", *inside]


def unreachable(seat: Seat, paths: Sequence[Path]) -> list[str]:
    """A sentence for each path that a participant can't reach, with the directory that is in the way."""
    found = []
    for path in paths:
        for place, steps in ((path, path.parents), (path.resolve(), (path.resolve(), *path.resolve().parents))):
            for step in reversed(steps):
                flag = "-x" if step.is_dir() else "-r"
                test = ["setpriv", f"--reuid={seat.uid}", f"--regid={seat.uid}", "--clear-groups", "--"]
                done = subprocess.run(
                    [*test, "/usr/bin/env", "test", flag, str(step)], check=False, capture_output=True
                )
                if done.returncode:
                    found.append(f"{step} is closed to participants, who need {place}")
                    break
    return list(dict.fromkeys(found))


def end_all(seat: Seat) -> None:
    """Kill all processes of a participant, those that fork while it happens included."""
    if seat.uid is None:
        return
    for _ in range(20):
        ids = {"user": seat.uid, "group": seat.uid, "extra_groups": ()}
        kill = ["/bin/sh", "-c", "kill -KILL -1"]
        subprocess.run(kill, check=False, capture_output=True, **ids)  # type: ignore[call-overload]
        if not any(pid for pid, uid, _ in processes() if uid == seat.uid):
            return


def processes() -> list[tuple[int, int, int]]:
    """Pid, user id and own resident bytes of all processes that are not zombies."""
    found = []
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            lines = dict(line.split(":", 1) for line in (path / "status").read_text().splitlines() if ":" in line)
        except OSError:
            continue
        if lines.get("State", " Z").split()[0] in ("Z", "X"):
            continue
        # Not the pages of files, as libraries are in memory once for all participants.
        resident = sum(int(lines.get(key, "0 kB").split()[0]) << 10 for key in ("RssAnon", "RssShmem"))
        found.append((int(path.name), int(lines["Uid"].split()[1]), resident))
    return found
