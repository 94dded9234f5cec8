"""What a check may look at: the records of a workspace, its CA, and its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography import x509

from estgw.est import certs
from estgw.record import folder
from estgw.record.folder import RecordError
from estgw.record.ring import Record


@dataclass(frozen=True)
class Place:
    """Where a lab is done."""

    workspace: Path
    """The directory of conf.yaml."""
    records: Path
    """The directory of the records; it need not be there yet."""
    ca: Path
    """The CA's directory."""
    replay: Callable[[Record], Record]
    """Runs the scripts of today for a recorded request, and issues nothing; raises `RecordError`."""
    label: str | None = None
    """Only requests with this CA label count; None: all count."""
    since: str = ""
    """When the lab was started, as in `at` of a record; what came before does not count."""


class Evidence:
    """What happened in a workspace, oldest first.  Nothing of it is changed."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._replayed: dict[str, Record] = {}

    @cached_property
    def records(self) -> list[Record]:
        """Requests and failed handshakes since the start of the lab; a file that is no record is left out."""
        return [record for record in self._all() if record["kind"] != "replay" and self._counts(record)]

    def _all(self) -> Iterator[Record]:
        earliest = "".join(char for char in self.place.since if char not in "-:Z")
        try:
            paths = folder.names(self.place.records)
        except RecordError:
            return
        for path in paths:
            if path.name < earliest:
                continue
            try:
                yield folder.read(path)
            except RecordError:
                continue

    def _counts(self, record: Record) -> bool:
        # A failed handshake belongs to no label.
        return self.place.label in (None, record.get("label")) or record["kind"] == "handshake"

    def of(self, *operations: str) -> list[Record]:
        """The requests for these operations."""
        return [record for record in self.records if record.get("operation") in operations]

    def replay(self, record: Record) -> Record:
        """The request with the scripts of today; each is repeated once.  Raises `RecordError`."""
        if record["id"] not in self._replayed:
            self._replayed[record["id"]] = self.place.replay(record)
        return self._replayed[record["id"]]

    def roots(self) -> list[x509.Certificate]:
        """The certificates in `cacert.pem` of the CA; none if it can't be read."""
        return self.certificates(self.place.ca / "cacert.pem")

    def certificates(self, path: Path) -> list[x509.Certificate]:
        """The certificates in a PEM file; none if it can't be read."""
        try:
            return certs.load_pem(path.read_bytes())
        except (OSError, *certs.UNREADABLE):
            return []
