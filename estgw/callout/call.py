"""What one callout is told about one request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.auth.identity import Client
from estgw.auth.pop import POP
from estgw.config.model import Linking
from estgw.est import keygen, names
from estgw.est.binding import Binding
from estgw.est.bounds import NameBounds
from estgw.est.csr import CSR, NewNames
from estgw.est.operations import Body, Operation, Profile


@dataclass(frozen=True)
class InnerRules:
    """The configuration's word on requests that come inside another message (RFC 5272 3.2.1.2)."""

    linking: Linking
    authorize: Path | None
    csr_template: Path | None
    change_subject_name: bool
    name_bounds: NameBounds


@dataclass(frozen=True)
class Call:
    """Everything that one callout of one request is told."""

    request_id: str
    operation: Operation
    label: str | None
    profile: Profile
    client: Client
    ca_dir: Path
    tmp_dir: Path
    timeout: float
    search_path: str
    method: str
    script_name: str
    query: str
    server_name: str
    server_port: int
    content_type: str | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)  # those that pass_headers lists
    pass_credentials: bool = False
    handler_env: Mapping[str, str] = field(default_factory=dict)
    binding: Binding | None = None
    csr: CSR | None = None
    pop: POP | None = None
    pop_required: bool = False
    renewed: x509.Certificate | None = None
    """The certificate that a simplereenroll renews."""
    new_names: NewNames | None = None
    """What a ChangeSubjectName attribute asks for, where that is allowed."""
    inner: InnerRules | None = None
    """What holds for the requests inside a Full PKI Request, which only the handler gets to see."""

    @property
    def subject(self) -> x509.Name | None:
        """The subject asked for: the new one when it changes, so that a policy on it can't be passed by changing."""
        if self.new_names is not None:
            return self.new_names.subject
        return self.csr.subject if self.csr else None

    @property
    def san(self) -> x509.SubjectAlternativeName | None:
        """The names asked for: the new ones when they change, else the CSR's."""
        if self.new_names is not None:
            return self.new_names.san
        return self.csr.san if self.csr else None

    @property
    def keygen(self) -> keygen.Wish | None:
        """How the client wants its new private key protected, where the server makes one; may raise `Malformed`."""
        return keygen.wish(self.csr) if self.csr and self.operation.body is Body.KEYGEN else None

    @property
    def csr_file(self) -> Path:
        """Where the CSR lies as PEM."""
        return self.tmp_dir / "csr.pem"

    @property
    def client_certificate_file(self) -> Path:
        """Where the client certificate lies as PEM."""
        return self.tmp_dir / "client.pem"

    @property
    def renewed_file(self) -> Path:
        """Where the certificate to be renewed lies as PEM."""
        return self.tmp_dir / "renew.pem"

    def files(self) -> Iterator[tuple[Path, bytes]]:
        """The files that the variables name, and what they hold."""
        if self.csr:
            yield self.csr_file, self.csr.pem
        if self.client.certificate:
            yield self.client_certificate_file, self.client.certificate.public_bytes(Encoding.PEM)
        if self.renewed:
            yield self.renewed_file, self.renewed.public_bytes(Encoding.PEM)

    @property
    def pending_id(self) -> str | None:
        """The same for every repeat of a request, a re-signed CSR on a new connection included.

        RFC 7030 4.2.3 has the client repeat its request after a 202, 3.5 makes the CSR differ each time: so
        the identity, the key and the names asked for are what stays.
        """
        if self.csr is None:
            return None
        certificate = self.client.certificate
        facts = (
            self.operation.name,
            self.label or "",
            certificate.fingerprint(SHA256()).hex() if certificate else "",
            self.client.user or "",
            self.csr.spki_sha256,
            repr([sorted(rdn) for rdn in names.name_key(self.csr.subject)]),
            repr([sorted(rdn) for rdn in names.name_key(self.new_names.subject)]) if self.new_names else "",
            repr(sorted(names.san_key(self.san))),
        )
        return hashlib.sha256("\0".join(facts).encode()).hexdigest()

    @property
    def shows_credentials(self) -> bool:
        """Whether this callout sees what the client claims: when asked for, and always in the draft profile."""
        return self.pass_credentials or self.profile is Profile.DRAFT
