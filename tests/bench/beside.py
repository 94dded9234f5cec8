"""(k) How long `cacerts` and `csrattrs` take while 32 clients enrol by the Bash set: they do not wait behind these."""

from __future__ import annotations

import concurrent.futures
import time

from tests.bench import servers
from tests.bench.rounds import Candidate, Figures, Row, interleave, median, spread
from tests.bench.run import Run
from tests.bench.servers import Server
from tests.bench.targets import Target

ENROL = 32
"""Clients that enrol, each with a new connection."""
BEGUN = 0.3
"""Seconds until all of them are at it."""
WANTED = 50.0
"""Milliseconds of the median request."""
OPERATIONS = {"cacerts": "MII", "csrattrs": ""}
"""What the text of an answer has."""


def measure(run: Run) -> tuple[list[Row], list[Target]]:
    with servers.gateway(run.pattern, run.directory / "k") as server:
        cells: dict[tuple[str, int, bool], Candidate] = {}
        for operation in OPERATIONS:
            for beside in (0, ENROL):
                for keep in (False, True):
                    cells[operation, beside, keep] = _candidate(run, server, operation, beside=beside, keep=keep)
        found = interleave(cells, run.rounds, run.noise, run.say)
    return [_row(*cell, figures) for cell, figures in found.items()], [
        Target(
            "k",
            f"{operation}, p50 ms beside {ENROL} clients, {_how(keep)}",
            median(found[operation, ENROL, keep], "p50"),
            WANTED,
            at_most=True,
        )
        for operation in OPERATIONS
        for keep in (False, True)
    ]


def _how(keep: bool) -> str:
    return "kept alive" if keep else "fresh"


def _row(operation: str, beside: int, keep: bool, figures: list[Figures]) -> Row:
    return {
        "part": "k",
        "what": operation,
        "beside": f"{beside} clients",
        "TLS": _how(keep),
        "p50 ms": round(median(figures, "p50"), 2),
        "p99 ms": round(median(figures, "p99"), 2),
        "noise": spread([each["p50"] for each in figures]),
        "enrolled per second": round(median(figures, "rate"), 1),
        "errors": int(sum(each["errors"] for each in figures)),
    }


def _candidate(run: Run, server: Server, operation: str, *, beside: int, keep: bool) -> Candidate:
    def enrol() -> tuple[float, int]:
        if not beside:
            return 0.0, 0
        done = run.load.run(
            server.port, f"{server.base}simpleenroll", clients=beside, seconds=run.seconds + 2 * BEGUN, keep=False
        )
        return done.rate, done.errors

    def candidate() -> Figures:
        server.forget()
        with concurrent.futures.ThreadPoolExecutor() as threads:
            enrolled = threads.submit(enrol)
            time.sleep(BEGUN if beside else 0)
            asked = run.load.run(
                server.port,
                server.base + operation,
                clients=1,
                seconds=run.seconds,
                keep=keep,
                expect=OPERATIONS[operation],
                method="GET",
                login=None,
            )
            rate, errors = enrolled.result()
        return {
            "p50": asked.p50 * 1000,
            "p99": asked.p99 * 1000,
            "rate": rate,
            "errors": asked.errors + errors,
        }

    return candidate
