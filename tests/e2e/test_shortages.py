"""A gateway that runs out of a resource answers 503, logs which one, and recovers by itself."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.cases import some
from tests.kit.connection import Connection
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, Gateway, enrol, running_gateway
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import ROOT, run, until
from tests.kit.workspace import Workspace

GOOD = csr()
POOLED = {"labels": {"pooled": {"handlers": "handlers/python", "runner": "pool"}}}


def open_descriptors(gateway: Gateway) -> int:
    return len(os.listdir(f"/proc/{gateway.process.pid}/fd"))


def limit_with_spare(gateway: Gateway, spare: int) -> int:
    """The limit under which so many more descriptors can be opened: it bounds their numbers, and there are gaps."""
    used = {int(name) for name in os.listdir(f"/proc/{gateway.process.pid}/fd")}
    free = (number for number in itertools.count() if number not in used)
    return next(itertools.islice(free, spare, None))


@contextlib.contextmanager
def limited(gateway: Gateway, kind: int, amount: int) -> Iterator[None]:
    """A soft limit of the running process."""
    before = resource.prlimit(gateway.process.pid, kind)
    resource.prlimit(gateway.process.pid, kind, (amount, before[1]))
    try:
        yield
    finally:
        resource.prlimit(gateway.process.pid, kind, before)


def post(connection: Connection, path: str) -> Any:
    return connection.ask("POST", path, GOOD, login=LOGIN)


@pytest.mark.parametrize("spare", some(range(6), 3))
def test_a_callout_without_a_descriptor_is_a_503_and_the_next_succeeds(own_lab, spare):
    """Any descriptor may be the one that fails. All others are closed again."""
    with running_gateway(own_lab, POOLED, python=True) as gateway, gateway.connect() as kept:
        for path in ("simpleenroll", "python/simpleenroll", "pooled/simpleenroll"):
            assert post(kept, path).status == 200
        before, lines = open_descriptors(gateway), len(gateway.log)
        for path in ("simpleenroll", "python/simpleenroll", "pooled/simpleenroll"):
            with limited(gateway, resource.RLIMIT_NOFILE, limit_with_spare(gateway, spare)):
                answer = post(kept, path)
            if spare < 3:
                assert answer.status == 503
            if answer.status == 503:
                assert answer.retries_after(60)
                assert answer.words == "The server is short of resources; try again later."
                line = gateway.access[-1]
                assert (line["level"], line["status"]) == ("error", 503)
                assert "no descriptor is free: raise `ulimit -n`" in line["reason"]
                assert "exception" not in line
            else:
                assert answer.status == 200
            assert post(kept, path).status == 200
        until(lambda: open_descriptors(gateway) <= before)
        assert len(gateway.log) - lines <= 40


def test_a_renewal_by_look_up_without_a_descriptor_is_503_not_403(own_lab, tmp_path):
    """If the register can't be read, the certificate may still exist."""
    by_password = {"simplereenroll": {"requires": "any"}}
    labels = {"look-up": {"renew_without_certificate": True, "operations": by_password}}
    with running_gateway(own_lab, {"labels": labels}) as gateway, gateway.connect() as kept:
        enrol(gateway, tmp_path)
        assert post(kept, "look-up/simplereenroll").status == 200
        with limited(gateway, resource.RLIMIT_NOFILE, open_descriptors(gateway)):
            assert post(kept, "look-up/simplereenroll").status == 503
        assert post(kept, "look-up/simplereenroll").status == 200


def test_a_reload_without_a_descriptor_fails_and_says_why(own_lab):
    with running_gateway(own_lab, python=True) as gateway, gateway.connect() as kept:
        assert post(kept, "simpleenroll").status == 200
        with limited(gateway, resource.RLIMIT_NOFILE, open_descriptors(gateway)):
            said = gateway.reload()
        assert said["event"] == "reload failed, the old configuration stays"
        assert any("Too many open files" in fault or "descriptor" in fault for fault in said["faults"])
        assert gateway.reload()["event"] == "reloaded"
        assert post(kept, "simpleenroll").status == 200


def test_new_connections_without_a_descriptor_wait_without_a_busy_loop(own_lab):
    """Meanwhile the accept loop sleeps, the log says so once, and open connections get an answer, if only a 503."""
    with running_gateway(own_lab, python=True) as gateway, gateway.connect() as kept:
        assert post(kept, "simpleenroll").status == 200
        waiting: list[socket.socket] = []
        with limited(gateway, resource.RLIMIT_NOFILE, open_descriptors(gateway)):
            waiting += [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(3)]
            gateway.wait_for("no connection can be accepted")
            before, lines = cpu_seconds(gateway), len(gateway.log)
            assert post(kept, "simpleenroll").status == 503
            time.sleep(2)
            assert cpu_seconds(gateway) - before < 1
            assert len(gateway.log) - lines <= 2
            line = gateway.wait_for("no connection can be accepted")
            assert (line["level"], "ulimit -n" in line["reason"]) == ("error", True)
        for each in waiting:
            each.close()
        assert gateway.get("cacerts").status == 200
        assert post(kept, "simpleenroll").status == 200


