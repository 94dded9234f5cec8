"""(f) The gateway's memory after many enrolments, and with many connections open."""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl

from tests.bench import machine, servers
from tests.bench.rounds import Row
from tests.bench.run import Run
from tests.bench.targets import Target

ENROLMENTS, WARM_UP = 50_000, 5_000
CONNECTIONS = 2_000
SPARE = 200
"""Descriptors that both sides need in addition."""


def measure(run: Run) -> tuple[list[Row], list[Target]]:
    rows, targets = _after_enrolments(run)
    return rows + _with_connections(run), targets


def _after_enrolments(run: Run) -> tuple[list[Row], list[Target]]:
    many, few = (ENROLMENTS // 10, WARM_UP // 10) if run.quick else (ENROLMENTS, WARM_UP)
    pool = {"pool": {"handlers": "handlers/python", "authorize": None, "runner": "pool"}}
    sizes, done, errors = {}, 0, 0
    with servers.gateway(run.pattern, run.directory / "f", labels=pool) as server:
        for wanted in (few, many):
            count = wanted - done
            path = f"{server.base}pool/simpleenroll"
            result = run.load.run(server.port, path, clients=8, seconds=600, count=count, keep=False)
            done, errors = done + result.done, errors + result.errors
            sizes[done] = machine.resident(server.pid)
            run.say(f"{done} enrolments")
    (before, small), (after, large) = sizes.items()
    rows: list[Row] = [
        {"what": f"after {number:,} enrolments by pool, fresh", "gateway's memory MB": round(size, 1), "errors": errors}
        for number, size in sizes.items()
    ]
    return rows, [Target("f", f"memory after {after:,} / after {before:,}", large / small, 1.05, at_most=True)]


def _with_connections(run: Run) -> list[Row]:
    number = CONNECTIONS // 10 if run.quick else CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + SPARE
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return [{"what": f"{number:,} connections need ulimit -n {wanted}; here are {hard}"}]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        settings = {"max_connections": number + 10, "idle_timeout": 600}
        with servers.gateway(run.pattern, run.directory / "f2", server=settings) as server:
            run.load.run(
                server.port, f"{server.base}cacerts", clients=4, seconds=1, keep=False, method="GET", expect="M"
            )
            before = machine.resident(server.pid)
            context = ssl.create_default_context(cafile=str(run.pattern.anchor))
            with contextlib.ExitStack() as stack:
                for _ in range(number):
                    plain = socket.create_connection(("127.0.0.1", server.port))
                    stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
                after = machine.resident(server.pid)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    each = round((after - before) * 1000 / number, 1)
    return [
        {"what": "before", "gateway's memory MB": round(before, 1)},
        {"what": f"{number:,} connections open", "gateway's memory MB": round(after, 1), "kB each": each},
    ]
