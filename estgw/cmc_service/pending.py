"""What outlives one message: requests that wait, certificates to be confirmed, passphrases for revocation."""

import base64
import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import ca
import store
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.cmc import parts
from estgw.cmc.crmf import SignaturePop
from estgw.cmc.requests import CRMFRequest, PKCS10Request
from estgw.cmc.status import CMCFailInfo
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.policy import Who
from estgw.cmc_service.state import State, mark
from estgw.cms.fields import Fields, bits, sequence
from estgw.est import certs, names
from estgw.est import csr as csrs
from estgw.est.csr import CSR, NewNames

# Requests that wait: their token is the client's to bring back, the rest is in cmc.sqlite.


@dataclass(frozen=True)
class Kept:
    """A request that waits, and what its proofs have shown."""

    owner: str
    request: bytes
    """A TaggedRequest as DER."""
    pop: str
    signs: bool
    changes: NewNames | None

    def encode(self) -> bytes:
        """As it stands in cmc.sqlite."""
        san = self.changes.san.public_bytes().hex() if self.changes and self.changes.san else None
        subject = self.changes.subject.public_bytes().hex() if self.changes else None
        data = {"owner": self.owner, "request": base64.b64encode(self.request).decode(), "pop": self.pop}
        return json.dumps({**data, "signs": self.signs, "subject": subject, "san": san}).encode()

    @classmethod
    def decode(cls, value: bytes) -> "Kept":
        data = json.loads(value)
        changes = None
        if data["subject"] is not None:
            san = bytes.fromhex(data["san"]) if data["san"] else None
            changes = new_names(bytes.fromhex(data["subject"]), san)
        request = base64.b64decode(data["request"])
        return cls(data["owner"], request, data["pop"], data["signs"], changes)


def wait(state: State, kept: Kept, name: str, lasts: timedelta) -> bytes:
    """Let a request wait under its EST_PENDING_ID; the token, which is the old one for a repeat.  Raises `Full`."""
    if (known := state.get("waiting", name)) is not None:
        return known
    token = os.urandom(16)
    state.put("pending", token.hex(), kept.encode(), lasts, kept.owner)
    state.put("waiting", name, token, lasts)
    return token


def forget(state: State, name: str) -> None:
    """It waits no more."""
    if (token := state.get("waiting", name)) is not None:
        state.drop("pending", token.hex())
        state.drop("waiting", name)


@contextlib.contextmanager
def taken(state: State, kept: Kept, name: str, lasts: timedelta) -> Iterator[None]:
    """The time in which it is issued: of two who come for it at once, one issues it, and what fails waits on."""
    token = state.get("waiting", name)
    if token is None:
        yield  # it never had to wait
        return
    if not state.drop("pending", token.hex()):
        raise Refused(CMCFailInfo.TRY_LATER, "it is being issued at this moment")
    state.drop("waiting", name)
    state.put("waiting", name, token, timedelta(seconds=int(os.environ["EST_TIMEOUT"])))  # for no longer, if we die
    try:
        yield
    except BaseException:
        state.drop("waiting", name)
        state.put("waiting", name, token, lasts)
        state.put("pending", token.hex(), kept.encode(), lasts, kept.owner, is_bounded=False)
        raise
    state.drop("waiting", name)


def new_names(subject: bytes, san: bytes | None) -> NewNames:
    """Names from DER, a Name and the value of a subjectAltName; raises `Malformed`."""
    if san is None:
        return NewNames(parts.read_name(subject), None)
    extension = sequence(bytes.fromhex("0603551d11"), b"\x04" + _length(san) + san)
    return NewNames(parts.read_name(subject), names.san_of(parts.read_extensions(sequence(extension))))


def _length(value: bytes) -> bytes:
    from estgw.est.der import wrap

    return wrap(b"\x04", value)[1 : -len(value) or None]


def with_signature(request: PKCS10Request | CRMFRequest) -> CSR:
    """The request as a template compares it: a CRMF request's carrier with the algorithm of its own proof."""
    if not isinstance(request, CRMFRequest) or not isinstance(request.message.pop, SignaturePop):
        return request.csr
    info = Fields(request.csr.der, "a carrier").take("its content")
    return csrs.parse(sequence(info, request.message.pop.algorithm.encode(), bits(b"")))


# Requests that wait for a human, in EST_CA_DIR/pending as examples/pending.sh has it, so `estgw pending` shows them.

