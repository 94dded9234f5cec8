"""Scripts: short ones that a test writes, the shipped handler sets, and a script cut off at any of its steps."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.kit.connection import Response
from tests.kit.processes import PATH
from tests.kit.workspace import Result, Workspace

OWN_PYTHON = f"{Path(sys.executable).parent}:{PATH}"
"""The PATH of a gateway in a virtual environment, which has cryptography in it."""

ENVIRONMENT = {"EST_AUTH_METHODS": "http", "EST_REENROLL": "renew", "PATH": OWN_PYTHON}
"""What these sets are told besides."""

ISSUING = ("simpleenroll", "simplereenroll", "serverkeygen")
PROFILES = ("client", "server", "both", "ra", "short-lived")
"""The profiles that both sets have."""
ML_DSA_KINDS = ("ml-dsa-44", "ml-dsa-65", "ml-dsa-87")

# Short scripts.


def script(directory: Path, text: str, name: str = "program") -> Path:
    """A Bash script, executable."""
    return _write(directory / name, f"#!/bin/bash\n{text}\n")


def python(directory: Path, text: str, name: str = "program") -> Path:
    """A Python script of this interpreter, isolated: nothing is imported that it does not import."""
    return _write(directory / name, f"#!{sys.executable} -IS\n{text}\n")


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


REFLECT = "#!/bin/sh\nenv\n"
"""The whole environment, in the order it comes; for handlers with `raw_output`."""
REFLECTING = {"raw_output": True, "enabled": True}


def seen(answer: Response) -> dict[str, str]:
    """What a reflecting handler saw."""
    assert answer.status == 200, (answer, answer.body)
    text = re.sub(r"(=-----BEGIN [A-Z ]+-----)[^-]*-----END [A-Z ]+-----\n", r"\1", answer.body.decode())
    return dict(line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))


# Scripts that a user edits; nothing is restarted.


@contextlib.contextmanager
def edited(lab: Workspace, script: str, changed: str) -> Iterator[None]:
    """Another text of a script for a while."""
    path = lab.path / script
    before = path.read_text()
    assert changed != before
    path.write_text(changed)
    try:
        yield
    finally:
        path.write_text(before)


def policy(lab: Workspace, heading: str) -> contextlib.AbstractContextManager[None]:
    """Uncomment all lines below a heading of the shipped `authorize`."""
    script = "handlers/openssl/authorize"
    above, found, below = (lab.path / script).read_text().partition(f"# {heading}")
    assert found, heading
    rest, *lines = below.splitlines(keepends=True)
    count = next((at for at, line in enumerate(lines) if not line.startswith("# ")), len(lines))
    changed = [line.removeprefix("# ") for line in lines[:count]]
    return edited(lab, script, above + found + rest + "".join(changed + lines[count:]))


def uncommented(lab: Workspace, script: str, start: str) -> contextlib.AbstractContextManager[None]:
    """Uncomment a policy of a script for a while."""
    return edited(lab, script, uncommented_text((lab.path / script).read_text(), start))


def uncommented_text(text: str, start: str) -> str:
    """A script without the `# ` of the line that begins like this, and of the lines that continue it."""
    lines = text.splitlines()
    number = next(number for number, line in enumerate(lines) if line.lstrip().startswith(f"# {start}"))
    lines[number] = re.sub(r"^( *)# ", r"\1", lines[number])
    while (number := number + 1) < len(lines) and re.match(r" *# (    |done)", lines[number]):
        lines[number] = re.sub(r"^( *)# ", r"\1", lines[number])
    return "\n".join(lines) + "\n"


# The shipped handler sets: one interface for both.


@dataclass(frozen=True)
class Row:
    """A certificate's row in the register."""

    serial: int
    subject: str


@dataclass(frozen=True)
class HandlerSet:
    """One handler set in a workspace."""

    name: str
    workspace: Workspace

    @classmethod
    def create(cls, name: str, path: Path) -> HandlerSet:
        return cls(name, Workspace.create(path))

    def copy(self, path: Path) -> HandlerSet:
        """A twin with the same CA, to be spoilt."""
        return HandlerSet(self.name, self.workspace.copy(path))

    @property
    def ca(self) -> Path:
        return self.workspace.ca

    @property
    def root(self) -> x509.Certificate:
        return self.workspace.root

    @property
    def store(self) -> Path:
        return self.ca / "certs.sqlite"

    def script(self, operation: str) -> Path:
        return self.workspace.path / "handlers" / self.name / operation

    def run(self, operation: str, request: bytes | None = None, **env: str) -> Result:
        """Run a handler of this set."""
        env = ENVIRONMENT | env
        return self.workspace.run(f"{self.name}/{operation}", request, **env)

    def issue(self, operation: str, request: bytes, **env: str) -> x509.Certificate:
        """The certificate of any operation that issues one."""
        result = self.run(operation, request, **env)
        assert result.status == 0, result
        assert self.name == "openssl" or not result.err, result
        return keygen(result)[1] if operation == "serverkeygen" else result.certificate

    @property
    def rows(self) -> list[Row]:
        """What the register holds, without the gateway's own certificate."""
        if self.name == "openssl":
            rows = [Row(int(row[3], 16), row[5].removeprefix("/")) for row in self.workspace.rows]
            return [row for row in rows if row.subject != "CN=localhost"]
        return [Row(int(serial, 16), subject) for serial, subject in self.query("serial, subject")]

    def query(self, columns: str) -> list[tuple[str, ...]]:
        """Rows of the store, oldest first; none while there is no store."""
        if not self.store.exists():
            return []
        with contextlib.closing(sqlite3.connect(self.store)) as db:
            found: list[tuple[str, ...]] = db.execute(f"SELECT {columns} FROM certificates ORDER BY rowid").fetchall()
            return found

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Somebody else is writing to the register, and does not end."""
        if self.name == "openssl":
            with (self.ca / "ca.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        else:
            with contextlib.closing(sqlite3.connect(self.store, isolation_level=None)) as db:
                db.execute("BEGIN IMMEDIATE")
                yield

    def edit(self, operation: str, old: str, new: str) -> None:
        self.workspace.edit(f"handlers/{self.name}/{operation}", old, new)

    def uncomment(self, operation: str, start: str) -> None:
        """Take the `# ` off a commented policy, and off the lines that continue it."""
        path = self.script(operation)
        path.write_text(uncommented_text(path.read_text(), start))


def keygen(result: Result) -> tuple[Any, x509.Certificate]:
    """The two blocks that serverkeygen prints."""
    assert result.status == 0, result
    key, certificate = re.findall(rb"-----BEGIN .*?-----END [A-Z ]+-----\n", result.out, re.DOTALL)
    assert key.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert result.out == key + certificate
    return load_pem_private_key(key, None), x509.load_pem_x509_certificate(certificate)


# Power cuts: what one would leave, at each program that a script starts.

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
