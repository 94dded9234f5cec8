"""Requests that wait for a person: EST_CA_DIR/pending, as handlers/examples/pending.sh has it.

`estgw pending` shows and decides them.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.cmc.status import CMCFailInfo
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.ca import CA, CAError
from estgw.cmc_service.state import State
from estgw.est import certs

STATES = ("waiting", "approved", "issued", "refused")
MAXIMUM_WAITING = 1000


class Verdict:
    """Whether a certificate may be issued.  As a context manager it spans the issuing."""

    def __init__(
        self, folder: Path | None = None, *, waits: bool = False, certificate: x509.Certificate | None = None
    ) -> None:
        self._folder, self.waits, self.certificate = folder, waits, certificate

    def __enter__(self) -> Self:
        if self._folder is not None:
            with _locked(self._folder.parent.parent):
                if (self._folder / "started").exists() or not self._folder.exists():
                    raise Refused(CMCFailInfo.TRY_LATER, "it is being issued at this moment")
                (self._folder / "started").touch()
        return self

    def issued(self, certificate: x509.Certificate) -> None:
        """The certificate is in the register.  Repeats of the request get the same."""
        if self._folder is None:
            return
        (self._folder / "certificate.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        pending = self._folder.parent.parent
        with _locked(pending):
            self._folder.rename(pending / "issued" / self._folder.name)

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(fault, Refused | CAError | SystemExit) and self._folder is not None:
            (self._folder / "started").unlink(missing_ok=True)  # nothing was issued


def verdict(ca: CA, env: Mapping[str, str], state: State, owner: str) -> Verdict:
    """What a person has decided about the request that `env` describes; a new request begins to wait.

    Raises `Refused` for a no, and `Full` where too many requests of this `owner` wait, as all clients share the room.
    """
    pending, name = ca.directory / "pending", env["EST_PENDING_ID"]
    for each in STATES:
        (pending / each).mkdir(parents=True, exist_ok=True)
    with _locked(pending):
        found = next((each for each in STATES if (pending / each / name).is_dir()), None)
        here = pending / (found or "waiting") / name
        match found:
            case None:
                state.require_room("pending", owner)
                if len(list((pending / "waiting").iterdir())) >= MAXIMUM_WAITING:
                    raise Refused(CMCFailInfo.TRY_LATER, "too many requests wait for approval")
                _remember(pending, here, env)
                return Verdict(waits=True)
            case "refused":
                reason = (here / "reason").read_text("utf-8", "replace").strip()
                raise Refused(CMCFailInfo.BAD_REQUEST, reason or "refused")
            case "issued":
                return Verdict(certificate=certs.load_pem((here / "certificate.pem").read_bytes())[0])
            case "approved" if (here / "started").exists():
                # It is being issued, or the process that did it was killed; the register knows how far that came.
                certificate = ca.issued_for(name)
                return Verdict(waits=certificate is None, certificate=certificate)
        return Verdict(here, waits=found == "waiting")


def _remember(pending: Path, here: Path, env: Mapping[str, str]) -> None:
    """Write the facts that `estgw pending show` shows."""
    import shutil  # it takes 5 ms to import, and few policies ask a person

    new = pending / ".new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    shutil.copyfile(env["EST_CSR_FILE"], new / "csr.pem")
    shown = ("EST_OPERATION", "EST_LABEL", "EST_AUTH_METHODS", "REMOTE_USER", "REMOTE_ADDR", "SSL_CLIENT_S_DN")
    hidden = ("EST_CA_DIR", "EST_CONTRACT")
    facts = [name for name in env if name in shown or (name.startswith("EST_C") and name not in hidden)]
    lines = [f"{name}={env[name]}\n" for name in facts if not name.endswith("_FILE")]
    (new / "request").write_text("".join(lines))
    new.rename(here)


@contextlib.contextmanager
def _locked(pending: Path) -> Iterator[None]:
    with (pending / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
