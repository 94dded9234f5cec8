"""The slowest enrolments of a long run: `python -m tests.bench.tail`, from the top of a checkout.

Eight clients enrol at the label `python`, each with a connection that stays, while the remembered password expires
again and again.  100,000 requests take a quarter of an hour.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.bench import machine, servers
from tests.bench.load import Load
from tests.bench.rounds import Row
from tests.bench.run import pattern
from tests.bench.table import table as render
from tests.bench.targets import Target

CLIENTS = 8
REMEMBER = 2
"""Seconds for which a verified password is not hashed again."""
WANTED = 3.0
"""How many times the median the slowest hundredth takes at most."""
LONGEST = 3000.0
"""Seconds after which the run ends, however many requests are left."""


def measure(directory: Path, requests: int) -> tuple[Row, Target]:
    """Enrol so often; the lab and the client are made in a directory."""
    load = Load(directory)
    with servers.gateway(pattern(directory / "lab"), directory / "tail", client_auth={"remember": REMEMBER}) as server:
        path = f"{server.base}python/simpleenroll"
        load.run(server.port, path, clients=CLIENTS, seconds=1, keep=True)  # warms it up
        found = load.run(server.port, path, clients=CLIENTS, seconds=LONGEST, keep=True, count=requests)
    row = {
        "requests": found.done,
        "errors": found.errors,
        "minutes": round(found.seconds / 60, 1),
        "per second": round(found.rate, 1),
        "passwords expired": int(found.seconds / REMEMBER),
        "p50 ms": round(found.p50 * 1000, 2),
        "p99 ms": round(found.p99 * 1000, 2),
        "a fixed loop, ms": round(machine.loop(), 2),
    }
    return row, Target("tail", f"p99 / p50, {found.done:,} requests", found.p99 / found.p50, WANTED, at_most=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        row, target = measure(Path(folder), arguments.requests)
    sys.stdout.write("\n".join([*render([row]), "", *render([target.row()]), ""]))


if __name__ == "__main__":
    main()
