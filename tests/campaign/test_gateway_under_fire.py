"""A gateway is killed, or its CA's disk is full, while clients enrol: nothing is lost, and later requests succeed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign.clients import CONFIGURATION, Clients, busy
from tests.campaign.disks import Disk, needs_disk, small_disk
from tests.campaign.ledger import Ledger
from tests.campaign.size import times
from tests.kit.gateway import Gateway, enrol, running_gateway
from tests.kit.processes import until
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.slow

ROUNDS = times(3, 60)


@pytest.fixture
def clients(lab: Workspace, tmp_path: Path, gateway: Gateway) -> Iterator[Clients]:
    """Clients with a certificate of the CA that all workspaces share."""
    yield Clients(Ledger(tmp_path / "lab/openssl-ca"), enrol(gateway, tmp_path, "device-1"))


def require_every_operation(clients: Clients, gateway: Gateway) -> None:
    """Each operation must give a certificate, also after kills."""
    for name, operation in clients.operations.items():
        before = len(clients.ledger.held)
        assert operation(gateway), (name, clients.statuses[-1], gateway.log_text[-2000:])
        assert len(clients.ledger.held) == before + 1


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # sockets of handshakes that were cut off
def test_a_gateway_that_is_killed_repeatedly_loses_no_certificate(
    lab: Workspace, tmp_path: Path, clients: Clients
) -> None:
    own, temporary = lab.copy(tmp_path / "lab"), tmp_path / "tmp"
    dice = random.Random(17)
    for _ in range(ROUNDS):
        with (
            running_gateway(own, CONFIGURATION, status=-9, clean=False, temporary=temporary, python=True) as gateway,
            busy(clients, gateway, 4),
        ):
            clients.wait(dice.randrange(3, 12))
            gateway.process.kill()
            gateway.process.wait()
    clients.ledger.check()
    clients.ledger.revoke(clients.ledger.held[0])
    with running_gateway(own, CONFIGURATION, clean=False, temporary=temporary, python=True) as gateway:
        require_every_operation(clients, gateway)
        until(lambda: not _keys(temporary))
        until(
            lambda: len(list(temporary.glob("estgw-*"))) == 1
        )  # its own; the directories of killed gateways are removed
    clients.ledger.check_list()


def _keys(temporary: Path) -> list[Path]:
    """Files with a private key that gateways have left behind."""
    return [path for path in temporary.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]


@needs_disk
def test_a_full_disk_of_the_ca_loses_no_certificate(lab: Workspace, tmp_path: Path, clients: Clients) -> None:
    with small_disk(tmp_path / "lab/openssl-ca", size=8 << 20) as disk:
        own = lab.copy(tmp_path / "lab")
        with running_gateway(own, CONFIGURATION, clean=False, python=True) as gateway:
            require_every_operation(clients, gateway)
            clients.ledger.revoke(clients.ledger.held[0])
            before = len(clients.statuses)
            with busy(clients, gateway, 2):
                for left in range(times(5, 80)):
                    _fill(disk, clients, left % 9)
            refused = Counter(clients.statuses[before:])
            assert refused[500] + refused[503], refused
            assert not set(refused) - {200, 202, 500, 503}, refused
            clients.ledger.check()
            require_every_operation(clients, gateway)
            assert "Traceback" not in gateway.log_text
        clients.ledger.check_list()


def _fill(disk: Disk, clients: Clients, left: int) -> None:
    """Run clients on a disk with `left` free pages, then on one with room."""
    with disk.with_free_pages(left):
        clients.wait(9)
    clients.wait(3)
