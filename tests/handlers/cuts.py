"""What a power cut would leave: a CA's directory as it is whenever one of its scripts starts a program."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.handlers.bench import PATH, Workspace

PROGRAMS = (
    "openssl", "mv", "ln", "rm", "mkdir", "chmod", "cat", "cp", "cmp", "sed", "sync", "mktemp", "flock", "date",
    "awk", "touch", "sqlite3",
)  # fmt: skip

STUB = """#!/bin/bash
printf . >>"{here}/calls"
calls=$(<"{here}/calls")
if [[ ${{FATAL-}} ]]; then
    ((${{#calls}} != FATAL)) || kill -KILL 0
else
    twin={here}/twins/$EPOCHREALTIME.$$
    /bin/mkdir -p "$twin"
    /bin/cp -a {ca} "$twin/openssl-ca"
    /bin/ln -s {handlers} "$twin/handlers"
fi
exec {real} "$@"
"""


@dataclass(frozen=True)
class Cuts:
    """Runs scripts of a CA, or a handler's helper, with a PATH of stubs; the workspace's path must be an easy one."""

    workspace: Workspace
    here: Path

    @classmethod
    def prepare(cls, workspace: Workspace, here: Path) -> Cuts:
        here.mkdir()
        for program in PROGRAMS:
            if not (real := shutil.which(program, path=PATH)):
                continue
            stub = here / program
            stub.write_text(STUB.format(here=here, real=real, ca=workspace.ca, handlers=workspace.path / "handlers"))
            stub.chmod(0o755)
        return cls(workspace, here)

    @property
    def calls(self) -> int:
        """How many programs the last script has started."""
        return len((self.here / "calls").read_text())

    def kill(self, script: str, *options: str, at: int) -> None:
        """Run a script that does not survive the start of that program, nor does anything that it has started."""
        assert self._run(script, *options, FATAL=str(at)) == -9

    def twins(self, script: str, *options: str) -> Iterator[Workspace]:
        """Run a script to its end; what was there at each step, in their order."""
        assert self._run(script, *options) == 0
        for twin in sorted((self.here / "twins").iterdir()):
            yield Workspace(twin)
            shutil.rmtree(twin)

    def _run(self, script: str, *options: str, **env: str) -> int:
        (self.here / "calls").unlink(missing_ok=True)
        return subprocess.run(
            [self.workspace.ca / script, *options],
            env={"PATH": f"{self.here}:{PATH}", "EST_CA_DIR": str(self.workspace.ca)} | env,
            capture_output=True,
            start_new_session=True,
            check=False,
        ).returncode
