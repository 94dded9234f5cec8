"""What systemd is told: by which socket, and to whom its variables are not passed on."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from estgw.gateway.service_manager import ALIVE, READY, ServiceManager
from tests.kit.csr import csr
from tests.kit.gateway import running_gateway
from tests.kit.processes import DEADLINE


@pytest.mark.parametrize("address", ["path", "@abstract"])
def test_a_word_reaches_the_socket_that_systemd_names(tmp_path, address):
    name = f"{tmp_path}/notify" if address == "path" else f"\0estgw-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        systemd.settimeout(10)
        environment = {"NOTIFY_SOCKET": name.replace("\0", "@"), "WATCHDOG_USEC": "30000000", "PATH": "/bin"}
        manager = ServiceManager(environment)
        assert environment == {"PATH": "/bin"}
        assert manager.watchdog == 30
        manager.say(READY)
        assert systemd.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "30000000"},
        {"NOTIFY_SOCKET": "/nowhere/notify"},
        {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
    ],
)
def test_without_a_watchdog_for_this_process_none_is_fed(environment):
    manager = ServiceManager(environment)
    assert manager.watchdog is None
    asyncio.run(asyncio.wait_for(manager.feed(), 5))
    manager.say(READY)  # nobody hears it, and that is no fault


def test_systemd_hears_of_one_process_that_it_is_ready_and_alive(own_lab, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(DEADLINE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "3000000")
        script = own_lab.script("env", "env | grep -c -e NOTIFY -e WATCHDOG; exit 77")
        overrides = {"callouts": {"operations": {"simpleenroll": {"handler": str(script)}}}}
        with running_gateway(own_lab, overrides) as gateway:
            heard = {systemd.recv(100).decode() for _ in range(4)}
            assert heard == {READY, ALIVE}
            assert gateway.post("simpleenroll", csr()).words == "0"
