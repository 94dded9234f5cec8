"""A real PostgreSQL for a session of tests: one cluster, on 127.0.0.1, with a database for each register."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.kit.processes import run

USER = "nobody"
"""PostgreSQL does not run as root."""


def program(name: str) -> Path | None:
    """A program of PostgreSQL; Debian has those of the server outside PATH."""
    if found := shutil.which(name):
        path = Path(found).resolve()
        if path.name == name:
            return path
    return max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), default=None)


class Cluster:
    """A running server.  `directory` is its home, and holds its socket."""

    def __init__(self, directory: Path, bin: Path) -> None:  # noqa: A002
        self.directory, self.bin = directory, bin
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._count = 0

    def as_server(self, *command: str | Path, status: int | None = 0) -> str:
        """Run a program as the server's user."""
        options: dict[str, Any] = {}
        if os.geteuid() == 0:
            options = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []}
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "LC_ALL": "C.UTF-8"}
        done = run(*command, status=status, cwd=self.directory, env=environment, **options)
        return (done.stdout + done.stderr).decode()

    def sql(self, text: str, database: str = "postgres") -> str:
        """What psql prints, as the superuser."""
        command: list[str | Path] = [
            self.bin / "psql",
            "-h",
            self.directory,
            "-p",
            str(self.port),
            "-d",
            database,
            "-X",
            "-q",
            "-At",
        ]
        return self.as_server(*command, "-v", "ON_ERROR_STOP=1", "-c", text).strip()

    def start(self, *settings: str) -> None:
        """Start it and wait until it takes connections."""
        options = f"-p {self.port} -k {self.directory} -h 127.0.0.1 " + " ".join(f"-c {each}" for each in settings)
        log = self.directory / "log"
        self.as_server(self.bin / "pg_ctl", "-D", self.directory / "data", "-w", "-l", log, "-o", options, "start")

    def stop(self, how: str = "immediate") -> None:
        self.as_server(self.bin / "pg_ctl", "-D", self.directory / "data", "-w", "-m", how, "stop")

    def register(self, *, schema: bool = True) -> str:
        """The URL of a new role with a database and, unless it is left out, a schema of its own."""
        self._count += 1
        name = f"ca{self._count}"
        self.sql(f"CREATE ROLE {name} LOGIN")
        self.sql(f"CREATE DATABASE {name}")
        self.sql("REVOKE ALL ON SCHEMA public FROM PUBLIC", name)
        self.sql(f"ALTER ROLE {name} SET search_path = {name}")
        if schema:
            self.sql(f"CREATE SCHEMA {name} AUTHORIZATION {name}", name)
        return f"postgresql://{name}@127.0.0.1:{self.port}/{name}"


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster in a temporary directory of a short name, as the path of a socket is short."""
    initdb = program("initdb")
    assert initdb is not None
    directory = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, USER)
        made = Cluster(directory, initdb.parent)
        # Without fsync a power cut would lose it, which no test causes.
        made.as_server(initdb, "-D", directory / "data", "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        made.start("fsync=off", "max_connections=60", "shared_buffers=16MB")
        try:
            yield made
        finally:
            with contextlib.suppress(AssertionError):  # a test may have stopped it
                made.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
