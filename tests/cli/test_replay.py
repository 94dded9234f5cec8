"""`estgw replay`: recorded requests with the scripts of today, and the CA as it was."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import itertools
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509

from estgw.cli import main as command_line
from estgw.cli import sandbox
from estgw.cmc.messages import PKIData
from estgw.cmc.requests import PKCS10Request
from estgw.est import zeroing
from tests.cmc_service import office as cmc
from tests.kit.cases import some
from tests.kit.clients import bound
from tests.kit.connection import V12, Response
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, Gateway, enrol
from tests.kit.keys import KEY
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import DEADLINE, ROOT, until
from tests.kit.restore import logging_as_before
from tests.kit.workspace import Workspace
from tests.record.kit import Record, recording

pytestmark = pytest.mark.slow

SETS = {"openssl": "", "python": "python/"}
OPERATIONS = ("cacerts", "csrattrs", "simpleenroll", "simplereenroll", "serverkeygen", "fullcmc", "crls")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    with logging_as_before():
        yield


@pytest.fixture(scope="module")
def recorded(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A laboratory whose gateway has served each operation of both sets, and has ended."""
    own = lab.copy(tmp_path_factory.mktemp("replay") / "lab")
    crls = own.script("handlers/openssl/crls", 'cat "$EST_CA_DIR/cacert.pem"')
    on = {"enabled": True}
    operation = {
        "method": "GET",
        "response_type": "text/x-pem",
        "body": "raw",
        "handler": str(crls),
        "requires": "none",
    }
    both = {"operations": {"serverkeygen": on, "fullcmc": on, "crls": operation}}
    overrides = {"callouts": both, "labels": {"python": both, "linked": {}}, "log": {"format": "json"}}
    records: dict[tuple[str, str], Record] = {}
    with recording(own, overrides) as running:
        gateway = running.gateway
        device = enrol(gateway, tmp_path_factory.mktemp("device"))
        for (name, prefix), operation_name in itertools.product(SETS.items(), OPERATIONS):
            records[name, operation_name] = running.of(functools.partial(ask, gateway, prefix, operation_name, device))
        others = {
            "no password": lambda: gateway.post("simpleenroll", csr("device-5"), login=None),
            "wrong password": lambda: gateway.post("simpleenroll", csr("device-5"), login="estuser:wrong"),
            "unknown path": lambda: gateway.get("nowhere"),
            "broken": lambda: gateway.post("simpleenroll", csr("device-5").replace(b"device-5", b"device-4")),
            "secret": lambda: gateway.post("simpleenroll", csr(challenge="a password")),
            "foreign": lambda: gateway.post("simpleenroll", csr(challenge="A" * 43 + "=")),
        }
        for other, act in others.items():
            records["other", other] = running.of(act)
        with gateway.connect(version=V12) as connection:
            body = csr("device-5", challenge=bound(connection))
            records["other", "linked"] = running.of(lambda: connection.ask("POST", "simpleenroll", body, login=LOGIN))
    for each in ("simpleenroll", "simplereenroll", "serverkeygen", "fullcmc"):
        assert {records[name, each]["outcome"]["status"] for name in SETS} == {200}, each
    return SimpleNamespace(lab=own, config=gateway.config, records=records, folder=running.folder)


def ask(gateway: Gateway, prefix: str, operation: str, device: tuple[Path, Path]) -> Response:
    """A good request for an operation of a set."""
    path = prefix + operation
    match operation:
        case "cacerts" | "csrattrs" | "crls":
            return gateway.get(path)
        case "simpleenroll":
            return gateway.post(path, csr("device-5", x509.DNSName("a.example")))
        case "simplereenroll":
            return gateway.post(path, csr("device-1"), login=None, certificate=device)
        case "serverkeygen":
            return gateway.post(path, csr("device-6"))
    key = cmc.new_key()
    request = PKCS10Request(7, csr("device-7", key=key))
    message = cmc.message(PKIData(tuple(cmc.fresh()), (request,)), cmc.Person(key))
    return gateway.post(path, message, headers={"Content-Type": "application/pkcs7-mime"})


