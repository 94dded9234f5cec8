"""Run handlers/python/fullcmc in this process with its own CA, and take apart its responses.

tests/cmc_service/test_service.py and tests/e2e/test_fullcmc.py start the scripts themselves.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import os
import runpy
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from estgw.auth.credentials import Credentials
from estgw.callout.call import InnerRules
from estgw.callout.environment import environment_of
from estgw.cmc import proofs
from estgw.cmc.controls import Control
from estgw.cmc.messages import PKI_DATA, PKIData, PKIResponse, pki_response
from estgw.cmc.requests import PKCS10Request, TaggedRequest
from estgw.cmc.status import CMCFailInfo, CMCStatus, StatusInfo
from estgw.cmc_service import service
from estgw.cms import signed
from estgw.cms.identifiers import key_id_of
from estgw.cms.signed import SignedData, Signer
from estgw.est.bounds import NameBounds
from tests.callout import calls
from tests.kit.csr import csr
from tests.kit.der import attribute
from tests.kit.scripts import OWN_PYTHON
from tests.kit.workspace import Workspace

HANDLERS = Path(__file__).resolve().parents[2] / "handlers/python"
SECRETS = {"device-7": "correct horse battery staple", "device-8": "another secret"}
NOW = datetime.now(UTC)
_numbers = itertools.count(1)


def module(name: str) -> ModuleType:
    """A module that lies beside the scripts."""
    if str(HANDLERS) not in sys.path:
        sys.path.append(str(HANDLERS))
    return importlib.import_module(name)


def shipped_policy() -> Any:
    """The policy of the shipped script."""
    module("cmc_ca")
    return runpy.run_path(str(HANDLERS / "fullcmc"), run_name="fullcmc")["POLICY"]


# Signers.


@dataclass(frozen=True)
class Person:
    """A key and usually its certificate."""

    key: Any
    certificate: Any = None
    """An x509.Certificate, or None for a key alone."""

    @property
    def signer(self) -> Signer:
        if self.certificate is None:
            return Signer(self.key, key_id_of(self.key.public_key()))
        return Signer.of(self.key, self.certificate)


def new_key() -> Any:
    return ec.generate_private_key(ec.SECP256R1())


def message(
    data: PKIData,
    *people: Person,
    certificates: Sequence[x509.Certificate] | None = None,
    at: datetime | None = None,
    timed: bool = True,
) -> bytes:
    """A signed PKIData. Without `timed` it has no signing time, as in messages of JSS."""
    bag = (
        [each.certificate for each in people if each.certificate is not None] if certificates is None else certificates
    )
    signers = [each.signer for each in people]
    moment = (at or datetime.now(UTC)) if timed else None
    return signed.sign(PKI_DATA, data.encode(), signers, certificates=bag, signing_time=moment)


def control(name: str, value: Any, number: int | None = None) -> Control:
    return Control.make(next(_numbers) + 100_000 if number is None else number, name, value)


def proof(
    requests: Sequence[TaggedRequest], identification: str = "device-7", secret: str | None = None
) -> list[Control]:
    """identification and identityProofV2 for these requests."""
    known = SECRETS[identification] if secret is None else secret
    value = proofs.identity_proof_v2(PKIData((), tuple(requests)).request_sequence, known, identification)
    return [control("identification", identification), control("identityProofV2", value)]


def fresh() -> list[Control]:
    """A transaction id and a nonce."""
    return [control("transactionId", secrets.randbits(60)), control("senderNonce", secrets.token_bytes(16))]


# Responses.


@dataclass(frozen=True)
class Reply:
    """The response of the handler."""

    http: int
    headers: Mapping[str, str]
    der: bytes
    log: str
    message: SignedData = field(repr=False)
    response: PKIResponse

    @property
    def statuses(self) -> tuple[StatusInfo, ...]:
        return self.response.statuses

    @property
    def status(self) -> Any:
        """The only StatusInfo."""
        (only,) = self.statuses
        return only

    @property
    def failure(self) -> CMCFailInfo:
        """The code of the only failure. Its text must also be in the log."""
        found = self.status
        assert found.status == CMCStatus.FAILED, found
        assert found.failure is not None
        assert found.text
        assert f"{CMCFailInfo(found.failure).word}: {found.text}" in self.log
        return CMCFailInfo(found.failure)

    @property
    def issued(self) -> list[x509.Certificate]:
        """The certificates in the bag without those of CAs and of the signer."""
        signer = signed.certificate_of(self.message, self.message.signers[0])
        return [each for each in self.message.bag if each != signer and each.issuer != each.subject]

    @property
    def certificate(self) -> x509.Certificate:
        (only,) = self.issued
        return only

    def value(self, name: str) -> Any:
        return self.response.value(name)


@dataclass
class Office:
    """A CA with its handler."""

    lab: Workspace
    policy: Any = field(default_factory=shipped_policy)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def ca(self) -> Path:
        return self.lab.ca

    def allow(self, **changes: Any) -> Office:
        """The same CA with another policy."""
        return Office(self.lab, replace(self.policy, **changes), dict(self.env))

    def secrets(self) -> None:
        """Write the file of shared secrets."""
        file = self.ca / "cmc-secrets"
        file.write_text("# identification and secret\n" + "".join(f"{name} {text}\n" for name, text in SECRETS.items()))
        file.chmod(0o600)

    def environment(self, **env: str) -> dict[str, str]:
        """The variables of a client with a password; with `EST_AUTH_METHODS=""`, of a client without one."""
        call = calls.plain(
            self.lab.path, "fullcmc", ca_dir=self.ca, search_path=OWN_PYTHON, client=calls.client(
                user="estuser", claimed=Credentials("Basic", "estuser", "")),
            binding=None, inner=InnerRules("optional", None, None, False, NameBounds()),
        )  # fmt: skip
        made = environment_of(call) | self.env | env
        if not made["EST_AUTH_METHODS"]:
            del made["REMOTE_USER"], made["AUTH_TYPE"]
        return made

    def ask(self, body: bytes, **env: str) -> Reply:
        """Process a message as the handler does."""
        private = self.lab.path / f"private-{secrets.token_hex(8)}"
        private.mkdir(mode=0o700)
        full = self.environment(**env) | {name: str(private) for name in ("EST_TMPDIR", "TMPDIR", "HOME")}
        directory_ca = module("cmc_ca").DirectoryCA(self.ca)
        out, err = io.BytesIO(), io.StringIO()
        stdin = SimpleNamespace(buffer=io.BytesIO(body))
        stdout = io.TextIOWrapper(out, write_through=True)
        with _environ(full), contextlib.redirect_stderr(err), contextlib.redirect_stdout(stdout):
            before, sys.stdin = sys.stdin, stdin
            try:
                assert service.main(self.policy, directory_ca) == os.EX_OK
            finally:
                sys.stdin = before
        return read(out.getvalue(), err.getvalue(), self.lab.anchor)

    def enrol(self, *requests: TaggedRequest, by: Person, controls: Sequence[Control] = (), **env: str) -> Reply:
        """Ask for certificates in a new transaction."""
        return self.ask(message(PKIData((*fresh(), *controls), requests), by), **env)

    def person(
        self, name: str = "device-7", *, ra: bool = False, profile: str = "", key: Any = None, sans: Sequence[str] = ()
    ) -> Person:
        """A person with a certificate of this CA, which is in its register. `profile` is a row of PROFILES in ca.py."""
        key = key or new_key()
        ca = module("ca")
        names = [x509.DNSName(each) for each in sans]
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        with _environ(self.environment(EST_OPERATION="simpleenroll")):
            profile = profile or ("ra" if ra else "client")
            certificate = ca.issue(subject, key.public_key(), names, profile, timedelta(days=5))
        return Person(key, certificate)

    def count(self) -> int:
        """The number of certificates in the register."""
        store = module("store")
        with _environ(self.environment()):
            found: int = store._do("SELECT count(*) FROM certificates")[0][0]
            return found

    @property
    def issuer(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.ca / "issuer.pem").read_bytes())

    @property
    def ca_key(self) -> Any:
        return load_pem_private_key((self.ca / "private/cakey.pem").read_bytes(), None)


def read(output: bytes, log: str, anchor: Path) -> Reply:
    """Parse the handler's output. A certificate of the CA must have signed it."""
    head, _, der = output.partition(b"\n\n")
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
    found = signed.parse(der)
    (signer,) = found.signers
    certificate = signed.certificate_of(found, signer)
    assert certificate is not None
    signed.verify(found, signer, certificate.public_key())
    assert certificate.issuer == x509.load_pem_x509_certificate(anchor.read_bytes()).subject
    return Reply(int(headers.pop("Status")), headers, der, log, found, pki_response(found))


@contextlib.contextmanager
def _environ(env: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def pkcs10(
    number: int, name: str = "device-7", *extensions: x509.ExtensionType, key: Any, **more: Any
) -> PKCS10Request:
    return PKCS10Request(number, csr(name, *extensions, key=key, **more))


def linked_pkcs10(
    number: int, name: str, *, key: Any, random: bytes, secret: str = SECRETS["device-7"]
) -> PKCS10Request:
    """A PKCS#10 with a popLinkWitnessV2, built by hand because cryptography writes only attributes of text."""
    witness = proofs.pop_link_witness_v2(random, SECRETS["device-7"]).encode()
    return PKCS10Request(number, csr(name, attribute("1.3.6.1.5.5.7.7.33", witness), key=key))
