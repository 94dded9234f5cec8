"""A real PgBouncer in front of a cluster, with the files of docs/deploy."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator

from tests.kit.postgres import USER, Cluster
from tests.kit.processes import DEADLINE, ROOT, until

SHIPPED = ROOT / "docs/deploy"


@contextlib.contextmanager
def running_pgbouncer(cluster: Cluster) -> Iterator[str]:
    """The URL, through PgBouncer, of a register that belongs to a role named like this process's user.

    The shipped files with other places; a test fails if a line is not there any more.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "the test lacks pytest.mark.client('pgbouncer')"
    role, directory = getpass.getuser(), cluster.directory / "pgbouncer"
    database = cluster.register().rpartition("/")[2]
    cluster.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'a secret'; GRANT {database} TO {role}")
    cluster.sql(f"CREATE SCHEMA {role} AUTHORIZATION {role}", database)
    rules = cluster.directory / "data/pg_hba.conf"
    rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    cluster.sql("SELECT pg_reload_conf()")
    directory.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]  # the name of the socket
    text = (SHIPPED / "pgbouncer.ini").read_text()
    for before, after in {
        "est = host=db.example port=5432 dbname=est": f"est = host=127.0.0.1 port={cluster.port} dbname={database}",
        "= 6432": f"= {port}",
        "unix_socket_dir = /run/postgresql": f"unix_socket_dir = {directory}",
        "/etc/pgbouncer/pgbouncer_hba.conf": f"{directory}/pgbouncer_hba.conf",
        "/etc/pgbouncer/userlist.txt": f"{directory}/userlist.txt",
        "/var/log/postgresql/pgbouncer.log": f"{directory}/log",
        "/run/postgresql/pgbouncer.pid": f"{directory}/pid",
        "server_tls_sslmode = verify-full": "server_tls_sslmode = disable",
    }.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    (directory / "pgbouncer.ini").write_text(text)
    shutil.copy(SHIPPED / "pgbouncer_hba.conf", directory)
    (directory / "userlist.txt").write_text(f'"{role}" "a secret"\n')
    options: dict[str, object] = {}
    if os.geteuid() == 0:
        options = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []}
        for path in (directory, *directory.iterdir()):
            shutil.chown(path, USER)
    process = subprocess.Popen(
        [program, "-q", directory / "pgbouncer.ini"],
        stderr=subprocess.DEVNULL,
        **options,  # type: ignore[call-overload]
    )
    try:

        def is_up() -> bool:
            log = directory / "log"
            assert process.poll() is None, log.read_text() if log.exists() else "no log"
            return (directory / f".s.PGSQL.{port}").exists()

        until(is_up)
        yield f"postgresql://{role}@/est?host={directory}&port={port}"
    finally:
        process.terminate()
        process.wait(DEADLINE)
