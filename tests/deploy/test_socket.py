"""Sockets that systemd opens: started by a connection, kept over a restart, and the kinds that are refused."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from estgw.errors import ConfigError
from estgw.gateway.service_manager import ServiceManager
from estgw.tls import sockets
from tests.deploy.machine import ACTIVATE, DEPLOY, Server, activated, settings
from tests.kit.cases import some
from tests.kit.connection import Connection
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, merged
from tests.kit.processes import DEADLINE, ROOT
from tests.kit.workspace import Workspace


def conf(lab: Workspace, **server: Any) -> Path:
    """A configuration whose address a gateway could not bind, so that it must not try."""
    path = lab.path / "conf-passed.yaml"
    shipped = yaml.safe_load((lab.path / "conf.yaml").read_text())
    overrides = {"server": {"listen": ["192.0.2.1:8443"], **server}, "labels": None}
    path.write_text(yaml.safe_dump(merged(shipped, overrides)))
    return path


def serve(config: Path) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "estgw", "serve", "-c", str(config)]


@pytest.mark.client(ACTIVATE)
def test_a_connection_to_the_socket_of_systemd_starts_the_gateway_and_is_served(own_lab):
    script = own_lab.script("env", "env | grep -c LISTEN_; exit 77")
    config = conf(own_lab)
    text = yaml.safe_load(config.read_text())
    text["callouts"]["operations"]["simpleenroll"] = {"handler": str(script)}
    config.write_text(yaml.safe_dump(text))
    with activated(serve(config), own_lab.path, log=own_lab.path / "log") as server, Connection(server) as connection:
        assert connection.ask("POST", "simpleenroll", csr(), login=LOGIN).words == "0", "scripts see none of it"


@contextlib.contextmanager
def started(config: Path, passed: socket.socket) -> Iterator[subprocess.Popen[str]]:
    """A gateway with this socket as descriptor 3, as systemd starts it."""
    line = f"exec 3<&{passed.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec {shlex.join(serve(config))}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        ["bash", "-c", line], pass_fds=[passed.fileno()], env=environment, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"estgw ready https://localhost:{passed.getsockname()[1]}\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize("workers", some([1, 2], 2))
def test_connections_wait_while_the_gateway_restarts(own_lab, workers):
    config = conf(own_lab, workers=workers)
    with socket.create_server(("127.0.0.1", 0)) as passed:
        server = Server(passed.getsockname()[1], own_lab.anchor)
        found: list[int] = []

        def ask() -> None:
            with Connection(server) as connection:
                found.append(connection.ask("GET", "cacerts").status)

        with started(config, passed) as first:
            for _ in range(4):
                ask()
            first.send_signal(signal.SIGTERM)
            assert first.wait(DEADLINE) == 0
        waiting = [threading.Thread(target=ask) for _ in range(4)]
        for thread in waiting:
            thread.start()
        with started(config, passed):
            for thread in waiting:
                thread.join(DEADLINE)
        assert found == [200] * 8


def test_a_socket_of_another_kind_is_refused():
    with socket.socket(socket.AF_INET) as mute, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        for wrong in (mute, datagrams):
            with pytest.raises(ConfigError, match="of LISTEN_FDS: a TCP socket that listens is expected"):
                sockets.inherited(os.dup(wrong.fileno()))
    read, write = os.pipe()
    os.close(write)
    try:
        with pytest.raises(ConfigError, match=f"descriptor {read} of LISTEN_FDS: Socket operation on non-socket"):
            sockets.inherited(read)
    finally:
        os.close(read)


def test_a_socket_for_both_ipv4_and_ipv6_is_refused_with_the_setting_to_write():
    """A client's IPv4 address would match no rule, and all of them would be one network for the throttle."""
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both,
        pytest.raises(ConfigError, match="BindIPv6Only=ipv6-only in the socket unit"),
    ):
        sockets.inherited(os.dup(both.fileno()))
    with socket.create_server(("::", 0), family=socket.AF_INET6) as right:
        sockets.inherited(os.dup(right.fileno())).close()
    assert settings(DEPLOY / "estgw.socket", "BindIPv6Only") == ["ipv6-only"]


@pytest.mark.parametrize(
    "environment", [{}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "many"}]
)
def test_sockets_for_another_process_are_not_taken(environment):
    left = {**environment, "LISTEN_FDNAMES": "estgw.socket"}
    assert ServiceManager(left).sockets() == []
    assert left == {}
