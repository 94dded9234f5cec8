"""(h) Enrolments beside two other EST servers, where variables name their programs.

`LIBEST_ESTSERVER` is the example server of libest, `GLOBALSIGN_ESTSERVER` that of GlobalSign's est.  libest checks a
password of its own, with its own register of `openssl ca`; GlobalSign's checks nobody and stores nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.bench import servers, versus
from tests.bench.rounds import Candidate, Figures, Row, interleave, ratio
from tests.bench.run import Run
from tests.bench.servers import Server
from tests.bench.targets import Target
from tests.bench.versus import Cell
from tests.kit.connection import EST
from tests.kit.workspace import Workspace

OURS = {"Bash, shipped": "", "Python, shipped": "python/", "Python, fork": "fork/"}
"""The path before the operation, by what is measured."""
LIBEST, GLOBALSIGN = "libest, acknowledged", "GlobalSign"
CLIENTS = (1, 8, 32)
_CA = """[ca]
default_ca = own
[own]
database = {folder}/rows
serial = {folder}/serial
new_certs_dir = {folder}/issued
certificate = {ca}/cacert.pem
private_key = {ca}/private/cakey.pem
default_days = 90
default_md = sha256
unique_subject = no
policy = any
x509_extensions = leaf
[any]
commonName = supplied
[leaf]
basicConstraints = CA:FALSE
"""


@contextlib.contextmanager
def libest(program: str, pattern: Workspace, directory: Path) -> Iterator[Server]:
    """The example server of libest."""
    lab = servers.lay_out(pattern, directory)
    folder = lab.path
    (folder / "issued").mkdir()
    (folder / "rows").touch()
    (folder / "serial").write_text("01\n")
    (folder / "ca.cnf").write_text(_CA.format(folder=folder, ca=lab.ca))
    both = lab.ca / "both.pem"
    both.write_bytes((lab.ca / "server.pem").read_bytes() + (lab.ca / "private/serverkey.pem").read_bytes())
    both.chmod(0o600)
    port = servers.free_port()
    anchors = {"EST_TRUSTED_CERTS": lab.ca / "cacert.pem", "EST_CACERTS_RESP": lab.ca / "cacert.pem"}
    environment = {**os.environ, **{name: str(path) for name, path in anchors.items()},
                   "EST_OPENSSL_CACONFIG": str(folder / "ca.cnf")}  # fmt: skip
    command = [program, "-p", str(port), "-c", str(both), "-k", str(both), "-r", "estrealm", "-o"]
    with servers.running(command, folder, environment) as process:
        servers.wait_for(port, folder, [process])
        yield Server(LIBEST, port, (process,), f"{EST}/", lab)


@contextlib.contextmanager
def globalsign(program: str, pattern: Workspace, directory: Path) -> Iterator[Server]:
    """GlobalSign's server with its mock CA."""
    lab = servers.lay_out(pattern, directory)
    port = servers.free_port()
    config = {
        "mock_ca": {"certificates": str(lab.ca / "cacert.pem"), "private_key": str(lab.ca / "private/cakey.pem")},
        "tls": {
            "listen_address": f"127.0.0.1:{port}",
            "certificates": str(lab.ca / "server.pem"),
            "private_key": str(lab.ca / "private/serverkey.pem"),
            "client_cas": [str(lab.ca / "cacert.pem")],
        },
        "allowed_hosts": ["localhost", f"localhost:{port}"],
        "rate_limit": 1_000_000,
        "timeout": 30,
        "log_file": str(lab.path / "server.log"),
    }
    (lab.path / "config.json").write_text(json.dumps(config))
    with servers.running([program, "-config", "config.json"], lab.path, os.environ) as process:
        servers.wait_for(port, lab.path, [process])
        yield Server(GLOBALSIGN, port, (process,), f"{EST}/", lab)


PROGRAMS: Mapping[str, Callable[[str, Workspace, Path], contextlib.AbstractContextManager[Server]]] = {
    "LIBEST_ESTSERVER": libest,
    "GLOBALSIGN_ESTSERVER": globalsign,
}


def measure(run: Run) -> tuple[list[Row], list[Target]]:
    """The rows of (h), and its targets for the rivals that are there."""
    labels = {"fork": {"handlers": "handlers/python", "authorize": "handlers/python/authorize", "runner": "fork"}}
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(servers.gateway(run.pattern, run.directory / "h", labels=labels))
        places = {name: (ours, f"{label}simpleenroll") for name, label in OURS.items()}
        for variable, start in PROGRAMS.items():
            if program := os.environ.get(variable):
                server = stack.enter_context(start(program, run.pattern, run.directory / variable.lower()))
                places[server.name] = server, "simpleenroll"
        cells: dict[Cell, Candidate] = {}
        for who, (server, path) in places.items():
            versus.ask(run.load, server, path, Cell(who, "simpleenroll", 2, True), 0.5)  # warms it up
            for clients in CLIENTS:
                for keep in (False, True):
                    cell = Cell(who, "simpleenroll", clients, keep)
                    cells[cell] = _candidate(run, server, path, cell)
        found = interleave(cells, run.rounds, run.noise, run.say)
    return versus.with_parts(versus.rows("h", found), found), _targets(found)


def _targets(found: Mapping[Cell, list[Figures]]) -> list[Target]:
    def cell(who: str) -> list[Figures]:
        return found.get(Cell(who, "simpleenroll", 8, False), [])

    return [
        Target("h", f"Python, shipped / {rival}, 8 fresh", ratio(cell("Python, shipped"), cell(rival), "rate"), wanted)
        for rival, wanted in ((LIBEST, 1.5), (GLOBALSIGN, 0.3))
        if cell(rival)
    ]


def _candidate(run: Run, server: Server, path: str, cell: Cell) -> Candidate:
    return lambda: versus.ask(run.load, server, path, cell, run.seconds)
