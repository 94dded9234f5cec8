"""(c) enrolments per second by each runner, and (d) the same scripts under other callout servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from estgw.config.model import Server as ServerSettings
from tests.bench import servers
from tests.bench.load import Load
from tests.bench.rounds import Candidate, Figures, Row, interleave, median, ratio, spread
from tests.bench.run import Run
from tests.bench.servers import Server, Spent
from tests.bench.targets import Target

RUNNERS = {"exec Bash": "", "exec Python": "exec/", "fork": "fork/", "pool": "pool/"}
"""The path before the operation, by runner."""
SIGNS = "estgw, script only signs"


@dataclass(frozen=True)
class Cell:
    """One measurement: the server, the script, and the clients."""

    who: str
    script: str
    clients: int
    keep: bool

    def __str__(self) -> str:
        return f"{self.script} by {self.who}, {self.clients} {'kept alive' if self.keep else 'fresh'}"


def ask(load: Load, server: Server, script: str, cell: Cell, seconds: float) -> Figures:
    """One round of one cell."""
    server.forget()
    expect = "nothing to see" if cell.script == "trivial" else "pkcs7"
    before, spent = server.cpu(), server.spent()
    result = load.run(
        server.port,
        server.base + script,
        clients=cell.clients,
        keep=cell.keep,
        seconds=seconds,
        expect=expect,
        ack=cell.who.endswith("acknowledged"),
    )
    done = max(result.done, 1)
    by_part = Spent(*(now - then for now, then in zip(server.spent(), spent, strict=True)))
    return {
        "done": result.done,
        "gateway": by_part.gateway * 1000 / done,
        "parent": by_part.parent * 1000 / done,
        "children": by_part.children * 1000 / done,
        "faults": by_part.faults / done,
        "rate": result.rate,
        "p50": result.p50 * 1000,
        "p99": result.p99 * 1000,
        "cpu": (server.cpu() - before) * 1000 / done,
        "client": result.cpu * 1000 / done,
        "errors": result.errors,
    }


def rows(part: str, found: Mapping[Cell, list[Figures]]) -> list[Row]:
    return [
        {
            "part": part,
            "what": cell.script,
            "by": cell.who,
            "clients": cell.clients,
            "TLS": "kept alive" if cell.keep else "fresh",
            "per second": round(median(figures, "rate"), 1),
            "noise": spread([round_["rate"] for round_ in figures]),
            "p50 ms": round(median(figures, "p50"), 2),
            "p99 ms": round(median(figures, "p99"), 2),
            "server CPU ms": round(median(figures, "cpu"), 2),
            "client CPU ms": round(median(figures, "client"), 2),
            "errors": int(sum(round_["errors"] for round_ in figures)),
        }
        for cell, figures in found.items()
    ]


def with_parts(rows_of_c: list[Row], found: Mapping[Cell, list[Figures]]) -> list[Row]:
    """The rows with the CPU time split: gateway, warm parent, and children, with the page faults of these."""
    return [
        {
            **row,
            **{f"{part} CPU ms": round(median(figures, part), 2) for part in ("gateway", "parent", "children")},
            "page faults": round(median(figures, "faults")),
        }
        for row, figures in zip(rows_of_c, found.values(), strict=True)
    ]


def by_runner(run: Run) -> tuple[list[Row], list[Target]]:
    """(c): the shipped configuration, with the demo user's password and the authorize script."""
    labels = {name: {"handlers": "handlers/python", "authorize": "handlers/python/authorize", "runner": name}
              for name in ("exec", "fork", "pool")}  # fmt: skip
    with servers.gateway(run.pattern, run.directory / "c", labels=labels) as server:
        cells: dict[Cell, Candidate] = {}
        for clients in (1, 2, 8, 32):
            for keep in (False, True):
                for who, label in RUNNERS.items():
                    cell = Cell(who, "simpleenroll", clients, keep)
                    cells[cell] = _candidate(run, server, f"{label}simpleenroll", cell)
        for who, label in RUNNERS.items():  # warm up the runners
            ask(run.load, server, f"{label}simpleenroll", Cell(who, "simpleenroll", 2, True), 0.5)
        found = interleave(cells, run.rounds, run.noise, run.say)
    return with_parts(rows("c", found), found), _targets_of_runners(found)


