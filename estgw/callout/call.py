"""The facts of one request that one callout may see, grouped by their source.

`gateway/request.py` puts a `Call` together; `contract.ENV_VARS` has a row for each fact that a script sees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.auth.identity import Client
from estgw.auth.pop import POP
from estgw.callout.verdicts import Kind
from estgw.config.route import Linking, Route
from estgw.est import keygen, names, operations
from estgw.est.binding import Binding
from estgw.est.bounds import NameBounds
from estgw.est.csr import CSR, NewNames
from estgw.est.operations import Body, Profile

if TYPE_CHECKING:  # loads asyncio, which a script does without
    from estgw.callout.observer import Observer


@dataclass(frozen=True)
class ExchangeFacts:
    """One request being served."""

    request_id: str
    tmp_dir: Path
    """The private directory that the scripts of this request share (EST_TMPDIR)."""
    observer: Observer | None = field(default=None, repr=False, compare=False)
    """Takes note of the callouts; None: nobody records this request."""
    is_replay: bool = False
    """Whether nothing is issued: scripts work on a copy of the CA (EST_REPLAY)."""


@dataclass(frozen=True)
class HTTPFacts:
    """The facts of one HTTP request."""

    method: str
    target: str
    """The request target of the request line, byte for byte."""
    raw_path: str
    """Its path, percent-encoding as received."""
    query: str = ""
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    """All header lines in order, credentials included."""
    body: bytes = b""
    server_name: str = "localhost"
    server_port: int = 0

    @property
    def path(self) -> str:
        """The path, percent-decoded."""
        return operations.decode_path(self.raw_path)

    def values(self, name: str) -> list[str]:
        """The values of every header line with this name, in any case."""
        wanted = name.lower()
        return [value for given, value in self.headers if given.lower() == wanted]

    def header(self, name: str) -> str | None:
        """The value of the first header line with this name, in any case; None if there is none."""
        wanted = name.lower()
        return next((value for given, value in self.headers if given.lower() == wanted), None)


@dataclass(frozen=True)
class ChannelFacts:
    """The channel binding of the TLS connection, and the rule about it."""

    binding: Binding | None = None
    """The binding that a CSR on this connection may carry."""
    pop_required: bool = False
    """Whether clients of this label must link POP, so that csrattrs says so (RFC 7030 4.5.2)."""


@dataclass(frozen=True)
class CSRFacts:
    """A PKCS#10 request and the facts found about it."""

    pkcs10: CSR
    renewed: x509.Certificate | None = None
    """The certificate that a simplereenroll renews."""
    new_names: NewNames | None = None
    """What a ChangeSubjectName attribute asks for, where that is allowed."""
    pop: POP | None = None
    """How it is linked to the connection; None until `link` has run."""

    @property
    def subject(self) -> x509.Name:
        """The subject asked for: with ChangeSubjectName the new one, so that policies apply to it."""
        return (self.new_names or self.pkcs10).subject

    @property
    def san(self) -> x509.SubjectAlternativeName | None:
        """The names asked for: with ChangeSubjectName the new ones."""
        return (self.new_names or self.pkcs10).san


@dataclass(frozen=True)
class InnerRules:
    """What the configuration says about requests that come inside another message (RFC 5272 3.2.1.2)."""

    linking: Linking
    authorize: Path | None
    csr_template: Path | None
    change_subject_name: bool
    name_bounds: NameBounds


@dataclass(frozen=True)
class Enclosure:
    """The Full PKI Request that a request came in (RFC 5272)."""

    part: int
    """The body part id of the request in it."""
    methods: str
    """How the sender is authenticated: as `Client.methods`, and `cmc` where the message itself proves it."""
    identification: str | None = None
    """Whose shared secret the identity proof rests on, if it rests on one."""
    has_signer: bool = False
    """Whether the client's certificate is the signer's, and not that of the TLS connection."""


