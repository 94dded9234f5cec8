"""`estgw pending`: listing pending requests, and decisions about them."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from estgw.cli import main, pending
from estgw.register import engines
from estgw.register.postgresql import PostgreSQL
from estgw.register.requests import STATES, RequestError, Requests, Room, new
from tests.kit.gateway import merged
from tests.kit.processes import until
from tests.kit.restore import logging_as_before
from tests.kit.workspace import Workspace

ONE, TWO, OTHER = "1a2b" + "0" * 60, "1a2c" + "0" * 60, "ff" * 32

FACTS = {
    "EST_OPERATION": "simpleenroll",
    "EST_LABEL": "iot",
    "EST_CSR_SUBJECT": "CN=device-1",
    "EST_CSR_SAN_0": "DNS:one.example",
    "EST_CSR_SAN_1": "IP:192.0.2.1",
    "EST_CSR_SPKI_SHA256": "ab" * 32,
    "REMOTE_USER": "ann",
    "SSL_CLIENT_S_DN": "CN=old",
    "REMOTE_ADDR": "192.0.2.7",
    "EST_AUTH_METHODS": "tls+http",
}


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    with logging_as_before():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A CA's directory of requests as the script makes it, and a conf.yaml that names the CA."""
    made = tmp_path / "ca/pending"
    for state in STATES:
        (made / state).mkdir(parents=True)
    (made / "lock").touch()
    settings = {
        "tls": {"certificate": "x", "key": "x"},
        "callouts": {"handlers": "x", "ca_dir": "ca"},
        "labels": {"iot": {}, "elsewhere": {"ca_dir": "other"}},
    }
    (tmp_path / "conf.yaml").write_text(yaml.safe_dump(settings))
    return made


def put(folder: Path, identifier: str, state: str = "waiting", *, age: float = 0, **facts: str) -> Path:
    """Put a request into that state."""
    path = folder / state / identifier
    path.mkdir()
    text = "".join(f"{name}={value}\n" for name, value in (FACTS | facts).items())
    (path / "request").write_text(text, errors="surrogateescape")
    moment = 1_800_000_000 - age
    os.utime(path / "request", (moment, moment))
    return path


