"""The man pages and completions of both programs."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest

from estgw.cli import main as estgw
from estgw.cli import manpage as estgw_manual
from estgw.client.commands import cli as estclient
from estgw.client.commands import manpage as estclient_manual
from estgw.commandline.completion import bash
from estgw.commandline.manpage import man
from tests.client.common import python

PAGES = {
    "estgw": (estgw.program(), estgw_manual.MANUAL),
    "estclient": (estclient.PROGRAM, estclient_manual.MANUAL),
}
MODULES = {"estgw": "estgw.cli.manpage", "estclient": "estgw.client.commands.manpage"}


@pytest.mark.parametrize("name", PAGES)
def test_the_man_page_has_every_command_and_option(name):
    program, manual = PAGES[name]
    plain = man(program, manual).replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "")
    for command in program.family(None):
        section = plain.partition(f"\n.SS {command.name}\n")[2].partition("\n.S")[0]
        common = plain.partition("\n.SH COMMON OPTIONS\n")[2].partition("\n.SH")[0]
        assert command.summary in section
        for option in command.all_options:
            entry = option.value if option.is_argument else ", ".join(option.names)
            assert f".TP\n{entry}" in section + common
    for number, _, sentence in program.exit_status:
        assert f".TP\n.B {number}\n{sentence}\n" in plain


def test_the_synopsis_shows_the_required_options():
    page = man(*PAGES["estclient"])
    assert ".B estclient enroll\n\\-u URL { \\-R SCRIPT | \\-\\-csr FILE | \\-\\-new\\-key [KIND] | " in page
    assert ".B estclient fullcmc get\\-crl\n\\-u URL [options]\n" in page
    assert ".B estgw pending refuse\n\\-\\-reason TEXT [options] ID\n" in man(*PAGES["estgw"])


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_formats_the_man_page_without_a_warning(name):
    command = ["groff", "-man", "-Tutf8", "-ww", "-z"]
    done = subprocess.run(command, input=man(*PAGES[name]), text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", PAGES)
def test_every_line_in_the_examples_parses(name):
    program, manual = PAGES[name]
    for _, text in manual.examples:
        for line in text.split(" && "):
            first, *words = shlex.split(line.replace("HEX", 32 * "ab"))
            assert first == name
            assert program.parse(words)


def complete(*words):
    program, _ = PAGES[words[0]]
    typed = f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}"
    script = f"{bash(program)}{typed}; _{words[0]}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()


CLIENT_COMMANDS = (
    "cacerts", "csrattrs", "enroll", "simpleenroll", "reenroll", "simplereenroll", "serverkeygen", "fullcmc"
)  # fmt: skip


def test_bash_completes_estclient(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").touch()
    assert complete("estclient", "") == [*CLIENT_COMMANDS, "--help", "--version"]
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


def test_bash_completes_estgw(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users.htpasswd").touch()
    assert complete("estgw", "p") == ["pending", "passwd"]
    assert complete("estgw", "pending", "") == ["list", "show", "approve", "refuse", "--help"]
    assert complete("estgw", "pending", "list", "--") == ["--config", "--json", "--all", "--help"]
    assert complete("estgw", "passwd", "us") == ["users.htpasswd"]
    assert complete("estgw", "run", "simple") == ["simpleenroll", "simplereenroll"]
    assert complete("estgw", "run", "--user", "") == []


@pytest.mark.parametrize("name", PAGES)
def test_each_module_prints_its_man_page_and_its_completion(name):
    for what, begins in (("man", f".TH {name.upper()} 1"), ("bash", f"# Completion for {name}, ")):
        assert python("-m", MODULES[name], what, check=True).stdout.startswith(begins)
    assert "usage: {man | bash}" in python("-m", MODULES[name], "html").stderr
