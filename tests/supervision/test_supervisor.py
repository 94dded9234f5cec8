"""The supervisor in this process, where its timeouts can be shortened and its workers replaced by worse ones."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from estgw import logs
from estgw.errors import ConfigError
from estgw.gateway.labels import Snapshot
from estgw.supervision import control_channel, supervisor, worker_slot
from estgw.supervision.supervisor import Supervisor
from tests.kit.processes import dead, until
from tests.kit.restore import logging_as_before
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.usefixtures("forked")


@pytest.fixture
def two_worker_lab(own_lab: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Two workers without Python handlers, so that they start quickly. Temporary files go there too."""
    path = own_lab.path / "conf.yaml"
    data = yaml.safe_load(path.read_text())
    data["server"] |= {"listen": ["127.0.0.1:0"], "workers": 2, "drain_timeout": 0.2}
    del data["labels"]
    path.write_text(yaml.safe_dump(data))
    (own_lab.path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own_lab.path / "tmp"))
    return own_lab


@pytest.fixture
def log_lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The lines of our own log."""
    stream = io.StringIO()
    with logging_as_before():
        logs.configure("json", "info", stream)
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def supervisor_of(two_worker_lab: Workspace) -> Supervisor:
    path = two_worker_lab.path / "conf.yaml"
    return Supervisor(path, Snapshot.take(path))


def supervise(two_worker_lab: Workspace, meanwhile: Callable[[Supervisor], None]) -> None:
    """Run a supervisor, call `meanwhile` once all workers are up, and then stop it."""

    async def main() -> None:
        made = supervisor_of(two_worker_lab)

        def ready(_: str) -> None:
            meanwhile(made)
            os.kill(os.getpid(), signal.SIGTERM)

        await asyncio.wait_for(made.run(ready), 60)

    asyncio.run(main())
    assert list((two_worker_lab.path / "tmp").iterdir()) == []


def test_a_worker_that_does_not_stop_is_killed(two_worker_lab, log_lines, monkeypatch):
    monkeypatch.setattr(supervisor, "MARGIN", 2)
    stopped: list[int] = []

    def meanwhile(made: Supervisor) -> None:
        assert made._slots[1].process is not None
        stopped.append(made._slots[1].process.pid)
        os.kill(stopped[0], signal.SIGSTOP)

    supervise(two_worker_lab, meanwhile)
    assert dead(stopped[0])
    (killed,) = [line["workers"] for line in log_lines() if "killed" in line["event"]]
    assert 2 in killed
    assert log_lines()[-1]["event"] == "stopped"


def test_a_worker_that_does_not_answer_is_replaced_and_others_stay(two_worker_lab, log_lines, monkeypatch):
    monkeypatch.setattr(supervisor, "ANSWER", 0.3)
    monkeypatch.setattr(supervisor, "MARGIN", 20)

    async def main() -> None:
        made = supervisor_of(two_worker_lab)
        up = asyncio.Event()
        running = asyncio.create_task(made.run(lambda _: up.set()))
        await up.wait()
        first = [each.process.pid for each in made._slots if each.process]
        os.kill(first[1], signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.to_thread(until, lambda: (second := made._slots[1].process) and second.pid != first[1])
        await asyncio.to_thread(until, lambda: made._slots[1].is_ready)
        assert next(each.process.pid for each in made._slots if each.process) == first[0]
        os.kill(os.getpid(), signal.SIGTERM)
        await running

    asyncio.run(main())
    (refused,) = [line for line in log_lines() if line["event"].startswith("reload")]
    assert refused["faults"] == ["worker 2 did not answer in time"]


class Systemd:
    """A socket that hears what systemd would."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """What came since the last call."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(4096).decode())
        return found


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    made = Systemd(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    with made.socket:
        yield made


def test_a_worker_that_answers_no_ping_is_replaced_and_the_watchdog_waits_for_it(
    two_worker_lab, log_lines, monkeypatch, systemd
):
    monkeypatch.setattr(supervisor, "PING", 1.5)  # long enough for a worker on a busy machine

    async def main() -> None:
        made = supervisor_of(two_worker_lab)
        assert "NOTIFY_SOCKET" not in os.environ
        up = asyncio.Event()
        running = asyncio.create_task(made.run(lambda _: up.set()))
        await up.wait()
        await asyncio.to_thread(until, lambda: "WATCHDOG=1" in systemd.heard())
        first = [each.process.pid for each in made._slots if each.process]
        os.kill(first[1], signal.SIGSTOP)
        await asyncio.sleep(0.5)
        systemd.heard()
        await asyncio.to_thread(until, lambda: dead(first[1]))
        while made._slots[1].process and made._slots[1].process.pid == first[1]:
            assert systemd.heard() == []
            await asyncio.sleep(0)
        # The other one has stayed, and all answer again.
        assert next(each.process.pid for each in made._slots if each.process) == first[0]
        await asyncio.to_thread(until, lambda: made._slots[1].is_ready)
        await asyncio.to_thread(until, lambda: "WATCHDOG=1" in systemd.heard())
        os.kill(os.getpid(), signal.SIGTERM)
        await running

    asyncio.run(main())
    (killed,) = [line for line in log_lines() if line["event"] == "worker killed"]
    assert (killed["worker"], killed["level"]) == (2, "error")
    assert killed["reason"].startswith("it has not answered for ")
    (ended,) = [line for line in log_lines() if line["event"] == "worker ended"]
    assert ended["end"] == "SIGKILL"


def test_a_worker_that_reads_another_configuration_is_not_pinged_to_death():
    made = worker_slot.WorkerSlot(0, None)  # type: ignore[arg-type]
    made.ping()
    assert not made.owes_an_answer, "it is not ready"
    made.is_ready = True
    made._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with made._channel, theirs:
        for number in range(1, 4):
            made.ping()
            assert made.missed == number
        heard = control_channel.hear(theirs)
        assert heard is not None
        assert heard[0] == "ping"
        control_channel.say(theirs, "pong")
        made._hear()
        assert not made.owes_an_answer

        async def main() -> None:
            made.ask(theirs.fileno())
            for _ in range(9):
                made.ping()
            assert (made.missed, made.owes_an_answer) == (0, True)

        asyncio.run(main())


def test_the_supervisor_gives_up_if_no_worker_can_start(two_worker_lab, log_lines, monkeypatch):
    """A worker may end without a message."""
    monkeypatch.setattr(worker_slot, "_BEGIN", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ChildProcessError, match="no worker could start: the last one's end was SIGKILL"):
        supervise(two_worker_lab, lambda _: None)
    assert log_lines() == []


def test_the_supervisor_gives_up_if_the_interpreter_is_gone(two_worker_lab, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(FileNotFoundError, match="/nonexistent/python"):
        supervise(two_worker_lab, lambda _: None)


def test_a_fault_that_only_workers_find_is_raised(two_worker_lab):
    (two_worker_lab.ca / "private/serverkey.pem").unlink()
    with pytest.raises(ConfigError, match=r"serverkey\.pem"):
        supervise(two_worker_lab, lambda _: None)


def test_the_supervisor_can_be_stopped_before_a_worker_is_up(two_worker_lab, log_lines, monkeypatch):
    monkeypatch.setattr(worker_slot, "_BEGIN", "import time; time.sleep(60)")

    async def main() -> None:
        made = supervisor_of(two_worker_lab)
        running = asyncio.create_task(made.run(lambda _: pytest.fail("nobody is up")))
        await asyncio.sleep(0)
        made._on_stop()
        await asyncio.wait_for(running, 30)

    asyncio.run(main())
    assert log_lines()[-1]["event"] == "stopped"


def test_a_metrics_port_in_use_is_reported(two_worker_lab):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (two_worker_lab.path / "conf.yaml").open("a") as file:
            file.write(f"metrics: {{listen: '127.0.0.1:{port}'}}\n")
        with pytest.raises(OSError, match=f"can't listen on 127.0.0.1:{port}: Address already in use"):
            supervise(two_worker_lab, lambda _: None)


def test_pauses_before_restarts_grow_up_to_30_seconds():
    made = worker_slot.WorkerSlot(0, None)  # type: ignore[arg-type]
    assert [made.pause() for _ in range(9)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert made.pause(lasted=True) == 0
    assert [made.pause() for _ in range(2)] == [0.5, 1]


def test_a_long_list_of_faults_is_cut_to_fit_one_message():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        control_channel.say(theirs, "refused", ["x" * 1000] * 1000)
        heard = control_channel.hear(ours)
    assert heard is not None
    assert heard[0] == "refused"
    assert 50 < len(heard[1]) < 66


def test_a_last_message_is_received_though_ours_was_unread():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            control_channel.say(theirs, "refused", ["conf.yaml:3: why"])
            control_channel.say(ours, "abandon")
        assert control_channel.hear(ours) == ("refused", ["conf.yaml:3: why"], [])
        assert control_channel.hear(ours) is None