def _targets_of_runners(found: Mapping[Cell, list[Figures]]) -> list[Target]:
    def cell(who: str, clients: int = 8, keep: bool = False) -> list[Figures]:
        return found[Cell(who, "simpleenroll", clients, keep)]

    tails = [
        median(figures, "p99") / median(figures, "p50")
        for cell, figures in found.items()
        if cell.clients == 8 and median(figures, "p50")
    ]
    against_bash = [
        Target("c", f"{who} / Bash, {clients} {'kept alive' if keep else 'fresh'}",
               ratio(cell(who, clients, keep), cell("exec Bash", clients, keep), "rate"), wanted)
        for who, keep, wanted in (("pool", False, 2.5), ("pool", True, 3), ("fork", False, 1.3))
        for clients in (1, 8, 32)
    ]  # fmt: skip
    return [
        *against_bash,
        Target("c", "fork / exec, Python, 8 clients, fresh", ratio(cell("fork"), cell("exec Python"), "rate"), 10),
        Target("c", "pool / fork, 8 clients, fresh", ratio(cell("pool"), cell("fork"), "rate"), 2.5),
        Target("c", "p99 / p50, 8 clients, the worst", max(tails), 3, at_most=True),
    ]


def among_others(run: Run) -> tuple[list[Row], list[Target]]:
    """(d)."""
    with contextlib.ExitStack() as stack:
        started: dict[str, tuple[Server, Mapping[str, str]]] = {}
        for who, server, paths in _contestants(run, stack):
            started[who] = server, paths
            for script, path in paths.items():
                ask(run.load, server, path, Cell(who, script, 4, True), 0.3)
        cells = {}
        for script in ("trivial", "enrol"):
            for clients in (1, 8, 32):
                for keep in (False, True):
                    for who, (server, paths) in started.items():
                        if script in paths:
                            cell = Cell(who, script, clients, keep)
                            cells[cell] = _candidate(run, server, paths[script], cell)
        found = interleave(cells, run.rounds, run.noise, run.say)
    return rows("d", found), list(targets(found))


def _contestants(run: Run, stack: contextlib.ExitStack) -> Iterator[tuple[str, Server, Mapping[str, str]]]:
    both = {"trivial": "trivial", "enrol": "enrol"}
    ours = stack.enter_context(servers.gateway(run.pattern, run.directory / "d", callouts={"authorize": None}))
    yield "estgw", ours, both
    yield SIGNS, ours, {"enrol": "simpleenroll"}
    if "workers" in ServerSettings.model_fields:
        two = servers.gateway(run.pattern, run.directory / "d2", server={"workers": 2}, callouts={"authorize": None})
        yield "estgw, 2 workers", stack.enter_context(two), both
    for name in servers.RIVALS:
        if name in servers.missing():
            run.say(f"{name} is not installed and left out: tests/bench/install")
        else:
            yield name, stack.enter_context(servers.rival(name, run.pattern, run.directory / name)), both


def targets(found: Mapping[Cell, list[Figures]]) -> Iterator[Target]:
    for cell, figures in found.items():
        rivals = [replace(cell, who=name) for name in servers.RIVALS]
        present = [rival for rival in rivals if rival in found]
        if not cell.who.startswith("estgw") or not present:
            continue
        best = max(present, key=lambda rival: median(found[rival], "rate"))
        measured = ratio(figures, found[best], "rate")
        if cell.who != SIGNS:
            yield Target("d", f"{cell} / {best.who}", measured, 1.0 if cell.script == "trivial" else 0.97)
        elif cell.clients == 1 or cell.keep:
            yield Target("d", f"{cell} / {best.who}", measured, 1.2)


def _candidate(run: Run, server: Server, path: str, cell: Cell) -> Candidate:
    return lambda: ask(run.load, server, path, cell, run.seconds)
