"""A workspace that `estgw init` of an earlier version has made runs with the present gateway: tests/workspaces."""

from __future__ import annotations

import ast
import importlib
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import estgw
from estgw.cli import main, workspace
from estgw.cmc.messages import PKIData
from estgw.cms import signed
from estgw.register.postgresql import PostgreSQL
from estgw.register.sqlite import SQLite
from tests.cmc_service import office as cmc
from tests.e2e.test_fullcmc import post, statuses
from tests.kit.ca import pem
from tests.kit.cases import some
from tests.kit.csr import csr
from tests.kit.gateway import enrol, running_gateway
from tests.kit.keys import KEY_PEM
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import ROOT
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.slow

ARCHIVES = sorted((ROOT / "tests/workspaces").glob("*.tar.xz"))
SETS = ("", "python/")


def unpacked(archive: Path, directory: Path) -> Path:
    with tarfile.open(archive) as found:
        found.extractall(directory, filter="data")
    return directory


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def former(request, tmp_path_factory):
    """The workspace, with a CA that its own create-ca has made."""
    path = unpacked(request.param, tmp_path_factory.mktemp("former") / "lab")
    assert workspace.prepare_demo(path), "a CA was made"
    return Workspace(path)


@pytest.fixture(scope="module", params=some(["exec", "fork", "pool"], 2))
def gateway(request, former, tmp_path_factory):
    """The workspace is served unchanged, with the template and the authorize script that import the most."""
    lab = former.copy(tmp_path_factory.mktemp(request.param))
    callouts = {"runner": request.param, "csr_template": str(lab.path / "template.yaml")}
    callouts |= {"authorize": str(lab.path / "handlers/openssl/authorize")}
    (lab.path / "template.yaml").write_text("- template:\n    subject: [commonName]\n")
    if request.param == "exec":
        overrides = {"callouts": callouts}
    else:  # Python scripts alone can be forked
        overrides = {"labels": {"python": callouts | {"authorize": str(lab.path / "handlers/python/authorize")}}}
    with running_gateway(lab, overrides, python=True) as running:
        yield running


@pytest.mark.parametrize("path", SETS, ids=["openssl", "python"])
def test_a_former_workspace_enrols_and_renews(gateway, tmp_path, path):
    first = gateway.post(f"{path}simpleenroll", csr("device-1")).certificate
    gateway.lab.verify(first)
    pair = enrol(gateway, tmp_path)
    second = gateway.post(f"{path}simplereenroll", csr("device-1"), login=None, certificate=pair).certificate
    assert second.subject == first.subject
    assert gateway.get(f"{path}cacerts").status == 200
    assert gateway.get(f"{path}csrattrs").status == 200


