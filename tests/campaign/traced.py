"""System calls of a script, seen by strace: the order of its changes, and a kill at each of them."""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")

WRITES = ("write", "pwrite64", "writev", "pwritev", "copy_file_range", "sendfile", "truncate", "ftruncate", "fallocate")
RENAMES = ("rename", "renameat", "renameat2", "link", "linkat")
OPENS = ("open", "openat", "creat")
CHANGES = (
    *OPENS, *WRITES, *RENAMES, "unlink", "unlinkat", "symlink", "symlinkat", "mkdir", "mkdirat",
    "rmdir", "fsync", "fdatasync",
)  # fmt: skip
SILENCE = 5.0
"""Seconds without a system call after which a traced script counts as stuck."""
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")


@dataclass(frozen=True)
class Change:
    """One system call that succeeded: its name, and the files that it names, in their order."""

    name: str
    files: tuple[str, ...]


class Traced:
    """Runs commands under strace and observes their changes below one directory."""

    def __init__(self, root: Path, *, opens: bool = True) -> None:
        """`opens`: also kill between the creation of a file and its first write."""
        self.root = root
        self._fatal = [name for name in CHANGES if opens or name not in OPENS]

    def changes(self, command: Sequence[str | Path], env: Mapping[str, str], **options: object) -> list[Change]:
        """Run a command to its end. Returns its changes in the order of the system calls, its output included."""
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "log")
            tracing = ["strace", "-f", "--seccomp-bpf", "-y", "-s", "0", "-o", str(log)]
            tracing += ["-e", f"trace={','.join(CHANGES)}"]
            done = subprocess.run([*tracing, *command], env=dict(env), check=False, capture_output=True, **options)  # type: ignore[call-overload]
            assert done.returncode == 0, done
            reader = _Reader(options.get("cwd"))
            return [change for line in log.read_text().splitlines() if (change := reader.read(line))]

    def kill(self, at: int, command: Sequence[str | Path], env: Mapping[str, str], **options: object) -> bool:
        """Run a command and kill it, and all that it has started, right after its change number `at`, counted from 1.

        Returns False if it ended before.
        """
        while True:
            with tempfile.TemporaryDirectory() as folder:
                pipe = Path(folder, "pipe")
                os.mkfifo(pipe)
                # Each such call stops its process until the next line of the log is read; then it goes on or is killed.
                # With a pending signal, copy_file_range would restart forever.
                calls = ",".join(name for name in self._fatal if name != "copy_file_range")
                tracing = ["strace", "-f", "-y", "-s", "0", "-o", str(pipe), "-e", f"trace={','.join(CHANGES)}"]
                tracing += ["-e", f"inject={calls}:signal=STOP"]
                process = subprocess.Popen(  # type: ignore[call-overload]
                    [*tracing, *command], env=dict(env), start_new_session=True, **options
                )
                with process, pipe.open("rb", buffering=0) as log:
                    try:
                        return self._watch(at, _Reader(options.get("cwd")), _lines(log))
                    except TimeoutError:
                        continue  # killed at an earlier change; try again
                    finally:
                        with contextlib.suppress(ProcessLookupError):
                            os.killpg(process.pid, signal.SIGKILL)

    def _watch(self, at: int, reader: _Reader, lines: Iterator[str]) -> bool:
        """Continue each stopped process until the change has come. Returns False if the log ends before."""
        for line in lines:
            pid, _, said = line.partition(" ")
            if "stopped by SIGSTOP" not in said:
                reader.read(line)
                continue
            change = reader.last.pop(pid, None)
            if change is not None and change.files[-1].startswith(str(self.root)):
                at -= 1
            if at == 0:
                return True
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGCONT)
        return False


def _lines(log: io.RawIOBase) -> Iterator[str]:
    """The lines of a pipe as they come. Raises `TimeoutError` if a stopped process misses its SIGCONT, as some do."""
    rest = b""
    while True:
        if not select.select([log], [], [], SILENCE)[0]:
            raise TimeoutError
        read = log.read(1 << 16)
        if not read:
            return
        *lines, rest = (rest + read).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


class _Reader:
    """Parses the lines of a log into changes."""

    def __init__(self, folder: object) -> None:
        self._folder = str(folder or "/")
        """The directory of relative names."""
        self._begun: dict[str, str] = {}
        self.last: dict[str, Change] = {}
        """The newest change of each process, by its number."""

    def read(self, line: str) -> Change | None:
        """The change in a line, if the call has ended and changed something."""
        pid, _, said = line.rstrip().partition(" ")
        if said.endswith("<unfinished ...>"):
            self._begun[pid] = said.removesuffix("<unfinished ...>")
            return None
        if resumed := re.match(r" *<\.\.\. \w+ resumed>", said):
            said = self._begun.pop(pid, "") + said[resumed.end() :]
        found = _CALL.match(said.strip())
        if not found or int(found["result"]) < 0:
            return None
        if found["name"] in OPENS and not re.search("O_CREAT|O_TRUNC", found["arguments"]):
            return None
        change = Change(found["name"], tuple(self._files(found["name"], found["arguments"])))
        if change.files:
            self.last[pid] = change
        return change if change.files else None

    def _files(self, name: str, arguments: str) -> Iterator[str]:
        """Absolute paths: `5</a/b>` is a descriptor; `AT_FDCWD</a>, "b"` and `"b"` are names."""
        if name in (*WRITES, "fsync", "fdatasync") and name != "truncate":
            yield from re.findall(r"\d+<([^>]*)>", arguments)[-1:]  # the last one is written
            return
        for folder, path in re.findall(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"([^"]*)"', arguments):
            yield os.path.normpath(os.path.join(folder or self._folder, path))
