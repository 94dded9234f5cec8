"""The correct half of the quirk server: who asks, for what, and the right answer, which a quirk then spoils."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from estgw.client.transport import challenge
from estgw.errors import BadRequest, Malformed
from estgw.est import certs, csr, encoding
from estgw.est.binding import BindingType
from estgw.est.csr import CHALLENGE_PASSWORD, CSR, EST_IDENTITY_LINKING
from estgw.est.operations import CERTS_ONLY, OPERATIONS, Target, check_media_type, check_method, profile_of
from estgw.quirks.material import USER, Material
from estgw.quirks.wire import Reply, Request, basic_credentials

BOUNDARY = "quirk"
_REALM = "estgw quirks"
_REMEMBERED = 2000
"""Keys whose requests are counted; the oldest go first."""


@dataclass(frozen=True)
class Login:
    """The credentials of a request."""

    scheme: str = ""
    """In lower case; empty if there are none."""
    is_right: bool = False


@dataclass(frozen=True)
class Asked:
    """A request for an EST operation of one quirk."""

    request: Request
    quirk: str
    client: str
    operation: str
    label: str
    """As it stands in the URL, with the client's name."""
    is_again: bool = False
    """Whether a redirect has led here."""
    login: Login = field(default_factory=Login)
    csr: CSR | None = None
    number: int = 0
    """How many requests for this key have come before."""

    @property
    def columns(self) -> int | None:
        """The line length of base64.  strongSwan up to 5.9.10 reads no line break, and libest wants some."""
        is_bare = "User-Agent" not in self.request.headers and "Accept" not in self.request.headers
        return None if is_bare else 64


class Desk:
    """Answers requests.  Its methods may be called in many threads."""

    def __init__(self, material: Material) -> None:
        self.material = material
        self.nonce = secrets.token_hex(16)
        self.ports: dict[str, int] = {}
        """The port to which the redirect of a quirk leads."""
        self._counts: OrderedDict[Hashable, int] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, asked: Asked) -> Asked:
        """Check a request's form and read its credentials and its CSR; raises `RequestError`."""
        request, row = asked.request, OPERATIONS[asked.operation]
        check_method(row, request.method)
        kind = request.headers.get("Content-Type")
        check_media_type(row, kind, profile_of(Target(row.name, None, draft_path=False), kind, "auto"))
        asked = replace(asked, login=self.login(request))
        if not row.has_csr:
            return asked
        if not asked.login.is_right and not request.body:
            return asked  # curl --anyauth asks with an empty body first
        try:
            parsed = csr.parse(request.body)
            if row.proves_key:
                csr.verify(parsed)
        except Malformed as fault:
            raise BadRequest(fault.sentence) from None
        return replace(asked, csr=parsed)

    def login(self, request: Request) -> Login:
        """Read the Authorization header: Basic (RFC 7617) or Digest (RFC 7616)."""
        headers = request.headers.get_all("Authorization", [])
        if not headers:
            return Login()
        scheme = headers[0].strip().partition(" ")[0].lower()[:20]
        if scheme == "digest":
            return Login(scheme, self._is_digest_right(headers[0], request.method))
        given = basic_credentials(headers[0])
        right = f"{USER}:{self.material.password}".encode()
        return Login(scheme, given is not None and hmac.compare_digest(":".join(given).encode(), right))

    def _is_digest_right(self, header: str, method: str) -> bool:
        """Check a Digest answer to `digest_challenge` (RFC 7616 3.4.1); the uri counts as the client gives it."""
        parts = next((one.parameters for one in challenge.parse([header[:4096]])), {})
        if {"username", "realm", "nonce", "uri", "response", "nc", "cnonce", "qop"} - parts.keys():
            return False
        hashed = hashlib.sha256 if parts.get("algorithm", "").upper() == "SHA-256" else _md5
        secret = hashed(f"{USER}:{_REALM}:{self.material.password}".encode()).hexdigest()
        what = hashed(f"{method}:{parts['uri']}".encode()).hexdigest()
        text = ":".join([secret, self.nonce, parts["nc"], parts["cnonce"], parts["qop"], what])
        same = hmac.compare_digest(hashed(text.encode()).hexdigest().encode(), parts["response"].lower().encode())
        return same and (parts["username"], parts["realm"], parts["nonce"]) == (USER, _REALM, self.nonce)

    def count(self, asked: Asked) -> Asked:
        """Number a request among those for the same key."""
        if asked.csr is None:
            return asked
        name = (asked.quirk, asked.client, asked.request.link.address, asked.csr.spki_sha256)
        with self._lock:
            number = self._counts.pop(name, 0)
            self._counts[name] = number + 1
            while len(self._counts) > _REMEMBERED:
                self._counts.popitem(last=False)
        return replace(asked, number=number)

    def answer(self, asked: Asked) -> Reply:
        """The right answer to a request that has logged in."""
        match asked.operation:
            case "cacerts":
                return bag(asked, [self.material.old.certificate], "application/pkcs7-mime")
            case "csrattrs":
                return Reply(204)
            case "simpleenroll" | "simplereenroll":
                return self.issued(asked)
            case "serverkeygen":
                key = ec.generate_private_key(ec.SECP256R1())
                return keygen(asked, key, self.certificate(asked, of_key=key.public_key()))
        return Reply(501, b"This server has no full CMC.\n", "text/plain; charset=utf-8")

    def certificate(self, asked: Asked, *, of_key: object = None, by_stranger: bool = False) -> x509.Certificate:
        """A certificate with the names of the CSR and, unless another is given, its key."""
        request = _required(asked)
        san = [(request.san, False)] if request.san is not None else []
        key = request.request.public_key() if of_key is None else of_key
        return self.material.issue(request.subject, key, by_stranger=by_stranger, san=san)  # type: ignore[arg-type]

    def issued(self, asked: Asked, certificate: x509.Certificate | None = None) -> Reply:
        """An answer with one certificate: the right one, or another."""
        made = certificate or self.certificate(asked)
        return replace(bag(asked, [made], CERTS_ONLY), certificate=made)

    def url(self, asked: Asked, *, aside: bool) -> str:
        """Where a redirect leads: another path at this port, or the quirk's other port."""
        if not aside:
            return f"/.well-known/est/{asked.label}/again/{asked.operation}"
        host = asked.request.headers.get("Host", "").strip()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        known = name.strip("[]").lower() in self.material.names
        name = name if known else self.material.names[0]
        return f"https://{name}:{self.ports[asked.quirk]}/.well-known/est/{asked.label}/{asked.operation}"