@dataclass(frozen=True)
class Call:
    """All facts that one callout of one request may see."""

    exchange: ExchangeFacts
    route: Route
    profile: Profile
    client: Client
    http: HTTPFacts
    channel: ChannelFacts
    csr: CSRFacts | None = None
    inner: InnerRules | None = None
    """The rules for the requests inside a Full PKI Request."""
    enclosure: Enclosure | None = None
    """For a request inside a Full PKI Request: the message around it."""
    kind: Kind = Kind.HANDLER
    """Which script of the route is run: the operation's handler, or a decision about it."""

    @property
    def script(self) -> Path:
        """The script that is run; a decision is asked for only where the route has a script for it."""
        found = {
            Kind.HANDLER: self.route.handler,
            Kind.AUTHORIZE: self.route.authorize,
            Kind.AUTHENTICATE: self.route.authenticate,
        }[self.kind]
        assert found is not None
        return found

    @property
    def timeout(self) -> float:
        """Seconds that the script may take."""
        return self.route.timeout if self.kind is Kind.HANDLER else self.route.decision_timeout

    @property
    def auth_methods(self) -> str:
        """How the client is authenticated: `tls`, `http`, `cmc`, several with a plus, or empty."""
        return self.enclosure.methods if self.enclosure else self.client.methods

    @property
    def keygen(self) -> keygen.Wish | None:
        """How the client wants its new private key protected, where the server makes one; may raise `Malformed`."""
        return keygen.wish(self.csr.pkcs10) if self.csr and self.route.operation.body is Body.KEYGEN else None

    @property
    def csr_file(self) -> Path:
        """Where the CSR lies as PEM."""
        return self.exchange.tmp_dir / "csr.pem"

    @property
    def client_certificate_file(self) -> Path:
        """Where the client certificate lies as PEM; a message's signer does not overwrite the TLS client's."""
        is_signer = self.enclosure is not None and self.enclosure.has_signer
        return self.exchange.tmp_dir / ("signer.pem" if is_signer else "client.pem")

    @property
    def renewed_file(self) -> Path:
        """Where the certificate to be renewed lies as PEM."""
        return self.exchange.tmp_dir / "renew.pem"

    def files(self) -> Iterator[tuple[Path, bytes]]:
        """The files that variables name, with their contents."""
        if self.csr:
            yield self.csr_file, self.csr.pkcs10.pem
        if self.client.certificate:
            yield self.client_certificate_file, self.client.certificate.public_bytes(Encoding.PEM)
        if self.csr and self.csr.renewed:
            yield self.renewed_file, self.csr.renewed.public_bytes(Encoding.PEM)

    @property
    def pending_id(self) -> str | None:
        """The same for every repeat of a request, a re-signed CSR on a new connection included.

        RFC 7030 4.2.3 has the client repeat its request after a 202, 3.5 makes the CSR differ each time.  The
        identity, the key and the names asked for stay.
        """
        if self.csr is None:
            return None
        csr, certificate = self.csr.pkcs10, self.client.certificate
        identification = self.enclosure.identification if self.enclosure else None
        changed = self.csr.new_names
        facts = (
            self.route.operation.name,
            self.route.label or "",
            certificate.fingerprint(SHA256()).hex() if certificate else "",
            identification or self.client.user or "",
            csr.spki_sha256,
            repr([sorted(rdn) for rdn in names.name_key(csr.subject)]),
            repr([sorted(rdn) for rdn in names.name_key(changed.subject)]) if changed else "",
            repr(sorted(names.san_key(self.csr.san))),
        )
        return hashlib.sha256("\0".join(facts).encode()).hexdigest()

    @property
    def shows_credentials(self) -> bool:
        """Whether this callout sees the client's credentials: if configured, and always in the draft profile."""
        asked = self.kind is Kind.AUTHENTICATE or self.route.pass_credentials
        return asked or self.profile is Profile.DRAFT
