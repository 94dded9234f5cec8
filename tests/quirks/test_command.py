"""Running a client's command: no shell, bounds, and what counts as kept; and the templates."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from estgw.quirks import clients, command, kept
from estgw.quirks.clients import PLACEHOLDERS, client_of
from estgw.quirks.faults import CannotRunError, UsageError
from estgw.quirks.seen import OPERATION_OF
from tests.kit.processes import dead, until


def run(tmp_path, *words, seconds=20.0):
    return command.run(words, tmp_path, seconds, frozenset())


def python(tmp_path, code, **options):
    return run(tmp_path, sys.executable, "-c", code, **options)


def test_no_shell_reads_the_command(tmp_path):
    left = run(tmp_path, "echo", "$(touch pwned); touch pwned", "`touch pwned`", "&&", "touch", "pwned")
    assert left.files == {kept.STDOUT: b"$(touch pwned); touch pwned `touch pwned` && touch pwned\n"}
    assert left.status == 0


def test_new_files_and_the_output_are_kept_and_old_files_are_not(tmp_path):
    (tmp_path / "given").write_text("old")
    code = "import os; os.mkdir('a'); open('a/b', 'w').write('new'); print('out'); raise SystemExit('no')"
    left = python(tmp_path, code)
    assert left.files == {kept.STDOUT: b"out\n", "a/b": b"new"}
    assert (left.status, left.stderr) == (1, b"no\n")


def test_links_pipes_and_large_files_do_no_harm(tmp_path):
    code = (
        "import os; os.symlink('/etc/passwd', 'link'); os.mkfifo('pipe'); "
        "open('large', 'wb').truncate(1 << 30); [open(f'f{n:03}', 'w').close() for n in range(300)]"
    )
    left = python(tmp_path, code)
    assert "link" not in left.files
    assert "pipe" not in left.files
    assert all(len(data) <= kept.MAXIMUM_FILE for data in left.files.values())
    assert len(left.files) <= kept.MAXIMUM_FILES + 1


def test_endless_output_is_read_to_the_bound(tmp_path):
    left = python(tmp_path, "import sys; sys.stdout.write('x' * (3 << 20))")
    assert len(left.files[kept.STDOUT]) == kept.MAXIMUM_FILE


def test_a_command_that_does_not_end_is_stopped_with_all_that_it_started(tmp_path):
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    began = time.monotonic()
    left = python(tmp_path, code, seconds=2.0)
    assert time.monotonic() - began < 20
    assert left.status is None
    child = int(left.files[kept.STDOUT])
    until(lambda: dead(child))


def test_what_a_command_leaves_running_is_stopped(tmp_path):
    code = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
    child = int(python(tmp_path, code).files[kept.STDOUT])
    until(lambda: dead(child))


def test_standard_input_is_empty(tmp_path):
    assert python(tmp_path, "import sys; print(len(sys.stdin.read()))").files[kept.STDOUT] == b"0\n"


@pytest.mark.parametrize("program", ["nosuch-program", "./nosuch", "/etc"])
def test_a_missing_program_is_named(tmp_path, program):
    with pytest.raises(CannotRunError, match=f"^{program}: "):
        run(tmp_path, program)


# Templates.


def test_the_shipped_templates_can_all_be_read():
    assert set(clients.names()) == {"estclient", "curl", "strongswan", "libest", "globalsign"}
    values = dict.fromkeys(PLACEHOLDERS, "V")
    for name in clients.names():
        client = client_of(name)
        assert client.name == name
        for step in client.commands:
            assert step in OPERATION_OF
            assert "{" not in "".join(client.command(step, values))


def test_a_command_in_quotes_is_split_as_a_shell_would_and_filled_in_afterwards():
    client = client_of("prog -u {url} 'two words' -p {user}:{password} --x={csr.pem}")
    assert client.name == "prog"
    values = {"url": "https://h:1/l; rm -rf /", "user": "u", "password": "a b'\"", "csr.pem": "/tmp/a b"}
    assert client.command("enroll", values) == [
        "prog",
        "-u",
        "https://h:1/l; rm -rf /",
        "two words",
        "-p",
        "u:a b'\"",
        "--x=/tmp/a b",
    ]


def test_a_file_of_commands_is_a_client(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("mine: {commands: {enroll: 'prog {url}', cacerts: 'prog -g'}}")
    assert client_of(str(path)).commands == {"enroll": ("prog", "{url}"), "cacerts": ("prog", "-g")}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: b", "a client has commands, and one of them is enroll"),
        ("a: {commands: {cacerts: x y}}", "one of them is enroll"),
        ("a: {commands: {enroll: x, nosuch: y}}", "no step 'nosuch'; there are enroll, "),
        ("a: {commands: {enroll: [x]}}", "enroll: a command is a text"),
        ("a: {commands: {enroll: 'x {nosuch}'}}", "no placeholder {nosuch}; there are {base}, "),
        ('a: {commands: {enroll: "x \'y"}}', "can't be split into words"),
        ("a: {commands: {enroll: ''}}", "the command is empty"),
        ("a: 1\nb: 2", "one client is wanted"),
        ("[", "not YAML"),
        ("\0", "not YAML"),
        ("!!python/object/apply:os.system [id]", "not YAML"),
        ("[" * 5000, "not YAML"),
    ],
)
def test_a_file_that_is_no_client_is_refused_in_words(tmp_path, content, words):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(UsageError) as refused:
        client_of(str(path))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nosuch", "no client 'nosuch'; there are estclient, curl, "),
        ("", "no client ''"),
        ("nosuch.yaml", "nosuch.yaml: No such file or directory"),
        ("prog {nosuch}", "no placeholder {nosuch}"),
    ],
)
def test_an_unknown_client_is_refused_in_words(text, words):
    with pytest.raises(UsageError) as refused:
        client_of(text)
    assert words in str(refused.value)


def test_every_placeholder_gets_a_value(serving, tmp_path):
    from estgw.quirks.runner import _Trials
    from estgw.quirks.table import QUIRKS

    served = serving()
    trials = _Trials(client_of("curl"), served.server, served.events, tmp_path, 1.0)
    (tmp_path / "x").mkdir()
    values = trials._values(QUIRKS["none"], tmp_path / "x")
    assert values.keys() == PLACEHOLDERS.keys()
    assert all(values.values())
    assert all(Path(values[name]).exists() for name in ("ca", "csr.pem", "csr.der", "csr.b64", "aes", "dir"))
    assert os.stat(values["aes"]).st_mode & 0o777 == 0o600