def basic_challenge() -> Reply:
    """A 401 for Basic."""
    return Reply(401, headers=(("WWW-Authenticate", f'Basic realm="{_REALM}"'),))


def digest_challenge(nonce: str, algorithm: str) -> Reply:
    """A 401 for Digest; `algorithm` is empty for MD5, whose name some clients do not read."""
    value = f'Digest realm="{_REALM}", nonce="{nonce}", qop="auth"' + (f", algorithm={algorithm}" if algorithm else "")
    return Reply(401, headers=(("WWW-Authenticate", value),))


def bag(asked: Asked, certificates: list[x509.Certificate], kind: str) -> Reply:
    """A certs-only PKCS#7, in exactly this order.  DER would sort it, and real servers do not."""
    der = certs.pack(certificates)
    members = [one.public_bytes(Encoding.DER) for one in certificates]
    ordered = der.replace(b"".join(sorted(members)), b"".join(members), 1)
    return Reply(200, encoding.encode_base64(ordered, columns=asked.columns), kind, is_base64=True)


def keygen(asked: Asked, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Reply:
    """A private key in the clear and a certificate (RFC 7030 4.4.2), whether they fit each other or not."""
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    parts = (("application/pkcs8", der), (CERTS_ONLY, certs.pack([certificate])))
    body = b""
    for kind, content in parts:
        head = f"--{BOUNDARY}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        body += head.encode() + encoding.encode_base64(content, columns=asked.columns).rstrip() + b"\r\n"
    kind = f"multipart/mixed; boundary={BOUNDARY}"
    return Reply(200, body + f"--{BOUNDARY}--\r\n".encode(), kind, certificate=certificate)


def link_of(asked: Asked) -> tuple[BindingType | None, bool]:
    """By which binding a CSR is linked to its connection, and whether it claims to be (RFC 7030 3.5, RFC 7894 3.3)."""
    if asked.csr is None:
        return None, False
    claims = []
    for oid in (CHALLENGE_PASSWORD, EST_IDENTITY_LINKING):
        try:
            text = asked.csr.text_attribute(oid)
        except Malformed:
            text = ""
        claims += [text] if text is not None else []
    fitting = [one.type for one in asked.request.link.bindings for claim in claims if one.matches(claim)]
    return (fitting[0] if fitting else None), bool(claims)


def _required(asked: Asked) -> CSR:
    if asked.csr is None:
        raise BadRequest("The request has no CSR.")
    return asked.csr


def _md5(data: bytes) -> hashlib._Hash:
    return hashlib.md5(data, usedforsecurity=False)