@pytest.fixture
def estgw(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command: exit status, standard output and error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main.main(["pending", *arguments, "-c", str(folder.parents[1] / "conf.yaml")])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


# list and show.


def test_list_without_requests_prints_nothing(estgw):
    assert estgw("list") == (0, "", "")
    assert estgw("list", "--json") == (0, "[]\n", "")


def test_list_works_without_the_directories_of_the_states(folder, estgw):
    for state in STATES:
        (folder / state).rmdir()
    assert estgw("list", "--all") == (0, "", "")


def test_list_has_the_oldest_open_request_first(folder, estgw):
    put(folder, ONE, age=60)
    put(folder, TWO, "approved", age=120, EST_CSR_SUBJECT="CN=device-2", REMOTE_USER="", SSL_CLIENT_S_DN="")
    put(folder, OTHER, "refused")
    (folder / ".new").mkdir()
    (folder / "waiting/half").mkdir()
    _, out, _ = estgw("list")
    assert out.splitlines() == [
        "1a2c00000000  approved  2027-01-15 07:58  simpleenroll of CN=device-2, by nobody",
        "1a2b00000000  waiting   2027-01-15 07:59  simpleenroll of CN=device-1, by ann, CN=old",
    ]
    assert [line.split()[1] for line in estgw("list", "--all")[1].splitlines()] == ["approved", "waiting", "refused"]


def test_list_and_approve_cover_every_ca_of_the_configuration(folder, estgw):
    other = folder.parents[1] / "other/pending"
    (other / "waiting").mkdir(parents=True)
    put(folder, ONE)
    put(other, TWO)
    assert len(estgw("list")[1].splitlines()) == 2
    assert estgw("approve", "1a2c")[0] == 1, "it has no place to go to"
    (other / "approved").mkdir()
    assert estgw("approve", "1a2c")[0] == 0
    assert (other / "approved" / TWO).is_dir()


def test_show_prints_the_facts_of_a_request_as_text_and_json(folder, estgw):
    path = put(folder, ONE)
    shown = estgw("show", "1a2b")[1].splitlines()
    assert shown[0] == f"id: {ONE}"
    assert {"names: DNS:one.example", "names: IP:192.0.2.1", "client: ann, CN=old", "label: iot"} <= set(shown)
    assert f"csr: {path}/csr.pem" in shown
    assert not any(line.startswith(("reason", "serial")) for line in shown)
    facts = json.loads(estgw("show", "1a2b", "--json")[1])
    assert (facts["state"], facts["names"]) == ("waiting", ["DNS:one.example", "IP:192.0.2.1"])
    assert facts == json.loads(estgw("list", "--json")[1])[0]


def test_show_prints_the_outcome(folder, estgw, lab: Workspace):
    issued = put(folder, ONE, "issued")
    (issued / "certificate.pem").write_bytes(lab.anchor.read_bytes())
    refused = put(folder, TWO, "refused")
    (refused / "reason").write_text("no\n")
    assert any(line.startswith("serial: ") for line in estgw("show", ONE)[1].splitlines())
    assert "reason: no" in estgw("show", TWO)[1].splitlines()
    (issued / "certificate.pem").write_text("junk")
    assert "serial" not in estgw("show", ONE)[1]


HOSTILE = "CN=\x1b[2Jx\udcff\u202e\x07=y"


@pytest.mark.parametrize("command", [["list"], ["show", "1a2b"], ["list", "--json"], ["show", "1a2b", "--json"]])
def test_text_from_a_client_is_escaped(folder, estgw, command):
    put(folder, ONE, EST_CSR_SUBJECT=HOSTILE, REMOTE_USER=HOSTILE, EST_CSR_SAN_0=HOSTILE, EST_CHANGE_SUBJECT=HOSTILE)
    status, out, _ = estgw(*command)
    assert status == 0
    assert all(char.isprintable() or char == "\n" for char in out)
    assert "[2Jx" in out


# approve and refuse.


def test_approve_and_refuse_move_the_request_and_keep_the_reason(folder, estgw):
    put(folder, ONE)
    status, out, _ = estgw("approve", "1A2B")
    assert (status, out) == (0, "1a2b00000000: approved; the certificate is issued when the client comes back\n")
    assert sorted(path.name for path in (folder / "approved" / ONE).iterdir()) == ["request"]
    assert estgw("refuse", ONE, "--reason", "on second thoughts: Zoë says no")[0] == 0
    refused = folder / "refused" / ONE
    assert (refused / "reason").read_text() == "on second thoughts: Zoë says no\n"
    assert estgw("refuse", ONE, "--reason", "in other words")[0] == 0
    assert (refused / "reason").read_text() == "in other words\n"
    assert estgw("approve", ONE)[0] == 0
    assert "reason" not in estgw("show", ONE)[1]


def test_a_decision_renews_the_time_of_a_request(folder, estgw):
    """Otherwise a request that is approved in its last hour would be removed before the client comes back."""
    path = put(folder, ONE)
    os.utime(path, (1_000_000_000,) * 2)
    estgw("approve", ONE)
    assert (folder / "approved" / ONE).stat().st_mtime > 1_700_000_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "1a2"], "1a2: 2 requests have ids that begin so; give more of the id"),
        (["approve", "1a2"], "1a2: 2 requests have ids that begin so; give more of the id"),
        (["approve", "dead"], "dead: no such request"),
        (["approve", ""], ": no such request"),
        (["approve", "../x"], "../x: no such request"),
        (["approve", "ff"], "ffffffffffff: it is issued already"),
        (["refuse", "ff", "--reason", "no"], "ffffffffffff: it is issued already"),
        (["refuse", "1a2b", "--reason", " "], "a reason is one line of text for the client"),
        (["refuse", "1a2b", "--reason", "a\nb"], "a reason is one line of text for the client"),
    ],
)
def test_impossible_decisions_are_refused(folder, estgw, arguments, words):
    put(folder, ONE)
    put(folder, TWO)
    put(folder, OTHER, "issued")
    before = sorted(folder.rglob("*"))
    assert estgw(*arguments) == (1, "", f"estgw: {words}\n")
    assert sorted(folder.rglob("*")) == before


def test_a_second_approve_is_refused(folder, estgw):
    put(folder, ONE)
    estgw("approve", ONE)
    assert estgw("approve", ONE) == (1, "", "estgw: 1a2b00000000: it is approved already\n")


def test_a_request_that_is_being_issued_cannot_be_refused(folder, estgw):
    """A script that issues holds the lock of the request's directory; one that was killed leaves `started`."""
    path = put(folder, ONE, "approved")
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert "it is being issued at this moment" in estgw("refuse", ONE, "--reason", "too late")[2]
    os.close(descriptor)
    (path / "started").touch()
    assert "issuing it was interrupted" in estgw("refuse", ONE, "--reason", "too late")[2]
    assert path.is_dir()
    (path / "started").unlink()
    assert estgw("refuse", ONE, "--reason", "in time")[0] == 0


