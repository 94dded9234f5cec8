"""A small EST server that is correct, so that each fault that a test puts into it stands alone."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import secrets
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL

from estgw.cmc.controls import Control
from estgw.cmc.messages import PKI_RESPONSE, PKIResponse, pki_data
from estgw.cmc.requests import possession
from estgw.cmc.status import CMCFailInfo, CMCStatus, StatusInfo
from estgw.cms import signed
from estgw.cms.signed import Signer
from estgw.errors import Malformed
from estgw.est import certs, csr, encoding, keygen
from estgw.est.csr import CHALLENGE_PASSWORD
from tests.client import rogue
from tests.client.rogue import CERTS_ONLY, Request, bag, reply
from tests.kit.ca import CA
from tests.kit.connection import basic

LOGIN = "estuser:estpwd"
LABEL = "lab"
ENVELOPE = "application/pkcs7-mime; smime-type=server-generated-key"
CMC_RESPONSE = "application/pkcs7-mime; smime-type=CMC-response"
_PATH = re.compile(rf"/\.well-known/est(/{LABEL})?/(\w+)")
_METHODS = {"cacerts": "GET", "csrattrs": "GET"}
_MOST = 262_144

Answer = bytes | None


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, words: str = "", **headers: str) -> None:
        super().__init__(words)
        self.reply = reply(status, words.encode(), "text/plain" if words else None, **headers)


@dataclass
class Good:
    """The answers; its fields are what faults and configurations change."""

    ca: CA
    issuer: CA | None = None
    """Issues in place of the CA."""
    attributes: bytes = b""
    """What /csrattrs has, DER; empty for a 204."""
    must_link: bool = False
    digest: tuple[str, ...] = ()
    nonces: set[str] = field(default_factory=set)
    is_down: bool = False
    is_lax: bool = False
    """Takes requests whose head is no HTTP."""
    fault: Callable[[Good, Request], Answer | ellipsis] | None = None  # noqa: F821
    """Answers in place of this server, or returns ... to leave the request to it."""

    def __call__(self, request: Request) -> Any:
        if self.is_down:
            return None
        try:
            given = ... if self.fault is None else self.fault(self, request)
            return self.answer(request) if given is ... else given
        except Refused as refused:
            return refused.reply
        except Malformed as fault:
            return reply(400, str(fault).encode(), "text/plain")

    def answer(self, request: Request) -> Any:
        match = _PATH.fullmatch(request.target)
        operation = match[2] if match else ""
        if operation not in (*_METHODS, "simpleenroll", "simplereenroll", "serverkeygen", "fullcmc"):
            raise Refused(404, "no such operation")
        method = _METHODS.get(operation, "POST")
        if request.method != method:
            raise Refused(405, "wrong method", Allow=method)
        if len(request.body) > _MOST:
            raise Refused(413, "too long")
        return getattr(self, operation)(request)

    def cacerts(self, _: Request) -> Any:
        return reply(body=bag(self.ca.certificate), **ENCODED)

    def csrattrs(self, _: Request) -> Any:
        if not self.attributes:
            return reply(204, content_type=None)
        return reply(body=base64.encodebytes(self.attributes), content_type="application/csrattrs", **ENCODED)

    def simpleenroll(self, request: Request) -> Any:
        self.log_in(request)
        return self.issue(self.checked(request))

    def simplereenroll(self, request: Request) -> Any:
        asked = self.checked(request)
        old = self.known(request)
        if old is None:
            raise Refused(403, "a certificate of this CA is needed")
        if csr.CHANGE_SUBJECT_NAME in asked.attributes:
            raise Refused(400, "names are not changed here")
        if difference := csr.difference(asked, old):
            raise Refused(400, difference)
        return self.issue(asked)

    def serverkeygen(self, request: Request) -> Any:
        self.log_in(request)
        asked = csr.parse(request.body)
        self.require_binding(asked, request)
        if keygen.wish(asked).protection is not keygen.Protection.NONE:
            raise Refused(400, "the key to encrypt with is not known here")
        return self.made(asked)

    def fullcmc(self, request: Request) -> Any:
        self.log_in(request)
        message = signed.parse(request.der)
        data: Any = pki_data(message)
        asked = data.requests[0].csr
        try:
            possession(data.requests[0])
            signed.verify(message, message.signers[0], asked.request.public_key())
        except Malformed as fault:
            return self.respond(data, [], 400, StatusInfo.failed(CMCFailInfo.BAD_MESSAGE_CHECK, text=str(fault)))
        return self.respond(data, [self.certificate(asked)])

    # Parts that faults leave out or change.

    def log_in(self, request: Request) -> None:
        if self.known(request) is None and not self.is_password(request):
            raise self.unauthorized()

    def unauthorized(self) -> Refused:
        if not self.digest:
            return Refused(401, WWW_Authenticate='Basic realm="estrealm"')
        nonce = secrets.token_hex(8)
        self.nonces.add(nonce)
        fields = "".join(f"WWW-Authenticate: {challenge(nonce, each)}\r\n" for each in self.digest)
        refused = Refused(401)
        refused.reply = refused.reply.replace(b"\r\n\r\n", f"\r\n{fields}\r\n".encode(), 1)
        return refused

    def known(self, request: Request) -> Any:
        """The client's certificate if this CA has issued it."""
        try:
            if request.peer is not None:
                request.peer.verify_directly_issued_by((self.issuer or self.ca).certificate)
        except (ValueError, TypeError, InvalidSignature):
            return None
        return request.peer

    def is_password(self, request: Request, target: str = "") -> Any:
        header = request.headers.get("Authorization", "")
        if not self.digest:
            return header == basic(LOGIN)
        parts = dict(re.findall(r'(\w+)="?([^",]*)"?', header.removeprefix("Digest ")))
        if parts.get("nonce") not in self.nonces or parts.get("uri") != (target or request.target):
            return False
        self.nonces.discard(parts["nonce"])
        return parts["response"] == digest_response(parts, request.method)

    def checked(self, request: Request) -> csr.CSR:
        if request.headers.get("Content-Type") != "application/pkcs10":
            raise Refused(415, "application/pkcs10 is wanted")
        asked = csr.parse(encoding.encode_base64(encoding.decode_base64(request.body)))
        csr.verify(asked)
        self.require_binding(asked, request)
        return asked

    def require_binding(self, asked: csr.CSR, request: Request) -> None:
        text = asked.text_attribute(CHALLENGE_PASSWORD)
        if text is None and self.must_link:
            raise Refused(400, "the CSR must be linked to its connection")
        if text is not None and text != request.binding:
            raise Refused(400, "the CSR is linked to another connection")

    def certificate(self, asked: csr.CSR) -> Any:
        return (self.issuer or self.ca).certify(asked.der)

    def issue(self, asked: csr.CSR, *others: x509.Certificate) -> Any:
        return reply(body=bag(self.certificate(asked), *others), content_type=CERTS_ONLY, **ENCODED)

    def made(self, asked: csr.CSR, change: Callable[[bytes, bytes], bytes] | None = None) -> Any:
        """An answer of serverkeygen; `change` makes the body of key (PKCS#8) and bag (certs-only), both DER."""
        key = ec.generate_private_key(ec.SECP256R1())
        issued = self.ca.sign(asked.subject, key.public_key(), [])
        pkcs8 = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        body = (change or multipart)(pkcs8, certs.pack([issued]))
        return reply(body=body, content_type="multipart/mixed; boundary=b")

    def respond(self, data: Any, issued: list[x509.Certificate], status: int = 200, *infos: Any, **echo: Any) -> Any:
        """A Full PKI Response; `echo` changes what comes back of the request."""
        told = infos or [StatusInfo(CMCStatus.SUCCESS, (1,))]
        kind = echo.pop("kind", "statusInfoV2")
        pairs = [(kind, each) for each in told]
        pairs += (
            {"transactionId": data.value("transactionId"), "recipientNonce": data.value("senderNonce")} | echo
        ).items()
        content = PKIResponse(tuple(Control.make(at, *pair) for at, pair in enumerate(pairs, 1))).encode()
        signer = Signer.of(self.ca.key, self.ca.certificate)
        der = signed.sign(PKI_RESPONSE, content, [signer], certificates=[self.ca.certificate, *issued])
        return reply(status, base64.encodebytes(der), CMC_RESPONSE, **ENCODED)


