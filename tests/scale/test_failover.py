"""Two gateways, HAProxy, and a PostgreSQL with two synchronous standbys: parts are killed while devices enrol."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from estgw.register.postgresql import PostgreSQL
from tests.campaign.size import times
from tests.kit.gateway import Gateway, running_gateway
from tests.kit.haproxy import running_haproxy
from tests.kit.postgres import Cluster, program, replicated
from tests.kit.processes import until
from tests.kit.workspace import Workspace
from tests.scale.fleet import Fleet, busy

pytestmark = [pytest.mark.slow, pytest.mark.client("haproxy")]

DEVICES = 4
PHASE = times(12, 700)
"""Certificates before, between and after the kills."""


@pytest.fixture
def clusters() -> Iterator[list[Cluster]]:
    """A primary and two standbys, one of which must have each commit."""
    if program("initdb") is None:
        pytest.skip("PostgreSQL's initdb is not installed")
    with replicated(["a", "b"]) as made:
        yield made


def register(clusters: list[Cluster]) -> str:
    """The URL of a register that is found on whichever cluster is the primary."""
    name = clusters[0].register().rpartition("/")[2]
    places = ",".join(f"127.0.0.1:{each.port}" for each in clusters)
    url = f"postgresql://{name}@{places}/{name}?target_session_attrs=read-write"
    with closing(PostgreSQL(url)) as engine:
        engine.create()
    return url


def settings(url: str) -> Mapping[str, Any]:
    return {
        "server": {"proxies": ["127.0.0.0/8"], "drain_delay": 1},
        "metrics": {"listen": "127.0.0.1:0"},
        "labels": {"python": {"register": url}},
    }


def ports(gateway: Gateway) -> tuple[int, int]:
    """Of TLS, and of its health."""
    return gateway.port, gateway.wait_for("metrics")["port"]


def fail_over(standbys: list[Cluster]) -> None:
    """Promote the standby that has more, and let the other one follow it."""
    standbys.sort(key=Cluster.received, reverse=True)
    first, second = standbys
    first.promote()
    second.follow(first)


def require_all(url: str, fleet: Fleet) -> None:
    """Each certificate that a device holds is in the register, once, and no two devices hold the same."""
    with closing(PostgreSQL(url)) as engine:
        rows = Counter(serial for (serial,) in engine.rows("SELECT serial FROM certificates"))
    assert set(rows.values()) == {1}
    assert set(fleet.held.values()) <= rows.keys()
    assert len(set(fleet.held.values())) == len(fleet.held)


def test_a_gateway_and_the_primary_killed_under_load_lose_no_certificate(
    own_lab: Workspace, tmp_path: Path, clusters: list[Cluster]
) -> None:
    url = register(clusters)
    primary, *standbys = clusters
    with (
        running_gateway(own_lab, settings(url)) as stays,
        running_gateway(own_lab, settings(url), status=-9, clean=False, temporary=tmp_path / "tmp") as dies,
        running_haproxy(tmp_path, [ports(stays), ports(dies)], stays.anchor) as front,
    ):
        fleet = Fleet(front, "python/simpleenroll")
        with busy(fleet, DEVICES):
            fleet.wait(PHASE)
            dies.process.kill()
            fleet.wait(PHASE)
            primary.kill()
            until(lambda: fleet.answers[503])  # nothing is handed out meanwhile
            fail_over(standbys)
            fleet.wait(PHASE)
        require_all(url, fleet)
        print(f"{len(fleet.held)} certificates, {fleet.answers}, {fleet.gap:.1f} s without one")


def test_gateways_restarted_in_turn_under_load_answer_all(
    own_lab: Workspace, tmp_path: Path, clusters: list[Cluster]
) -> None:
    url = register(clusters)
    with (
        running_gateway(own_lab, settings(url)) as stays,
        running_gateway(own_lab, settings(url)) as goes,
        running_haproxy(tmp_path, [ports(stays), ports(goes)], stays.anchor) as front,
    ):
        fleet = Fleet(front, "python/simpleenroll")
        with busy(fleet, DEVICES):
            fleet.wait(PHASE)
            goes.process.send_signal(signal.SIGTERM)
            until(lambda: goes.process.poll() is not None)
            fleet.wait(PHASE)
        require_all(url, fleet)
        assert fleet.answers.keys() == {200}
