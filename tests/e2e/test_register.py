"""A register in PostgreSQL under gateways: once, for all of them, and never for a dry run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from estgw.register.postgresql import PostgreSQL
from estgw.register.sqlite import SQLite
from tests.kit.ca import pem
from tests.kit.connection import Response
from tests.kit.csr import csr
from tests.kit.gateway import Gateway, merged, running_gateway
from tests.kit.keys import KEY_PEM
from tests.kit.postgres import Cluster, program, running_cluster
from tests.kit.processes import ROOT, run
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
    done = run(sys.executable, "-m", "estgw", *arguments, "-c", config, status=status, cwd=lab.path, env=environment)
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


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    if program("initdb") is None:
        pytest.skip("PostgreSQL's initdb is not installed")
    with running_cluster() as running:
        yield running


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
    with running_gateway(own_lab, settings(url)) as gateway:
        before = enrol(gateway).certificate
        own_cluster.stop()
        answer = enrol(gateway, csr("device-2"))
        assert answer.status == 503
        assert int(answer.header("Retry-After") or 0) >= 60
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


def test_check_finds_a_register_that_cannot_be_used(own_lab, cluster):
    """No password of a URL is ever printed."""
    faults = {
        "postgresql://ca:hunter2@127.0.0.1/x": "a password has no place in this file",
        "postgresql://ca@127.0.0.1/x?password=hunter2": "a password has no place in this file",
        "mysql://ca:hunter2@127.0.0.1/x": "postgresql://ROLE@HOST/DATABASE is expected",
        cluster.register(schema=False): "its tables are missing: say estgw register init",
    }
    for url, sentence in faults.items():
        out, err = estgw(own_lab, conf(own_lab, settings(url)), "check", status=1)
        assert sentence in err
        assert "hunter2" not in out + err
    good = ready(cluster.register())
    out, err = estgw(own_lab, conf(own_lab, settings(good)), "check")
    _, err = estgw(own_lab, conf(own_lab, settings(good, runner="exec")), "check", status=1)
    assert "`register` is for scripts in Python with runner: fork or pool" in err


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