@pytest.mark.parametrize("path", SETS, ids=["openssl", "python"])
def test_a_former_workspace_does_full_cmc(gateway, tmp_path, path):
    key = cmc.new_key()

    def issued(body, **options):
        answer = post(gateway, f"{path}fullcmc", body, **options)
        assert [each.words for each in statuses(answer)] == ["success"], statuses(answer)
        message = signed.parse(answer.der)
        (found,) = (each for each in message.bag if each.public_key() == key.public_key() and each not in known)
        gateway.lab.verify(found)
        return found

    known = []
    asked = cmc.pkcs10(1, "device-7", key=key)
    first = issued(cmc.message(PKIData(tuple(cmc.fresh()), (asked,)), cmc.Person(key)))
    known.append(first)
    certificate, private = tmp_path / "client.pem", tmp_path / "client.key"
    certificate.write_bytes(first.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    person = cmc.Person(key, first)
    body = cmc.message(PKIData(tuple(cmc.fresh()), (asked,)), person)
    assert issued(body, login=None, certificate=(certificate, private)).subject == first.subject

    wrong = cmc.pkcs10(1, "device-8", key=key)
    refused = post(gateway, f"{path}fullcmc", cmc.message(PKIData(tuple(cmc.fresh()), (wrong,)), person))
    assert refused.status == 403
    assert "only an RA" in statuses(refused)[0].text


def test_estgw_check_finds_no_fault_in_a_former_workspace(former):
    command = [*forked_estgw(), "check", "-c", former.path / "conf.yaml"]
    done = subprocess.run(command, cwd=former.path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"{former.path}/conf.yaml: all well\n")


def test_estgw_demo_serves_a_former_workspace(former):
    command = [*forked_estgw(), "demo", "--dir", ".", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=former.path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as demo:
        try:
            assert demo.stdout is not None
            assert any(b"estgw ready" in line for line in iter(demo.stdout.readline, b""))
        finally:
            demo.terminate()
    assert demo.returncode == 0


def test_estgw_run_runs_a_script_of_a_former_workspace(former, tmp_path):
    (tmp_path / "req.der").write_bytes(csr("device-1"))
    for label in ([], ["--label", "python"]):
        command = [*forked_estgw(), "run", "simpleenroll", "-c", "conf.yaml", "--user", "estuser"]
        command += ["--csr", tmp_path / "req.der", *label]
        done = subprocess.run(command, cwd=former.path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done


@pytest.mark.parametrize("engine", ["SQLite", "PostgreSQL"])
def test_what_a_former_workspace_has_issued_and_remembers_is_taken_over_by_one_command(
    former, engine, tmp_path, request, capsys
):
    lab = former.copy(tmp_path / "lab")
    asked = cmc.pkcs10(1, "device-7", key=(key := cmc.new_key()))
    message = cmc.message(PKIData(tuple(cmc.fresh()), (asked,)), cmc.Person(key))
    with running_gateway(lab, python=True) as gateway:
        first = gateway.post("python/simpleenroll", csr("device-1")).certificate
        by_cmc = post(gateway, "python/fullcmc", message)
        assert [each.words for each in statuses(by_cmc)] == ["success"]
    before = contents(lab.ca / "certs.sqlite", "certificates"), contents(lab.ca / "cmc.sqlite", "kept")
    # Other tests enrol in that workspace as well.
    assert len(before[0]) >= 2
    assert len(before[1]) >= 1, "the scripts of that time kept the message in a file of its own"

    # As docs/several-gateways.md says: the scripts are replaced, then one command.
    shutil.rmtree(lab.path / "handlers")
    shutil.copytree(ROOT / "handlers", lab.path / "handlers")
    overrides, command = {}, "upgrade"
    if engine == "PostgreSQL":
        url = request.getfixturevalue("cluster").register()
        with closing(PostgreSQL(url)) as made:
            made.create()
        overrides, command = {"labels": {"python": {"register": url}}}, "copy"
    with running_gateway(lab, overrides, python=True) as gateway:
        config = gateway.config
    assert main.main(["register", command, "--label", "python", "-c", str(config)]) == 0
    assert f"{lab.ca / 'cmc.sqlite'}: 1 rows taken over to " in capsys.readouterr().out
    register = PostgreSQL(url) if engine == "PostgreSQL" else SQLite(lab.ca / "certs.sqlite")
    with closing(register):
        columns = ", ".join(before[0][0].keys())
        found = register.rows(f"SELECT {columns} FROM certificates ORDER BY serial")
        assert sorted(found) == sorted(map(tuple, before[0]))
        kept = register.rows("SELECT kind, key, value, until FROM kept")
        assert kept == [tuple(row[name] for name in ("kind", "key", "value", "until")) for row in before[1]]
        assert len(register.rows("SELECT 1 FROM certificates WHERE subject_key <> ''")) == len(before[0])
    assert main.main(["register", command, "--label", "python", "-c", str(config)]) == 0, "said twice, it does no harm"
    assert "taken over" not in capsys.readouterr().out

    with running_gateway(lab, overrides, python=True) as gateway:
        answer = post(gateway, "python/fullcmc", message)
        assert "has been used before" in statuses(answer)[0].text, "a replay is still known"
        pair = tmp_path / "client.pem", tmp_path / "client.key"
        pair[0].write_bytes(pem(first))
        pair[1].write_bytes(KEY_PEM)
        renewed = gateway.post("python/simplereenroll", csr("device-1"), login=None, certificate=pair).certificate
        assert renewed.subject == first.subject
    assert not (lab.ca / "cmc.sqlite").exists()


def contents(file: Path, table: str) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(file)) as db:
        db.row_factory = sqlite3.Row
        return db.execute(f"SELECT * FROM {table}").fetchall()


# Names that scripts import.


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of each import of a script from estgw."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("estgw"):
            yield from ((str(node.module), alias.name) for alias in node.names)


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def test_everything_that_a_former_script_imports_is_found(archive, tmp_path):
    scripts = [path for path in unpacked(archive, tmp_path).rglob("*") if path.suffix == ".py"]
    found = {pair for path in scripts for pair in imported(path)}
    assert ("estgw.cms", "signed") in found
    for module, name in found:
        there = importlib.import_module(module)
        assert hasattr(there, name) or importlib.import_module(f"{module}.{name}"), f"{module}.{name}"


@pytest.mark.parametrize(("former_name", "present"), estgw.FORMER_MODULES.items())
def test_a_module_is_found_by_its_former_name(former_name, present):
    code = f"import {former_name} as a, {present} as b; assert a is b; assert a.__spec__.name == '{present}'"
    subprocess.run([sys.executable, "-c", code], check=True)
    package, _, name = former_name.rpartition(".")
    code = f"from {package} import {name} as a; import {present} as b; assert a is b"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_module_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("estgw.cms.who")


def test_a_function_is_found_by_its_former_name():
    from estgw import csrattrs_yaml  # type: ignore[attr-defined]

    assert csrattrs_yaml.load_insistence is csrattrs_yaml.load_template_check
