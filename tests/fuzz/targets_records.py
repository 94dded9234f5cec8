"""Records, which anybody may edit before `estgw replay` reads them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

from estgw.cli import compare
from estgw.page import explain, har, rows
from estgw.record import folder
from estgw.record.folder import RecordError
from estgw.record.origin import Origin
from tests.fuzz import checks

TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {}
_target = functools.partial(checks.target, TARGETS)


@_target(RecordError)
def record(data: bytes) -> None:
    found = folder.parse(data, "record.json")
    assert json.dumps(rows.row(1, found))
    assert json.dumps(explain.explained(found))
    json.dumps(har.entry(found, "https://127.0.0.1"))
    assert compare.describe(found)
    assert compare.differences(found, found) == []
    origin = Origin.of(found)
    assert origin.id == found["id"]
