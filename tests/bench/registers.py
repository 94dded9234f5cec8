"""(i) The label python with its register in SQLite, in PostgreSQL, and there by two gateways behind HAProxy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace

from estgw.register.postgresql import PostgreSQL
from tests.bench import machine, servers, versus
from tests.bench.rounds import Candidate, Figures, Row, interleave, median, ratio
from tests.bench.run import Run
from tests.bench.servers import Server
from tests.bench.targets import Target
from tests.bench.versus import Cell
from tests.kit.haproxy import running_haproxy
from tests.kit.postgres import Cluster, running_cluster

CLIENTS = (1, 8)
SCRIPT = "python/simpleenroll"
SQLITE, POSTGRESQL, TWO = "SQLite", "PostgreSQL", "PostgreSQL, two behind HAProxy"
MOST = 1.15
"""CPU time of an enrolment with PostgreSQL, that of the gateway and its workers, as a part of that with SQLite."""


def measure(run: Run) -> tuple[list[Row], list[Target]]:
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(running_cluster())
        candidates = {
            SQLITE: [stack.enter_context(servers.gateway(run.pattern, run.directory / "i1"))],
            POSTGRESQL: [stack.enter_context(_gateway(run, "i2", cluster))],
            TWO: list(stack.enter_context(_behind_haproxy(run, cluster))),
        }
        cells: dict[Cell, Candidate] = {}
        for who, parts in candidates.items():
            _ask(run, parts, cluster, Cell(who, "simpleenroll", 2, True), 0.5)  # warms it up
            for clients in CLIENTS:
                for keep in (False, True):
                    cell = Cell(who, "simpleenroll", clients, keep)
                    cells[cell] = _candidate(run, parts, cluster, cell)
        found = interleave(cells, run.rounds, run.noise, run.say)
    rows = [
        {**row, "PostgreSQL CPU ms": round(median(figures, "database"), 2)}
        for row, figures in zip(versus.rows("i", found), found.values(), strict=True)
    ]
    return rows, _targets(found)


def _gateway(run: Run, name: str, cluster: Cluster, **server: object) -> contextlib.AbstractContextManager[Server]:
    """A gateway with a register of its own."""
    return _on(run, name, _register(cluster), **server)


def _on(run: Run, name: str, url: str, **server: object) -> contextlib.AbstractContextManager[Server]:
    label = {"handlers": "handlers/python", "authorize": "handlers/python/authorize", "runner": "pool", "register": url}
    settings = {"listen": ["127.0.0.1:0"], **server}
    metrics = {"listen": f"127.0.0.1:{servers.free_port()}"}
    return servers.gateway(
        run.pattern, run.directory / name, server=settings, labels={"python": label}, metrics=metrics
    )


def _register(cluster: Cluster) -> str:
    url = cluster.register()
    with closing(PostgreSQL(url)) as engine:
        engine.create()
    return url


@contextlib.contextmanager
def _behind_haproxy(run: Run, cluster: Cluster) -> Iterator[tuple[Server, ...]]:
    """HAProxy, which takes the requests, and two gateways on one register."""
    url, proxies = _register(cluster), ["127.0.0.0/8"]
    place = run.directory / "i5"
    place.mkdir()
    with _on(run, "i3", url, proxies=proxies) as one, _on(run, "i4", url, proxies=proxies) as two:
        ports = [(each.port, _health(each)) for each in (one, two)]
        with running_haproxy(place, ports, one.lab.anchor) as front:
            yield replace(one, name="HAProxy", port=front.port, processes=(front.process,)), one, two


def _health(server: Server) -> int:
    port: str = servers.settings(server)["metrics"]["listen"].rpartition(":")[2]
    return int(port)


def _candidate(run: Run, parts: list[Server], cluster: Cluster, cell: Cell) -> Candidate:
    return lambda: _ask(run, parts, cluster, cell, run.seconds)


def _ask(run: Run, parts: list[Server], cluster: Cluster, cell: Cell, seconds: float) -> Figures:
    """One round; "cpu" is the time of all gateways, with their workers, and of HAProxy."""

    def times() -> tuple[float, float]:
        return sum(machine.cpu(each.pid) for each in parts), machine.cpu(cluster.pid)

    before = times()
    figures = versus.ask(run.load, parts[0], SCRIPT, cell, seconds)
    done = max(figures["done"], 1)
    cpu, database = ((now - then) * 1000 / done for now, then in zip(times(), before, strict=True))
    return {**figures, "cpu": cpu, "database": database}


def _targets(found: Mapping[Cell, list[Figures]]) -> list[Target]:
    targets = []
    for cell, figures in found.items():
        if cell.who == POSTGRESQL:
            how = f"{cell.clients} {'kept alive' if cell.keep else 'fresh'}"
            with_sqlite = found[replace(cell, who=SQLITE)]
            targets.append(
                Target(
                    "i", f"CPU with PostgreSQL / SQLite, {how}", ratio(figures, with_sqlite, "cpu"), MOST, at_most=True
                )
            )
    return targets
