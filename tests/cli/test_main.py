"""The command line, called as a function, and once as a program."""

from __future__ import annotations

import asyncio
import base64
import importlib
import io
import os
import pty
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from estgw import __version__
from estgw.auth import users
from estgw.callout.contract import ENV_VARS
from estgw.cli import main as command_line
from estgw.cli import serving
from estgw.gateway import advice
from tests.kit.csr import challenge, csr, san
from tests.kit.der import VECTORS, armoured
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import DEADLINE, ROOT, run
from tests.kit.restore import logging_as_before
from tests.kit.workspace import Workspace

NO_CONFIG = "no such file; name your conf.yaml with -c FILE, or make a workspace with: estgw init DIR"
COMMANDS = {command.name: command for command in command_line.program().commands}


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Commands configure the log of the whole process."""
    with logging_as_before():
        yield


@pytest.fixture
def here(own_lab: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The workspace as working directory, so that conf.yaml is found. Temporary files go there, too."""
    monkeypatch.chdir(own_lab.path)
    (own_lab.path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own_lab.path / "tmp"))
    return own_lab


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    file = tmp_path / "req.pem"
    file.write_bytes(armoured(csr("device-1", san(x509.DNSName("one.example")))))
    return file


def main(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    status = command_line.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


# The table of commands.


def test_version_prints_program_and_version(capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"estgw {__version__}\n"


def test_help_explains_the_exit_status(capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert (
        "exit status:\n  0 done\n  1 failed, and stderr says why\n  2 wrong command line\n"
        "  3 a replay differs, no judgement, or a lab is not done\n  130 interrupted\n" in text
    )
    assert "example: estgw demo" in text
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example_that_parses(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main([*command.split(), "--help"])
    assert ended.value.code == 0
    example = re.search(r"^example: estgw (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert example is not None
    assert example[1].startswith(command)
    run, _ = command_line.program().parse(shlex.split(example[1]))
    assert run is (COMMANDS[command].run or COMMANDS[f"{command} {shlex.split(example[1])[1]}"].run)


def test_each_module_has_the_commands_that_the_table_says():
    for name, words in command_line.MODULES.items():
        commands = importlib.import_module(f"estgw.cli.{name}").COMMANDS
        assert list(dict.fromkeys(command.name.split()[0] for command in commands)) == list(words)


def test_a_command_loads_no_library_of_others():
    parse = "from estgw.cli import main; main.program('conform').parse(['conform', '--list'])"
    loaded = run(sys.executable, "-c", f"import sys; {parse}; print([m for m in sys.modules])").stdout.decode()
    for name in ("aiohttp", "pydantic", "structlog", "passlib", "estgw.config.model", "estgw.cli.workshop"):
        assert f"'{name}'" not in loaded


def test_an_unknown_command_gets_the_list_of_all_commands(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["nonsense"])
    known = re.search(r"there is no command 'nonsense'; the commands: (.*)", capsys.readouterr().err)
    assert known is not None
    assert known[1].split(", ") == [name for name, command in COMMANDS.items() if command.run]


def test_a_misspelt_command_gets_a_suggestion(capsys):
    for words, near in ((["chek"], "check"), (["pending", "aprove"], "approve")):
        with pytest.raises(SystemExit):
            command_line.main(words)
        assert f"there is no command '{words[-1]}'; do you mean {near}? All commands: " in capsys.readouterr().err


def test_a_family_of_commands_names_its_commands(capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["pending", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: estgw pending COMMAND [options]\n")
    assert all(f"  pending {name} " in text for name in ("list", "show", "approve", "refuse"))
    with pytest.raises(SystemExit) as ended:
        command_line.main(["pending"])
    assert ended.value.code == 2
    assert "a command is missing; the commands: list, show, approve, refuse\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["serve", "--nonsense"],
        ["init"],
        ["env"],
        ["passwd", "file"],
        ["check", "extra"],
        ["csrattrs"],
        ["csrattrs", "explain"],
    ],
)
def test_a_wrong_command_line_exits_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(arguments)
    assert ended.value.code == 2
    assert "usage: estgw" in capsys.readouterr().err


def test_estgw_runs_as_a_program_without_warnings(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "estgw"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert run(*command, "--version", env=environment).stdout.decode() == f"estgw {__version__}\n"
    missing = run(*command, "check", "-c", tmp_path / "none.yaml", env=environment, status=1)
    assert missing.stderr.decode() == f"estgw: {tmp_path}/none.yaml: {NO_CONFIG}\n"
    assert missing.stdout == b""


# Faults before serve and demo listen.


@pytest.mark.parametrize("command", ["serve", "check", "env cacerts", "run cacerts", "pending list"])
def test_a_missing_configuration_suggests_c_and_init(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(capsys, *command.split()) == (1, "", f"estgw: conf.yaml: {NO_CONFIG}\n")


@pytest.mark.parametrize("address", ["8443", "localhost:8443", "127.0.0.1:99999"])
def test_a_malformed_address_is_refused(here, address, capsys):
    status, out, err = main(capsys, "demo", "--listen", address)
    assert (status, out) == (1, "")
    assert err.startswith(f"estgw: --listen {address}: ")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("arguments", "again"), [("demo", "demo"), ("serve", "serve -c conf.yaml")])
def test_a_busy_port_gets_a_command_with_a_free_port(here, capsys, arguments, again, workers):
    here.edit("conf.yaml", "  # workers: 1", f"  workers: {workers}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, err = main(capsys, *arguments.split(), "--listen", f"127.0.0.1:{port}")
    assert (status, out) == (1, "")
    said = re.search(
        rf"^estgw: 127\.0\.0\.1:{port} is in use by another program; "
        rf"try: estgw {again} --listen 127\.0\.0\.1:(\d+)$",
        err,
        re.MULTILINE,
    )
    assert said is not None, err
    assert port < int(said[1]) <= port + 100 or int(said[1]) == port - 1


def test_a_busy_metrics_port_gets_no_advice_about_listen(here, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (here.path / "conf.yaml").open("a") as file:
            file.write(f"\nmetrics:\n  listen: 127.0.0.1:{port}\n")
        status, _, err = main(capsys, "demo", "--listen", "127.0.0.1:0")
    assert status == 1
    assert f"127.0.0.1:{port}" in err
    assert "--listen" not in err


def test_ctrl_c_exits_130(lab, monkeypatch):
    def interrupted(_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(advice, "advice", interrupted)
    assert command_line.main(["check", "-c", str(lab.path / "conf.yaml")]) == 130


# demo and serve, for real.


def test_demo_prints_the_commands_of_the_readme(here):
    command = [sys.executable, "-W", "error", "-m", "estgw", "demo", "--listen", "127.0.0.1:0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        ready, page = process.stdout.readline(), process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=DEADLINE)
    url = ready.removeprefix("estgw ready ").strip()
    assert re.fullmatch(r"https://localhost:\d+", url)
    assert page.startswith("page http://127.0.0.1:")
    assert (process.returncode, out) == (0, "")
    readme = (ROOT / "README.md").read_text().partition("## The first certificate")[2]
    shown = readme.partition("```sh\n")[2].partition("```")[0].replace("https://localhost:8443", url)
    assert textwrap.indent(shown, "  ") in err, "demo and README show the same lines"
    assert "openssl verify -CAfile openssl-ca/cacert.pem cert.pem" in err


@pytest.mark.parametrize("unbuffered", [False, True], ids=["", "PYTHONUNBUFFERED"])
def test_a_ready_gateway_does_not_end_when_the_reader_of_its_first_line_closes_the_pipe(monkeypatch, unbuffered):
    class Pipe(io.RawIOBase):
        """The reader goes away after the first write."""

        seen = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            if self.seen:
                raise BrokenPipeError
            self.seen = bytes(data)
            return len(data)

    pipe = Pipe()
    output: Any = pipe if unbuffered else io.BufferedWriter(pipe)
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(output, write_through=unbuffered))
    serving._say_where("https://localhost:1", "http://127.0.0.1:2/#token")
    assert pipe.seen == b"estgw ready https://localhost:1\npage http://127.0.0.1:2/#token\n"


@pytest.mark.client("curl")
def test_a_demo_prints_its_first_name_and_is_reached_by_it(here):
    command = [
        *forked_estgw(),
        "demo",
        "--name",
        "est.lab.example",
        "--listen",
        "127.0.0.2:0",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("estgw ready ").strip()
        port = url.removeprefix("https://est.lab.example:")
        asked = run("curl", "-sS", "--fail", "--cacert", here.anchor, "--resolve", f"est.lab.example:{port}:127.0.0.2",
                    f"{url}/.well-known/est/cacerts")  # fmt: skip
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=DEADLINE)
    assert asked.stdout
    assert f"{url}/.well-known/est/simpleEnroll" in err
    assert "Other machines reach this gateway, and the password estpwd is public." in err


@pytest.mark.parametrize(
    ("configured", "names", "everywhere"),
    [
        ("127.0.0.1:8443", ["est.example"], "0.0.0.0:8443"),
        ("127.0.0.1:9443", ["2001:db8::1"], "[::]:9443"),
        ("127.0.0.1:8443", ["2001:db8::1", "est.example"], "0.0.0.0:8443"),
        ("127.0.0.1:8443", ["localhost", "127.0.0.1"], None),
        ("192.0.2.1:8443", ["est.example"], None),
        ("127.0.0.1:8443", [], None),
    ],
)
def test_a_demo_listens_beyond_loopback_only_for_a_name_beyond_it(own_lab, configured, names, everywhere):
    own_lab.edit("conf.yaml", "listen: [127.0.0.1:8443]", f"listen: [{configured}]")
    assert serving._everywhere(own_lab.path / "conf.yaml", names) == everywhere


# init.


def test_init_makes_a_workspace_once(tmp_path, capsys):
    folder = tmp_path / "my lab"
    status, out, err = main(capsys, "init", folder)
    assert (status, err) == (0, "")
    assert (folder / "conf.yaml").exists()
    assert f"estgw demo --dir '{folder}'" in out
    status, out, err = main(capsys, "init", folder)
    assert (status, out) == (1, "")
    assert err == f"estgw: {folder}/conf.yaml exists; a workspace is never overwritten\n"


def test_the_next_commands_of_init_work(tmp_path, capsys):
    _, out, _ = main(capsys, "init", tmp_path / "lab")
    create_ca = next(line for line in out.splitlines() if "create-ca" in line)
    run("bash", "-c", create_ca)
    assert (tmp_path / "lab/openssl-ca/cacert.pem").exists()


# check.


def test_check_of_a_correct_configuration_prints_its_operations(lab, capsys):
    path = lab.path / "conf.yaml"
    status, out, err = main(capsys, "check", "-c", path)
    assert (status, err) == (0, "")
    assert out.endswith(f"\n\n{path}: all well\n")
    table = [re.split("  +", line) for line in out.splitlines()[:7]]
    assert table[0] == ["label", "operations", "requires", "passwords by", "authorize", "handlers", "runner"]
    assert table[2] == [
        "(none)", "simpleenroll", "any (certificate or password)", "users.htpasswd", "handlers/openssl/authorize",
        "handlers/openssl", "auto",
    ]  # fmt: skip
    assert table[5][0] == "python"
    assert table[5][4:6] == ["handlers/python/authorize", "handlers/python"]


def test_check_reports_every_fault_of_the_file_with_its_place(here, capsys):
    here.edit("conf.yaml", "  users: users.htpasswd", "  userss: users.htpasswd")
    here.edit("conf.yaml", "  # max_body: 262144", "  max_body: 1")
    here.edit("conf.yaml", "  # timeout: 30   ", "  timeout: soon")
    status, out, err = main(capsys, "check")
    lines = (here.path / "conf.yaml").read_text().splitlines()

    def at(start: str) -> int:
        return next(number for number, line in enumerate(lines, 1) if line.startswith(start))

    expected = "a number of seconds is expected, without a unit and without quotes: for example 30"
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f"estgw: conf.yaml:{at('  max_body')}:3: server.max_body: input should be greater than or equal to 1024",
        f"estgw: conf.yaml:{at('  userss')}:3: client_auth.userss: no such key here",
        f"estgw: conf.yaml:{at('  timeout')}:3: callouts.timeout: {expected}",
    ]


def test_check_names_the_faults_of_handlers_and_ca(here, capsys):
    handlers = here.path / "handlers/openssl"
    (handlers / "cacerts").chmod(0o644)
    (handlers / "csrattrs").chmod(0o777)
    (handlers / "authorize").write_text("#!/no/such/perl\n")
    (handlers / "simpleenroll").unlink()
    (handlers / "simplereenroll").write_text("#!/bin/bash\r\n")
    (anchor,) = yaml.safe_load((here.path / "conf.yaml").read_text())["client_auth"]["explicit"]
    (here.path / anchor).unlink()
    (here.ca / "private/serverkey.pem").unlink()
    (here.path / "users.htpasswd").write_text("nonsense\n")
    status, _, err = main(capsys, "check")
    assert status == 1
    folder = f"estgw: {here.path}"
    for fault in (
        f"{folder}/handlers/openssl/cacerts: not executable; chmod +x {handlers}/cacerts",
        f"{folder}/handlers/openssl/csrattrs: writable by group or others; chmod go-w {handlers}/csrattrs",
        f"{folder}/handlers/openssl/authorize: its interpreter /no/such/perl does not exist",
        f"{folder}/handlers/openssl/simpleenroll: No such file or directory",
        f"{folder}/handlers/openssl/simplereenroll: its #! line ends in a carriage return",
        f"{folder}/{anchor}: No such file or directory",
        f"{folder}/openssl-ca/private/serverkey.pem",
        f"{folder}/users.htpasswd:1:1: not of the form user:hash",
    ):
        assert fault in err, err


# env.


def shell_assignments(text: str) -> dict[str, str]:
    """The variables that a shell reads from these assignments."""
    script = f"set -a\n{text}\nset +a\nenv -0"
    printed = run("env", "-i", "bash", "-c", script).stdout.decode()
    found = dict(each.split("=", 1) for each in printed.split("\0") if each)
    return {name: value for name, value in found.items() if name not in ("PWD", "OLDPWD", "SHLVL", "_")}


def test_env_prints_the_variables_and_makes_the_files_of_a_request(here, request_file, capsys):
    status, out, err = main(capsys, "env", "simpleenroll", "--csr", request_file, "--user", "two words")
    assert (status, err) == (0, "")
    found = shell_assignments(out)
    assert found["EST_OPERATION"] == "simpleenroll"
    assert found["REMOTE_USER"] == "two words"
    assert found["EST_CSR_SUBJECT"] == "CN=device-1"
    assert found["EST_CSR_SAN_0"] == "DNS:one.example"
    assert found["EST_CA_DIR"] == str(here.ca)
    assert {row.name for row in ENV_VARS if row.when == "always"} <= found.keys()
    folder = Path(found["EST_TMPDIR"])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert Path(found["EST_CSR_FILE"]).read_bytes().startswith(b"-----BEGIN CERTIFICATE REQUEST-----\n")


def test_a_handler_runs_by_hand_with_the_variables_of_env(here, request_file, capsys):
    _, out, _ = main(capsys, "env", "simpleenroll", "--csr", request_file, "--user", "estuser")
    (here.path / "env.sh").write_text(out)
    done = run("bash", "-c", "set -a; . ./env.sh; set +a; exec handlers/openssl/simpleenroll")
    issued = x509.load_pem_x509_certificate(done.stdout)
    assert issued.subject.rfc4514_string() == "CN=device-1"
    here.verify(issued)


def test_env_quotes_values_for_the_shell(here, tmp_path, capsys):
    file = tmp_path / "odd.pem"
    file.write_bytes(csr("$(touch pwned) `id` 'x' \"y\" \\"))
    _, out, _ = main(capsys, "env", "simpleenroll", "--csr", file, "--user", "a'b; touch pwned")
    found = shell_assignments(out)
    assert found["REMOTE_USER"] == "a'b; touch pwned"
    assert "$(touch pwned)" in found["EST_CSR_SUBJECT"]
    assert not (here.path / "pwned").exists()


def test_env_without_a_csr_sets_no_csr_file(here, capsys):
    _, out, _ = main(capsys, "env", "cacerts")
    assert "EST_CSR_FILE" not in shell_assignments(out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "nonsense: not served; there are: cacerts"),
        (["cacerts", "--label", "iot"], "iot: no such label; there are: python"),
        (["simpleenroll"], "simpleenroll takes a request: --csr FILE"),
        (["simpleenroll", "--csr", "/no/such"], "/no/such: No such file or directory"),
        (["simpleenroll", "--csr", "/dev/null", "--user", "ann"], "the gateway would answer 400: The body is empty"),
        (["cacerts", "--client-cert", "/dev/null"], "/dev/null: no certificate in it"),
        (
            ["simpleenroll", "--csr", "REQUEST", "--user", "() { :; }"],
            "the gateway would answer 400: The value for REMOTE_USER begins like",
        ),
        (
            ["simpleenroll", "--csr", "REQUEST"],
            "the gateway would answer 401: no credentials, and no client certificate",
        ),
    ],
)
def test_env_says_why_it_fails_and_leaves_nothing_behind(here, request_file, arguments, words, capsys):
    arguments = [str(request_file) if each == "REQUEST" else each for each in arguments]
    status, out, err = main(capsys, "env", *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("estgw: ")
    assert words in err
    assert list((here.path / "tmp").iterdir()) == []


# run.


def test_run_prints_the_response_with_the_certificate(here, request_file, capsysbinary):
    status = command_line.main(["run", "simpleenroll", "--csr", str(request_file), "--user", "estuser"])
    out, err = capsysbinary.readouterr()
    head, _, body = out.partition(b"\n\n")
    assert status == 0, err
    assert head.splitlines()[0] == b"HTTP/1.1 200 OK"
    assert b"Content-Type: application/pkcs7-mime; smime-type=certs-only" in head.splitlines()
    certificate = run("openssl", "pkcs7", "-inform", "DER", "-print_certs", stdin=base64.b64decode(body))
    here.verify(x509.load_pem_x509_certificate(certificate.stdout))
    assert list((here.path / "tmp").iterdir()) == []


def test_run_prints_a_refusal_and_exits_1(here, capsys):
    here.script("handlers/openssl/cacerts", "echo 'not today'; echo because >&2; exit 77")
    status, out, err = main(capsys, "run", "cacerts")
    assert status == 1
    assert out.startswith("HTTP/1.1 403 Forbidden\n")
    assert "Content-Type: text/plain; charset=utf-8\n" in out
    assert out.endswith("\n\nnot today\n")
    said = f"note: the scripts write to {here.ca}\nstderr: because\nlog: cacerts said 77 (NOPERM): not today\nnext: "
    assert err.startswith(f"{said}The policy in the script cacerts says no")


def test_run_of_a_crashed_script_prints_a_500_and_the_signal(here, capsys):
    here.script("handlers/openssl/cacerts", "echo half; printf 'bad\\033[31m\\n' >&2; kill -9 $$")
    status, out, err = main(capsys, "run", "cacerts")
    assert status == 1
    assert out.startswith("HTTP/1.1 500 Internal Server Error\n")
    assert "half" not in out
    said = (
        "\nstderr: bad\\x1b[31m\nlog: cacerts: ended by signal 9 (SIGKILL)\nnext: The script was killed: run it alone"
    )
    assert said in err


def test_run_of_a_pending_request_prints_a_202_and_exits_0(here, request_file, capsys):
    here.script("handlers/openssl/simpleenroll", "exit 75")
    status, out, err = main(capsys, "run", "simpleenroll", "--csr", request_file, "--user", "ann")
    assert (status, out.splitlines()[0]) == (0, "HTTP/1.1 202 Accepted")
    assert re.search(r"^Retry-After: (1[01][0-9]|120|[6-9][0-9])$", out, re.MULTILINE)
    assert "pending" in err


def test_run_of_a_script_that_prints_junk_prints_a_500(here, capsys):
    here.script("handlers/openssl/cacerts", "echo hello")
    status, out, err = main(capsys, "run", "cacerts")
    assert (status, out.splitlines()[0]) == (1, "HTTP/1.1 500 Internal Server Error")
    assert err.splitlines()[1].startswith("log: cacerts: ")


def test_run_accepts_any_binding_and_a_label(here, tmp_path, capsys):
    here.edit("conf.yaml", "  # iot:  ", "  iot: {}\n  # iot:  ")
    here.script("handlers/openssl/simpleenroll", 'echo "$EST_LABEL $EST_POP"; exit 77')
    file = tmp_path / "linked.pem"
    file.write_bytes(csr("x", challenge("abc")))
    _, out, _ = main(capsys, "run", "simpleenroll", "--csr", file, "--label", "iot", "--user", "ann")
    assert out.endswith("iot linked\n")


def test_run_of_a_file_that_is_not_a_csr_prints_a_400(here, capsys):
    status, out, _ = main(capsys, "run", "simpleenroll", "--csr", "conf.yaml", "--user", "ann")
    assert status == 1
    assert out.startswith("HTTP/1.1 400 Bad Request\n")
    assert "ot base64" in out


def test_run_names_max_file_when_a_script_writes_too_much(here, capsys):
    here.edit("conf.yaml", "  # max_file: 1073741824", "  max_file: 1048576")
    here.script("handlers/openssl/cacerts", "ulimit -c 0; exec head -c 3000000 /dev/zero >big")
    status, out, err = main(capsys, "run", "cacerts")
    assert (status, out.splitlines()[0]) == (1, "HTTP/1.1 500 Internal Server Error")
    assert "signal 25 (SIGXFSZ: it wrote a file larger than callouts.max_file)" in err


def test_run_of_a_csr_that_lacks_something_prints_a_400_with_the_list(here, request_file, capsys):
    (here.path / "t.yaml").write_text("- serialNumber\n- key: rsa:3072\n")
    here.edit("conf.yaml", "  # csr_template: null", "  csr_template: t.yaml")
    status, out, _ = main(capsys, "run", "simpleenroll", "--csr", request_file, "--user", "ann")
    assert (status, out.splitlines()[0]) == (1, "HTTP/1.1 400 Bad Request")
    assert "a key rsa:3072 (it has ec:P-256); serialNumber." in out


def test_run_reports_a_fault_in_csrattrs_yaml_with_its_place(here, capsys):
    (here.path / "handlers/openssl/csrattrs.yaml").write_text("- serialNumber\n- nobody\n")
    status, _, err = main(capsys, "run", "csrattrs")
    assert status == 1
    assert "log: csrattrs: printed neither DER, base64, PEM nor good csrattrs YAML: stdout:2:3: 1: 'nobody'" in err


# csrattrs.

VECTOR = VECTORS / "derived-rfc9908-template-with-legacy.b64"


@pytest.mark.parametrize("form", ["base64", "der", "pem", "stdin"])
def test_csrattrs_explain_and_encode_are_inverse_for_every_format(tmp_path, monkeypatch, capsys, form):
    der = base64.b64decode(VECTOR.read_bytes())
    file = tmp_path / "answer"
    file.write_bytes({"der": der, "pem": armoured(der, "CSRATTRS")}.get(form, VECTOR.read_bytes()))
    if form == "stdin":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(VECTOR.read_bytes())))
    status, text, err = main(capsys, "csrattrs", "explain", "-" if form == "stdin" else file)
    assert (status, err) == (0, "")
    assert text.startswith("- challengePassword\n- key: ec:P-256\n- ecdsa-with-SHA256\n- template:\n")
    (tmp_path / "again.yaml").write_text(text)
    assert main(capsys, "csrattrs", "encode", tmp_path / "again.yaml") == (0, VECTOR.read_text(), "")


def test_csrattrs_encode_of_an_empty_file_is_an_empty_sequence(tmp_path, capsys):
    (tmp_path / "none.yaml").write_text("# nothing\n")
    assert main(capsys, "csrattrs", "encode", tmp_path / "none.yaml") == (0, "MAA=\n", "")


def test_csrattrs_encode_names_each_fault_and_its_place(tmp_path, capsys):
    file = tmp_path / "bad.yaml"
    file.write_text("- serialNumbr\n- NO\n")
    assert main(capsys, "csrattrs", "encode", file) == (
        1,
        "",
        f'estgw: {file}:2:3: YAML reads NO as a bool; quote it: "NO"\n',
    )
    file.write_text("- serialNumbr\n- key: x\n")
    status, _, err = main(capsys, "csrattrs", "encode", file)
    assert status == 1
    assert [line.split(": ")[1] for line in err.splitlines()] == [f"{file}:1:3", f"{file}:2:3"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the body is empty"),
        (b"serialNumber!", "not base64"),
        (b"\x30\x03\x02\x01\x05", "neither OID nor Attribute"),
        (armoured(b"\x30\0", "PRIVATE KEY"), "no key"),
        (None, "No such file or directory"),
    ],
)
def test_csrattrs_explain_refuses_other_files(tmp_path, capsys, content, words):
    file = tmp_path / "answer"
    if content is not None:
        file.write_bytes(content)
    status, out, err = main(capsys, "csrattrs", "explain", file)
    assert (status, out) == (1, "")
    assert words in err


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*csrattrs*")) + sorted(VECTORS.glob("*9908*")), ids=str)
def test_csrattrs_encode_reverses_explain_byte_for_byte(path, tmp_path, capsys):
    """`encode` gives the same bytes again for every published answer."""
    der = base64.b64decode(path.read_bytes()) if path.suffix == ".b64" else path.read_bytes()
    assert command_line.main(["csrattrs", "explain", str(path)]) == 0
    text = tmp_path / "explained.yaml"
    text.write_text(capsys.readouterr().out, encoding="utf-8")
    assert command_line.main(["csrattrs", "encode", str(text)]) == 0
    assert base64.b64decode(capsys.readouterr().out) == der


def test_csrattrs_explain_and_encode_work_in_a_pipe():
    path = VECTORS / "rfc7030-4.5.2-csrattrs.b64"
    text = run(*forked_estgw(), "csrattrs", "explain", path, cwd=ROOT).stdout
    again = run(*forked_estgw(), "csrattrs", "encode", "-", stdin=text, cwd=ROOT).stdout
    assert base64.b64decode(again) == base64.b64decode(path.read_bytes())


# passwd.


def passwd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, *arguments: Any) -> Any:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    return main(capsys, "passwd", *arguments)


def verified(file: Path, user: str, password: str) -> bool:
    return asyncio.run(users.load(file).verify(user, password))


def test_passwd_stores_a_hash_of_the_first_line_of_stdin(tmp_path, monkeypatch, capsys):
    file = tmp_path / "users"
    assert passwd(monkeypatch, capsys, "secret\nignored\n", file, "ann") == (0, "", "")
    assert verified(file, "ann", "secret")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "secret" not in file.read_text()


def test_passwd_changes_one_user_and_keeps_the_rest(tmp_path, monkeypatch, capsys):
    file = tmp_path / "users"
    file.write_text("# staff\n\nbob:$2y$10$" + "." * 53 + "\n")
    file.chmod(0o644)
    passwd(monkeypatch, capsys, "one", file, "ann")
    passwd(monkeypatch, capsys, "two\n", file, "ann")
    lines = file.read_text().splitlines()
    assert lines[:3] == ["# staff", "", "bob:$2y$10$" + "." * 53]
    assert len(lines) == 4
    assert (verified(file, "ann", "one"), verified(file, "ann", "two")) == (False, True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_passwd_on_a_full_disk_changes_nothing(tmp_path, monkeypatch, capsys):
    file = tmp_path / "users"
    file.write_text("bob:x\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    status, _, err = passwd(monkeypatch, capsys, "secret\n", file, "ann")
    assert (status, err) == (1, "estgw: [Errno 28] No space left on device\n")
    assert file.read_text() == "bob:x\n"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("typed", "user", "words"),
    [
        ("", "ann", "the password is empty; nothing was changed"),
        ("\n", "ann", "the password is empty"),
        ("x" * 73, "ann", "bcrypt takes 72 bytes of password at most"),
        ("ä" * 37, "ann", "bcrypt takes 72 bytes"),
        ("a\tb\n", "ann", "a password with a control character"),
        ("secret\r\n", "ann", "a password with a control character"),
        ("secret", "a:b", "a user name has no colon"),
        ("secret", "a\nb", "no control character"),
        ("secret", "#ann", "no # in front"),
    ],
)
def test_passwd_refuses_names_and_passwords_that_cannot_log_in(tmp_path, monkeypatch, capsys, typed, user, words):
    file = tmp_path / "users"
    status, out, err = passwd(monkeypatch, capsys, typed, file, user)
    assert (status, out) == (1, "")
    assert words in err
    assert not file.exists()


def test_passwd_in_a_missing_directory_fails(tmp_path, monkeypatch, capsys):
    status, _, err = passwd(monkeypatch, capsys, "secret", tmp_path / "no/users", "ann")
    assert status == 1
    assert "No such file or directory" in err


def test_passwd_for_digest_replaces_the_hashes_of_the_user(tmp_path, monkeypatch, capsys):
    file = tmp_path / "digest"
    for password in ("old", "estpwd"):
        arguments = ("--digest", "--realm", "estrealm", file, "estuser")
        assert passwd(monkeypatch, capsys, password, *arguments)[0] == 0
    lines = file.read_text().splitlines()
    assert "estuser:estrealm:36807fa200741bb0e8fb04fcf08e2de6" in lines  # the hash of the reference server
    assert len(lines) == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(("answers", "status"), [(("secret", "secret"), 0), (("secret", "other"), 1)])
def test_passwd_at_a_terminal_asks_twice_and_shows_nothing(tmp_path, answers, status):
    command = [sys.executable, "-m", "estgw", "passwd", str(tmp_path / "users"), "ann"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": str(ROOT)})
    shown = b""
    try:
        for prompt, typed in zip((b"Password for ann: ", b"Once more: "), answers, strict=True):
            while prompt not in shown:
                shown += os.read(terminal, 1024)
            # getpass discards input from before the prompt; by now it has changed the echo setting.
            os.write(terminal, f"{typed}\n".encode())
        while True:
            try:
                shown += os.read(terminal, 1024)
            except OSError:
                break
    finally:
        os.close(terminal)
        _, ended = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(ended) == status
    assert b"secret" not in shown
    assert (tmp_path / "users").exists() is (status == 0)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_command_whose_reader_has_gone_ends_silently(unbuffered):
    command = f"{sys.executable} -m estgw lab show 3 | :; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "PYTHONPATH": str(ROOT)}
    assert run("bash", "-c", command, env=environment).stderr == b""


@pytest.mark.parametrize("output", ["| :", ">&-"], ids=["gone", "closed"])
def test_a_command_that_nobody_reads_keeps_its_exit_status(here, output):
    """A lab that is not done yet: 3.  The little that it prints is written at its end."""
    command = f"{sys.executable} -m estgw lab check 3 {output}; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONUNBUFFERED": "", "PYTHONPATH": str(ROOT)}
    run("bash", "-c", command, status=3, env=environment, cwd=here.path)
