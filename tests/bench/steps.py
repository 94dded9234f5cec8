"""(s) Where the time of an enrolment goes: each gate of the gateway, as its records tell, for one client.

A gate's time is wall time, until the next gate is reached.  That of `authorize` and `handler` has the scripts' in it;
the last columns have these alone, and what remains.  The handshake is the whole of it, the client's part too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from estgw.record import folder
from estgw.record.gates import GATES
from estgw.record.ring import Record
from tests.bench import servers
from tests.bench.rounds import Row, spread
from tests.bench.run import Run

REQUESTS = 200
SETS = {"Bash, shipped": "", "Python, shipped": "python/"}
"""The path before the operation, by set."""


def measure(run: Run) -> tuple[list[Row], list[Any]]:
    rows = []
    settings: Mapping[str, Any] = {"dir": "records", "files": 4 * REQUESTS}
    with servers.gateway(run.pattern, run.directory / "s", record=settings) as server:
        for who, label in SETS.items():
            path = f"{server.base}{label}simpleenroll"
            run.load.run(server.port, path, clients=1, seconds=1, keep=True)  # warms it up
            for keep in (False, True):
                count = REQUESTS // 5 if run.quick else REQUESTS
                run.load.run(server.port, path, clients=1, seconds=60, keep=keep, count=count)
                run.say(f"{who}, {'kept alive' if keep else 'fresh'}")
                rows.append(_row(who, keep=keep, records=_newest(server.lab.path / "records", count)))
    return rows, []


def _newest(directory: Path, count: int) -> list[Record]:
    """The records of the last requests, once all are written."""
    known = -1
    while known != (known := len(folder.names(directory))):
        time.sleep(1)
    return [folder.read(path) for path in folder.names(directory)[-count:]]


def _row(who: str, *, keep: bool, records: list[Record]) -> Row:
    gates: dict[str, list[float]] = {
        gate: [each["ms"] for record in records for each in record["gates"] if each["name"] == gate] for gate in GATES
    }
    scripts = [sum(ran["ran_ms"] for ran in record["callouts"]) for record in records]
    whole = [record["ms"] for record in records]
    return {
        "part": "s",
        "by": who,
        "TLS": "kept alive" if keep else "fresh",
        **({} if keep else {"handshake ms": round(statistics.median(r["tls"]["handshake_ms"] for r in records), 2)}),
        **{f"{gate} ms": round(statistics.median(times), 2) for gate, times in gates.items()},
        "in all ms": round(statistics.median(whole), 2),
        "scripts ms": round(statistics.median(scripts), 2),
        "the gateway's ms": round(statistics.median(a - b for a, b in zip(whole, scripts, strict=True)), 2),
        "noise": spread(whole),
    }
