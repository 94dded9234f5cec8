"""The units in docs/deploy, as systemd judges them; and what a gateway asks of the kernel, against their filter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy.machine import DEPLOY, Machine, Server, free_port, settings
from tests.kit.connection import Connection
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, merged
from tests.kit.processes import DEADLINE, ROOT, run

SERVICES = ("estgw.service", "estgw-crl.service")
TABLE = (ROOT / "docs/install.md").read_text()


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The shipped ones, with programs that are there."""
    machine = Machine(tmp_path)
    (machine.home / "openssl-ca").mkdir()
    (machine.home / "openssl-ca/crl").symlink_to(ROOT / "openssl-ca/crl")
    for shipped in sorted(DEPLOY.glob("estgw*")):
        # The other list of estgw-crl.service is verified as well.
        text = re.sub(
            r"^(ExecStart=.*/crl)\n(#.*\n)# (ExecStart=)", r"\1\n\2\3", shipped.read_text(), flags=re.MULTILINE
        )
        assert shipped.name != "estgw-crl.service" or text.count("\nExecStart=") == 2
        (machine.units / shipped.name).write_text(machine.here(text))
    return sorted(machine.units.iterdir())


@pytest.mark.client("systemd-analyze")
def test_systemd_accepts_the_shipped_units(units):
    assert len(units) == 4
    done = run("systemd-analyze", "verify", "--man=no", *units)
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.client("systemd-analyze")
@pytest.mark.parametrize("name", SERVICES)
def test_the_exposure_of_the_services_is_the_one_that_the_page_states(units, name):
    (unit,) = [each for each in units if each.name == name]
    done = run("systemd-analyze", "security", "--offline=true", unit)
    found = re.search(rf"Overall exposure level for {re.escape(name)}: ([0-9.]+)", done.stdout.decode())
    row = re.search(rf"\| \[{re.escape(name)}\].* \| ([0-9.]+) \|", TABLE)
    assert found
    assert row
    # A newer systemd knows more settings, and weighs them anew.
    assert float(found[1]) == pytest.approx(float(row[1]), abs=0.3)


@pytest.mark.exhaustive
@pytest.mark.client("systemd-analyze")
@pytest.mark.client("strace")
def test_a_gateway_and_its_scripts_need_no_system_call_that_the_unit_forbids(own_lab, tmp_path):
    """Traced from the start through an enrolment by each set to the end."""
    port = free_port()
    config = own_lab.path / "conf-traced.yaml"
    shipped = yaml.safe_load((own_lab.path / "conf.yaml").read_text())
    config.write_text(yaml.safe_dump(merged(shipped, {"server": {"listen": [f"127.0.0.1:{port}"]}})))
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "-o", str(trace), sys.executable, "-m", "estgw", "serve", "-c", str(config)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("estgw ready")
        for path in ("simpleenroll", "python/simpleenroll"):
            with Connection(Server(port, own_lab.anchor)) as connection:
                assert connection.ask("POST", path, csr(), login=LOGIN).status == 200
        traced = trace.read_text().split()[0]
        subprocess.run(["kill", "-TERM", traced], check=True)
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    called = set(re.findall(r"^\d+ +([a-z0-9_]+)\(", trace.read_text(), re.MULTILINE))
    assert {"execve", "accept4", "prlimit64"} <= called
    # SQLite gives a journal the owner of its database as root alone, which the service is not.
    forbidden = called - allowed() - ({"fchown"} if os.geteuid() == 0 else set())
    assert not forbidden, sorted(forbidden)


def allowed() -> set[str]:
    """The calls that the filter of estgw.service lets through."""
    found: set[str] = set()
    for line in settings(DEPLOY / "estgw.service", "SystemCallFilter"):
        groups = {call for group in line.lstrip("~").split() for call in calls(group)}
        found = found - groups if line.startswith("~") else found | groups
    return found


def calls(group: str) -> set[str]:
    """The calls of a group, and of those in it."""
    listed = run("systemd-analyze", "syscall-filter", group).stdout.decode().splitlines()[1:]
    names = {line.strip() for line in listed if not line.strip().startswith("#")}
    return {name for name in names if not name.startswith("@")} | {
        call for name in names if name.startswith("@") for call in calls(name)
    }
