"""Two real gateway processes: how they share connections, what happens when one dies, and what they do together."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.kit.cases import some
from tests.kit.connection import Connection, request
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, Gateway
from tests.kit.metrics import samples, value
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import ROOT, dead, run, until
from tests.kit.workers import GOOD, held, holding, let_go, one_each, pids, two_workers, worker_of
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.slow

# Serving.


def test_connections_are_spread_over_all_workers(own_lab):
    with two_workers(own_lab) as gateway, ExitStack() as stack:
        assert gateway.wait_for("listening")["workers"] == 2
        assert len(set(pids(gateway).values()) - {gateway.process.pid}) == 2
        one_each(gateway, stack)
        answers = [gateway.post("simpleenroll", csr(f"device-{number}")) for number in range(4)]
        assert {answer.status for answer in answers} == {200}
        ids = [line["request_id"] for line in gateway.access]
        assert len(set(ids)) == len(ids)
        assert {line["worker"] for line in gateway.access} == {1, 2}
        assert "worker" not in gateway.wait_for("listening")


@pytest.mark.exhaustive
def test_workers_share_two_addresses_and_a_port_of_the_kernels_choice(own_lab):
    with two_workers(own_lab, {"server": {"listen": ["127.0.0.1:0", "[::1]:0"]}}) as gateway:
        assert gateway.get("cacerts").status == 200
        # The log does not name the second port. Each worker has a socket, and all sockets have the same port.
        folder = Path(f"/proc/{gateway.process.pid}/fd")
        ours = {os.readlink(entry) for entry in folder.iterdir() if entry.exists() or entry.is_symlink()}
        rows = [row.split() for row in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
        ports = [int(row[1].rpartition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in ours]
        assert len(ports) == 2
        context = ssl.create_default_context(cafile=str(gateway.lab.anchor))
        seen = set()
        for _ in range(200):
            with (
                socket.create_connection(("::1", ports[0]), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as tls,
            ):
                tls.sendall(request("GET", "cacerts"))
                assert tls.recv(12) == b"HTTP/1.1 200"
            seen.add(gateway.access[-1]["worker"])
            if len(seen) == 2:
                break
        assert (set(ports), seen) == ({ports[0]}, {1, 2})


@pytest.mark.exhaustive
def test_a_script_inherits_no_socket_and_no_variable_of_the_worker(own_lab):
    """Neither sockets nor the control channel, and TMPDIR is the directory of the request."""
    handler = str(own_lab.script("look", "ls -l /proc/self/fd; echo TMPDIR=$TMPDIR; env | grep PROMETHEUS; exit 77"))
    overrides = {
        "callouts": {"operations": {"simpleenroll": {"handler": handler}}},
        "metrics": {"listen": "127.0.0.1:0"},
    }
    with two_workers(own_lab, overrides) as gateway:
        words = gateway.post("simpleenroll", GOOD).words
    assert "socket:" not in words
    assert "estgw-conf" not in words
    assert "PROMETHEUS" not in words


# Death of one worker.


def test_a_killed_worker_loses_its_own_requests_and_no_others(own_lab):
    with two_workers(own_lab, holding(own_lab)) as gateway, ExitStack() as stack, ThreadPoolExecutor(2) as aside:
        connections = one_each(gateway, stack)
        first = pids(gateway)
        for connection in connections.values():
            connection.send(request("POST", "simpleenroll", GOOD, login=LOGIN))
        lost, kept = aside.submit(connections[1].rest), aside.submit(connections[2].response)
        held(own_lab, 2)
        os.kill(first[1], signal.SIGKILL)
        assert lost.result() == b""
        # Connections that the kernel gives to the dead worker wait for its successor.
        assert {gateway.get("cacerts").status for _ in range(12)} == {200}
        ended = gateway.wait_for("worker ended")
        assert (ended["worker"], ended["pid"], ended["end"]) == (1, first[1], "SIGKILL")
        until(lambda: pids(gateway)[1] != first[1])
        assert not kept.done()
        let_go(own_lab)
        assert kept.result().status == 200
        one_each(gateway, stack)
        assert pids(gateway)[2] == first[2]


def test_a_worker_that_is_told_to_stop_drains_and_is_replaced(own_lab):
    with two_workers(own_lab, holding(own_lab)) as gateway, ExitStack() as stack, ThreadPoolExecutor(1) as aside:
        connection, first = one_each(gateway, stack)[1], pids(gateway)[1]
        connection.send(request("POST", "simpleenroll", GOOD, login=LOGIN))
        held(own_lab, 1)
        answer = aside.submit(connection.response)
        os.kill(first, signal.SIGTERM)
        gateway.wait_for("draining", worker=1)
        let_go(own_lab)
        assert answer.result().status == 200
        assert gateway.wait_for("worker ended")["end"] == "exit status 0"
        until(lambda: pids(gateway)[1] != first)
        one_each(gateway, stack)


@pytest.mark.exhaustive
def test_a_worker_that_cannot_restart_leaves_connections_to_others(own_lab):
    """The log has the reason once. After the fault is fixed, a reload starts the worker at once."""
    key = own_lab.ca / "private/serverkey.pem"
    with two_workers(own_lab) as gateway, ExitStack() as stack:
        first = pids(gateway)
        key.rename(key.with_suffix(".away"))
        os.kill(first[1], signal.SIGKILL)
        refused = until(lambda: next((line for line in gateway.log if line.get("faults")), None))
        assert (refused["event"], refused["worker"]) == ("worker ended", 1)
        assert (refused["end"], refused["again_in"]) == ("exit status 1", 0.5)
        assert "serverkey.pem" in refused["faults"][0]
        for _ in range(12):
            with gateway.connect() as connection:
                assert worker_of(gateway, connection) == 2
        until(lambda: [line for line in gateway.log if line["event"] == "worker ended"][2:] or None)
        assert [line["again_in"] for line in gateway.log if line["event"] == "worker ended"][:3] == [0, 0.5, 1]
        assert len([line for line in gateway.log if "faults" in line]) == 1
        key.with_suffix(".away").rename(key)
        assert gateway.reload()["event"] == "reloaded"
        until(lambda: pids(gateway)[1] != first[1])
        one_each(gateway, stack)


def test_a_restarted_worker_has_the_configuration_of_the_others(own_lab):
    """It must not read the file, which may be half written and which no reload has requested."""
    with two_workers(own_lab) as gateway, ExitStack() as stack:
        first = pids(gateway)[1]
        gateway.config.write_text("server: [")
        os.kill(first, signal.SIGKILL)
        until(lambda: pids(gateway)[1] != first)
        one_each(gateway, stack)
        assert not [line for line in gateway.log if "faults" in line]


# All workers together.


def statuses(gateway: Gateway, stack: ExitStack, path: str) -> set[int]:
    return {each.ask("GET", path).status for each in one_each(gateway, stack).values()}


def test_a_reload_reaches_all_workers_or_none(own_lab):
    """With workers as a user has them; those of other tests are forked."""
    with two_workers(own_lab, fresh=True) as gateway, ExitStack() as stack:
        kept = one_each(gateway, stack)
        gateway.configure({"server": {"workers": 2}, "labels": {"fresh": {}}})
        assert statuses(gateway, stack, "fresh/cacerts") == {404}
        assert "worker" not in gateway.reload()
        assert {each.ask("GET", "fresh/cacerts").status for each in kept.values()} == {200}
        assert statuses(gateway, stack, "fresh/cacerts") == {200}
        # The supervisor finds faults in the file; the workers find faults in the files that it names.
        for overrides, fault in (
            ({"server": {"nonsense": 1}}, "nonsense: no such key here"),
            ({"client_auth": {"users": "nobody.htpasswd"}}, "nobody.htpasswd: No such file or directory"),
        ):
            before = len(gateway.log)
            gateway.configure({**overrides, "labels": {"other": {}}})
            said = gateway.reload()
            assert said["event"] == "reload failed, the old configuration stays"
            assert fault in said["faults"][0]
            assert statuses(gateway, stack, "other/cacerts") == {404}
            assert statuses(gateway, stack, "fresh/cacerts") == {200}
            assert len([line for line in gateway.log[before:] if "reload" in line["event"]]) == 1
        # A refused configuration is forgotten: a new worker has the configuration of the others.
        first = pids(gateway)[2]
        os.kill(first, signal.SIGKILL)
        until(lambda: pids(gateway)[2] != first)
        assert statuses(gateway, stack, "fresh/cacerts") == {200}


def test_all_workers_drain_before_the_gateway_stops(own_lab):
    with two_workers(own_lab, holding(own_lab)) as gateway, ExitStack() as stack, ThreadPoolExecutor(2) as aside:
        connections, workers = one_each(gateway, stack), pids(gateway)
        for connection in connections.values():
            connection.send(request("POST", "simpleenroll", GOOD, login=LOGIN))
        held(own_lab, 2)
        gateway.process.send_signal(signal.SIGTERM)
        for number in workers:
            gateway.wait_for("draining", worker=number)
        until(lambda: refuses(gateway))
        answers = [aside.submit(connection.response) for connection in connections.values()]
        let_go(own_lab)
        assert [answer.result().status for answer in answers] == [200, 200]
        assert gateway.process.wait(20) == 0
        assert gateway.log[-1] == {**gateway.log[-1], "event": "stopped", "level": "info"}
        assert "worker" not in gateway.log[-1]
        assert all(dead(pid) for pid in workers.values())


def refuses(gateway: Gateway) -> bool:
    try:
        socket.create_connection(("127.0.0.1", gateway.port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_workers_drain_and_end_after_the_supervisor_was_killed(own_lab):
    """The last worker removes their directory, which `running_gateway` checks."""
    with two_workers(own_lab, holding(own_lab), status=-signal.SIGKILL) as gateway, ThreadPoolExecutor(1) as aside:
        workers = pids(gateway)
        answer = aside.submit(gateway.post, "simpleenroll", GOOD)
        held(own_lab, 1)
        gateway.process.kill()
        until(lambda: len([line for line in gateway.log if line["event"] == "the supervisor has ended"]) == 2)
        until(lambda: refuses(gateway))
        let_go(own_lab)
        assert answer.result().status == 200
        until(lambda: all(dead(pid) for pid in workers.values()))


@pytest.mark.exhaustive
def test_limits_are_divided_among_the_workers(own_lab):
    """Of two callouts at once each worker may run one, and of four connections each may have two."""
    limits: dict[str, Any] = {"server": {"max_connections": 4}, "metrics": {"listen": "127.0.0.1:0"}}
    limits["callouts"] = {"max_running": 2, "max_waiting": 2, **holding(own_lab)["callouts"]}
    with two_workers(own_lab, limits) as gateway, ExitStack() as stack:
        kept: list[Connection] = []
        for _ in range(200):
            with contextlib.suppress(OSError):
                connection = stack.enter_context(gateway.connect())
                if worker_of(gateway, connection) == 1:
                    kept.append(connection)
                else:
                    connection.close()
            if len(kept) == 2:
                break
        for connection in kept:
            connection.send(request("POST", "simpleenroll", GOOD, login=LOGIN))
        held(own_lab, 1)
        until(lambda: value(samples(gateway), "estgw_callouts_waiting") == 1)
        assert value(samples(gateway), "estgw_callouts_running") == 1
        refused = until(lambda: refusal(gateway))
        assert (refused["worker"], refused["reason"]) == (1, "refused: 2 connections are open")
        let_go(own_lab)
        assert [connection.response().status for connection in kept] == [200, 200]


def refusal(gateway: Gateway) -> dict[str, Any] | None:
    with contextlib.suppress(OSError):
        gateway.connect().close()
    return next((line for line in gateway.log if "refused: " in line.get("reason", "")), None)


def test_callouts_of_one_serialize_name_run_one_at_a_time_in_all_workers(own_lab):
    script = own_lab.script(
        "alone",
        'echo begin >>"$EST_CA_DIR/book"; sleep 0.05; echo end >>"$EST_CA_DIR/book"; cat "$EST_CA_DIR/cacert.pem"',
    )
    handlers = {"callouts": {"operations": {"simpleenroll": {"handler": str(script), "serialize": "my ca/../1"}}}}
    with two_workers(own_lab, handlers) as gateway, ExitStack() as stack:
        connections = [*one_each(gateway, stack).values(), *one_each(gateway, stack).values()]
        for connection in connections:
            connection.send(request("POST", "simpleenroll", GOOD, login=LOGIN))
        assert {connection.response().status for connection in connections} == {200}
    book = (own_lab.ca / "book").read_text().split()
    assert book == ["begin", "end"] * len(connections)


# Start.


def serve(lab: Workspace, *options: str) -> tuple[int, str, str]:
    command = (*forked_estgw(), "serve", "-c", str(lab.path / "conf.yaml"), *options)
    done = run(*command, status=None, cwd=ROOT, env={**os.environ, "TMPDIR": str(lab.path / "tmp")})
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def change(lab: Workspace, old: str, new: str) -> None:
    (lab.path / "tmp").mkdir(exist_ok=True)
    lab.edit("conf.yaml", old, new)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fault_at_start_is_reported_once_with_any_number_of_workers(own_lab, workers):
    change(own_lab, "  # name: localhost  ", f"  workers: {workers}  # ")
    change(own_lab, "127.0.0.1:8443", "127.0.0.1:0")
    (own_lab.path / "users.htpasswd").write_text("nonsense\n")
    fault = f"estgw: {own_lab.path}/users.htpasswd:1:1: not of the form user:hash\n"
    assert serve(own_lab) == (1, "", fault)
    assert list((own_lab.path / "tmp").iterdir()) == []


@pytest.mark.parametrize("workers", some([1, 2], 2))
def test_a_port_of_another_gateway_is_refused(own_lab, tmp_path, workers):
    """The kernel would let two gateways of the same user share the port, and each would get half of the clients."""
    with two_workers(own_lab.copy(tmp_path / "other")) as gateway:
        change(own_lab, "  # name: localhost  ", f"  workers: {workers}  # ")
        change(own_lab, "127.0.0.1:8443", f"127.0.0.1:{gateway.port}")
        status, out, err = serve(own_lab)
    assert (status, out) == (1, "")
    assert err.startswith(f"estgw: 127.0.0.1:{gateway.port} is in use by another program; try: estgw serve ")
    assert "Traceback" not in err


@pytest.mark.exhaustive
def test_each_of_two_workers_serves_tls_1_2_and_1_3(own_lab):
    with two_workers(own_lab) as gateway:
        wanted = {(number, version) for number in (1, 2) for version in ("TLSv1.2", "TLSv1.3")}
        seen: set[tuple[int, str]] = set()
        for _ in range(40):  # the kernel chooses the worker
            if seen >= wanted:
                break
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                gateway.get("cacerts", version=version)
            seen = {(line["worker"], line["tls"]) for line in gateway.access}
        assert seen == wanted
