"""A real PostgreSQL for a session of tests: one cluster, on 127.0.0.1, with a database for each register."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.kit.processes import free_port, run

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
        self.port = free_port()
        self._count = 0
        self._name = ""

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
            "-U",
            USER,
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

    @property
    def pid(self) -> int:
        """Its first process."""
        return int((self.directory / "data/postmaster.pid").read_text().split()[0])

    def kill(self) -> None:
        """Kill its first process; the others end when they notice."""
        os.kill(self.pid, signal.SIGKILL)

    # As a standby.

    def copy_of(self, primary: Cluster, name: str) -> None:
        """Be a standby of that one from the start, with a name for `synchronous_standby_names`."""
        data = self.directory / "data"
        source = ("-h", primary.directory, "-p", str(primary.port), "-U", USER)
        self.as_server(self.bin / "pg_basebackup", *source, "-D", data, "-c", "fast", "--no-sync")
        self.as_server("touch", data / "standby.signal")
        self._name = name
        self._set_primary(primary)

    def follow(self, primary: Cluster) -> None:
        """Be a standby of another one from now on."""
        self._set_primary(primary)
        self.sql("SELECT pg_reload_conf()")

    def _set_primary(self, primary: Cluster) -> None:
        place = f"host={primary.directory} port={primary.port} user={USER} application_name={self._name}"
        with (self.directory / "data/postgresql.auto.conf").open("a") as file:
            file.write(f"primary_conninfo = '{place}'\n")

    def received(self) -> int:
        """How much of the primary's log it has, in bytes."""
        return int(self.sql("SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')"))

    def promote(self) -> None:
        """Become a primary, and wait for that."""
        self.sql("SELECT pg_promote()")

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
def running_cluster(where: Path | None = None) -> Iterator[Cluster]:
    """A cluster in a temporary directory, below `where` if that is given."""
    with _home(where) as made:
        data = made.directory / "data"
        made.as_server(made.bin / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        with _started(made):
            yield made


@contextlib.contextmanager
def replicated(names: Sequence[str]) -> Iterator[list[Cluster]]:
    """A primary and standbys of those names, one of which must have a commit before it counts."""
    with running_cluster() as primary, contextlib.ExitStack() as stack:
        all_ = [primary]
        for name in names:
            standby = stack.enter_context(_home())
            standby.copy_of(primary, name)
            stack.enter_context(_started(standby))
            all_.append(standby)
        for each in all_:  # a standby needs it when it is promoted
            each.sql(f"ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 ({', '.join(names)})'")
            each.sql("SELECT pg_reload_conf()")
        yield all_


@contextlib.contextmanager
def _home(where: Path | None = None) -> Iterator[Cluster]:
    """A place for a cluster; its name is short, as the path of a socket is short."""
    initdb = program("initdb")
    assert initdb is not None
    directory = Path(tempfile.mkdtemp(prefix="pg-", dir=where))
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, USER)
        yield Cluster(directory, initdb.parent)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _started(cluster: Cluster) -> Iterator[None]:
    # Without fsync a power cut would lose it, which no test causes.
    cluster.start("fsync=off", "max_connections=60", "shared_buffers=16MB")
    try:
        yield
    finally:
        with contextlib.suppress(AssertionError):  # a test may have stopped it
            cluster.stop()
