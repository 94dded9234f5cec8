"""Man page, completion and examples, all made from the parser or held against it."""

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
from estgw.client import cli, manpage
from estgw.client.faults import Exit
from tests.client.common import python
from tests.kit.processes import ROOT

EXAMPLES = Path(client.__file__).parent / "examples"
COMMANDS = ("cacerts", "csrattrs", "enroll", "simpleenroll", "reenroll", "simplereenroll", "serverkeygen", "fullcmc")


def options_of(parser):
    return {option for action in parser._actions for option in action.option_strings}


def test_the_man_page_has_every_command_and_option():
    top = cli.parser()
    page = manpage.man(top)
    plain = page.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "")
    for name, command, _ in manpage._commands(top):
        assert f".SS {name}\n" in page
        for option in options_of(command):
            assert option in plain
    assert "Try later" in page
    assert ".B estclient fullcmc get-crl\n" in page
    assert ".B estclient enroll\n\\-u URL { \\-R SCRIPT | \\-\\-csr FILE | " in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_the_man_page_is_good_roff():
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z"], input=manpage.man(cli.parser()), text=True, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def complete(*words):
    typed = f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}"
    script = f"{manpage.bash(cli.parser())}{typed}; _estclient; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_the_completion(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").touch()
    assert complete("estclient", "") == [*COMMANDS, "--help", "--version"]
    assert complete("estclient", "reenr") == ["reenroll"]
    assert complete("estclient", "enroll", "--pop") == ["--pop-finished"]
    assert complete("estclient", "cacerts", "--pop") == []
    assert complete("estclient", "cacerts", "-c", "c") == ["ca.pem"]
    assert complete("estclient", "enroll", "--new-key", "ml-") == ["ml-dsa-44", "ml-dsa-65", "ml-dsa-87"]
    assert complete("estclient", "enroll", "--tls", "") == ["1.2", "1.3"]
    assert complete("estclient", "enroll", "--subject", "") == []
    assert complete("estclient", "fullcmc", "re") == ["renew", "revoke"]
    assert complete("estclient", "fullcmc", "--cm") == ["--cmc"]
    assert complete("estclient", "fullcmc", "enroll", "--crm") == ["--crmf"]
    assert complete("estclient", "fullcmc", "enroll", "--cm") == []
    assert complete("estclient", "fullcmc", "revoke", "--reason", "key") == ["keyCompromise"]


def test_the_documents_from_the_command_line():
    for what, begins in (("man", ".TH ESTCLIENT"), ("bash", "# Completion for estclient")):
        assert python("-m", "estgw.client.manpage", what, check=True).stdout.startswith(begins)


def test_the_systemd_example_calls_us_correctly():
    service, timer = (settings(f"estclient-renew.{kind}") for kind in ("service", "timer"))
    program, *arguments = shlex.split(service["ExecStart"])
    assert program == "/usr/bin/estclient"
    parsed = cli.parser().parse_args(arguments)
    assert parsed.if_expires_within.days == 30
    assert parsed.new_key == "auto"
    assert service["SuccessExitStatus"] == str(int(Exit.TRY_LATER))
    assert timer["OnCalendar"] == "daily"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_systemd_example_is_what_systemd_reads(tmp_path):
    for path in EXAMPLES.glob("estclient-renew.*"):
        (tmp_path / path.name).write_text(path.read_text().replace("/usr/bin/estclient", sys.executable))
    units = sorted(str(path) for path in tmp_path.iterdir())
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def settings(name):
    lines = (EXAMPLES / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def test_genp10_is_a_tidy_script():
    script = ROOT / "handlers" / "examples" / "genp10"
    assert os.access(script, os.X_OK)
    assert len(script.read_text().splitlines()) <= 40
    for name, *arguments in (("shellcheck",), ("shfmt", "-i", "4", "-ci", "-d")):
        program = Path(sys.executable).with_name(name)
        assert program.exists(), f"{program} is among the test requirements"
        done = subprocess.run([program, *arguments, script], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_genp10_without_a_binding(tmp_path):
    environment = {"PATH": os.environ["PATH"], "KEY": str(tmp_path / "k"), "CN": "$(id)=/x,\n[req]"}
    done = subprocess.run([ROOT / "handlers/examples/genp10"], env=environment, capture_output=True, check=False)
    if done.returncode == 0:  # the name is data, whatever it looks like
        from estgw.est import csr

        parsed = csr.parse(done.stdout)
        assert parsed.text_attribute(csr.CHALLENGE_PASSWORD) is None
        assert parsed.subject.rdns
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