STATES = ("waiting", "approved", "issued", "refused")
MOST_WAITING = 1000


class Verdict:
    """Whether a certificate may be issued; as a context, the time in which it is."""

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
        """It is in the register; repeats of the request get the same."""
        if self._folder is None:
            return
        (self._folder / "certificate.pem").write_text(ca.pem(certificate))
        pending = self._folder.parent.parent
        with _locked(pending):
            self._folder.rename(pending / "issued" / self._folder.name)

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(fault, Refused | SystemExit) and self._folder is not None:
            (self._folder / "started").unlink(missing_ok=True)  # nothing was issued


def approval(folder: Path, env: Mapping[str, str], state: State, owner: str) -> Verdict:
    """What a human has said; a request that is new begins to wait.

    Raises `Refused` for a no, and `Full` where too many requests of this `owner` wait: the place is for all clients.
    """
    pending, name = folder / "pending", env["EST_PENDING_ID"]
    for each in STATES:
        (pending / each).mkdir(parents=True, exist_ok=True)
    with _locked(pending):
        found = next((each for each in STATES if (pending / each / name).is_dir()), None)
        here = pending / (found or "waiting") / name
        match found:
            case None:
                state.require_room("pending", owner)
                if len(list((pending / "waiting").iterdir())) >= MOST_WAITING:
                    raise Refused(CMCFailInfo.TRY_LATER, "too many requests wait for approval")
                _remember(pending, here, env)
                return Verdict(waits=True)
            case "refused":
                reason = (here / "reason").read_text("utf-8", "replace").strip()
                raise Refused(CMCFailInfo.BAD_REQUEST, reason or "refused")
            case "issued":
                return Verdict(certificate=certs.load_pem((here / "certificate.pem").read_bytes())[0])
            case "approved" if (here / "started").exists():
                return _after_a_crash(env)
        return Verdict(here, waits=found == "waiting")


def _after_a_crash(env: Mapping[str, str]) -> Verdict:
    """Somebody began to issue it: it is being done, or that was killed, and the register knows how far it came."""
    os.environ["EST_PENDING_ID"] = env["EST_PENDING_ID"]
    certificate = store.handed_out(timedelta(days=30))
    return Verdict(waits=certificate is None, certificate=certificate)


def _remember(pending: Path, here: Path, env: Mapping[str, str]) -> None:
    """The facts that `estgw pending show` shows."""
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


# Certificates that the client is to accept (RFC 5272 6.14).


def expect_confirmation(state: State, certificate: x509.Certificate, who: Who, lasts: timedelta) -> None:
    value = mark(who.name).encode() + certificate.public_bytes(Encoding.DER)
    state.put("unconfirmed", certs.serial_hex(certificate), value, lasts)


def confirm(state: State, certificate: x509.Certificate, who: Who) -> bool:
    """False for a certificate whose confirmation nobody awaits from this client."""
    serial = certs.serial_hex(certificate)
    value = state.get("unconfirmed", serial)
    owner = who.certificate == certificate or (value or b"")[:64] == mark(who.name).encode()
    return value is not None and owner and state.drop("unconfirmed", serial)


def unconfirmed(state: State) -> list[x509.Certificate]:
    """Some of those that nobody has confirmed in time."""
    return [certs.load(value[64:]) for value in state.ended("unconfirmed", 5)]


# Passphrases for revocation: the revocationChallenge of a request (RFC 7894 3.2, RFC 5272 6.11).


def remember_passphrase(state: State, certificate: x509.Certificate, passphrase: str, lasts: timedelta) -> None:
    salt = os.urandom(16)
    state.put("passphrase", certs.serial_hex(certificate), salt + _stretched(passphrase.encode(), salt), lasts)


def passphrase(state: State, certificate: x509.Certificate) -> bytes | None:
    """What is kept of the passphrase that the certificate was asked for with."""
    return state.get("passphrase", certs.serial_hex(certificate))


def is_passphrase(kept: bytes | None, given: bytes) -> bool:
    """Whether they are the same; the answer takes as long when there is nothing to compare with."""
    kept = kept or bytes(48)
    return hmac.compare_digest(_stretched(given[:1024], kept[:16]), kept[16:])


def _stretched(secret: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(secret, salt=salt, n=2**14, r=8, p=1, dklen=32)
