"""A register in PostgreSQL under gateways: once, for all of them, and never for a dry run."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from estgw.cli import main as command_line
from estgw.cmc.messages import PKIData, pki_response
from estgw.cmc.values import RevokeRequest
from estgw.cms import signed
from estgw.register.postgresql import PostgreSQL
from estgw.register.sqlite import SQLite
from tests.cmc_service import office as cmc
from tests.kit.ca import pem
from tests.kit.connection import Response
from tests.kit.csr import csr
from tests.kit.gateway import Gateway, merged, running_gateway
from tests.kit.keys import KEY_PEM
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import ROOT, run
from tests.kit.restore import logging_as_before
from tests.kit.scripts import uncommented_text
from tests.kit.workspace import Workspace

GOOD = csr()


def settings(url: str, **label: Any) -> dict[str, Any]:
    return {"labels": {"python": {"register": url, **label}}}


def ready(url: str) -> str:
    with closing(PostgreSQL(url)) as made:
        made.create()
    return url


def serials(url: str) -> list[str]:
    with closing(PostgreSQL(url)) as engine:
        return [serial for (serial,) in engine.rows("SELECT serial FROM certificates ORDER BY rowid")]


def enrol(gateway: Gateway, body: bytes = GOOD, **options: Any) -> Response:
    return gateway.post("python/simpleenroll", body, **options)


def estgw(lab: Workspace, config: Path, *arguments: str | Path, status: int = 0) -> tuple[str, str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = run(*forked_estgw(), *arguments, "-c", config, status=status, cwd=lab.path, env=environment)
    return done.stdout.decode(), done.stderr.decode()


def conf(lab: Workspace, overrides: Mapping[str, Any]) -> Path:
    """A configuration for a command, without a gateway."""
    path = lab.path / "conf-command.yaml"
    path.write_text(yaml.safe_dump(merged(yaml.safe_load((lab.path / "conf.yaml").read_text()), overrides)))
    return path


@pytest.fixture
def own_lab(own_lab: Workspace) -> Workspace:
    """Without what other tests have issued."""
    for file in own_lab.ca.glob("certs.sqlite*"):
        file.unlink()
    return own_lab


def test_repeats_at_two_gateways_get_one_certificate(own_lab, cluster):
    url = ready(cluster.register())
    with running_gateway(own_lab, settings(url)) as first, running_gateway(own_lab, settings(url)) as second:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda number: enrol((first, second)[number % 2]), range(16)))
        made = {answer.certificate for answer in answers}
        assert len(made) == 1
        assert len(serials(url)) == 1
        # Another request of the same client gets another one, at either gateway.
        assert enrol(second, csr("device-2")).certificate not in made
        assert not (own_lab.ca / "certs.sqlite").exists()


def test_a_worker_of_the_pool_serves_many_requests(own_lab, cluster):
    """The import of psycopg starts programs, so a worker that did it would be replaced after each request."""
    own_lab.edit("handlers/python/simpleenroll", "    request = ca.Request()\n",
                 "    request = ca.Request()\n    print(f'worker {os.getpid()}', file=sys.stderr)\n")  # fmt: skip
    with running_gateway(own_lab, settings(ready(cluster.register()))) as gateway:
        for number in range(3):
            assert enrol(gateway, csr(f"device-{number}")).status == 200
        lines = [entry["line"] for entry in gateway.log if entry["event"] == "handler stderr"]
    assert len(lines) == 3
    assert len(set(lines)) == 1, lines


def test_a_renewal_finds_revocations_and_certificates_in_the_register(own_lab, cluster, tmp_path):
    url = ready(cluster.register())
    label = settings(url, renew_without_certificate=True, operations={"simplereenroll": {"requires": "any"}})
    with running_gateway(own_lab, label) as gateway, closing(PostgreSQL(url)) as engine:
        made = enrol(gateway).certificate
        device = tmp_path / "device.pem", tmp_path / "device.key"
        device[0].write_bytes(pem(made))
        device[1].write_bytes(KEY_PEM)
        assert gateway.post("python/simplereenroll", csr("DEVICE-1")).status == 200, "looked up by its names"
        assert gateway.post("python/simplereenroll", csr("device-9")).status == 403
        engine.rows("UPDATE certificates SET status = 'revoked'")
        answer = gateway.post("python/simplereenroll", GOOD, certificate=device, login=None)
        assert (answer.status, answer.words) == (403, "your certificate is revoked")


def test_a_postgresql_that_stops_is_a_503_and_nothing_is_lost(own_lab, own_cluster):
    url = ready(own_cluster.register())
    label = settings(url, renew_without_certificate=True, operations={"simplereenroll": {"requires": "any"}})
    with running_gateway(own_lab, label) as gateway:
        before = enrol(gateway).certificate
        own_cluster.stop()
        answer = enrol(gateway, csr("device-2"))
        assert answer.status == 503
        assert int(answer.header("Retry-After") or 0) >= 60
        looked_up = gateway.post("python/simplereenroll", GOOD)
        assert (looked_up.status, looked_up.words) == (503, "The CA's register can't be used now. Try again later.")
        assert gateway.get("python/cacerts").status == 200
        lines = [line for line in gateway.log if "Connection refused" in json.dumps(line)]
        assert lines, "the log says why"
        own_cluster.start()
        assert enrol(gateway).certificate == before
        enrol(gateway, csr("device-2")).certificate  # noqa: B018 - it is there
        assert len(serials(url)) == 2


def test_a_dry_run_with_a_register_in_postgresql_issues_nothing(own_lab, cluster):
    url = ready(cluster.register())
    with running_gateway(own_lab, settings(url)) as gateway:
        enrol(gateway)
    before, request = serials(url), own_lab.path / "req.pem"
    request.write_bytes(csr("device-2"))
    config = conf(own_lab, settings(url))
    what = ["run", "simpleenroll", "--label", "python", "--csr", request, "--user", "estuser"]
    out, err = estgw(own_lab, config, *what, "--dry-run")
    assert out.startswith("HTTP/1.1 200")
    assert "the scripts get a copy of the register too" in err
    assert "nothing was issued; this certificate has a signature of zeros" in err
    assert serials(url) == before
    out, err = estgw(own_lab, config, *what)
    assert len(serials(url)) == len(before) + 1, "without --dry-run it is for real"


def test_a_replay_with_a_register_in_postgresql_issues_nothing(own_lab, cluster):
    url = ready(cluster.register())
    overrides = {**settings(url), "record": {"dir": "records", "keep": 100}}
    with running_gateway(own_lab, overrides) as gateway:
        assert enrol(gateway).status == 200
    before = serials(url)
    script = own_lab.path / "handlers/python/settings.py"
    script.write_text(script.read_text().replace('lifetime = "90d"', 'lifetime = "9d"'))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "estgw",
        "replay",
        "--all",
        "simpleenroll",
        "-c",
        conf(own_lab, overrides),
    ]
    done = subprocess.run(
        command, cwd=own_lab.path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (0, 3), done.stderr
    assert serials(url) == before


def test_certs_sqlite_is_taken_over_by_one_command(own_lab, cluster, tmp_path):
    with running_gateway(own_lab, python=True) as gateway:
        made = [enrol(gateway, csr(f"device-{number}")).certificate for number in range(3)]
    url = ready(cluster.register())
    with closing(SQLite(own_lab.ca / "certs.sqlite")) as old:
        old.rows("UPDATE certificates SET status = 'revoked' WHERE subject = 'CN=device-1'")
    out, _ = estgw(own_lab, conf(own_lab, settings(url)), "register", "copy")
    assert "certificates: 3 copied to PostgreSQL, role" in out
    assert serials(url) == [f"{each.serial_number:X}".zfill(40).removeprefix("00") for each in made]
    with running_gateway(own_lab, settings(url)) as gateway:
        assert enrol(gateway, csr("device-0")).certificate == made[0], "a repeat of a request from before"
        for number, status in ((0, 200), (1, 403)):
            device = tmp_path / f"{number}.pem", tmp_path / "key.pem"
            device[0].write_bytes(pem(made[number]))
            device[1].write_bytes(KEY_PEM)
            body = csr(f"device-{number}")
            assert gateway.post("python/simplereenroll", body, certificate=device, login=None).status == status


def test_a_register_is_restored_from_its_dump(own_lab, cluster):
    """As docs/several-gateways.md says."""
    url = ready(cluster.register())
    with running_gateway(own_lab, settings(url)) as gateway:
        made = enrol(gateway).certificate
    role = url.rpartition("/")[2]
    where = ["-h", "127.0.0.1", "-p", str(cluster.port)]
    dump = cluster.as_server(cluster.bin / "pg_dump", *where, "-U", role, "-n", role, role)
    cluster.sql(f"DROP SCHEMA {role} CASCADE", role)
    file = cluster.directory / "dump.sql"
    file.write_text(dump)
    file.chmod(0o644)
    cluster.as_server(cluster.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *where, "-d", role, "-f", file)
    with running_gateway(own_lab, settings(url)) as gateway:
        assert enrol(gateway).certificate == made
        assert len(serials(url)) == 1
        assert enrol(gateway, csr("device-2")).status == 200


@pytest.mark.client("sqlite3")
def test_certs_sqlite_is_restored_from_its_backup(own_lab, tmp_path):
    """As docs/several-gateways.md says."""
    store, copy = own_lab.ca / "certs.sqlite", tmp_path / "copy.sqlite"
    with running_gateway(own_lab, python=True) as gateway:
        made = enrol(gateway).certificate
        run("sqlite3", store, f".backup '{copy}'")  # beside a gateway that runs
        late = enrol(gateway, csr("device-2")).certificate
    for suffix in ("", "-wal", "-shm"):
        store.with_name(store.name + suffix).unlink(missing_ok=True)
    copy.rename(store)
    with running_gateway(own_lab, python=True) as gateway:
        assert enrol(gateway).certificate == made
        assert enrol(gateway, csr("device-2")).certificate != late, "it is not known any more"
    with closing(SQLite(store)) as engine:
        found = [subject for (subject,) in engine.rows("SELECT subject FROM certificates ORDER BY rowid")]
        assert found == ["CN=device-1", "CN=device-2"]
        assert engine.rows("PRAGMA integrity_check") == [("ok",)]


def test_of_two_gateways_with_other_settings_each_obeys_its_own_on_the_same_register(own_lab, cluster, tmp_path):
    """As docs/several-gateways.md says: nothing compares them, and the register is one."""
    url, other = ready(cluster.register()), own_lab.copy(tmp_path / "other")
    other.edit("handlers/python/settings.py", 'lifetime = "90d"', 'lifetime = "9d"')
    needs_tls = settings(url, operations={"simpleenroll": {"requires": "tls"}})
    with running_gateway(own_lab, settings(url)) as first, running_gateway(other, settings(url)) as second:
        answers = [enrol(gateway).certificate for gateway in (first, second, first, second)]
        assert [(each.not_valid_after_utc - each.not_valid_before_utc).days for each in answers] == [90, 9, 90, 9]
        assert len(set(answers)) == len(serials(url)) == 2, "what another policy has issued is no answer to a repeat"
        device = tmp_path / "device.pem", tmp_path / "device.key"
        device[0].write_bytes(pem(answers[0]))
        device[1].write_bytes(KEY_PEM)
        with closing(PostgreSQL(url)) as engine:
            engine.rows(
                "UPDATE certificates SET status = 'revoked' WHERE serial = :serial", {"serial": serials(url)[0]}
            )
        for gateway in (first, second):
            answer = gateway.post("python/simplereenroll", GOOD, certificate=device, login=None)
            assert (answer.status, answer.words) == (403, "your certificate is revoked")
        second.configure(needs_tls)
        assert second.reload()["event"] == "reloaded"
        assert [enrol(gateway, csr("device-3")).status for gateway in (first, second)] == [200, 403]


def test_fullcmc_enrols_waits_and_revokes_with_the_register_of_two_gateways(own_lab, cluster, tmp_path):
    url = ready(cluster.register())
    own_lab.edit("handlers/python/fullcmc", "human=False", "human=True")
    key = cmc.new_key()

    def ask(gateway: Gateway, person: cmc.Person, *controls: Any, requests: tuple[Any, ...] = ()) -> Response:
        message = cmc.message(PKIData((*cmc.fresh(), *controls), requests), person)
        headers = {"Content-Type": "application/pkcs7-mime; smime-type=CMC-request"}
        return gateway.post("python/fullcmc", base64.encodebytes(message), headers=headers)

    def said(answer: Response) -> Any:
        (found,) = pki_response(signed.parse(answer.der)).statuses
        return found

    with running_gateway(own_lab, settings(url)) as first, running_gateway(own_lab, settings(url)) as second:
        asked = cmc.pkcs10(1, "device-7", key=key)
        waits = ask(first, cmc.Person(key), requests=(asked,))
        assert waits.status == 202
        query = cmc.control("queryPending", said(waits).pending.token, 3)
        assert ask(second, cmc.Person(key), query).status == 202
        (line,) = estgw(own_lab, first.config, "pending", "list")[0].splitlines()
        assert line.split()[1] == "waiting"
        assert "simpleenroll of CN=device-7, by estuser" in line
        estgw(own_lab, first.config, "pending", "approve", line.split()[0])
        done = ask(second, cmc.Person(key), query)
        assert said(done).words == "success"
        bag = signed.parse(done.der).bag
        made = next(each for each in bag if each.public_key() == key.public_key())
        own_lab.verify(made)
        with closing(PostgreSQL(url)) as engine:
            assert engine.rows("SELECT state, serial FROM requests") == [("issued", serials(url)[0])]
        assert len(serials(url)) == 1
        again = ask(first, cmc.Person(key), requests=(asked,))
        assert made in signed.parse(again.der).bag, "a repeat at the other gateway gets the same"

        wish = RevokeRequest(made.issuer.public_bytes(), made.serial_number, 1)
        revoked = ask(first, cmc.Person(key, made), cmc.control("revokeRequest", wish, 1))
        assert said(revoked).words == "success"
        device = tmp_path / "device.pem", tmp_path / "device.key"
        device[0].write_bytes(pem(made))
        device[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        answer = second.post("python/simplereenroll", csr("device-7", key=key), certificate=device, login=None)
        assert (answer.status, answer.words) == (403, "your certificate is revoked")
        assert not (own_lab.ca / "certs.sqlite").exists()
        assert not (own_lab.ca / "pending").exists()


def test_a_request_that_came_to_one_gateway_is_approved_and_issued_by_the_other(own_lab, cluster):
    url = ready(cluster.register())
    enrolling = own_lab.path / "handlers/python/simpleenroll"
    enrolling.write_text(uncommented_text(enrolling.read_text(), "ca.store.require_approval()"))
    with running_gateway(own_lab, settings(url)) as first, running_gateway(own_lab, settings(url)) as second:
        answer = enrol(first)
        assert (answer.status, int(answer.header("Retry-After") or 0) >= 60) == (202, True)
        assert enrol(second).status == 202
        (line,) = estgw(own_lab, second.config, "pending", "list")[0].splitlines()
        assert "simpleenroll of CN=device-1, by estuser" in line
        estgw(own_lab, second.config, "pending", "approve", line.split()[0])
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda number: enrol((first, second)[number % 2]), range(6)))
        assert {answer.status for answer in answers} == {200}
        assert len({answer.certificate for answer in answers}) == len(serials(url)) == 1
        enrol(first, csr("device-2"))
        listed = estgw(own_lab, first.config, "pending", "list")[0]
        refusal = ["pending", "refuse", listed.split()[0], "--reason", "ask your teacher"]
        estgw(own_lab, first.config, *refusal)
        refused = enrol(second, csr("device-2"))
        assert (refused.status, refused.words) == (403, "ask your teacher")


def test_a_crl_of_the_register_is_written_as_pem(own_lab, cluster, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run(sys.executable, own_lab.path / "handlers/python/create-ca", "--key", "p-256", tmp_path / "ca", env=environment)
    url = ready(cluster.register())
    config = conf(own_lab, settings(url, ca_dir=str(tmp_path / "ca")))
    out, _ = estgw(own_lab, config, "register", "crl", "--label", "python", "-o", tmp_path / "crl.pem")
    assert out.startswith("wrote ")
    assert list(x509.load_pem_x509_crl((tmp_path / "crl.pem").read_bytes())) == []
    _, err = estgw(own_lab, conf(own_lab, settings(url)), "register", "crl", "--label", "python", "-o", "x", status=1)
    assert "say openssl-ca/crl --dir" in err


def test_check_finds_a_register_that_cannot_be_used(own_lab, cluster, capsys, monkeypatch):
    """No password of a URL is ever printed."""
    monkeypatch.chdir(own_lab.path)

    def check(settings: Mapping[str, Any], status: int) -> str:
        with logging_as_before():
            assert command_line.main(["check", "-c", str(conf(own_lab, settings))]) == status
        said = capsys.readouterr()
        return str(said.out + said.err)

    faults = {
        "postgresql://ca:hunter2@127.0.0.1/x": "a password has no place in this file",
        "postgresql://ca@127.0.0.1/x?password=hunter2": "a password has no place in this file",
        "mysql://ca:hunter2@127.0.0.1/x": "postgresql://ROLE@HOST/DATABASE is expected",
        cluster.register(schema=False): "its tables are missing: say estgw register init",
    }
    for url, sentence in faults.items():
        said = check(settings(url), 1)
        assert sentence in said
        assert "hunter2" not in said
    good = ready(cluster.register())
    check(settings(good), 0)
    said = check(settings(good, runner="exec"), 1)
    assert "`register` is for scripts in Python with runner: fork or pool" in said


def test_init_prints_what_an_administrator_must_say_and_then_makes_the_tables(own_lab, cluster):
    url = cluster.register(schema=False)
    role = url.rpartition("/")[2]
    config = conf(own_lab, settings(url))
    _, err = estgw(own_lab, config, "register", "init", status=1)
    assert "its role has no schema: estgw register init --sql" in err
    said, _ = estgw(own_lab, config, "register", "init", "--sql")
    cluster.sql(said.replace(f'CREATE ROLE "{role}" LOGIN;', ""), role)
    out, _ = estgw(own_lab, config, "register", "init")
    assert out.endswith(": ready\n")
    out, _ = estgw(own_lab, config, "register", "upgrade", "--label", "python")
    assert out == f"PostgreSQL, role {role} at 127.0.0.1, database {role}: version 2, 0 certificates\n"
    with running_gateway(own_lab, settings(url)) as gateway:
        assert enrol(gateway).status == 200
