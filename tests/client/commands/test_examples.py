"""The examples for systemd and for a request script."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from estgw import client
from estgw.client.commands import cli
from estgw.client.faults import Exit
from tests.kit.processes import ROOT

EXAMPLES = Path(client.__file__).parent / "examples"


def test_the_systemd_example_has_a_valid_estclient_command():
    service, timer = (settings(f"estclient-renew.{kind}") for kind in ("service", "timer"))
    program, *arguments = shlex.split(service["ExecStart"])
    assert program == "/usr/bin/estclient"
    _, parsed = cli.PROGRAM.parse(arguments)
    assert parsed.if_expires_within.days == 30
    assert parsed.new_key == "auto"
    assert service["SuccessExitStatus"] == str(int(Exit.TRY_LATER))
    assert timer["OnCalendar"] == "daily"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_example(tmp_path):
    for path in EXAMPLES.glob("estclient-renew.*"):
        (tmp_path / path.name).write_text(path.read_text().replace("/usr/bin/estclient", sys.executable))
    units = sorted(str(path) for path in tmp_path.iterdir())
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def settings(name):
    lines = (EXAMPLES / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def test_genp10_passes_the_linters():
    script = ROOT / "handlers" / "examples" / "genp10"
    assert os.access(script, os.X_OK)
    assert len(script.read_text().splitlines()) <= 40
    for name, *arguments in (("shellcheck",), ("shfmt", "-i", "4", "-ci", "-d")):
        program = Path(sys.executable).with_name(name)
        assert program.exists(), f"{program} is among the test requirements"
        done = subprocess.run([program, *arguments, script], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_genp10_without_a_binding_takes_the_name_as_data(tmp_path):
    environment = {"PATH": os.environ["PATH"], "KEY": str(tmp_path / "k"), "CN": "$(id)=/x,\n[req]"}
    done = subprocess.run([ROOT / "handlers/examples/genp10"], env=environment, capture_output=True, check=False)
    if done.returncode == 0:  # the name is data, not a command
        from estgw.est import csr

        parsed = csr.parse(done.stdout)
        assert parsed.text_attribute(csr.CHALLENGE_PASSWORD) is None
        assert parsed.subject.rdns
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
