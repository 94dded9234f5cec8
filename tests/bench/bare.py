"""(a) The cost of each shipped script alone, and (b) the cost that the gateway adds."""

from __future__ import annotations

import asyncio
import base64
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from estgw.callout.environment import environment_of
from estgw.cli import trial
from estgw.cli.trial import Trial
from tests.bench import machine, servers
from tests.bench.rounds import Candidate, Figures, Row, interleave, median, spread
from tests.bench.run import Run
from tests.bench.servers import Server
from tests.bench.targets import Target
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN
from tests.kit.keys import KEY_PEM

OPERATIONS = ("cacerts", "csrattrs", "simpleenroll", "simplereenroll", "serverkeygen")
"""Without fullcmc, which needs another kind of message."""
SETS = {"openssl": None, "python": "python"}
"""The shipped sets, and the labels under which they are served."""
WALL = {"fresh": 3.0, "kept alive": 1.0}
"""Milliseconds that the gateway may add."""


@dataclass(frozen=True)
class Script:
    """One script, its input, and its request; a script without a path is not requested."""

    name: str
    program: Path
    env: Mapping[str, str]
    body: bytes
    path: str = ""
    request: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `Load.run`."""

    def __str__(self) -> str:
        return self.name

    def run(self) -> tuple[float, float, bytes]:
        """Run it once, without a server. Returns milliseconds of wall and of CPU time, and its output."""
        files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
        home = Path.cwd()
        os.chdir(self.program.parent)
        try:
            os.write(files[0], self.body)
            os.lseek(files[0], 0, os.SEEK_SET)
            actions = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(files)]
            began = time.perf_counter()
            child = os.posix_spawn(self.program, [str(self.program)], self.env, file_actions=actions, setsid=True)
            _, status, usage = os.wait4(child, 0)
            wall = time.perf_counter() - began
            printed = [os.pread(file, 1 << 20, 0) for file in files[1:]]
            assert status == 0, (self.name, status, printed)
            return wall * 1000, (usage.ru_utime + usage.ru_stime) * 1000, printed[0]
        finally:
            os.chdir(home)
            for file in files:
                os.close(file)


def scripts(server: Server, directory: Path) -> Iterator[Script]:
    """The scripts of all servers, and the shipped ones with the environment that the gateway would give them."""
    request = csr("bench")
    one, wire, certificate, key = (directory / name for name in ("csr.pem", "csr.b64", "client.pem", "client.key"))
    one.write_bytes(request)
    wire.write_bytes(base64.b64encode(request) + b"\n")
    key.write_bytes(KEY_PEM)
    plain = {"PATH": "/usr/bin:/bin"}
    cgi = server.lab.path / "bench/cgi"
    yield Script("trivial", cgi / "trivial", plain, wire.read_bytes(), f"{server.base}trivial", {"expect": "nothing"})
    yield Script("enrol", cgi / "enrol", plain, wire.read_bytes(), f"{server.base}enrol")
    state = trial.load_state(server.lab.path / "bench.yaml")
    for shipped, label in SETS.items():
        for operation in OPERATIONS:
            ways: dict[str, dict[str, Any]] = {
                "cacerts": {"method": "GET", "expect": "MII", "login": None},
                "csrattrs": {"method": "GET", "expect": "M", "login": None},
                "simplereenroll": {"login": None, "certificate": (certificate, key), "csrs": wire},
                "serverkeygen": {"expect": "application/pkcs8"},
            }
            by_certificate = operation == "simplereenroll"
            wanted = Trial(
                operation, label, one, certificate if by_certificate else None, None if by_certificate else LOGIN[:7]
            )
            folder = directory / f"{shipped}-{operation}"
            folder.mkdir(mode=0o700)
            call = asyncio.run(trial.prepare(state, wanted, folder))
            handler = call.route.handler
            env, path = environment_of(call), f"{server.base}{label + '/' if label else ''}{operation}"
            script = Script(f"{shipped}/{operation}", handler, env, call.http.body, path, ways.get(operation, {}))
            yield script
            if operation == "simpleenroll":
                certificate.write_bytes(script.run()[2])
                yield Script(f"{shipped}/authorize", handler.with_name("authorize"), env, b"")


def alone(server: Server, script: Script, times: int) -> Figures:
    """One round of a script without a gateway."""
    server.forget()
    walls, cpus, _ = zip(*(script.run() for _ in range(times)), strict=True)
    return {"wall": statistics.median(walls), "cpu": statistics.mean(cpus)}


def served(run: Run, server: Server, script: Script, keep: bool, times: int) -> Figures:
    """One round of a script by one client through the gateway."""
    server.forget()
    before, own = machine.cpu(server.pid), server.cpu()
    result = run.load.run(server.port, script.path, clients=1, seconds=30, count=times, keep=keep, **script.request)
    done = max(result.done, 1)
    cpu, own = machine.cpu(server.pid) - before, server.cpu() - own
    return {"wall": result.p50 * 1000, "cpu": cpu * 1000 / done, "own": own * 1000 / done, "errors": result.errors}


def both(run: Run) -> tuple[dict[str, list[Row]], list[Target]]:
    """(a) and (b) together, in the same rounds, because (a) is subtracted from (b)."""
    directory = run.directory / "a"
    directory.mkdir(mode=0o700)
    open_to_all = {"authorize": None, "operations": {"serverkeygen": {"enabled": True}}}
    labels = {"python": {"handlers": "handlers/python", "runner": "exec"}}
    with servers.gateway(run.pattern, run.directory / "b", callouts=open_to_all, labels=labels) as server:
        found = list(scripts(server, directory))
        candidates: dict[tuple[str, str], Candidate] = {}
        for script in found:
            slow = script.name.startswith("python")
            times = (5 if slow else 15) if run.quick else (10 if slow else 30)
            candidates[script.name, "alone"] = _alone(server, script, times)
            if script.path:
                candidates[script.name, "fresh"] = _served(run, server, script, False, times)
                candidates[script.name, "kept alive"] = _served(run, server, script, True, times)
        for candidate in candidates.values():
            candidate()
        measured = interleave(candidates, run.rounds, run.noise, run.say)
    bare = [_bare_row(name, figures) for (name, how), figures in measured.items() if how == "alone"]
    rows, targets = [], []
    for (name, how), figures in measured.items():
        if how == "alone":
            continue
        rows.append(_row(name, how, figures, measured[name, "alone"]))
        if not name.startswith("python"):  # for these, the noise alone is 3 ms of 90
            targets.append(
                Target("b", f"added wall ms, {name}, {how}", rows[-1]["added wall ms"], WALL[how], at_most=True)
            )
    return {"(a) scripts run alone": bare, "(b) by one client through the gateway": rows}, targets


def _bare_row(name: str, figures: list[Figures]) -> Row:
    walls = [one["wall"] for one in figures]
    cpu = round(median(figures, "cpu"), 2)
    return {"script": name, "wall ms": round(median(figures, "wall"), 2), "noise": spread(walls), "CPU ms": cpu}


def _row(name: str, how: str, figures: list[Figures], bare: list[Figures]) -> Row:
    added = {what: statistics.median(a[what] - b[what] for a, b in zip(figures, bare, strict=True))
             for what in ("wall", "cpu")}  # fmt: skip
    return {
        "script": name,
        "TLS": how,
        "wall ms": round(median(figures, "wall"), 2),
        "noise": spread([one["wall"] for one in figures]),
        "added wall ms": round(added["wall"], 2),
        "added CPU ms": round(added["cpu"], 2),
        "the gateway's own": round(median(figures, "own"), 2),
        "errors": int(sum(one["errors"] for one in figures)),
    }


def _alone(server: Server, script: Script, times: int) -> Candidate:
    return lambda: alone(server, script, times)


def _served(run: Run, server: Server, script: Script, keep: bool, times: int) -> Candidate:
    return lambda: served(run, server, script, keep, times)
