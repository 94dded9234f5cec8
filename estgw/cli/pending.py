"""Requests that wait for a person (RFC 7030 4.2.3), in EST_CA_DIR/pending.

handlers/examples/manual-approval writes them, and pending.sh beside it describes the files.  This module reads,
approves and refuses them.  Their content came from a client: show it escaped.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from estgw.errors import Malformed
from estgw.est import certs

STATES = ("waiting", "approved", "issued", "refused")


class PendingError(Exception):
    """A request can't be found or can't be moved; the text says why."""


@dataclass(frozen=True)
class Request:
    """One request, in the state in which it was found."""

    id: str
    state: str
    path: Path
    facts: Mapping[str, str]
    """Variables of the contract by name, as the script saw them."""
    since: datetime
    changed: datetime
    reason: str | None = None
    certificate: x509.Certificate | None = None

    @property
    def names(self) -> list[str]:
        """The subject alternative names asked for."""
        return [text for name, text in self.facts.items() if name.startswith("EST_CSR_SAN_")]

    @property
    def client(self) -> str:
        """The client: its verified user name, the subject of its TLS certificate, or both."""
        who = [self.facts.get("REMOTE_USER", ""), self.facts.get("SSL_CLIENT_S_DN", "")]
        return ", ".join(part for part in who if part) or "nobody"

    def describe(self) -> dict[str, str | list[str] | None]:
        """All facts that a person needs for a decision."""
        fact = self.facts.get
        return {
            "id": self.id,
            "state": self.state,
            "operation": fact("EST_OPERATION"),
            "label": fact("EST_LABEL"),
            "subject": fact("EST_CSR_SUBJECT"),
            "new subject": fact("EST_CHANGE_SUBJECT"),
            "names": self.names,
            "public key": fact("EST_CSR_SPKI_SHA256"),
            "client": self.client,
            "authenticated by": fact("EST_AUTH_METHODS"),
            "certificate": fact("EST_CLIENT_CERT_SHA256"),
            "address": fact("REMOTE_ADDR"),
            "since": self.since.isoformat(timespec="seconds"),
            "changed": self.changed.isoformat(timespec="seconds"),
            "reason": self.reason,
            "serial": certs.serial_hex(self.certificate) if self.certificate else None,
            "csr": str(self.path / "csr.pem"),
        }


def requests(folders: Iterable[Path]) -> list[Request]:
    """All requests in these directories, the oldest first."""
    found: dict[tuple[Path, str], Request] = {}  # a request that moves from state to state may be seen twice
    for folder in folders:
        for state in STATES:
            for path in _entries(folder / state):
                if (request := _read(path)) is not None:
                    found[folder, request.id] = request
    return sorted(found.values(), key=lambda request: (request.since, request.id))


def find(folders: Iterable[Path], prefix: str) -> Request:
    """The one request whose id begins with `prefix`; raises `PendingError`."""
    found = [request for request in requests(folders) if prefix and request.id.startswith(prefix.lower())]
    if len({request.id for request in found}) > 1:
        raise PendingError(f"{prefix}: {len(found)} requests have ids that begin so; give more of the id")
    if not found:
        raise PendingError(f"{prefix}: no such request")
    return found[-1]


def approve(folders: Iterable[Path], prefix: str) -> Request:
    """Let a request be issued when the client comes back; raises `PendingError`."""
    return _move(find(folders, prefix), "approved", {"waiting", "refused"})


def refuse(folders: Iterable[Path], prefix: str, reason: str) -> Request:
    """Refuse a request, with a reason for the client; raises `PendingError`."""
    if not reason.strip() or not reason.isprintable():
        raise PendingError("a reason is one line of text for the client")
    return _move(find(folders, prefix), "refused", {"waiting", "approved", "refused"}, reason)


def _move(request: Request, state: str, allowed: set[str], reason: str | None = None) -> Request:
    pending = request.path.parent.parent
    with _locked(pending / "lock"):
        here = next((each for each in STATES if (pending / each / request.id).is_dir()), None)
        if here not in allowed:
            raise PendingError(f"{request.id[:12]}: it is {here or 'gone'} already")
        old, new = pending / here / request.id, pending / state / request.id
        with _free(old):
            if reason is not None:
                (old / "reason").write_text(reason + "\n", encoding="utf-8")
                (old / "reason").chmod(0o644)  # the gateway may run as another user; others can't enter the directory
            old.rename(new)
            os.utime(new)  # its time is the time of its last change
    moved = _read(new)
    if moved is None:
        raise PendingError(f"{request.id[:12]}: gone")
    return moved


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock that the scripts hold while they move a request."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _free(request: Path) -> Iterator[None]:
    """Lock the request.  Raise `PendingError` if issuing is under way or was interrupted."""
    descriptor = os.open(request, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PendingError(f"{request.name[:12]}: it is being issued at this moment") from None
        if (request / "started").exists():
            raise PendingError(
                f"{request.name[:12]}: issuing it was interrupted, and a certificate may exist; "
                "the script looks for it when the client comes back"
            )
        yield
    finally:
        os.close(descriptor)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []


def _read(path: Path) -> Request | None:
    """A request; None if it has moved or is not complete."""
    try:
        text = (path / "request").read_text(encoding="utf-8", errors="backslashreplace")
        since = (path / "request").stat().st_mtime
        changed = path.stat().st_mtime
        reason = _optional(path / "reason") if path.parent.name == "refused" else None
        certificate = _optional(path / "certificate.pem") if path.parent.name == "issued" else None
    except FileNotFoundError:
        return None
    pairs = (line.partition("=") for line in text.splitlines())
    return Request(
        id=path.name,
        state=path.parent.name,
        path=path,
        facts={name: value for name, _, value in pairs},
        since=datetime.fromtimestamp(since, UTC),
        changed=datetime.fromtimestamp(changed, UTC),
        reason=reason.strip() if reason else None,
        certificate=_certificate(certificate) if certificate else None,
    )


def _optional(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="backslashreplace")
    except FileNotFoundError:
        return None


def _certificate(text: str) -> x509.Certificate | None:
    try:
        return next(iter(certs.load_pem(text.encode())), None)
    except Malformed:
        return None
