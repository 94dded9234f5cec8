"""The Python set with a register in PostgreSQL, through PgBouncer with the shipped files."""

from __future__ import annotations

from contextlib import closing

import pytest

from estgw.register.postgresql import PostgreSQL
from tests.kit.csr import csr
from tests.kit.gateway import running_gateway
from tests.kit.pgbouncer import running_pgbouncer
from tests.kit.processes import until

pytestmark = pytest.mark.client("pgbouncer")


def test_fork_and_pool_enrol_through_pgbouncer_by_few_connections_and_say_503_without_postgresql(own_lab, own_cluster):
    with running_pgbouncer(own_cluster) as url:
        with closing(PostgreSQL(url)) as engine:
            engine.create()
        overrides = {
            "labels": {
                runner: {"handlers": "handlers/python", "authorize": "handlers/python/authorize", "runner": runner,
                         "register": url}
                for runner in ("fork", "pool")
            }
            | {"python": None}
        }  # fmt: skip
        with running_gateway(own_lab, overrides) as gateway:
            for number in range(6):
                for label in ("fork", "pool"):
                    answer = gateway.post(f"{label}/simpleenroll", csr(f"{label}-{number}"))
                    assert answer.status == 200, answer.words
            database = own_cluster.sql("SELECT datname FROM pg_database WHERE datname LIKE 'ca%'")
            # The superuser asks in another database.
            used = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
            assert 1 <= int(own_cluster.sql(used)) <= 3
            with closing(PostgreSQL(url)) as engine:
                assert engine.rows("SELECT count(*) FROM certificates") == [(12,)]
            own_cluster.stop()
            for label in ("fork", "pool"):
                answer = gateway.post(f"{label}/simpleenroll", csr("late"))
                assert (answer.status, bool(answer.header("Retry-After"))) == (503, True), gateway.log_text
            own_cluster.start()
            # PgBouncer tries again after server_login_retry.
            until(lambda: gateway.post("fork/simpleenroll", csr("later")).status == 200)