def test_a_decision_waits_for_the_lock_of_the_scripts(folder):
    put(folder, ONE)
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=pending.approve, args=([folder], ONE))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert (folder / "waiting" / ONE).is_dir()
    until(lambda: (folder / "approved" / ONE).is_dir())
    thread.join()


def test_a_request_that_disappears_is_reported(folder, monkeypatch):
    """The request is looked up again under the lock, since it may have moved meanwhile."""
    path = put(folder, ONE)
    found = pending.find([folder], ONE)
    monkeypatch.setattr(pending, "_find", lambda *_: (folder, found))
    path.rename(folder / "issued" / ONE)
    with pytest.raises(RequestError, match="it is issued already"):
        pending.approve([folder], ONE)
    (folder / "issued" / ONE / "request").unlink()
    (folder / "issued" / ONE).rmdir()
    with pytest.raises(RequestError, match="it is gone already"):
        pending.approve([folder], ONE)


# Requests in registers.


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def known(folder: Path, request: pytest.FixtureRequest) -> Iterator[Requests]:
    """The requests in the register of the same CA."""
    url = None
    if request.param == "PostgreSQL":
        url = request.getfixturevalue("cluster").register()
        with closing(PostgreSQL(url)) as made:
            made.create()
        config = folder.parents[1] / "conf.yaml"
        settings = yaml.safe_load(config.read_text())
        settings["callouts"]["runner"] = "fork"
        config.write_text(yaml.safe_dump(merged(settings, {"callouts": {"register": url}})))
    yield Requests(engines.open_register(url, folder.parent, 10))
    engines.close_all()


def wait(known: Requests, identifier: str, **facts: str) -> None:
    environment = {**FACTS, **facts, "EST_PENDING_ID": identifier, "EST_TMPDIR": "/x", "EST_CSR_FILE": "/x/csr.pem"}
    assert known.put(new(environment, "-----BEGIN CERTIFICATE REQUEST-----\nMII"), "ann", Room(9, 9, timedelta(9)))


def test_requests_of_a_register_are_decided_beside_those_of_a_folder(folder, known, estgw):
    put(folder, OTHER)
    wait(known, ONE)
    wait(known, TWO, EST_CSR_SUBJECT="CN=\x1b[31mred")
    lines = estgw("list")[1].splitlines()
    assert [line.split()[:2] for line in lines] == [[each[:12], "waiting"] for each in (ONE, TWO, OTHER)]
    assert "CN=\\x1b[31mred" in lines[1]
    (shown,) = [each for each in json.loads(estgw("list", "--json")[1]) if each["id"] == ONE]
    assert (shown["client"], shown["names"], shown["state"]) == (
        "ann, CN=old",
        ["DNS:one.example", "IP:192.0.2.1"],
        "waiting",
    )
    assert "EST_TMPDIR" not in str(known.find(ONE)) and "csr.pem" not in str(known.find(ONE))
    assert estgw("show", "1a2b")[1].endswith("csr: -----BEGIN CERTIFICATE REQUEST-----\nMII\n")
    assert estgw("approve", "1a2b")[0] == 0
    assert estgw("approve", "1a2b")[::2] == (1, "estgw: 1a2b00000000: it is approved already\n")
    assert estgw("refuse", "1a2b", "--reason", "ask your teacher")[0] == 0
    assert (found := known.find(ONE)) is not None
    assert (found.state, found.reason) == ("refused", "ask your teacher")
    assert estgw("approve", "1a2b")[0] == 0, "a refused request may be approved"
    assert (found := known.find(ONE)) is not None
    assert (found.state, found.reason) == ("approved", None)
    assert estgw("approve", "ff")[0] == 0
    assert (folder / "approved" / OTHER).is_dir()
    assert estgw("approve", "1a2")[0] == 1, "two begin so"


def test_a_register_of_requests_that_is_away_is_a_fault_with_words(folder, estgw):
    config = folder.parents[1] / "conf.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["callouts"] |= {"runner": "fork", "register": "postgresql://ca@127.0.0.1:1/ca"}
    config.write_text(yaml.safe_dump(settings))
    status, out, err = estgw("list")
    assert (status, out) == (1, "")
    assert "Connection refused" in err