def cpu_seconds(gateway: Gateway) -> float:
    fields = Path(f"/proc/{gateway.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_under_a_low_limit_connections_leave_room_for_callouts(own_lab):
    """`ulimit -n 64` and 120 clients: accepted connections are served, the others are refused."""
    command = ["prlimit", "--nofile=64:64", sys.executable, "-m", "estgw", "serve", "-c", str(config(own_lab))]
    with served(own_lab, command) as gateway:
        advice = gateway.wait_for("advice")
        assert (advice["level"], "`ulimit -n` is 64 at most" in advice["text"]) == ("warning", True)
        clients: list[Connection] = []
        for _ in range(120):
            with contextlib.suppress(OSError):
                clients.append(gateway.connect())
        assert 8 <= len(clients) < 64
        answers = [post(client, "simpleenroll").status for client in clients]
        assert answers == [200] * len(clients)
        for client in clients:
            client.close()
        until(lambda: serves(gateway))
        assert "Traceback" not in gateway.log_text


def serves(gateway: Gateway) -> bool:
    """Whether a new connection is served; beyond the limit it is closed."""
    try:
        return gateway.get("cacerts").status == 200
    except OSError:
        return False


def test_estgw_check_says_that_the_descriptor_limit_is_too_low(own_lab):
    command = ["prlimit", "--nofile=64:64", sys.executable, "-m", "estgw", "check", "-c", str(config(own_lab))]
    done = run(*command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT)
    assert b"`ulimit -n` is 64 at most, and a gateway process needs 1168: raise it, or lower" in done.stdout
    assert b"it can be served as it is" in done.stdout


def test_the_soft_descriptor_limit_is_raised_as_far_as_needed(own_lab):
    command = ["prlimit", "--nofile=64:4000", sys.executable, "-m", "estgw", "serve", "-c", str(config(own_lab))]
    with served(own_lab, command) as gateway:
        assert resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE) == (1168, 4000)
        assert not [line for line in gateway.log if line["event"] == "advice"]


def config(lab: Workspace) -> Path:
    """The shipped configuration on a port of the kernel's choice, with as many callouts on each machine."""
    path = lab.path / "here.yaml"
    text = (lab.path / "conf.yaml").read_text().replace("127.0.0.1:8443", "127.0.0.1:0")
    assert "  # max_running: 4 " in text
    path.write_text(text.replace("  # max_running: 4 ", "  max_running: 8 "))
    return path


@contextlib.contextmanager
def served(lab: Workspace, command: list[str], **more: str) -> Iterator[Gateway]:
    """A gateway that is started by this command."""
    log = lab.path / "log-own"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    with (
        log.open("w") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment, cwd=ROOT) as process,
    ):
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert ready, log.read_text()
            yield Gateway(lab, lab.path / "here.yaml", log, process, ready.split()[-1])
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "none", str(path)]
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode:
        pytest.skip("a file system can't be mounted here")
    try:
        yield path
    finally:
        run("umount", "--lazy", path)


def test_a_full_temporary_directory_is_a_503_until_there_is_room(own_lab, small_disk):
    command = [*forked_estgw(), "serve", "-c", str(config(own_lab))]
    with served(own_lab, command, TMPDIR=str(small_disk)) as gateway:
        assert gateway.post("simpleenroll", GOOD).status == 200
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        answer = gateway.post("simpleenroll", GOOD)
        assert (answer.status, answer.retries_after(60)) == (503, True)
        line = gateway.access[-1]
        assert (line["level"], line["reason"].startswith("no space is left on a device: make room")) == ("error", True)
        ballast.unlink()
        assert gateway.post("simpleenroll", GOOD).status == 200
        assert "Traceback" not in gateway.log_text


def test_a_gateway_without_memory_answers_503_and_recovers(own_lab):
    """The address space is used up, so no thread and no program can be started."""
    with running_gateway(own_lab, python=True) as gateway, gateway.connect() as kept:
        assert post(kept, "simpleenroll").status == 200
        size = int(Path(f"/proc/{gateway.process.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        seen = set()
        with limited(gateway, resource.RLIMIT_AS, size):
            for number in range(6):
                seen.add(kept.ask("POST", "simpleenroll", GOOD, login=f"somebody-{number}:else").status)
                seen.add(post(kept, "simpleenroll").status)
        assert 503 in seen
        assert seen <= {200, 401, 503}
        assert post(kept, "simpleenroll").status == 200
