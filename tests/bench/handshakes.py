"""(e) Fresh handshakes per second, also of `openssl s_server` and the standard library, and the client's maximum.

Beside them enrols the label `python`, to compare the gateway's CPU time with that of a bare handshake.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
from collections.abc import Iterator

from tests.bench import machine, servers, versus
from tests.bench.rounds import Candidate, Figures, Row, interleave, median, ratio, spread
from tests.bench.run import Run
from tests.bench.targets import Target
from tests.bench.versus import Cell
from tests.kit.processes import ROOT

ENROL = Cell("Python, shipped", "simpleenroll", 8, False)
OURS, STANDARD, OPENSSL = "estgw", "the standard library's ssl, asyncio", "openssl s_server"


@contextlib.contextmanager
def standard_library(run: Run) -> Iterator[tuple[int, int]]:
    """The port and the process id of a server with TLS and one fixed answer only (plain.py)."""
    ca = run.pattern.ca
    command = [sys.executable, "-m", "tests.bench.plain"]
    command += [str(ca / "server.pem"), str(ca / "private/serverkey.pem"), str(ca / "anchors.pem")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with servers.running(command, run.directory, environment) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.pid


@contextlib.contextmanager
def s_server(run: Run) -> Iterator[int]:
    """The port of an `openssl s_server`, which asks for a client certificate, too, and serves one at a time."""
    ca, port = run.pattern.ca, servers.free_port()
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-quiet", "-www", "-verify", "3", "-no_cache"]
    command += ["-cert", str(ca / "server.pem"), "-key", str(ca / "private/serverkey.pem"), "-num_tickets", "0"]
    with servers.running([*command, "-CAfile", str(ca / "anchors.pem")], run.directory, os.environ) as process:
        servers.wait_for(port, run.directory, [process])
        yield port


def per_second(run: Run) -> tuple[list[Row], list[Target]]:
    with (
        servers.gateway(run.pattern, run.directory / "e") as ours,
        standard_library(run) as (standard, pid),
        s_server(run) as openssl,
    ):
        candidates: dict[tuple[str, str], Candidate] = {
            ("handshakes", OURS): _greet(run, ours.port, ours.pid),
            ("handshakes", STANDARD): _greet(run, standard, pid),
            ("handshakes", OPENSSL): _greet(run, openssl),
            ("enrolments, python", OURS): lambda: versus.ask(run.load, ours, "python/simpleenroll", ENROL, run.seconds),
        }
        for how, keep in (("fixed answer, fresh", False), ("fixed answer, kept alive", True)):
            candidates[how, STANDARD] = _ask(run, standard, keep)
        for candidate in candidates.values():
            candidate()
        found = interleave(candidates, run.rounds, run.noise, run.say)
    rows = [_row(what, who, figures) for (what, who), figures in found.items()]
    measured = ratio(found["handshakes", OURS], found["handshakes", STANDARD], "rate")
    spent = [
        enrolled["gateway"] / greeted["server"]
        for enrolled, greeted in zip(found["enrolments, python", OURS], found["handshakes", STANDARD], strict=True)
    ]
    return rows, [
        Target("e", "fresh handshakes, estgw / the standard library's ssl", measured, 0.8),
        Target("e", "CPU, gateway for an enrolment / ssl for a handshake", statistics.median(spent), 2.2, at_most=True),
    ]


def _row(what: str, who: str, figures: list[Figures]) -> Row:
    return {
        "what": what,
        "by": who,
        "per second": round(median(figures, "rate"), 1),
        "noise": spread([one["rate"] for one in figures]),
        **{f"{part} CPU ms": round(median(figures, part), 3) for part in ("server", "gateway") if part in figures[0]},
        "client CPU ms": round(median(figures, "client"), 3),
        "errors": int(sum(one["errors"] for one in figures)),
    }


def _greet(run: Run, port: int, pid: int | None = None) -> Candidate:
    """Handshakes alone; with the process id of the server, its CPU time too."""

    def candidate() -> Figures:
        before = machine.cpu_itself(pid) if pid else 0.0
        result = run.load.run(port, "/", clients=8, seconds=run.seconds, keep=False, greet=True)
        done = max(result.done, 1)
        spent = {"server": (machine.cpu_itself(pid) - before) * 1000 / done} if pid else {}
        return {"rate": result.rate, "client": result.cpu * 1000 / done, "errors": result.errors, **spent}

    return candidate


def _ask(run: Run, port: int, keep: bool) -> Candidate:
    def candidate() -> Figures:
        result = run.load.run(port, "/", clients=8, seconds=run.seconds, keep=keep, expect="nothing to see")
        return {"rate": result.rate, "client": result.cpu * 1000 / max(result.done, 1), "errors": result.errors}

    return candidate
