"""Requests that wait for a person (RFC 7030 4.2.3): where they are, and what a person decides.

They are in registers, or in folders in EST_CA_DIR/pending.  handlers/examples/manual-approval writes the folders, and
pending.sh beside it describes the files.  What is in a request came from a client: show it escaped.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from estgw.errors import Malformed
from estgw.est import certs
from estgw.register.requests import MAY_BECOME, STATES, Request, RequestError, Requests

Place = Path | Requests
"""A folder or a register."""


def requests(places: Iterable[Place]) -> list[Request]:
    """All requests in these places, the oldest first."""
    return sorted((found for _, found in _all(places)), key=lambda request: (request.since, request.id))


def find(places: Iterable[Place], prefix: str) -> Request:
    """The one request whose id begins with `prefix`; raises `RequestError`."""
    return _find(places, prefix)[1]


def approve(places: Iterable[Place], prefix: str) -> Request:
    """Let a request be issued when the client comes back; raises `RequestError`."""
    return _decide(places, prefix, "approved")


def refuse(places: Iterable[Place], prefix: str, reason: str) -> Request:
    """Refuse a request, with a reason for the client; raises `RequestError`."""
    if not reason.strip() or not reason.isprintable():
        raise RequestError("a reason is one line of text for the client")
    return _decide(places, prefix, "refused", reason)


def _all(places: Iterable[Place]) -> list[tuple[Place, Request]]:
    found: dict[tuple[Place, str], Request] = {}  # a request that moves from state to state may be seen twice
    for place in places:
        for request in place.all() if isinstance(place, Requests) else _in_folder(place):
            found[place, request.id] = request
    return [(place, request) for (place, _), request in found.items()]


def _find(places: Iterable[Place], prefix: str) -> tuple[Place, Request]:
    found = [each for each in _all(places) if prefix and each[1].id.startswith(prefix.lower())]
    if len({request.id for _, request in found}) > 1:
        raise RequestError(f"{prefix}: {len(found)} requests have ids that begin so; give more of the id")
    if not found:
        raise RequestError(f"{prefix}: no such request")
    return found[-1]


def _decide(places: Iterable[Place], prefix: str, state: str, reason: str | None = None) -> Request:
    place, request = _find(places, prefix)
    if isinstance(place, Requests):
        return place.decide(request.id, state, reason)
    return _move(place, request.id, state, reason)


# Folders.


def _in_folder(pending: Path) -> Iterator[Request]:
    for state in STATES:
        for path in _entries(pending / state):
            if (request := _read(path)) is not None:
                yield request


def _move(pending: Path, request_id: str, state: str, reason: str | None) -> Request:
    with _locked(pending / "lock"):
        here = next((each for each in STATES if (pending / each / request_id).is_dir()), None)
        if here not in MAY_BECOME[state]:
            raise RequestError(f"{request_id[:12]}: it is {here or 'gone'} already")
        old, new = pending / here / request_id, pending / state / request_id
        with _free(old):
            if reason is not None:
                (old / "reason").write_text(reason + "\n", encoding="utf-8")
                (old / "reason").chmod(0o644)  # the gateway may run as another user; others can't enter the directory
            old.rename(new)
            os.utime(new)  # its time is the time of its last change
    moved = _read(new)
    if moved is None:
        raise RequestError(f"{request_id[:12]}: gone")
    return moved


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock that the scripts hold while they move a request."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _free(request: Path) -> Iterator[None]:
    """Lock the request.  Raise `RequestError` if issuing is under way or was interrupted."""
    descriptor = os.open(request, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(f"{request.name[:12]}: it is being issued at this moment") from None
        if (request / "started").exists():
            raise RequestError(
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
        facts={name: value for name, _, value in pairs},
        csr=str(path / "csr.pem"),
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
