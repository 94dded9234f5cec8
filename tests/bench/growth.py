"""The cost of `openssl ca` as its register grows: `python -m tests.bench.growth`, from the top of a checkout.

The shipped simpleenroll alone, no gateway, with registers of several sizes, with and without its call of `rotate`.
The registers are written, not issued: rows for `openssl ca`, an empty file in newcerts/ for each, as only their number
counts.  The shipped script has its rows in archives, made by `rotate`, and 500 in index.txt: half of the number that
makes an archive.  All take turns in each round; a figure is the median of the rounds' medians.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from estgw.est import csr as csrs
from estgw.register import lookup
from tests.bench.rounds import Figures, Row, median, ratio, spread
from tests.bench.table import table as render
from tests.bench.targets import Target
from tests.kit.csr import csr
from tests.kit.processes import PATH
from tests.kit.workspace import Workspace

SIZES = (0, 10_000, 100_000)
CALL = '((RANDOM % 250)) || "$rotate" || :'
REQUEST = csr("device")
Candidate = Callable[[], object]


def fill(workspace: Workspace, first: int, number: int) -> None:
    """Add this number of rows, and their files."""
    with (workspace.ca / "index.txt").open("a") as index:
        for serial in range(first, first + number):
            index.write(f"V\t350101000000Z\t\t{serial:040X}\tunknown\t/CN=device-{serial}\n")
            os.close(os.open(workspace.ca / f"newcerts/{serial:040X}.pem", os.O_CREAT | os.O_WRONLY, 0o600))


def rotate(workspace: Workspace) -> None:
    environment = {"PATH": PATH, "EST_CA_DIR": str(workspace.ca)}
    subprocess.run([workspace.ca / "rotate"], env=environment, check=True)


def shipped(workspace: Workspace, size: int) -> Workspace:
    serial = 1 << 156
    for number in [1500, *[1000] * (size // 1000 - 2)] if size else []:
        fill(workspace, serial, number)
        rotate(workspace)
        serial += number
    if size:
        assert len(list((workspace.ca / "index-archive").iterdir())) == size // 1000 - 1
        fill(workspace, serial, 500)
    return workspace


def bare(workspace: Workspace, size: int) -> Workspace:
    workspace.edit("handlers/openssl/issue.sh", CALL, ":")
    fill(workspace, 1 << 156, size)
    return workspace


def enrol(workspace: Workspace) -> None:
    assert workspace.run("openssl/simpleenroll", REQUEST).status == 0


def timed(candidate: Candidate, calls: int = 1) -> Figures:
    """Milliseconds of a call: the median of wall time, and the mean processor time of the processes it starts."""
    taken, spent = [], children()
    for _ in range(calls):
        began = time.perf_counter()
        candidate()
        taken.append((time.perf_counter() - began) * 1000)
    return {"ms": statistics.median(taken), "CPU ms": (children() - spent) * 1000 / calls}


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(candidates: Mapping[str, Candidate], rounds: int, calls: int) -> dict[str, list[Figures]]:
    """The time of a call in each round, without a first round for warming up."""
    found: dict[str, list[Figures]] = {name: [] for name in candidates}
    for _ in range(rounds + 1):
        for name, candidate in candidates.items():
            found[name].append(timed(candidate, calls))
    return {name: figures[1:] for name, figures in found.items()}


def rows(rounds: int = 15) -> tuple[list[Row], list[Target]]:
    """The table: `what`, its median in `ms` and `CPU ms`, the `noise` of the former; it takes a minute.

    About 250,000 small files come and go.
    """
    with tempfile.TemporaryDirectory() as folder:
        fresh = Workspace.create(Path(folder) / "fresh")
        spaces = {
            f"{make.__name__}, {size:,} certificates": make(fresh.copy(Path(folder) / f"{make.__name__}-{size}"), size)
            for make in (shipped, bare)
            for size in SIZES
        }
        found = measure({name: partial(enrol, space) for name, space in spaces.items()}, rounds, 5)
        table = [row(name, figures) for name, figures in found.items()]
        for kind in ("shipped", "bare"):
            small, large = (found[f"{kind}, {size:,} certificates"] for size in (SIZES[1], SIZES[-1]))
            slopes = [slope(a, b) for a, b in zip(small, large, strict=True)]
            table.append({"what": f"{kind}, for 1,000 more"} | medians(slopes, 3))
        largest = around(spaces[f"shipped, {SIZES[-1]:,} certificates"], rounds)
        table += [row(name, figures) for name, figures in largest.items()]
        steady, empty = (found[f"shipped, {size:,} certificates"] for size in (SIZES[1], SIZES[0]))
        grown = ratio(steady, empty, "ms")
        return table, [Target("g", "ms, where rotation leaves the register / empty", grown, 1.05, at_most=True)]


def slope(small: Figures, large: Figures) -> Figures:
    """The cost of a thousand certificates more."""
    return {clock: (large[clock] - small[clock]) / (SIZES[-1] - SIZES[1]) * 1000 for clock in small}


def medians(figures: list[Figures], digits: int) -> Row:
    found = {clock: round(median(figures, clock), digits) for clock in figures[0]}
    return {
        clock: value for clock, value in found.items() if value
    }  # calls that start no process have no CPU time here


def row(name: str, figures: list[Figures]) -> Row:
    return {"what": name} | medians(figures, 2) | {"noise": spread([each["ms"] for each in figures])}


def around(workspace: Workspace, rounds: int) -> dict[str, list[Figures]]:
    """Other readers and writers of the largest register with archives."""
    serial = 1 << 157
    full: list[Figures] = []
    for _ in range(rounds):
        fill(workspace, serial, 1000)
        serial += 1000
        full.append(timed(partial(rotate, workspace)))
    nobody = csrs.parse(csr("nobody"))
    oldest = f"{1 << 156:040X}"
    candidates: dict[str, Candidate] = {
        "rotate, nothing to do": lambda: rotate(workspace),
        "find SERIAL": lambda: workspace.do("find", oldest),
        "find TEXT": lambda: workspace.do("find", f"device-{1 << 156}"),
        "the gateway's look-up of an unknown name": lambda: lookup.newest_valid(workspace.ca, nobody),
    }
    return {"rotate, 1,000 rows": full} | measure(candidates, rounds, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="as JSON")
    arguments = parser.parse_args()
    table, _ = rows(arguments.rounds)
    if arguments.json:
        json.dump({"rounds": arguments.rounds, "table": table}, sys.stdout, indent=1)
        return
    print(*render(table), sep="\n")


if __name__ == "__main__":
    main()