ENCODED: dict[str, Any] = {"Content_Transfer_Encoding": "base64"}


def part(content_type: str, der: bytes) -> bytes:
    head = f"--b\r\nContent-Type: {content_type}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return head.encode() + base64.encodebytes(der).replace(b"\n", b"\r\n")


def multipart(key: bytes, issued: bytes, *, key_type: str = "application/pkcs8") -> bytes:
    return part(key_type, key) + part(CERTS_ONLY, issued) + b"--b--\r\n"


def challenge(nonce: str, algorithm: str = "MD5") -> str:
    return f'Digest realm="estrealm", nonce="{nonce}", qop="auth", algorithm={algorithm}'


def digest_response(parts: dict[str, str], method: str) -> str:
    hashed = hashlib.sha256 if parts.get("algorithm") == "SHA-256" else hashlib.md5

    def h(text: str) -> str:
        return hashed(text.encode()).hexdigest()

    user, _, password = LOGIN.partition(":")
    first, second = h(f"{user}:{parts['realm']}:{password}"), h(f"{method}:{parts['uri']}")
    return h(":".join([first, parts["nonce"], parts["nc"], parts["cnonce"], "auth", second]))


@dataclass
class EST(rogue.Server):
    """The transport, which faults of TLS and framing change."""

    answer: Any
    greet: Callable[[bytes], bytes | None] = lambda _: None
    """Sees the first bytes of a connection and answers in place of TLS, or returns None."""
    asks_client: bool = True
    one_at_a_time: bool = False
    dies_of_half: bool = False
    """Half a body takes it down."""

    def __post_init__(self) -> None:
        self._turn = threading.Lock()

    def _context(self) -> Any:
        context = super()._context()
        context.set_options(SSL.OP_NO_RENEGOTIATION)
        if not self.asks_client:
            context.set_verify(SSL.VERIFY_NONE)
        return context

    def _serve(self, raw: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, SSL.Error):
            first = raw.recv(4096, socket.MSG_PEEK)
            if (given := self.greet(first)) is not None:
                raw.sendall(given)
                raw.close()
                return
        with self._turn if self.one_at_a_time else contextlib.nullcontext():
            super()._serve(raw, number)

    def _talk(self, connection: SSL.Connection, number: int) -> None:
        binding, finished = rogue.bindings(connection)
        peer = connection.get_peer_certificate(as_cryptography=True)
        buffered = b""
        while True:
            while b"\r\n\r\n" not in buffered:
                buffered += connection.recv(65536)
            head, _, buffered = buffered.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ")
            pairs = [line.partition(":")[::2] for line in lines]
            headers = {name: value.strip() for name, value in pairs}
            twice = len({name for name, _ in pairs}) < len(pairs)
            if (twice or "\0" in head.decode("latin-1")) and not self.answer.is_lax:
                connection.sendall(reply(400, b"no HTTP", "text/plain", Connection="close"))
                return
            length = 4 if twice else int(headers.get("Content-Length", 0))
            try:
                while len(buffered) < length:
                    buffered += connection.recv(65536)
            except SSL.Error:
                self.answer.is_down = self.dies_of_half
                raise
            body, buffered = buffered[:length], buffered[length:]
            request = Request(method, target, headers, body, binding, finished, number, peer)
            if not self._give(connection, request):
                return


def server_hello(version: int, suite: int) -> bytes:
    """A ServerHello in a record, without extensions."""
    body = struct.pack(">H", version) + bytes(32) + b"\0" + struct.pack(">H", suite) + b"\0"
    message = b"\x02" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x03" + struct.pack(">H", len(message)) + message
