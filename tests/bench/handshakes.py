"""(e) Fresh handshakes per second, also of `openssl s_server` and the standard library, and the client's maximum."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from tests.bench import servers
from tests.bench.rounds import Candidate, Figures, Row, interleave, median, ratio, spread
from tests.bench.run import Run
from tests.bench.targets import Target
from tests.kit.processes import ROOT

OURS, STANDARD, OPENSSL = "estgw", "the standard library's ssl, asyncio", "openssl s_server"


@contextlib.contextmanager
def standard_library(run: Run) -> Iterator[int]:
    """The port of a server with TLS and one fixed answer only (plain.py)."""
    ca = run.pattern.ca
    command = [sys.executable, "-m", "tests.bench.plain"]
    command += [str(ca / "server.pem"), str(ca / "private/serverkey.pem"), str(ca / "anchors.pem")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with servers.running(command, run.directory, environment) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


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
        standard_library(run) as standard,
        s_server(run) as openssl,
    ):
        ports = {OURS: ours.port, STANDARD: standard, OPENSSL: openssl}
        candidates: dict[tuple[str, str], Candidate] = {
            ("handshakes", name): _greet(run, port) for name, port in ports.items()
        }
        for how, keep in (("fixed answer, fresh", False), ("fixed answer, kept alive", True)):
            candidates[how, STANDARD] = _ask(run, standard, keep)
        for candidate in candidates.values():
            candidate()
        found = interleave(candidates, run.rounds, run.noise, run.say)
    rows = [_row(what, who, figures) for (what, who), figures in found.items()]
    measured = ratio(found["handshakes", OURS], found["handshakes", STANDARD], "rate")
    return rows, [Target("e", "fresh handshakes, estgw / the standard library's ssl", measured, 0.8)]


def _row(what: str, who: str, figures: list[Figures]) -> Row:
    return {
        "what": what,
        "by": who,
        "per second": round(median(figures, "rate"), 1),
        "noise": spread([one["rate"] for one in figures]),
        "client CPU ms": round(median(figures, "client"), 3),
        "errors": int(sum(one["errors"] for one in figures)),
    }


def _greet(run: Run, port: int) -> Candidate:
    def candidate() -> Figures:
        result = run.load.run(port, "/", clients=8, seconds=run.seconds, keep=False, greet=True)
        return {"rate": result.rate, "client": result.cpu * 1000 / max(result.done, 1), "errors": result.errors}

    return candidate


def _ask(run: Run, port: int, keep: bool) -> Candidate:
    def candidate() -> Figures:
        result = run.load.run(port, "/", clients=8, seconds=run.seconds, keep=keep, expect="nothing to see")
        return {"rate": result.rate, "client": result.cpu * 1000 / max(result.done, 1), "errors": result.errors}

    return candidate
