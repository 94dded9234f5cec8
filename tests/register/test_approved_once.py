"""What was approved is issued exactly once by the shipped scripts: four issuers at once, some of them killed."""

from __future__ import annotations

import os
import random
import runpy
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from estgw.register.engine import Rows
from estgw.register.postgresql import PostgreSQL
from estgw.register.requests import Requests
from estgw.register.sqlite import SQLite
from tests.kit.csr import csr
from tests.kit.scripts import ENVIRONMENT, HandlerSet
from tests.kit.workspace import Workspace
from tests.register.test_engines import Place

WAITS, LATER, REFUSED = os.EX_TEMPFAIL, os.EX_UNAVAILABLE, os.EX_NOPERM
ISSUERS = 4
STATEMENTS = 9
"""About as many as a script says to its register while it issues what was approved."""


class Scripts:
    """handlers/python with the policy of approval, run in children of this process that may be killed."""

    def __init__(self, bench: HandlerSet, url: str | None, private: Path) -> None:
        self.bench, self.url, self.private = bench, url, private
        for operation in ("simpleenroll", "simplereenroll", "serverkeygen"):
            bench.uncomment(operation, "ca.store.require_approval()")

    def start(self, pending_id: str, operation: str = "simpleenroll", kill: tuple[int, bool] | None = None) -> int:
        """Start a script, which is killed at that statement, before or after it."""
        path = self.bench.script(operation)
        own = Path(tempfile.mkdtemp(dir=self.private))
        environment = self.bench.workspace.environment(path, own, csr(f"device-{pending_id}"))
        environment |= ENVIRONMENT | {"EST_PENDING_ID": pending_id, "REMOTE_USER": "ann"}
        if self.url is not None:
            environment["EST_REGISTER"] = self.url
        if child := os.fork():
            return child
        status: Any = 1
        try:
            os.dup2(os.open(self.private / f"out-{os.getpid()}", os.O_WRONLY | os.O_CREAT), 1)
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(path.parent)
            for name in ("ca", "store", "policy", "settings"):
                sys.modules.pop(name, None)
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - pytest has another one
            if kill is not None:
                dies_at(*kill)
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
        except BaseException:  # noqa: BLE001 - for the words of the test that fails
            traceback.print_exc(file=sys.stdout)
        finally:
            sys.stdout.flush()
            os._exit(status)

    def end(self, child: int) -> tuple[int, bytes]:
        """Its exit status, negative for a signal, and what it has printed."""
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return status, (self.private / f"out-{child}").read_bytes()

    def run(self, pending_id: str, operation: str = "simpleenroll") -> tuple[int, bytes]:
        return self.end(self.start(pending_id, operation))


def dies_at(number: int, is_after: bool) -> None:
    """Let this process be killed at that statement."""
    count = 0
    for engine in (SQLite, PostgreSQL):

        def rows(self: Any, statement: str, values: Any = {}, real: Any = engine.rows) -> Rows:  # noqa: B006
            nonlocal count
            count += 1
            if count == number and not is_after:
                os.kill(os.getpid(), signal.SIGKILL)
            found: Rows = real(self, statement, values)
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        engine.rows = rows  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def workspace(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return lab.copy(tmp_path_factory.mktemp("approved") / "lab")


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def scripts(request: pytest.FixtureRequest, workspace: Workspace, tmp_path: Path) -> Iterator[tuple[Scripts, Requests]]:
    bench = HandlerSet("python", workspace.copy(tmp_path / "lab"))
    for file in bench.ca.glob("certs.*"):
        file.unlink()
    place = Place(request.param, bench.ca, request)
    (tmp_path / "private").mkdir()
    yield Scripts(bench, getattr(place, "url", None), tmp_path / "private"), Requests(place.open())
    place.close()


def issued(known: Requests, pending_id: str) -> list[x509.Certificate]:
    query = "SELECT der FROM certificates WHERE pending_id = :id"
    return [x509.load_der_x509_certificate(der) for (der,) in known._engine.rows(query, {"id": pending_id})]


def test_a_request_waits_until_a_person_decides(scripts):
    run, known = scripts
    assert run.run("a") == run.run("a") == (WAITS, b"")
    (request,) = known.all()
    assert (request.id, request.state, request.client) == ("a", "waiting", "ann")
    assert request.facts["EST_CSR_SUBJECT"] == "CN=device-a"
    assert request.csr.startswith("-----BEGIN CERTIFICATE REQUEST-----")
    known.decide("a", "refused", "ask your teacher")
    assert run.run("a") == (REFUSED, b"ask your teacher\n")
    known.decide("a", "approved")
    status, first = run.run("a")
    assert status == 0
    assert run.run("a") == (0, first), "a repeat gets the same"
    assert issued(known, "a") == [x509.load_pem_x509_certificate(first)]
    known._engine.rows("UPDATE certificates SET status = 'revoked'")
    assert run.run("a") == (WAITS, b""), "a revoked certificate is not given again: a person decides anew"


def test_a_key_that_the_server_makes_is_sent_once_for_each_approval(scripts):
    run, known = scripts
    for number in (1, 2):
        assert run.run("k", "serverkeygen") == (WAITS, b"")
        known.decide("k", "approved")
        status, out = run.run("k", "serverkeygen")
        assert (status, out.count(b"-----BEGIN")) == (0, 2)
        assert len(issued(known, "k")) == number


@pytest.mark.parametrize("number", [3, pytest.param(40, marks=pytest.mark.exhaustive)])
def test_an_approved_request_is_issued_once_by_four_issuers_of_which_some_are_killed(scripts, number):
    run, known = scripts
    dice = random.Random(number)
    killed = 0
    for pending_id in map(str, range(number)):
        assert run.run(pending_id) == (WAITS, b"")
        known.decide(pending_id, "approved")
        kills = [(dice.randrange(1, STATEMENTS + 1), dice.random() < 0.5) for _ in range(ISSUERS - 1)]
        children = [run.start(pending_id, kill=kill) for kill in (*kills, None)]
        ends = [run.end(child) for child in children]
        killed += sum(status == -signal.SIGKILL for status, _ in ends)
        assert {status for status, _ in ends} <= {0, LATER, -signal.SIGKILL}, ends
        ends.append(run.run(pending_id))
        handed_out = {x509.load_pem_x509_certificate(out) for status, out in ends if status == 0}
        assert handed_out == set(issued(known, pending_id)) and len(issued(known, pending_id)) == 1
        found = known.find(pending_id)
        assert found is not None and (found.state, {found.certificate}) == ("issued", handed_out)
    assert killed >= number, "many were killed"
