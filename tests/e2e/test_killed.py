"""What a gateway leaves behind that is killed while a key is being made: nothing, before long."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.kit.connection import request
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, Gateway, merged, running_gateway
from tests.kit.processes import ROOT, dead, run, until
from tests.kit.workers import pids, two_workers
from tests.kit.workspace import Workspace

GOOD = csr()
# A key lies there, and the script holds until it is let go.
HOLD = (
    'umask 077; echo secret >"$EST_TMPDIR/key.pem"; echo $$ >>"$EST_CA_DIR/held"; '
    "for _ in {1..400}; do [[ -e $EST_CA_DIR/go ]] && break; sleep 0.05; done; exit 77"
)


def holding(lab: Workspace, **more: Any) -> dict[str, Any]:
    handler = str(lab.script("hold", HOLD))
    return {"callouts": {"operations": {"serverkeygen": {"enabled": True, "handler": handler}}}, **more}


def without_python(lab: Workspace) -> dict[str, Any]:
    """The same where there is no warm parent."""
    overrides = holding(lab, labels=None)
    overrides["callouts"]["operations"]["fullcmc"] = {"enabled": False}
    return overrides


@contextlib.contextmanager
def begun(gateway: Gateway) -> Iterator[None]:
    """A serverkeygen under way, with a key in its directory."""
    with gateway.connect() as connection:
        connection.send(request("POST", "serverkeygen", GOOD, login=LOGIN))
        until(lambda: keys(gateway.lab) or None)
        yield


def kill(gateway: Gateway) -> None:
    gateway.process.kill()
    gateway.process.wait()


def estgw(gateway: Gateway, *arguments: str) -> tuple[list[str | Path], dict[str, str]]:
    """A command line and its environment, with the temporary directory of a gateway."""
    command: list[str | Path] = [sys.executable, "-m", "estgw", *arguments, "-c", gateway.config]
    return command, {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch(gateway.lab))}


def run_something(gateway: Gateway) -> None:
    command, environment = estgw(gateway, "run", "cacerts")
    run(*command, env=environment, cwd=ROOT)


def scratch(lab: Workspace) -> Path:
    return max(lab.path.glob("tmp-*"), key=lambda path: int(path.name.removeprefix("tmp-")))  # the latest gateway's


def keys(lab: Workspace) -> list[Path]:
    walk = os.walk(scratch(lab))  # unlike glob, it does not mind that directories go meanwhile
    return [Path(folder, "key.pem") for folder, _, files in walk if "key.pem" in files]


def script_of(lab: Workspace) -> int:
    """The latest script's process id."""
    return int((lab.ca / "held").read_text().split()[-1])


def let_go(lab: Workspace) -> None:
    (lab.ca / "go").touch()


def test_the_warm_parent_removes_the_key_of_its_dead_gateway(own_lab):
    with running_gateway(own_lab, holding(own_lab), status=-signal.SIGKILL) as gateway, begun(gateway):
        kill(gateway)
        let_go(own_lab)
        until(lambda: not list(scratch(own_lab).iterdir()))


@pytest.mark.parametrize("command", ["serve", "run"])
def test_where_nothing_else_is_left_the_next_start_removes_it(own_lab, command):
    with running_gateway(own_lab, without_python(own_lab), status=-signal.SIGKILL) as gateway, begun(gateway):
        kill(gateway)
        let_go(own_lab)
        until(lambda: dead(script_of(own_lab)))
        assert keys(own_lab)
        if command == "run":
            run_something(gateway)
        else:
            line, environment = estgw(gateway, "serve")
            with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE) as next_one:
                assert next_one.stdout is not None
                next_one.stdout.readline()
                assert not keys(own_lab)
                next_one.terminate()
                next_one.wait(20)
        assert not list(scratch(own_lab).iterdir())


def test_a_script_that_still_runs_keeps_its_files_when_the_next_gateway_starts(own_lab):
    with running_gateway(own_lab, without_python(own_lab), status=-signal.SIGKILL) as gateway, begun(gateway):
        kill(gateway)
        run_something(gateway)
        assert keys(own_lab)
        let_go(own_lab)
        until(lambda: dead(script_of(own_lab)))
        run_something(gateway)
        assert not list(scratch(own_lab).iterdir())


def test_a_killed_workers_key_goes_while_the_others_serve(own_lab):
    with two_workers(own_lab, holding(own_lab)) as gateway, begun(gateway):
        (key,) = keys(own_lab)
        worker = int(key.relative_to(scratch(own_lab)).parts[1].removeprefix("tmp-"))
        os.kill(pids(gateway)[worker], signal.SIGKILL)
        gateway.wait_for("worker ended")
        let_go(own_lab)
        until(lambda: not keys(own_lab))
        assert gateway.get("cacerts").status == 200


def test_a_supervisor_removes_what_a_worker_that_can_not_start_again_has_left(own_lab):
    """Without a warm parent, and with nobody in the dead worker's place."""
    overrides = merged({"server": {"workers": 2}}, without_python(own_lab))
    with running_gateway(own_lab, overrides) as gateway, begun(gateway):
        let_go(own_lab)
        until(lambda: dead(script_of(own_lab)) and not keys(own_lab))
        (own_lab.ca / "go").unlink()
        with begun(gateway):
            (key,) = keys(own_lab)
            worker = int(key.relative_to(scratch(own_lab)).parts[1].removeprefix("tmp-"))
            let_go(own_lab)
            os.kill(pids(gateway)[worker], signal.SIGSTOP)
            until(lambda: dead(script_of(own_lab)))
            private = own_lab.ca / "private/serverkey.pem"
            private.rename(private.with_suffix(".away"))
            assert keys(own_lab)
            os.kill(pids(gateway)[worker], signal.SIGKILL)
            until(lambda: not keys(own_lab))


def test_a_supervisor_and_its_workers_that_are_killed_together_leave_no_key(own_lab):
    with two_workers(own_lab, holding(own_lab), status=-signal.SIGKILL) as gateway, begun(gateway):
        for pid in (gateway.process.pid, *pids(gateway).values()):
            os.kill(pid, signal.SIGKILL)
        gateway.process.wait()
        let_go(own_lab)
        until(lambda: not keys(own_lab))
        until(lambda: all(map(dead, pids(gateway).values())))
        run_something(gateway)
        assert not list(scratch(own_lab).iterdir())


def test_a_key_goes_when_its_request_is_over_time(own_lab):
    overrides = holding(own_lab)
    overrides["callouts"]["operations"]["serverkeygen"]["timeout"] = 1
    with running_gateway(own_lab, overrides) as gateway, ThreadPoolExecutor(1) as aside:
        answer = aside.submit(gateway.post, "serverkeygen", GOOD)
        until(lambda: keys(own_lab) or None)
        assert answer.result().status == 504
        assert not keys(own_lab)


def test_a_key_goes_when_its_client_has_left(own_lab):
    with running_gateway(own_lab, holding(own_lab)) as gateway:
        with gateway.connect() as connection:
            connection.send(request("POST", "serverkeygen", GOOD, login=LOGIN))
            until(lambda: keys(own_lab) or None)
        let_go(own_lab)
        until(lambda: not keys(own_lab))
