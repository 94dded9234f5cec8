"""Metrics: one view over all workers, without values of a client's choice, and nothing if switched off."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from estgw import __version__
from estgw.metrics import endpoint, table
from estgw.metrics.meter import Meter
from estgw.metrics.table import Kind
from tests.kit.cases import some
from tests.kit.connection import request
from tests.kit.gateway import LOGIN, running_gateway
from tests.kit.metrics import samples, scrape, value
from tests.kit.processes import ROOT, dead, until
from tests.kit.workers import GOOD, held, holding, let_go, one_each, pids, two_workers

ON = {"metrics": {"listen": "127.0.0.1:0"}}
METRICS = (*table.OF_WORKERS, *table.OF_ALL)

# The table.


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_has_a_name_and_buckets_as_prometheus_requires(metric):
    assert re.fullmatch("estgw_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
    assert metric.buckets == tuple(sorted(metric.buckets))
    assert metric.help.endswith(".")


def test_metric_names_are_unique():
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)


# A gateway.


@pytest.mark.parametrize("workers", some([1, 2], 2))
def test_requests_callouts_faults_and_reloads_are_counted(own_lab, workers):
    with running_gateway(own_lab, {**ON, "server": {"workers": workers}}, python=True) as gateway:
        began = time.time()
        for _ in range(4):
            assert gateway.post("simpleenroll", GOOD).status == 200
        assert gateway.post("python/simpleenroll", GOOD).status == 200
        assert gateway.post("simpleenroll", GOOD, login=None).status == 401
        for path in ("/secret-path-1", "nowhere", "nolabel/cacerts", "%0a"):
            gateway.get(path)
        with gateway.connect() as connection:
            connection.send(b"GET /not HTTP at all\r\n\r\n")
            connection.rest()
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as plain:
            plain.sendall(b"this is no TLS\n")
            plain.recv(100)
        gateway.wait_for("TLS handshake failed")
        assert gateway.reload()["event"] == "reloaded"
        gateway.config.write_text("server: [")
        assert gateway.reload()["event"] != "reloaded"
        text, found = scrape(gateway), samples(gateway)
        assert "secret" not in text
        enrol = {"operation": "simpleenroll"}
        assert value(found, "estgw_requests_total", **enrol, label="", status="200") == 4
        assert value(found, "estgw_requests_total", **enrol, label="python", status="200") == 1
        assert value(found, "estgw_requests_total", **enrol, label="", status="401") == 1
        others = {s: v for (n, s), v in found.items() if n == "estgw_requests_total" and ("operation", "other") in s}
        assert sum(others.values()) == 5
        assert value(found, "estgw_request_seconds_count", **enrol) == 6
        assert value(found, "estgw_request_seconds_bucket", **enrol, le="+Inf") == 6
        assert value(found, "estgw_certificates_issued_total", **enrol, label="") == 4
        script = "handlers/openssl/simpleenroll"
        assert value(found, "estgw_callouts_total", handler=script, runner="exec", end="0") == 4
        script = "handlers/python/simpleenroll"
        assert value(found, "estgw_callouts_total", handler=script, runner="pool", end="0") == 1
        assert value(found, "estgw_callout_seconds_count", handler=script) == 1
        assert value(found, "estgw_handshake_failures_total") == 1
        assert value(found, "estgw_reloads_total", result="done") == 1
        assert value(found, "estgw_reloads_total", result="refused") == 1
        assert value(found, "estgw_workers") == workers
        assert value(found, "estgw_worker_restarts_total") == 0
        assert value(found, "estgw_build_info", version=__version__) == 1
        assert abs(value(found, "estgw_config_loaded_timestamp_seconds") - began) < 60
        assert value(found, "estgw_callouts_running") == value(found, "estgw_callouts_waiting") == 0
        until(lambda: value(samples(gateway), "estgw_connections") == 0)
        # The page shows exactly the metrics of the table.
        shown = set(re.findall("^# TYPE (\\w+) ", text, re.MULTILINE))
        assert shown == {metric.name for metric in METRICS}


def test_callouts_are_counted_by_how_the_script_ended(own_lab):
    ends = {"refuses": "exit 77", "dies": "kill -SEGV $$", "hangs": "sleep 60", "floods": "head -c 3000000 /dev/zero"}
    labels: dict[str, Any] = {}
    for name, text in ends.items():
        handler = str(own_lab.script(name, text))
        labels[name] = {"operations": {"simpleenroll": {"handler": handler, "timeout": 0.5}}}
    lost = own_lab.script("lost", "exit 0")
    labels["lost"] = {"operations": {"simpleenroll": {"handler": str(lost)}}}
    with running_gateway(own_lab, {**ON, "labels": labels}) as gateway:
        lost.unlink()
        for name in labels:
            gateway.post(f"{name}/simpleenroll", GOOD)
        found = samples(gateway)
    for name, end in (
        ("refuses", "77"),
        ("dies", "signal-11"),
        ("hangs", "timeout"),
        ("floods", "flood"),
        ("lost", "not-started"),
    ):
        assert value(found, "estgw_callouts_total", handler=name, runner="exec", end=end) == 1, name


@pytest.mark.exhaustive
def test_counters_go_on_after_a_worker_was_killed(own_lab):
    """Gauges of the dead worker go: its running callout and its connections."""
    with two_workers(own_lab, {**ON, **holding(own_lab)}) as gateway, ExitStack() as stack:
        connections, first = one_each(gateway, stack), pids(gateway)
        connections[1].send(request("POST", "simpleenroll", GOOD, login=LOGIN))
        held(own_lab, 1)
        before = samples(gateway)
        assert value(before, "estgw_callouts_running") == 1
        assert value(before, "estgw_connections") >= 2
        os.kill(first[1], signal.SIGKILL)
        until(lambda: pids(gateway)[1] != first[1])
        after = samples(gateway)
        assert value(after, "estgw_callouts_running") == 0
        assert value(after, "estgw_worker_restarts_total") == 1
        assert value(after, "estgw_workers") == 2
        let_go(own_lab)
        counters = [key for key in before if key[0].endswith(("_total", "_count", "_bucket", "_sum"))]
        assert counters
        assert not [key for key in counters if after[key] < before[key]]
        served = {"operation": "cacerts", "label": "", "status": "200"}
        so_far = value(after, "estgw_requests_total", **served)
        assert so_far == len([line for line in gateway.access if line.get("operation") == "cacerts"])
        for connection in one_each(gateway, stack).values():
            connection.ask("GET", "cacerts")
        asked = len([line for line in gateway.access if line.get("operation") == "cacerts"])
        assert value(samples(gateway), "estgw_requests_total", **served) == asked > so_far + 2
        assert dead(first[1])


def test_without_metrics_prometheus_client_is_not_imported():
    """Counting then does nothing."""
    code = (
        "import sys, estgw.cli.main, estgw.supervision.worker; from estgw.metrics.meter import meter; "
        "from estgw.metrics.table import REQUESTS; meter.add(REQUESTS, 'a', 'b', 'c'); "
        "meter.answered({}, 200, 1.0); print('prometheus_client' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)
    assert done.stdout == "False\n"


def test_metrics_are_off_by_default(gateway):
    assert not [line for line in gateway.log if line["event"] == "metrics"]


def test_one_process_writes_no_files_despite_prometheus_multiproc_dir(own_lab, monkeypatch):
    folder = own_lab.path / "elsewhere"
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    with running_gateway(own_lab, ON) as gateway:
        gateway.get("cacerts")
        assert value(samples(gateway), "estgw_request_seconds_count", operation="cacerts") == 1
    assert list(folder.iterdir()) == []


# The endpoint.


def play(scene: Callable[[int], Any]) -> Any:
    """Run a blocking scene against its own endpoint."""

    async def main() -> Any:
        served = endpoint._Endpoint(lambda: b"estgw_x 1\n", lambda: True)
        server = await asyncio.start_server(served.accept, "127.0.0.1", 0, limit=endpoint.HEAD)
        async with server:
            made = await asyncio.to_thread(scene, server.sockets[0].getsockname()[1])
            served.close()
        return made

    return asyncio.run(main())


def exchange(port: int, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.sendall(sent)
        parts = []
        while part := plain.recv(4096):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"200 OK"),
        (b"GET /metrics?name[]=x HTTP/1.0\r\n\r\n", b"200 OK"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed\r\n"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /metrics/../etc HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /metrics HTTP/2\r\n\r\n", b"400 Bad Request"),
        (b"\x16\x03\x01\r\n\r\n", b"400 Bad Request"),
    ],
)
def test_only_get_metrics_is_answered_with_the_view(sent, status):
    answer = play(lambda port: exchange(port, sent))
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.endswith(b"estgw_x 1\n") == (status == b"200 OK")
    assert b"Connection: close\r\n" in answer
    assert (b"Allow: GET, HEAD\r\n" in answer) == status.startswith(b"405")


def test_a_request_head_without_end_is_cut_off():
    def scene(port: int) -> bytes:
        try:
            return exchange(port, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 3 * endpoint.HEAD)
        except ConnectionError:
            return b""

    assert play(scene) == b""


def test_a_client_that_sends_nothing_is_cut_off(monkeypatch):
    monkeypatch.setattr(endpoint, "SECONDS", 0.2)
    assert play(lambda port: exchange(port, b"GET /met")) == b""


def test_a_client_that_does_not_read_is_cut_off(monkeypatch):
    monkeypatch.setattr(endpoint, "SECONDS", 0.3)

    async def main() -> None:
        served = endpoint._Endpoint(lambda: bytes(50_000_000), lambda: True)
        server = await asyncio.start_server(served.accept, "127.0.0.1", 0)
        async with server:
            with socket.create_connection(server.sockets[0].getsockname()) as plain:
                plain.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
                await asyncio.to_thread(until, lambda: served._open)
                await asyncio.to_thread(until, lambda: not served._open)

    asyncio.run(main())


def test_a_stop_in_the_moment_of_a_connection_is_no_exception():
    said: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        served = endpoint._Endpoint(lambda: b"", lambda: True)
        server = await asyncio.start_server(served.accept, "127.0.0.1", 0)
        async with server:
            with socket.create_connection(server.sockets[0].getsockname()):
                while not served._open:  # noqa: ASYNC110 - its task has not begun, and is cancelled with the loop
                    await asyncio.sleep(0)
                served.close()

    asyncio.run(main())
    assert said == []


def test_a_connection_beyond_the_bound_is_cut_until_others_close(monkeypatch):
    monkeypatch.setattr(endpoint, "CONNECTIONS", 3)

    def scene(port: int) -> None:
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)).sendall(b"GET")
            with pytest.raises((ConnectionError, AssertionError)):  # cut off during the request or after it
                assert exchange(port, b"GET /metrics HTTP/1.1\r\n\r\n") != b""
        until(lambda: _answers(port))

    play(scene)


def _answers(port: int) -> bool:
    try:
        return exchange(port, b"GET /metrics HTTP/1.1\r\n\r\n").endswith(b"estgw_x 1\n")
    except ConnectionError:
        return False


def test_a_fault_in_the_view_costs_one_scrape(tmp_path):
    (tmp_path / "counter_0.db").write_bytes(b"")  # another process has just created its file
    meter = Meter()
    meter.switch_on(table.OF_ALL, view=tmp_path)
    answer = endpoint._Endpoint(meter.text, lambda: True)._answer(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    (tmp_path / "counter_0.db").unlink()
    assert (
        endpoint._Endpoint(meter.text, lambda: True)
        ._answer(b"GET /metrics HTTP/1.1\r\n\r\n")
        .startswith(b"HTTP/1.1 200 ")
    )


def test_another_path_of_the_endpoint_is_a_404(own_lab):
    with running_gateway(own_lab, ON) as gateway, pytest.raises(urllib.error.HTTPError) as refused:
        scrape(gateway, "/")
    assert refused.value.code == 404
    refused.value.close()
