"""The shipped handler sets, each with a workspace to run in and the register that it keeps: one face for both."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.handlers.bench import CSR, PATH, ROOT, Key, Result, Workspace

OWN_PYTHON = f"{Path(sys.executable).parent}:{PATH}"
"""The PATH of a gateway in a virtual environment, which has cryptography in it."""

ENVIRONMENT = {"EST_AUTH_METHODS": "http", "EST_REENROLL": "renew", "PATH": OWN_PYTHON}
"""What these sets are told besides."""

ISSUING = ("simpleenroll", "simplereenroll", "serverkeygen")
ML_DSA_KINDS = ("ml-dsa-44", "ml-dsa-65", "ml-dsa-87")


@dataclass(frozen=True)
class Row:
    """A certificate's row in the register."""

    serial: int
    subject: str


@dataclass(frozen=True)
class Bench:
    """One handler set in a workspace."""

    name: str
    workspace: Workspace

    @classmethod
    def create(cls, name: str, path: Path) -> Bench:
        workspace = Workspace.create(path)
        shutil.copytree(
            ROOT / "handlers/python", path / "handlers/python", ignore=shutil.ignore_patterns("__pycache__")
        )
        return cls(name, workspace)

    def copy(self, path: Path) -> Bench:
        """A twin with the same CA, to be spoilt."""
        return Bench(self.name, self.workspace.copy(path))

    @property
    def ca(self) -> Path:
        return self.workspace.ca

    @property
    def root(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.ca / "cacert.pem").read_bytes())

    @property
    def store(self) -> Path:
        return self.ca / "certs.sqlite"

    def script(self, operation: str) -> Path:
        return self.workspace.path / "handlers" / self.name / operation

    def run(self, operation: str, request: CSR | None = None, **env: str) -> Result:
        """Run a handler of this set."""
        env = ENVIRONMENT | env
        return self.workspace.run(f"{self.name}/{operation}", request, **env)

    def issue(self, operation: str, request: CSR, **env: str) -> x509.Certificate:
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
        lines = path.read_text().splitlines()
        number = next(number for number, line in enumerate(lines) if line.lstrip().startswith(f"# {start}"))
        lines[number] = re.sub(r"^( *)# ", r"\1", lines[number])
        while (number := number + 1) < len(lines) and re.match(r" *# (    |done)", lines[number]):
            lines[number] = re.sub(r"^( *)# ", r"\1", lines[number])
        path.write_text("\n".join(lines) + "\n")


def keygen(result: Result) -> tuple[Key, x509.Certificate]:
    """The two blocks that serverkeygen prints."""
    assert result.status == 0, result
    key, certificate = re.findall(rb"-----BEGIN .*?-----END [A-Z ]+-----\n", result.out, re.DOTALL)
    assert key.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert result.out == key + certificate
    loaded: Key = load_pem_private_key(key, None)  # type: ignore[assignment]
    return loaded, x509.load_pem_x509_certificate(certificate)
