"""Scripts without a network, that can write to their CA and their private directory alone: by bwrap, where it works."""

from __future__ import annotations

import itertools
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from estgw.callout import spawn
from estgw.callout.language import Language
from estgw.callout.process import Limits, Outcome

PROBE_SECONDS = 5.0
"""How long bwrap may take to start `true`."""
# --dev makes an empty /dev/shm, where a workspace may lie as anywhere else.
_COMMON = (
    *("--ro-bind", "/", "/", "--dev", "/dev", "--ro-bind-try", "/dev/shm", "/dev/shm"),  # noqa: S108 - it is only read
    *("--proc", "/proc", "--unshare-net", "--unshare-ipc"),
)


def find() -> Path | None:
    """The program bwrap, if it is installed and may make namespaces here."""
    found = shutil.which("bwrap")
    if found is None:
        return None
    try:
        done = subprocess.run(
            [found, *_COMMON, "true"], capture_output=True, check=False, timeout=PROBE_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Path(found) if done.returncode == 0 else None


@dataclass(frozen=True)
class Sandbox:
    """A runner in place of exec."""

    bwrap: Path
    wrappers: Path
    """A private directory (0700) for the files that start scripts."""
    writable: Sequence[Path]
    """The directories that scripts can write to."""

    languages: ClassVar = frozenset(Language)
    needs_warm: ClassVar = False
    _numbers: ClassVar = itertools.count()

    async def run(self, program: Path, env: Mapping[str, str], stdin: bytes, limits: Limits) -> Outcome:
        """Run a program inside, as `spawn.run` does: a runner's argv is a path alone, so a file has the options."""
        binds = [part for path in self.writable for part in ("--bind", str(path), str(path))]
        # bwrap dies with the gateway, and what it has started dies with it, as it is process 1 of its namespace.
        command = [str(self.bwrap), *_COMMON, "--unshare-pid", "--die-with-parent", *binds]
        command += ["--chdir", str(program.parent), "--", str(program)]
        wrapper = self.wrappers / f"run-{next(self._numbers)}"
        wrapper.write_text(f"#!/bin/sh\nexec {shlex.join(command)}\n")
        wrapper.chmod(0o700)
        try:
            return await spawn.run(wrapper, env, stdin, limits)
        finally:
            wrapper.unlink()

    def close(self) -> None:
        """Do nothing: each run starts and ends its own process."""
