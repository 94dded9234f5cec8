"""A gateway that records, and its records."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.kit.gateway import Gateway, merged, running_gateway
from tests.kit.processes import until
from tests.kit.workspace import Workspace

Record = dict[str, Any]


class Recording:
    """A gateway with `record.dir`, and what it has written there."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        self.gateway, self.folder = gateway, folder
        self._read: dict[Path, Record] = {}

    @property
    def records(self) -> list[Record]:
        """All records, oldest first.  A file never changes, so each is read once."""
        files = sorted(self.folder.glob("[0-9]*.json"))
        self._read |= {path: json.loads(path.read_text()) for path in files if path not in self._read}
        return [self._read[path] for path in files]

    def wait(self, fits: Callable[[Record], bool], known: int = 0) -> Record:
        """The newest record that fits, among those after the `known` first ones."""
        return until(lambda: next((each for each in reversed(self.records[known:]) if fits(each)), None))

    def _wait_for_earlier_ones(self) -> None:
        """Records are written in their order, after the answer: wait for that of the last request in the log."""
        lines = [line for line in self.gateway.log_text.splitlines() if '"event": "request"' in line]
        if lines:
            last = json.loads(lines[-1])["request_id"]
            until(lambda: next(self.folder.glob(f"*-{last}.json"), None))

    def of(self, ask: Callable[[], object]) -> Record:
        """The record of the one request, or failed handshake, that is made meanwhile."""
        self._wait_for_earlier_ones()
        before = {path.name for path in self.folder.iterdir()}
        ask()

        def found() -> Path | None:
            new = [path for path in self.folder.glob("[0-9]*.json") if path.name not in before]
            return max(new, default=None)

        record: Record = json.loads(until(found).read_text())
        return record


@contextlib.contextmanager
def recording(lab: Workspace, overrides: Mapping[str, Any] | None = None, **options: Any) -> Iterator[Recording]:
    """A gateway of a laboratory that records into `records` there."""
    folder = lab.path / "records"
    ours = {"record": {"dir": str(folder), "keep": 100}}
    with running_gateway(lab, merged(ours, overrides or {}), **options) as gateway:
        yield Recording(gateway, folder)
        assert not [line for line in gateway.log_text.splitlines() if '"a record is lost"' in line]


def paths(value: Any, prefix: str = "", free: tuple[str, ...] = ()) -> set[str]:
    """The keys of a record as the table writes them, leaves and branches."""
    if isinstance(value, list):
        return set().union(*(paths(each, f"{prefix}[]", free) for each in value if isinstance(each, dict)))
    if not isinstance(value, dict) or prefix in free:
        return set()
    found = set()
    for key, inner in value.items():
        name = f"{prefix}.{key}" if prefix else key
        found |= {name} | paths(inner, name, free)
    return found


def readings(text: str) -> Iterator[bytes]:
    """A text, and what it is when its base64 is decoded, up to three times."""
    found = [text.encode("utf-8", "surrogateescape")]
    for _ in range(4):
        yield from found
        decoded = []
        for content in found:
            for run in re.findall(rb"[A-Za-z0-9+/=\s]{16,}", content):
                plain = re.sub(rb"[\s=]", b"", run)
                for start in range(4):
                    part = plain[start:]
                    decoded.append(base64.b64decode(part[: len(part) // 4 * 4]))
        found = decoded if len(decoded) < 4000 else []
