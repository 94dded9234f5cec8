"""A gateway that is killed while a script makes a key: the key is removed soon."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.kit.connection import request
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, Gateway, merged, running_gateway
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import ROOT, dead, run, until
from tests.kit.workers import pids, two_workers
from tests.kit.workspace import Workspace

GOOD = csr()
# The script writes a key, then waits until the test releases it.
HOLD = (
    'umask 077; echo secret >"$EST_TMPDIR/key.pem"; echo $$ >>"$EST_CA_DIR/held"; '
    "for _ in {1..400}; do [[ -e $EST_CA_DIR/go ]] && break; sleep 0.05; done; exit 77"
)


def holding(lab: Workspace, **more: Any) -> dict[str, Any]:
    handler = str(lab.script("hold", HOLD))
    return {"callouts": {"operations": {"serverkeygen": {"enabled": True, "handler": handler}}}, **more}


def without_python(lab: Workspace) -> dict[str, Any]:
    """The same configuration without a warm parent."""
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
    command: list[str | Path] = [*forked_estgw(), *arguments, "-c", gateway.config]
    return command, {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch(gateway.lab))}


def run_cacerts(gateway: Gateway) -> None:
    command, environment = estgw(gateway, "run", "cacerts")
    run(*command, env=environment, cwd=ROOT)


def scratch(lab: Workspace) -> Path:
    return max(lab.path.glob("tmp-*"), key=lambda path: int(path.name.removeprefix("tmp-")))  # the latest gateway's


def keys(lab: Workspace) -> list[Path]:
    walk = os.walk(scratch(lab))  # unlike glob, it tolerates directories that vanish meanwhile
    return [Path(folder, "key.pem") for folder, _, files in walk if "key.pem" in files]


def script_of(lab: Workspace) -> int:
    """The latest script's process id."""
    return int((lab.ca / "held").read_text().split()[-1])


def release(lab: Workspace) -> None:
    (lab.ca / "go").touch()


def test_the_warm_parent_removes_the_key_of_its_dead_gateway(own_lab):
    with running_gateway(own_lab, holding(own_lab), status=-signal.SIGKILL, python=True) as gateway, begun(gateway):
        kill(gateway)
        release(own_lab)
        until(lambda: not list(scratch(own_lab).iterdir()))


@pytest.mark.parametrize("command", ["serve", "run"])
def test_the_next_start_removes_the_key_of_a_gateway_without_warm_parent(own_lab, command):
    with (
        running_gateway(own_lab, without_python(own_lab), status=-signal.SIGKILL, python=True) as gateway,
        begun(gateway),
    ):
        kill(gateway)
        release(own_lab)
        until(lambda: dead(script_of(own_lab)))
        assert keys(own_lab)
        if command == "run":
            run_cacerts(gateway)
        else:
            line, environment = estgw(gateway, "serve")
            with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE) as next_one:
                assert next_one.stdout is not None
                next_one.stdout.readline()
                assert not keys(own_lab)
                next_one.terminate()
                next_one.wait(20)
        assert not list(scratch(own_lab).iterdir())


@pytest.mark.exhaustive
def test_a_running_script_keeps_its_files_when_another_gateway_starts(own_lab):
    with (
        running_gateway(own_lab, without_python(own_lab), status=-signal.SIGKILL, python=True) as gateway,
        begun(gateway),
    ):
        kill(gateway)
        run_cacerts(gateway)
        assert keys(own_lab)
        release(own_lab)
        until(lambda: dead(script_of(own_lab)))
        run_cacerts(gateway)
        assert not list(scratch(own_lab).iterdir())


@pytest.mark.exhaustive
def test_a_killed_workers_key_is_removed_while_the_others_serve(own_lab):
    with two_workers(own_lab, holding(own_lab), python=True) as gateway, begun(gateway):
        (key,) = keys(own_lab)
        worker = int(key.relative_to(scratch(own_lab)).parts[1].removeprefix("tmp-"))
        os.kill(pids(gateway)[worker], signal.SIGKILL)
        gateway.wait_for("worker ended")
        release(own_lab)
        until(lambda: not keys(own_lab))
        assert gateway.get("cacerts").status == 200


@pytest.mark.exhaustive
def test_the_supervisor_removes_the_key_of_a_worker_that_cannot_restart(own_lab):
    """There is no warm parent, and no worker takes the place of the dead one."""
    overrides = merged({"server": {"workers": 2}}, without_python(own_lab))
    with running_gateway(own_lab, overrides, python=True) as gateway, begun(gateway):
        release(own_lab)
        until(lambda: dead(script_of(own_lab)) and not keys(own_lab))
        (own_lab.ca / "go").unlink()
        with begun(gateway):
            (key,) = keys(own_lab)
            worker = int(key.relative_to(scratch(own_lab)).parts[1].removeprefix("tmp-"))
            release(own_lab)
            os.kill(pids(gateway)[worker], signal.SIGSTOP)
            until(lambda: dead(script_of(own_lab)))
            private = own_lab.ca / "private/serverkey.pem"
            private.rename(private.with_suffix(".away"))
            assert keys(own_lab)
            os.kill(pids(gateway)[worker], signal.SIGKILL)
            until(lambda: not keys(own_lab))


def test_a_supervisor_and_workers_killed_together_leave_no_key(own_lab):
    with two_workers(own_lab, holding(own_lab), status=-signal.SIGKILL, python=True) as gateway, begun(gateway):
        for pid in (gateway.process.pid, *pids(gateway).values()):
            os.kill(pid, signal.SIGKILL)
        gateway.process.wait()
        release(own_lab)
        until(lambda: not keys(own_lab))
        until(lambda: all(map(dead, pids(gateway).values())))
        run_cacerts(gateway)
        assert not list(scratch(own_lab).iterdir())


def test_a_key_is_removed_when_its_request_times_out(own_lab):
    overrides = holding(own_lab)
    overrides["callouts"]["operations"]["serverkeygen"]["timeout"] = 1
    with running_gateway(own_lab, overrides, python=True) as gateway, ThreadPoolExecutor(1) as aside:
        answer = aside.submit(gateway.post, "serverkeygen", GOOD)
        until(lambda: keys(own_lab) or None)
        assert answer.result().status == 504
        assert not keys(own_lab)


def test_a_key_is_removed_when_its_client_has_left(own_lab):
    with running_gateway(own_lab, holding(own_lab), python=True) as gateway:
        with gateway.connect() as connection:
            connection.send(request("POST", "serverkeygen", GOOD, login=LOGIN))
            until(lambda: keys(own_lab) or None)
        release(own_lab)
        until(lambda: not keys(own_lab))
