"""A gateway of two workers, and who of them serves whom."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from tests.kit.connection import Connection
from tests.kit.csr import csr
from tests.kit.gateway import Gateway, merged, running_gateway
from tests.kit.processes import until
from tests.kit.workspace import Workspace

GOOD = csr()
TWO = {"server": {"workers": 2}}
# Waits for a file, and not for ever: whoever kills its gateway leaves it behind.
HOLD = (
    'echo $$ >>"$EST_CA_DIR/held"; for _ in {1..400}; do [[ -e $EST_CA_DIR/go ]] && break; sleep 0.05; done; '
    'exec "$EST_CA_DIR/../handlers/openssl/simpleenroll"'
)


@contextlib.contextmanager
def two_workers(lab: Workspace, overrides: Mapping[str, Any] | None = None, **options: Any) -> Iterator[Gateway]:
    with running_gateway(lab, merged(TWO, overrides or {}), **options) as gateway:
        yield gateway


def holding(lab: Workspace) -> dict[str, Any]:
    """An operation that lasts until `let_go`."""
    handler = str(lab.script("hold", HOLD))
    return {"callouts": {"operations": {"simpleenroll": {"handler": handler}}}}


def let_go(lab: Workspace) -> None:
    (lab.ca / "go").touch()


def held(lab: Workspace, number: int) -> list[int]:
    """The process ids of so many handlers that hold."""
    file = lab.ca / "held"

    def found() -> list[int] | None:
        begun = [int(pid) for pid in file.read_text().split()] if file.exists() else []
        return begun if len(begun) == number else None

    return until(found)


def pids(gateway: Gateway) -> dict[int, int]:
    """The latest process of each worker."""
    return {line["worker"]: line["pid"] for line in gateway.log if line["event"] == "worker started"}


def worker_of(gateway: Gateway, connection: Connection) -> int:
    """Who serves this connection."""
    before = len(gateway.access)
    assert connection.ask("GET", "cacerts").status == 200
    (line,) = gateway.access[before:]
    worker: int = line["worker"]
    return worker


def one_each(gateway: Gateway, stack: contextlib.ExitStack) -> dict[int, Connection]:
    """A connection to each worker: the kernel chooses by the client's port, so a few tries do."""
    found: dict[int, Connection] = {}
    for _ in range(200):
        connection = stack.enter_context(gateway.connect())
        found.setdefault(worker_of(gateway, connection), connection)
        if len(found) == 2:
            return found
    raise AssertionError("200 connections, and all at the same worker")


def gone(pid: int) -> bool:
    """Whether that process has ended, zombies included."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
