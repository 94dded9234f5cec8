"""Advice about configurations that work but are risky."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from estgw.config import loading, model
from estgw.gateway import advice
from estgw.gateway.worker_share import ALONE, WorkerShare
from tests.kit.gateway import running_gateway
from tests.kit.workspace import Workspace

CONF = """
tls: {certificate: a, key: b}
callouts: {handlers: h, max_running: 8, ca_dir: c}
"""


def settings(more: str = "") -> model.Config:
    return loading.load(Path("/x/conf.yaml"), CONF + more)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend to have these descriptor limits; returns the calls that change them."""
    changed: list[tuple[int, int]] = []

    def pretend(soft: int, hard: int) -> list[tuple[int, int]]:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", lambda _, both: changed.append(both))
        return changed

    return pretend


def test_a_process_needs_descriptors_for_all_that_the_configuration_allows():
    assert advice.descriptors(settings()) == 1000 + 48 + 8 * 10
    assert advice.descriptors(settings("server: {max_connections: 10}\n")) == 10 + 48 + 8 * 10
    assert advice.descriptors(settings("server: {workers: 2}\n")) == 500 + 48 + 4 * 10
    paged = settings("record: {keep: 1}\npage: {listen: 127.0.0.1:0}\n")
    assert advice.descriptors(paged) == 1000 + 48 + 66 + 8 * 10
    pooled = CONF.replace("ca_dir: c", "ca_dir: c, runner: pool")
    assert advice.descriptors(loading.load(Path("/x/conf.yaml"), pooled)) == 1000 + 48 + 8 * 10 + 2 * 4 * 4
    serial = CONF.replace("ca_dir: c", "ca_dir: c, operations: {simpleenroll: {serialize: x}}")
    two = loading.load(Path("/x/conf.yaml"), serial + "server: {workers: 2}\n")
    assert advice.descriptors(two) == 500 + 48 + 4 * 10 + 2 * 50


def test_connections_are_limited_to_leave_descriptors_for_callouts():
    assert advice.connections(settings(), ALONE, resource.RLIM_INFINITY) == 1000
    assert advice.connections(settings(), ALONE, 1128) == 1000
    assert advice.connections(settings(), ALONE, 1024) == 896
    assert advice.connections(settings(), ALONE, 64) == 16
    assert advice.connections(settings("server: {workers: 2}\n"), WorkerShare(1, 2), 1128) == 500


def test_the_soft_limit_is_raised_as_far_as_it_is_needed(limits):
    for before, limit, change in (
        ((1024, 4096), 1128, [(1128, 4096)]),
        ((1024, resource.RLIM_INFINITY), 1128, [(1128, resource.RLIM_INFINITY)]),
        ((1024, 1050), 1050, [(1050, 1050)]),
        ((2000, 4096), 2000, []),
        ((resource.RLIM_INFINITY,) * 2, resource.RLIM_INFINITY, []),
    ):
        changed = limits(*before)
        assert advice.raise_limit(1128) == limit
        assert changed == change
        changed.clear()


def test_advice_reports_a_hard_limit_that_is_too_low(limits):
    limits(1024, 1128)
    assert advice.advice(settings()) == []
    limits(1024, 1024)
    (sentence,) = advice.advice(settings())
    assert sentence.startswith("`ulimit -n` is 1024 at most, and a gateway process needs 1128: raise it, or lower ")
    assert sentence.endswith("server.max_connections, of which 896 fit in it")
    limits(100, 400)
    assert advice.advice(settings("server: {workers: 2}\n"))[0].endswith("of which 312 fit in each process")


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "192.0.2.1:9464", '"[::]:9464"', '"[2001:db8::1]:9464"'])
def test_advice_warns_of_metrics_that_other_machines_can_reach(address):
    (sentence,) = advice.advice(settings(f"metrics: {{listen: {address}}}\n"))
    assert sentence.startswith(f"metrics.listen: {address.strip(chr(34))} can be reached from other machines")
    assert "proxy" in sentence


@pytest.mark.parametrize("address", ["127.0.0.1:9464", "127.0.0.2:1", '"[::1]:9464"'])
def test_no_advice_for_metrics_on_a_loopback_address(address):
    assert advice.advice(settings(f"metrics: {{listen: {address}}}\n")) == []


def test_advice_is_logged_once_at_the_start(own_lab: Workspace):
    for workers in (1, 2):
        overrides = {"server": {"workers": workers}, "metrics": {"listen": "0.0.0.0:0"}}
        with running_gateway(own_lab, overrides) as gateway:
            found = [line for line in gateway.log if line["event"] == "advice"]
            assert [(line["level"], "other machines" in line["text"]) for line in found] == [("warning", True)]