@pytest.fixture
def here(recorded: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The same, with a temporary directory that must be empty afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return SimpleNamespace(**vars(recorded), temporary=tmp_path)


@pytest.fixture
def edited(recorded: SimpleNamespace) -> Iterator[Workspace]:
    """The laboratory, whose scripts are restored afterwards."""
    before = {path: path.read_bytes() for path in (recorded.lab.path / "handlers").rglob("*") if path.is_file()}
    yield recorded.lab
    for path, content in before.items():
        if path.read_bytes() != content:
            path.write_bytes(content)


def replayed(here: SimpleNamespace, capsys: Any, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    status = command_line.main(["replay", "-c", str(here.config), *arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def as_json(here: SimpleNamespace, capsys: Any, *arguments: str) -> tuple[int, dict[str, Any]]:
    status, out, _ = replayed(here, capsys, *arguments, "--json")
    return status, json.loads(out)


def dumps(lab: Workspace) -> dict[str, Any]:
    """Every file of the CA, a database by its dump."""
    found: dict[str, Any] = lab.books()
    for path in sorted(lab.ca.rglob("*.sqlite")):
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            found[path.name] = list(db.iterdump())
    return found


CASES = [*itertools.product(SETS, OPERATIONS)]
ISSUING = [case for case in CASES if case[1] not in ("cacerts", "csrattrs", "crls")]


@pytest.mark.parametrize("confined", [True, False], ids=["bwrap", "none"])
@pytest.mark.parametrize(("set_", "operation"), some(CASES, 2))
def test_a_replay_has_the_same_outcome_and_leaves_the_ca_as_it_was(here, capsys, set_, operation, confined):
    if confined and not sandbox.find():
        pytest.skip("bwrap is not installed, or may not make namespaces here")
    before = dumps(here.lab)
    record = here.records[set_, operation]
    status, said = as_json(here, capsys, record["id"], *([] if confined else ["--no-sandbox"]))
    assert (status, said["differences"]) == (0, []), said["record"]["outcome"]
    assert said["sandbox"] == ("bwrap" if confined else "none")
    made = said["record"]
    assert (made["kind"], made["of"], made["format"]) == ("replay", record["id"], 1)
    assert made["id"] != record["id"]
    assert made["outcome"]["status"] == record["outcome"]["status"]
    assert [gate["result"] for gate in made["gates"]] == [gate["result"] for gate in record["gates"]]
    assert [each["kind"] for each in made["callouts"]] == [each["kind"] for each in record["callouts"]]
    assert {each["runner"] for each in made["callouts"]} <= {"exec"}
    assert dumps(here.lab) == before
    assert list(here.temporary.iterdir()) == [], "the copy of the CA is removed"


@pytest.mark.parametrize(("set_", "operation"), some(ISSUING, 2))
def test_a_replay_shows_no_usable_signature(here, capsys, set_, operation):
    record = here.records[set_, operation]
    _, out, err = replayed(here, capsys, record["id"])
    assert "BEGIN CERTIFICATE-----" not in out + err
    _, said = as_json(here, capsys, record["id"])
    made = said["record"]
    outputs = [made["issued"]["pem"]] if made["issued"] else []
    outputs += [each[stream] for each in made["callouts"] for stream in ("stdout", "stderr")]
    shown = [certificate for text in outputs for certificate in zeroing.certificates(text.encode())]
    shown += zeroing.certificates(base64.b64decode(made["response"]["body"]))
    ours = [each for each in shown if each.subject.rfc4514_string().startswith("CN=device")]
    assert all(map(zeroing.is_zeroed, ours))
    assert ours or operation == "fullcmc"
    assert made["tls"]["certificate"] == record["tls"]["certificate"], "what came in stays as it was"


@pytest.mark.parametrize("name", ["no password", "wrong password", "unknown path", "broken", "foreign", "linked"])
def test_refusals_and_linked_requests_replay_as_they_were(here, capsys, name):
    record = here.records["other", name]
    status, said = as_json(here, capsys, record["id"])
    assert (status, said["differences"]) == (0, [])
    made = said["record"]
    assert made["outcome"]["gate"] == record["outcome"]["gate"]
    assert made["outcome"]["reason"] == record["outcome"]["reason"]
    assert made["binding"]["result"] == record["binding"]["result"]
    assert made["auth"]["scheme"] == record["auth"]["scheme"]


# What an edit changes.


def test_a_one_line_policy_shows_as_one_difference(here, edited, capsys):
    edited.edit("handlers/openssl/simpleenroll", "# only_user_name ||", "only_user_name ||")
    status, out, _ = replayed(here, capsys, here.records["openssl", "simpleenroll"]["id"])
    assert status == 3
    (line,) = [line for line in out.splitlines() if line.startswith("  ")]
    assert line == "  outcome: 200 -> 403, handler: you may only be CN=estuser and nothing else"
    assert "next: The policy in the script simpleenroll says no" in out


def test_another_lifetime_shows_as_one_difference(here, edited, capsys):
    edited.edit("handlers/openssl/settings.sh", "lifetime=90d", "lifetime=30d")
    status, said = as_json(here, capsys, here.records["openssl", "simpleenroll"]["id"])
    assert (status, said["differences"]) == (3, [{"what": "lifetime", "before": "90 days", "now": "30 days"}])


def test_another_profile_shows_as_one_difference(here, edited, capsys):
    edited.edit("handlers/python/settings.py", 'profile = "client"', 'profile = "both"')
    status, said = as_json(here, capsys, here.records["python", "simpleenroll"]["id"])
    (difference,) = said["differences"]
    assert (status, difference["what"]) == (3, "extendedKeyUsage")
    assert (difference["before"], "serverAuth" in difference["now"]) == ("clientAuth", True)


def test_names_that_are_left_out_show_as_one_difference(here, edited, capsys):
    edited.edit("handlers/openssl/simpleenroll", "names=${EST_CSR_EXT_SAN-}", "names=")
    _, said = as_json(here, capsys, here.records["openssl", "simpleenroll"]["id"])
    assert said["differences"] == [{"what": "names", "before": "DNS:a.example", "now": ""}]


def test_another_handler_and_another_authorize_are_tried(here, capsys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tried")
    for name, text in {"handler": "echo 'from the handler'; exit 65", "authorize": "echo 'not today'; exit 77"}.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    identifier = here.records["openssl", "simpleenroll"]["id"]
    _, said = as_json(here, capsys, identifier, "--handler", str(folder / "handler"))
    assert said["differences"][0]["now"] == "400, handler: from the handler"
    assert said["record"]["callouts"][-1]["script"] == str(folder / "handler")
    _, said = as_json(here, capsys, identifier, "--authorize", str(folder / "authorize"))
    assert said["differences"][0]["now"] == "403, authorize: not today"


def test_the_present_configuration_judges(here, capsys, tmp_path_factory):
    text = here.config.read_text()
    path = here.lab.path / "stricter.yaml"
    path.write_text(text.replace("pop:", "unused:") + "\npop: {default: required}\n")
    status = command_line.main(["replay", "-c", str(path), here.records["openssl", "simpleenroll"]["id"], "--json"])
    said = json.loads(capsys.readouterr().out)
    assert (status, said["differences"][0]["now"].startswith("400, linking: Linking identity and POP")) == (3, True)


def test_scripts_are_told_that_it_is_a_replay(here, edited, capsys):
    text = 'echo "replay=${EST_REPLAY-} of $EST_CA_DIR" >&2; exit 77'
    edited.script("handlers/openssl/simpleenroll", text)
    _, said = as_json(here, capsys, here.records["openssl", "simpleenroll"]["id"])
    callout = said["record"]["callouts"][-1]
    assert callout["stderr"].startswith("replay=1 of ")
    assert str(here.lab.ca) not in callout["stderr"]
    assert callout["environment"]["EST_REPLAY"] == "1"


@pytest.mark.skipif(not sandbox.find(), reason="bwrap is not installed, or may not make namespaces here")
def test_a_sandboxed_script_has_no_network_and_writes_to_copy_and_scratch_alone(here, edited, capsys):
    tries = [
        'touch "$EST_CA_DIR/mark" && echo copy',
        'touch "$EST_TMPDIR/mark" && echo scratch',
        f"touch {here.lab.path}/mark && echo escaped",
        f"touch {here.lab.ca}/mark && echo escaped",
        f"touch {here.temporary}/mark && echo escaped",
        "grep -v lo: /proc/net/dev | grep : && echo network",
    ]
    edited.script("handlers/openssl/simpleenroll", "\n".join(tries) + "\nexit 77")
    _, said = as_json(here, capsys, here.records["openssl", "simpleenroll"]["id"])
    assert said["record"]["callouts"][-1]["stdout"] == "copy\nscratch\n"
    assert not (here.lab.path / "mark").exists()


def test_for_real_issues_and_says_nothing_of_a_replay_to_the_scripts(here, recorded, capsys):
    before = recorded.lab.rows
    status, said = as_json(here, capsys, here.records["openssl", "simpleenroll"]["id"], "--for-real")
    assert (status, said["sandbox"]) == (0, "none")
    assert len(recorded.lab.rows) == len(before) + 1
    assert "EST_REPLAY" not in said["record"]["callouts"][-1]["environment"]
    recorded.lab.verify(x509.load_pem_x509_certificate(said["record"]["issued"]["pem"].encode()))


def test_a_copy_of_ones_own_is_used_and_stays(here, capsys):
    copy = here.temporary / "copy"
    subprocess.run(["cp", "-a", here.lab.ca, copy], check=True)
    before = dumps(here.lab)
    rows = len((copy / "index.txt").read_text().splitlines())
    status, _, _ = replayed(here, capsys, here.records["openssl", "simpleenroll"]["id"], "--ca-copy", str(copy))
    assert (status, len((copy / "index.txt").read_text().splitlines())) == (0, rows + 1)
    assert dumps(here.lab) == before


def test_a_large_ca_is_refused_with_the_way_out(here, monkeypatch, capsys):
    monkeypatch.setattr("estgw.register.ca_copy.MOST_BYTES", 100)
    status, _, err = replayed(here, capsys, here.records["openssl", "simpleenroll"]["id"])
    assert (status, "too much to copy; make a copy yourself and name it with --ca-copy DIR" in err) == (1, True)


def test_a_kill_in_the_middle_leaves_the_ca_as_it_was_and_the_next_replay_sweeps(here, edited, capsys):
    before = dumps(here.lab)
    edited.edit(
        "handlers/openssl/simpleenroll", 'issue "$profile"', 'touch "$EST_CA_DIR/begun"; sleep 60; issue "$profile"'
    )
    command = [
        sys.executable,
        "-m",
        "estgw",
        "replay",
        "-c",
        here.config,
        here.records["openssl", "simpleenroll"]["id"],
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        until(lambda: next(here.temporary.rglob("begun"), None))
        process.kill()
    assert dumps(here.lab) == before

    def is_swept() -> bool:
        replayed(here, capsys, here.records["openssl", "cacerts"]["id"])
        return not list(here.temporary.iterdir())

    for pid in _sleepers():
        os.kill(pid, signal.SIGKILL)
    until(is_swept)
    assert dumps(here.lab) == before


def _sleepers() -> list[int]:
    """The `sleep 60` that a killed replay without a sandbox leaves behind."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == b"sleep\x0060\x00" and b"EST_REPLAY=1" in path.with_name("environ").read_bytes():
                found.append(int(path.parent.name))
    return found


# All records of an operation.


def test_all_records_of_an_operation_say_whose_outcome_changes(here, edited, capsys):
    status, out, _ = replayed(here, capsys, "--all", "simpleenroll")
    assert status == 0, out
    assert out.splitlines()[-1] == "8 same, 0 differs, 1 left out", out
    assert re.search(r"left out: \w+: its body held a secret", out)
    edited.edit("handlers/python/simpleenroll", "# if not policy.only_user_name():", "if not policy.only_user_name():")
    edited.edit(
        "handlers/python/simpleenroll", '#     policy.refuse(f"you may only', '    policy.refuse(f"you may only'
    )
    status, said = as_json(here, capsys, "--all", "simpleenroll")
    assert (status, said["counts"]) == (3, {"same": 7, "differs": 1, "left out": 1})
    (changed,) = [each for each in said["replays"] if each.get("same") is False]
    assert changed["id"] == here.records["python", "simpleenroll"]["id"]


def test_no_record_of_an_operation_is_trouble(here, capsys):
    status, _, err = replayed(here, capsys, "--all", "nothing")
    assert (status, "no record of nothing that can be replayed" in err) == (1, True)


# What can't be replayed.


def test_a_body_that_was_not_recorded_is_refused(here, capsys):
    status, _, err = replayed(here, capsys, here.records["other", "secret"]["id"])
    assert (status, "its body held a secret and was not recorded" in err) == (1, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 9}, "a record of format 9, and this version of estgw reads format 1"),
        ({"kind": "handshake"}, "a handshake that failed; there is no request to replay"),
        ({"request": None}, "what came was no HTTP request"),
        ({"request.cut": True}, "its body is cut off in the record"),
        ({"request.body": "%%%"}, '"request.body" is missing or not of the kind: base64 or null'),
        ({"request.body": 7}, '"request.body" is missing or not of the kind: base64 or null'),
        ({"request.line": "POST"}, '"request.line" is no request line'),
        ({"request.headers": [["a"]]}, "no sound record"),
        ({"tls.bindings": {"odd": "AA=="}}, "no sound record: 'odd' is not a valid BindingType"),
        ({"tls.certificate": "-----BEGIN"}, "has no certificate in PEM"),
        ({"tls.chain": 3}, "no sound record"),
        ({"connection.port": "x"}, "no sound record"),
        ({"issued.pem": "x"}, "no sound record"),
        ({"response.body": "%"}, "no sound record"),
    ],
)
def test_a_record_that_somebody_has_edited_is_refused_in_words(here, capsys, change, words):
    record = json.loads(json.dumps(here.records["openssl", "simplereenroll"]))
    for path, value in change.items():
        *steps, last = path.split(".")
        inner = record
        for step in steps:
            inner = inner[step]
        inner[last] = value
    if "response.body" in change:
        record["issued"] = None
    file = here.temporary / "record.json"
    file.write_text(json.dumps(record))
    status, _, err = replayed(here, capsys, str(file))
    assert (status, words in err) == (1, True), err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["../../etc/no-such-record"], "is no id of a record"),
        (["0123456789"], "has no record 0123456789"),
        (["0123456789", "--handler", "nowhere"], "nowhere: no such file"),
        (["0123456789", "--ca-copy", "nowhere"], "no such directory; make it with: cp -a"),
    ],
)
def test_what_is_not_there_is_trouble(here, capsys, arguments, words):
    status, _, err = replayed(here, capsys, *arguments)
    assert (status, words in err) == (1, True), err


@pytest.mark.parametrize(
    "arguments", [[], ["0123456789", "--all", "simpleenroll"], ["--all", "simpleenroll", "--for-real"]]
)
def test_a_wrong_command_line_is_usage(here, capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        replayed(here, capsys, *arguments)
    assert ended.value.code == 2


def test_a_record_is_read_from_standard_input(here, monkeypatch, capsys):
    text = json.dumps(here.records["openssl", "cacerts"]).encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    assert replayed(here, capsys, "-")[0] == 0


# estgw watch.


class Watching:
    """A running `estgw watch`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self.log = process, log

    def wait(self, words: str, count: int = 1) -> str:
        def text() -> str | None:
            said = self.log.read_text()
            return said if said.count(words) >= count else None

        return until(text)


@contextlib.contextmanager
def watching(here: SimpleNamespace, *arguments: str) -> Iterator[Watching]:
    log = here.temporary / "watch.log"
    command = [*forked_estgw(), "watch", "-c", str(here.config), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        log.open("w") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, text=True, env=environment) as process,
    ):
        try:
            yield Watching(process, log)
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()


def test_watch_replays_on_each_save_and_checks_the_syntax_first(here, edited):
    script = edited.path / "handlers/openssl/simpleenroll"
    shipped = script.read_text()
    before = dumps(edited)
    with watching(here, "simpleenroll", "--id", here.records["openssl", "simpleenroll"]["id"]) as watched:
        assert watched.wait("same: 200, CN=device-5, 90 days").startswith("sandbox: ")
        script.write_text(shipped.replace("# only_user_name ||", "only_user_name ||"))
        watched.wait("differs: 403, handler, you may only be CN=estuser and nothing else")
        assert "saved: simpleenroll" in watched.log.read_text()
        script.write_text(shipped + "if true; then\n")
        assert "syntax error" in watched.wait("fault: ")
        script.write_text(shipped)
        watched.wait("same: 200, CN=device-5, 90 days", 2)
    assert dumps(edited) == before


def test_watch_takes_the_last_record_of_the_operation(here):
    with watching(here, "cacerts") as watched:
        assert here.records["python", "cacerts"]["id"] in watched.wait("same: 200")


def test_watch_makes_up_a_request_from_a_csr(here, edited):
    (here.temporary / "req.der").write_bytes(csr("device-3", key=KEY))
    with watching(here, "simpleenroll", "--csr", str(here.temporary / "req.der"), "--user", "estuser") as watched:
        watched.wait("200, for CN=device-3")
        edited.edit("handlers/openssl/simpleenroll", "# only_user_name ||", "only_user_name ||")
        watched.wait("403, you may only be CN=estuser and nothing else")


def test_watch_without_a_record_names_the_way_out(here, capsys):
    assert command_line.main(["watch", "-c", str(here.config), "nothing"]) == 1
    assert "no record of nothing yet; send a request, or name one with --csr FILE" in capsys.readouterr().err
