from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaign.ledger import Ledger
from tests.kit.csr import csr
from tests.kit.scripts import HandlerSet


@pytest.fixture(scope="module")
def bench(where: Path) -> HandlerSet:
    """A workspace with both handler sets in the module's `where`; its rotate moves three rows each time."""
    bench = HandlerSet.create("openssl", where)
    bench.workspace.edit("openssl-ca/rotate", "mapfile -s 999 ", "mapfile -s 2 ")
    return bench


@pytest.fixture(scope="module")
def ledger(bench: HandlerSet) -> Ledger:
    """A record of what the CA has issued and revoked, with some certificates from before the tests."""
    ledger = Ledger(bench.ca)
    for name in ("openssl", "python"):
        for number in range(2):
            ledger.hold(HandlerSet(name, bench.workspace).issue("simpleenroll", csr(f"before-{number}")))
        ledger.revoke(ledger.held[-1])
    return ledger
