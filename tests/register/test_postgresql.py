"""PostgreSQL that stops, waits, refuses or is not ready: what the register's user is told, and that nothing is lost."""

from __future__ import annotations

import functools
import os
import threading
import time
from contextlib import closing

import pytest

from estgw.register import engines
from estgw.register.engine import RegisterBusy, RegisterUnfit
from estgw.register.postgresql import PostgreSQL, shown
from tests.kit.processes import until

KEEP = "INSERT INTO kept (kind, key, value, until) VALUES ('message', :key, '', 1) ON CONFLICT DO NOTHING"


def opened(url: str, patience: float = 20.0) -> PostgreSQL:
    with closing(PostgreSQL(url)) as made:
        made.create()
        made.create()  # said twice, it does no harm
    engine = PostgreSQL(url)
    engine.patience = patience
    return engine


def kept(engine: PostgreSQL) -> list[str]:
    return sorted(key for (key,) in engine.rows("SELECT key FROM kept"))


def test_a_server_that_stops_between_two_statements_is_busy_until_it_is_back(own_cluster):
    with closing(opened(own_cluster.register())) as engine:
        engine.rows(KEEP, {"key": "before"})
        own_cluster.stop()
        began = time.monotonic()
        with pytest.raises(RegisterBusy, match="Connection refused") as refusal:
            engine.rows(KEEP, {"key": "meanwhile"})
        assert refusal.value.status == os.EX_UNAVAILABLE
        assert time.monotonic() - began < 5
        own_cluster.start()
        engine.rows(KEEP, {"key": "after"})
        assert kept(engine) == ["after", "before"]


@pytest.mark.parametrize("step", [1, 2])
def test_a_server_that_stops_inside_a_transaction_leaves_nothing_of_it(own_cluster, step):
    """Nothing inside is said twice: what came before it is lost."""
    with closing(opened(own_cluster.register())) as engine:
        with pytest.raises(RegisterBusy), engine.transaction():
            engine.rows(KEEP, {"key": "first"})
            if step == 1:
                own_cluster.stop()
                own_cluster.start()
            engine.rows(KEEP, {"key": "second"})
            own_cluster.stop()  # before the COMMIT
            own_cluster.start()
        assert kept(engine) == []


def test_a_connection_that_was_cut_while_it_rested_is_made_anew(cluster):
    with closing(opened(url := cluster.register())) as engine:
        engine.rows(KEEP, {"key": "one"})
        role = url.rpartition("/")[2]
        assert (
            cluster.sql(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{role}'")
            == "1"
        )
        engine.rows(KEEP, {"key": "two"})
        assert kept(engine) == ["one", "two"]


def test_a_standby_that_never_answers_costs_the_patience_and_not_for_ever(own_cluster):
    with closing(opened(own_cluster.register(), 1.0)) as engine:
        engine.rows("SELECT 1")
        own_cluster.sql("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (nowhere)'")
        own_cluster.sql("SELECT pg_reload_conf()")
        try:
            until(lambda: own_cluster.sql("SHOW synchronous_standby_names") == "ANY 1 (nowhere)")
            began = time.monotonic()
            with pytest.raises(RegisterBusy, match="a synchronous standby may be away"):
                engine.rows(KEEP, {"key": "late"})
            assert 0.9 < time.monotonic() - began < 5

            # An administrator who cancels that wait makes the server call it a success; it is on one disk only.
            engine.patience = 20.0
            waiting = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            until(lambda: own_cluster.sql(waiting) == "0" or None)
            aside = threading.Thread(target=lambda: until(lambda: own_cluster.sql(waiting) != "0"))
            aside.start()
            with pytest.raises(RegisterBusy, match="somebody has cancelled the wait for a standby"):
                engine.rows(KEEP, {"key": "cancelled"})
            aside.join()

            # The same at the COMMIT of a transaction, such as that of `once`.
            aside = threading.Thread(target=lambda: until(lambda: own_cluster.sql(waiting) != "0"))
            aside.start()
            with (
                pytest.raises(RegisterBusy, match="somebody has cancelled the wait for a standby") as refusal,
                engine.transaction(),
            ):
                engine.rows(KEEP, {"key": "in doubt"})
            assert refusal.value.status == os.EX_UNAVAILABLE, "nothing is handed out, and the repeat finds the row"
            aside.join()
        finally:
            own_cluster.sql("ALTER SYSTEM RESET synchronous_standby_names")
            own_cluster.sql("SELECT pg_reload_conf()")


def test_a_read_only_server_is_busy_as_the_primary_may_come_back(cluster):
    url = cluster.register()
    opened(url).close()
    cluster.sql(f"ALTER ROLE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    with closing(PostgreSQL(url)) as engine, pytest.raises(RegisterBusy, match="read-only"):
        engine.rows(KEEP, {"key": "x"})


def test_a_role_without_a_schema_and_a_register_without_tables_are_named(cluster):
    with closing(PostgreSQL(cluster.register(schema=False))) as engine:
        with pytest.raises(RegisterUnfit, match="its role has no schema: estgw register init --sql") as refusal:
            engine.create()
        assert refusal.value.status == os.EX_CONFIG
    with (
        closing(PostgreSQL(cluster.register())) as engine,
        pytest.raises(RegisterUnfit, match="say estgw register init"),
    ):
        engine.rows("SELECT 1")
    with (
        closing(PostgreSQL(f"postgresql://nobody-here@127.0.0.1:{cluster.port}/postgres")) as engine,
        pytest.raises(RegisterUnfit, match='role "nobody-here" does not exist'),
    ):
        engine.rows("SELECT 1")


def test_a_wrong_password_is_named_and_not_printed(own_cluster, tmp_path):
    url = own_cluster.register()
    role = url.rpartition("/")[2]
    own_cluster.sql(f"ALTER ROLE {role} PASSWORD 'a good secret'")
    rules = own_cluster.directory / "data/pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{before}")
    own_cluster.sql("SELECT pg_reload_conf()")
    passfile = tmp_path / "pgpass"
    try:
        for password, is_right in (("a bad secret", False), ("a good secret", True)):
            passfile.write_text(f"*:*:*:*:{password}\n")
            passfile.chmod(0o600)
            with closing(PostgreSQL(f"{url}?passfile={passfile}")) as engine:
                if is_right:
                    engine.create()
                    continue
                with pytest.raises(RegisterUnfit, match="password authentication failed") as refusal:
                    until(functools.partial(engine.rows, "SELECT 1"))  # until the rules are in force
                assert "secret" not in str(refusal.value)
    finally:
        rules.write_text(before)
        own_cluster.sql("SELECT pg_reload_conf()")


def test_a_url_for_a_person_has_no_password():
    url = "postgresql://ca:hunter2@a.example,b.example/certs?target_session_attrs=read-write"
    assert shown(url) == "PostgreSQL, role ca at a.example,b.example, database certs"
    assert shown("postgresql://[") == "PostgreSQL"


def test_a_forked_process_opens_a_register_of_its_own(cluster, tmp_path):
    url = cluster.register()
    opened(url).close()
    parent = engines.open_register(url, tmp_path, 20.0)
    parent.rows(KEEP, {"key": "parent"})
    if not (child := os.fork()):
        status = 1
        try:
            mine = engines.open_register(url, tmp_path, 20.0)
            assert mine is not parent
            mine.rows(KEEP, {"key": "child"})
            mine.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert sorted(key for (key,) in parent.rows("SELECT key FROM kept")) == ["child", "parent"]
    engines.close_all()
