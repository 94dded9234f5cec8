"""`estgw quirks run` and `estgw quirks serve`, as a person starts them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from estgw.cli.main import main
from estgw.quirks import clients
from estgw.quirks.table import QUIRKS
from tests.kit.preloaded import forked_estclient, forked_estgw
from tests.kit.processes import DEADLINE, ROOT

DUMB = f"{sys.executable} -c \"raise SystemExit('no')\""


def run(capsys, *arguments):
    capsys.readouterr()
    status = main(["quirks", "run", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out, err


@pytest.mark.client("curl")
def test_the_exit_status_is_0_if_none_failed_and_1_if_some_did(capsys):
    status, out, _ = run(capsys, "--client", "curl", "--only", "wrong-host", "--only", "quirk-template-only")
    assert status == 0
    assert out.splitlines()[-1] == "1 passed, 0 failed, 0 unclear, 1 untried"
    status, out, _ = run(capsys, "--client", "curl", "--only", "wrong-key")
    assert status == 1
    assert out.startswith("FAIL     wrong-key          it kept the certificate of the wrong answer")


@pytest.mark.client("curl")
def test_json_and_junit_have_the_verdicts_and_no_password(capsys, tmp_path):
    wanted = [word for name in ("none", "wrong-key", "template-only") for word in ("--only", name)]
    status, _, _ = run(capsys, "--client", "curl", *wanted, "--json", tmp_path / "j", "--junit", tmp_path / "x")
    assert status == 1
    found = json.loads((tmp_path / "j").read_text())
    assert (found["format"], found["client"]) == (1, "curl")
    assert {row["quirk"]: row["verdict"] for row in found["quirks"]} == {
        "none": "pass",
        "wrong-key": "fail",
        "template-only": "untried",
    }
    assert all(row["evidence"] and row["clause"] for row in found["quirks"])
    suite = ElementTree.parse(tmp_path / "x").getroot()
    counts = [suite.get(name) for name in ("tests", "failures", "skipped", "errors")]
    assert counts == ["3", "1", "1", "0"]
    kinds = {case.get("name"): [child.tag for child in case] for case in suite}
    assert kinds == {"none": ["system-out"], "wrong-key": ["failure"], "template-only": ["skipped"]}


@pytest.mark.client("curl")
def test_a_command_in_quotes_is_judged_without_a_template(capsys):
    template = clients.client_of("curl").commands["enroll"]
    command = " ".join(f"'{word}'" if " " in word else word for word in template)
    status, out, _ = run(capsys, "--client", command, "--only", "rollover-bag", "--only", "one-line")
    assert status == 0
    assert "UNTRIED  rollover-bag       curl has no command for cacerts" in out
    assert "PASS     one-line" in out


def test_a_client_that_does_not_enrol_at_a_good_server_is_not_judged(capsys):
    status, out, err = run(capsys, "--client", DUMB, "--only", "wrong-key")
    assert (status, out) == (3, "")
    assert "does not enrol at a server without faults (quirk-none): no request came; exit status 1: no" in err


def test_a_client_that_is_not_there_is_named(capsys):
    status, _, err = run(capsys, "--client", "nosuch-client {url}")
    assert (status, err) == (3, "estgw: nosuch-client: No such file or directory\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--client", "nosuch"), "no client 'nosuch'; there are estclient, curl"),
        (("--client", "curl", "--only", "nosuch"), "no quirk 'nosuch'; there are none, wrong-key"),
        (("--client", "curl", "--skip", "nosuch"), "no quirk 'nosuch'"),
        (("--client", "curl", "--only", "html", "--skip", "html"), "--only and --skip leave no quirk"),
        (("--client", "curl {nosuch}"), "no placeholder {nosuch}"),
    ],
)
def test_a_wrong_command_line_is_a_2(capsys, arguments, words):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert words in err


def test_a_result_that_can_not_be_written_is_a_1_and_names_the_file(capsys, tmp_path):
    path = tmp_path / "nosuch" / "file"
    status, _, err = run(capsys, "--client", "estclient", "--only", "none", "--json", path)
    assert status == 1
    assert str(path) in err


def test_skip_leaves_out(capsys):
    skipped = [word for name in QUIRKS if name not in ("none", "no-cte") for word in ("--skip", name)]
    status, out, _ = run(capsys, "--client", "estclient", *skipped)
    assert status == 0
    assert [line.split()[1] for line in out.splitlines()[:-1]] == ["none", "no-cte"]


# serve.


class Serving:
    """`estgw quirks serve` as a process."""

    def __init__(self, *arguments):
        command = [*forked_estgw(), "quirks", "serve", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def until(self, pattern):
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError((pattern, self.lines, self.process.stderr and self.process.stderr.read()))


def free_port():
    """The first of a row of ports that are free."""
    for first in range(20_000 + os.getpid() % 20_000, 60_000, 20):
        try:
            sockets = [socket.create_server(("127.0.0.1", first + number)) for number in range(10)]
        except OSError:
            continue
        for one in sockets:
            one.close()
        return first
    raise AssertionError("no free ports")


def test_serve_says_all_that_a_client_needs_and_ends_on_sigterm(tmp_path):
    port = free_port()
    with Serving("--listen", f"127.0.0.1:{port}", "--default", "quirk-none") as serving:
        serving.until(f"^estgw quirks ready https://localhost:{port}$")
        anchor = Path(serving.until(r"^CA +(\S+) ")[1])
        login = serving.until(r"^login +(\S+)$")[1]
        serving.until(rf"^  {port + 9}  quirk-tls13$")
        assert {line.split()[0] for line in serving.lines if line.startswith("quirk-")} == {
            f"quirk-{name}" for name in QUIRKS
        }
        assert f"  {port + 2}  quirk-wrong-host\n" in serving.lines
        command = [*forked_estclient(), "enroll", "-u", f"https://localhost:{port}"]
        command += ["-c", str(anchor), "-p", login, "--new-key", "--subject", "CN=x", "-o", "x.pem"]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        serving.until(r"^quirk-none \(main\) 127\.0\.0\.1 estclient/\S+: POST simpleenroll 200, basic right$")
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait(DEADLINE) == 0
        assert not anchor.exists()


def test_serve_names_a_taken_port_and_a_wrong_address(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Serving("--listen", f"127.0.0.1:{port}") as serving:
            _, err = serving.process.communicate(timeout=DEADLINE)
            assert serving.process.returncode == 1
    words = "Address already in use; the server takes 10 ports in a row, from --listen on"
    assert err == f"estgw: 127.0.0.1:{port}: {words}\n"
    assert main(["quirks", "serve", "--listen", "nonsense"]) == 1
    assert "--listen nonsense: " in capsys.readouterr().err


@pytest.mark.parametrize("default", ["nosuch", "expired"])
def test_serve_refuses_a_default_that_the_main_port_does_not_have(capsys, default):
    assert main(["quirks", "serve", "--default", default]) == 2
    err = capsys.readouterr().err
    assert f"--default: no quirk {default!r} at the main port; there are none, wrong-key" in err


def test_the_completion_suggests_the_shipped_clients():
    from estgw.cli.quirks import COMMANDS

    (option,) = [each for command in COMMANDS for each in command.all_options if "--client" in each.names]
    assert list(option.suggestions) == clients.names()
    assert all(name in option.help for name in clients.names())
