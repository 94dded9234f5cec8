"""(r) The cost of recording: the shipped Python set with no records, with records in memory, and with files of them."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping
from typing import Any

from tests.bench import servers, versus
from tests.bench.rounds import Candidate, Figures, Row, interleave, ratio
from tests.bench.run import Run
from tests.bench.servers import Server
from tests.bench.targets import Target
from tests.bench.versus import Cell

CLIENTS = (1, 8)
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "in memory": {"keep": 200},
    "in memory and files": {"keep": 200, "dir": "records"},
}
SCRIPT = "python/simpleenroll"
ADDED = 0.3
"""Milliseconds of the gateway's CPU time that a record in memory may cost."""


def measure(run: Run) -> tuple[list[Row], list[Target]]:
    with contextlib.ExitStack() as stack:
        cells: dict[Cell, Candidate] = {}
        for number, (name, record) in enumerate(SETTINGS.items()):
            started = servers.gateway(run.pattern, run.directory / f"r{number}", record=record)
            server = stack.enter_context(started)
            versus.ask(run.load, server, SCRIPT, Cell(name, "simpleenroll", 2, True), 0.5)  # warms it up
            for clients in CLIENTS:
                for keep in (False, True):
                    cell = Cell(name, "simpleenroll", clients, keep)
                    cells[cell] = _candidate(run, server, cell)
        found = interleave(cells, run.rounds, run.noise, run.say)
    return versus.with_parts(versus.rows("r", found), found), _targets(found)


def _targets(found: Mapping[Cell, list[Figures]]) -> list[Target]:
    targets = []
    for cell, figures in found.items():
        bare = found[Cell("none", cell.script, cell.clients, cell.keep)]
        if cell.who == "in memory":
            how = f"{cell.clients} {'kept alive' if cell.keep else 'fresh'}"
            added = statistics.median(a["gateway"] - b["gateway"] for a, b in zip(figures, bare, strict=True))
            targets += [
                Target("r", f"rate with records / without, {how}", ratio(figures, bare, "rate"), 0.95),
                Target("r", f"gateway CPU ms added by a record, {how}", added, ADDED, at_most=True),
            ]
    return targets


def _candidate(run: Run, server: Server, cell: Cell) -> Candidate:
    return lambda: versus.ask(run.load, server, SCRIPT, cell, run.seconds)
