"""All input of the client, as functions over bytes, which must return for any bytes.

Wrong answers raise the client's own exceptions, which the functions catch. Any other exception is a fault of the
client, since it would end in a traceback.
"""

from __future__ import annotations

import argparse
import atexit
import base64
import contextlib
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL

from estgw.client import Trust, bag, cmc, cms, crls, files, fullcmc, keygen, keys, request
from estgw.client.commands import certificate_output, connecting, describe_csrattrs, options, trace
from estgw.client.commands.cli import PROGRAM
from estgw.client.commands.option_rows import duration
from estgw.client.commands.report import Report
from estgw.client.faults import ClientError
from estgw.client.sealing import Secret
from estgw.client.transport import answers, pki_response, tls, trust, url
from estgw.client.transport.challenge import Authorizer, Credentials
from estgw.client.transport.session import Session
from estgw.client.transport.stream import Stream
from estgw.client.transport.tls import Connected
from estgw.client.transport.trust import Anchor, Verdict
from estgw.client.transport.wire import Answer, Link
from estgw.cmc.controls import Control
from estgw.cmc.messages import PKI_RESPONSE, PKIResponse
from estgw.cmc.status import PendInfo, StatusInfo
from estgw.cms import enveloped, signed
from estgw.errors import Malformed
from estgw.est import certs, csrattrs, encoding, names
from estgw.est.binding import Binding, BindingType
from estgw.est.csr import parse as parse_csr
from estgw.est.der import SEQUENCE, elements, whole, wrap
from estgw.est.operations import OPERATIONS
from tests.client import cmcca, rogue
from tests.kit.ca import DAY, SERVER_AUTH, root
from tests.kit.processes import ROOT

Target = Callable[[bytes], None]
VECTORS = ROOT / "tests" / "vectors"
NOW = datetime(2026, 11, 29, tzinfo=UTC)


def vector(name: str) -> bytes:
    return base64.b64decode((VECTORS / name).read_bytes())


def _key(number: int) -> ec.EllipticCurvePrivateKey:
    """Use fixed keys, so that an input is the same finding in another process."""
    return ec.derive_private_key(number, ec.SECP256R1())


LONG: dict[str, Any] = {"starts": NOW - 9000 * DAY, "ends": NOW + 9000 * DAY}
CA = root("Fuzzed CA", key=_key(7), serial=7, **LONG)
HOLDER = CA.server(key=_key(8), names=("localhost", "*.example"), eku=(certs.CMC_RA, SERVER_AUTH), **LONG)
KEY = _key(9)
TRUSTED = Trust(explicit=(CA.certificate,))
PLACE = url.parse("https://localhost:8443")
BINDING = Binding(BindingType.TLS_EXPORTER, bytes(32))
WANTED = request.Wanted(x509.Name.from_rfc4514_string("CN=x"), (x509.DNSName("a.example"),))
CSR = request.build(request.plan(WANTED, None), KEY, BINDING)
ISSUED = CA.certify(CSR)
BAG = vector("rfc7030-a1-cacerts-response.b64")
CRL = cmcca.Desk(CA).crl()
ROOM = Path(tempfile.mkdtemp(prefix="estgw-fuzz-"))
atexit.register(shutil.rmtree, ROOM, ignore_errors=True)
FILE = ROOM / "file"


@contextlib.contextmanager
def expected() -> Iterator[None]:
    """Allow the exceptions that `estclient` turns into a sentence and an exit status, and hide warnings that it does
    not show.
    """
    with certs.without_warnings(), contextlib.suppress(ClientError):
        try:
            yield
        except Malformed as fault:
            raise AssertionError("a Malformed that is no ClientError ends in a traceback") from fault


def headers(**values: str) -> Message:
    made = Message()
    for name, value in values.items():
        made[name.replace("_", "-")] = value
    return made


# A connection whose peer has already sent everything.


class Wire:
    """Replaces a socket and pyOpenSSL's connection on it."""

    def __init__(self, data: bytes) -> None:
        self._left = data

    def send(self, data: bytes) -> int:
        return len(data)

    def recv(self, size: int) -> bytes:
        found, self._left = self._left[:size], self._left[size:]
        if not found:
            raise SSL.ZeroReturnError
        return found

    def shutdown(self) -> None:
        pass

    def close(self) -> None:
        pass


def link(data: bytes) -> Link:
    end: Any = Wire(data)
    verdict = Verdict(HOLDER.certificate, Anchor.EXPLICIT, "name")
    return Link(Connected(Stream(end, end), PLACE, verdict, BINDING, "TLSv1.3", "none"))


class _Session(Session):
    """A session whose connections give the answers of a list, one after the other."""

    said: list[bytes]

    def _link_to(self, place: url.Place) -> Link:
        self.close()
        if not self.said:
            raise ClientError("the server is gone")
        self._link = link(self.said.pop(0))
        return self._link


NEXT = b"\n--- next connection ---\n"


def session(data: bytes) -> None:
    """Whole operations against a server that gives these answers: heads, redirects, challenges, bodies."""
    said: list[str] = []
    with _Session(PLACE, TRUSTED, credentials=Credentials("u", "p"), observer=trace.tracer(said.append)) as made:
        for run in (
            made.csrattrs,
            made.cacerts,
            lambda: made.enroll(CSR),
            lambda: keygen.read(made.serverkeygen(CSR), SECRET),
            lambda: fullcmc.Transaction(made, fullcmc.Author.nobody()).crl(CA.certificate.subject),
        ):
            made.said = data.split(NEXT)[:16]
            with expected():
                run()


def http_answer(data: bytes) -> None:
    """Status line, headers, framing and body of one answer, and the client's reaction to its status."""
    with expected():
        answer = link(data).exchange("GET", "/.well-known/est/cacerts", {}, None, 5.0)
        assert isinstance(answer.words, str)
        for operation in OPERATIONS.values():
            with expected():
                answers.require_ok(answer, operation, NOW)


def retry_after(data: bytes) -> None:
    with expected():
        seconds = answers.delay(data.decode("latin-1"), NOW)
        assert seconds is None or 1 <= seconds <= answers.MAXIMUM_DELAY


def www_authenticate(data: bytes) -> None:
    """The challenges of a 401, and the answer to the best of them, which must be valid in a header."""
    lines = data.decode("latin-1").split("\n")
    authorizer = Authorizer(Credentials("us\u20acr", 'pass"\\word'))
    if authorizer.learn(lines):
        value = authorizer.header("POST", "/.well-known/est/simpleenroll")
        assert value is not None
        value.encode("latin-1")
        assert not set("\r\n\0") & set(value)


def location(data: bytes) -> None:
    """The target of a redirect, and a request to it."""
    with expected():
        place, path = url.resolve(data.decode("latin-1"), PLACE, "/.well-known/est/cacerts")
        assert place.authority
        link(rogue.reply(204)).exchange("GET", path, {}, None, 5.0)
        place.host.encode()


def server_url(data: bytes) -> None:
    """The server as the user names it, with a label."""
    text, _, label = data.decode("utf-8", "replace").partition("\n")
    with expected():
        place = url.parse(text, label or None)
        for operation in OPERATIONS:
            link(rogue.reply(204)).exchange("GET", place.path(operation), {}, None, 5.0)


def certificate_bag(data: bytes) -> None:
    """The certificates of /cacerts and of an enrolment, judged and printed."""
    with expected():
        found = answers.bag_of(data)
        entries = bag.examine(found, TRUSTED.explicit, (), NOW)
        assert len(entries) <= len(found)
        with contextlib.suppress(ClientError):
            bag.examine(found, found[:1])
        for each in found:
            certificate_output.facts(each)
            certificate_output.line(each)
            with contextlib.suppress(Malformed):
                certs.spki(each)
        certificate_output.render(found, "p7")
        bag.roots_of(found)


SECRET = Secret(b"id", key=bytes(16))


def server_key(data: bytes) -> None:
    """A serverkeygen answer: the value of its Content-Type, a line feed, its body."""
    kind, _, body = data.partition(b"\n")
    head = headers(Content_Type=" ".join(kind.decode("latin-1").split()))
    for secret in (Secret(), SECRET):
        with expected():
            keygen.read(Answer(200, "OK", head, body), secret)


def encrypted_key(data: bytes) -> None:
    """An EnvelopedData with a private key, for a shared key and for an EC key."""
    with expected():
        cms.is_enveloped(data)
        content = cms.open_with_secret(data, bytes(16), b"id")
        cms.private_key_info(content)
    with expected():
        cms.private_key_info(data)
    with expected(), contextlib.suppress(Malformed):
        enveloped.decrypt(data, KEY)


def csr_attributes(data: bytes) -> None:
    """The wishes of a server, in words, and a CSR that follows them."""
    with expected():
        try:
            attrs = csrattrs.decode_csrattrs(encoding.decode(data, ()))
        except Malformed:
            return
        with contextlib.suppress(Malformed):
            describe_csrattrs.render(attrs, describe_csrattrs.describe(attrs), "pem")
        plan = request.plan(WANTED, attrs)
        request.build(plan, KEY, BINDING)
        request.plan(request.fixed_to(HOLDER.certificate), attrs)


def cmc_answer(data: bytes) -> None:
    """A CMC message from the server, trusted or not."""
    answer = Answer(200, "OK", headers(Content_Type="application/pkcs7-mime; smime-type=CMC-response"), data)
    with expected():
        pki_response.words(data)
        found = fullcmc.read(answer)
        with contextlib.suppress(ClientError):
            cmc.authenticate(found, TRUSTED, "localhost")
        with contextlib.suppress(ClientError):
            cmc.check_echo(found, 7, b"nonce")
        with contextlib.suppress(ClientError):
            fullcmc.judge(found, answer)
        with contextlib.suppress(ClientError):
            cmc.certificate_for(found, certs.spki(CA.certificate))
        fullcmc._challenge(found)


def cmc_request(data: bytes) -> None:
    """A CMC message from the user."""
    with expected(), contextlib.suppress(Malformed):
        cmc.has_secret(data)
        cmc.marks_of(data)
        cmc.request(data)


def crl(data: bytes) -> None:
    message = signed.SignedData(signed.DATA, None, crls=(data,))
    with expected():
        found = crls.newest(message, CA.certificate.subject, TRUSTED, NOW)
        crls.line(found)
        crls.facts(found)


# The certificate in the handshake.


class _Handshake:
    """Two TLS endpoints in memory, in place of a `Stream`."""

    def __init__(self, client: SSL.Connection, context: ssl.SSLContext) -> None:
        self._client = client
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._server = context.wrap_bio(self._in, self._out, server_side=True)

    def handshake(self) -> None:
        for _ in range(20):
            with contextlib.suppress(SSL.WantReadError):
                self._client.do_handshake()
                return
            with contextlib.suppress(SSL.WantReadError):
                self._in.write(self._client.bio_read(65536))
            with contextlib.suppress(ssl.SSLError):
                self._server.do_handshake()
            self._client.bio_write(self._out.read())
        raise TimeoutError


ALGORITHM = whole(elements(HOLDER.certificate.public_bytes(Encoding.DER), "a certificate")[1])


def server_certificate(data: bytes) -> None:
    """A server's certificate: any TBSCertificate, signed by the CA."""
    signature = CA.key.sign(data, ec.ECDSA(hashes.SHA256()))
    der = wrap(SEQUENCE, data + ALGORITHM + wrap(b"\x03", b"\0" + signature))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(_stored(HOLDER.key_pem + encoding.encode_pem(der, "CERTIFICATE")))
    except ssl.SSLError:
        return  # OpenSSL itself would not send it
    for trusted in (TRUSTED, Trust(bootstrap=True)):
        with expected():
            problems: list[str] = []
            client = SSL.Connection(tls._context(trusted, None, None, PLACE, problems), None)
            client.set_connect_state()
            tls._shake(_Handshake(client, context), PLACE, problems)  # type: ignore[arg-type]
            tls._verdict(client, trusted, PLACE)


# Files and options of the user.


def _stored(data: bytes) -> Path:
    FILE.write_bytes(data)
    return FILE


def certificate_file(data: bytes) -> None:
    """A file of --cacert, --cert, --target, --issuer or --decrypt-cert."""
    path = _stored(data)
    with expected():
        found = files.certificates(path)
        for each in found:
            certificate_output.line(each)
            certificate_output.facts(each)
        with expected():
            request.plan(request.fixed_to(found[0]), None)
        with expected():
            tls._context(options.trust([path], implicit=False), None, None, PLACE, [])
        with expected():
            trust.path_fault(HOLDER.certificate, found, ())
        with expected():
            options.sealing_secret(_arguments(decrypt_cert=path, decrypt_cert_key=path))
    with expected():
        identity = options.identity(path, None)
        if identity is not None:
            tls._present(SSL.Context(SSL.TLS_CLIENT_METHOD), identity)


def key_file(data: bytes) -> None:
    """A private key of --key or --reuse-key, and a key that --decrypt-key shares with the server."""
    path = _stored(data)
    with expected():
        key = options.private_key(path)
        keys.spec_of(key)
        request.build(request.plan(WANTED, None), key, BINDING)
    with expected():
        options.sealing_secret(_arguments(decrypt_key=path, decrypt_key_id=data[:40].decode("latin-1")))


def secret_file(data: bytes) -> None:
    """A password or a secret, and a request in a file."""
    path = _stored(data)
    with expected():
        options.secret(path, "")
    with expected():
        options.credentials("user", path)
    with expected():
        options.credentials(data.decode("utf-8", "replace") + ":p", None)
    with expected(), contextlib.suppress(Malformed):
        parse_csr(options.request(path))


def _arguments(**given: Any) -> argparse.Namespace:
    names_ = ("decrypt_key", "decrypt_key_id", "decrypt_cert", "decrypt_cert_key", "subject")
    lists: dict[str, list[str]] = {"dns": [], "ip": [], "email": [], "uri": []}
    return argparse.Namespace(**{**dict.fromkeys(names_), **lists, **given})


def wanted_names(data: bytes) -> None:
    """Options that hold names and numbers, one a line: a subject, then names of every kind."""
    subject, *rest = data.decode("utf-8", "replace").split("\n")
    for kind in ("dns", "ip", "email", "uri"):
        with expected():
            wanted = options.wanted(_arguments(subject=subject, **{kind: rest[:4]}))
            request.build(request.plan(wanted, None), KEY, BINDING)
            names.dn_text(wanted.subject)
    for text in (subject, *rest[:4]):
        with expected():
            keys.parse_spec(text)
        with contextlib.suppress(argparse.ArgumentTypeError):
            duration(text)


def command_line(data: bytes) -> None:
    """A command line, one word a line, up to the session."""
    words = [word for word in data[:2000].decode("utf-8", "replace").split("\n") if word]
    quiet = contextlib.redirect_stderr(None), contextlib.redirect_stdout(None)
    with quiet[0], quiet[1], contextlib.suppress(SystemExit), expected():
        _, arguments = PROGRAM.parse(words)
        connecting.open_session(
            arguments, Report(arguments.command, as_json=True, is_verbose=False), may_bootstrap=True
        )


# Samples.


def _response(*pairs: tuple[str, Any]) -> bytes:
    controls = tuple(Control.make(at, *pair) for at, pair in enumerate(pairs, 1))
    content = PKIResponse(controls).encode()
    who = [signed.Signer.of(CA.key, CA.certificate)]
    return signed.sign(PKI_RESPONSE, content, who, certificates=[CA.certificate, ISSUED], crls=[CRL])


def _pem(key: Any) -> bytes:
    made: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made


def _der(key: Any) -> bytes:
    made: bytes = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return made


MARKS = (("transactionId", 7), ("recipientNonce", b"nonce"), ("senderNonce", b"theirs"))
RESPONSES = [
    _response(("statusInfoV2", StatusInfo(0, (1,))), *MARKS),
    _response(("statusInfoV2", StatusInfo(2, (1,), "no", failure=2)), *MARKS),
    _response(("statusInfoV2", StatusInfo(3, (1,), pending=PendInfo(b"token", NOW))), *MARKS),
]
MULTIPART = (VECTORS / "rfc7030-a4-serverkeygen-response.multipart").read_bytes()
MULTIPART_TYPE = b"multipart/mixed; boundary=estServerExampleBoundary"
TEMPLATE = vector("derived-rfc9908-template.b64")
CSRATTRS = vector("rfc7030-a2-csrattrs-response.b64")
CHALLENGES = [
    b'Basic realm="estrealm"',
    b'Digest qop="auth", realm="estrealm", nonce="1795974560"',
    b'Digest realm="a", nonce="b", algorithm=SHA-256, qop="auth,auth-int", opaque="c", stale=true\nBasic realm="a"',
    b"Negotiate YWJj==, Bearer",
]
DATES = [b"120", b"Mon, 23 Nov 2026 12:00:30 GMT", b"Monday, 23-Nov-26 12:00:30 GMT", b"Mon Nov 23 12:00:30 2026"]
LATER = rogue.reply(202, b"later", "text/plain", Retry_After="Mon, 23 Nov 2026 12:00:30 GMT")
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/pkcs7-mime\r\nTransfer-Encoding: chunked\r\n\r\n"
SENT = rogue.reply(body=base64.encodebytes(BAG))
UNASKED = rogue.reply(401, content_type=None, WWW_Authenticate=CHALLENGES[1].decode())
ELSEWHERE = rogue.reply(302, content_type=None, Location="/.well-known/est/label/simpleenroll")
TBS = HOLDER.certificate.tbs_certificate_bytes
VERSION_3, VERSION_4 = bytes.fromhex("a003020102"), bytes.fromhex("a003020103")
KEYS = [KEY, rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()]
SHORT = wrap(SEQUENCE, bytes.fromhex("020100300506032b65700421041f") + bytes(31))
PASSPHRASED = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))

TARGETS: dict[str, tuple[Target, list[bytes]]] = {
    "client-session": (
        session,
        [
            NEXT.join([UNASKED, SENT]),
            NEXT.join([ELSEWHERE, LATER]),
            rogue.reply(body=rogue.bag(ISSUED), content_type=rogue.CERTS_ONLY),
            rogue.reply(body=base64.b64encode(TEMPLATE), content_type="application/csrattrs"),
            rogue.reply(body=MULTIPART, content_type=MULTIPART_TYPE.decode()),
            rogue.reply(body=base64.b64encode(RESPONSES[0]), content_type="application/pkcs7-mime"),
        ],
    ),
    "client-http-answer": (
        http_answer,
        [
            SENT,
            LATER,
            UNASKED,
            CHUNKED + b"4;name=value\r\nMIIB\r\n0\r\nX-Trailer: y\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Type: application/csrattrs\r\n\r\nMAA=\0",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno",
        ],
    ),
    "client-retry-after": (retry_after, [*DATES, b"Sun, 01 Nov 99999999999999999999 12:00:00 GMT"]),
    "client-www-authenticate": (www_authenticate, CHALLENGES),
    "client-location": (
        location,
        [b"https://other.example:8443/.well-known/est/cacerts", b"../x", b"//[::1]:1/", b"https://h/%41?q#f"],
    ),
    "client-server-url": (
        server_url,
        [b"localhost:8443\nlabel", b"https://[::1]/.well-known/est/a/simpleenroll", b"h\xc3\xa4.example/est/CACerts"],
    ),
    "client-bag": (certificate_bag, [BAG, base64.b64encode(BAG), certs.pack([CA.certificate, ISSUED]), CA.pem]),
    "client-server-key": (server_key, [MULTIPART_TYPE + b"\n" + MULTIPART]),
    "client-encrypted-key": (
        encrypted_key,
        [enveloped.encrypt(_der(KEY), KEY.public_key(), b"id"), _der(KEY), wrap(SEQUENCE, _der(KEY))],
    ),
    "client-csrattrs": (csr_attributes, [TEMPLATE, base64.b64encode(CSRATTRS) + b"\0", CSRATTRS]),
    "client-cmc-answer": (cmc_answer, [*RESPONSES, signed.certs_only([CA.certificate])]),
    "client-cmc-request": (cmc_request, [vector("altmod-rfc6402-cmc-fullpkirequest.b64")]),
    "client-crl": (crl, [CRL]),
    "client-server-certificate": (server_certificate, [TBS, TBS.replace(VERSION_3, VERSION_4)]),
    "client-certificate-file": (
        certificate_file,
        [CA.pem, HOLDER.both, HOLDER.certificate.public_bytes(Encoding.DER)],
    ),
    "client-key-file": (key_file, [*map(_pem, KEYS), _der(KEY), PASSPHRASED, SHORT, b"00" * 16, bytes(16)]),
    "client-secret-file": (
        secret_file,
        [b"secret\nmore\n", "p\u00e4ss\r\n".encode(), CSR, encoding.encode_pem(CSR, "CERTIFICATE REQUEST")],
    ),
    "client-names": (
        wanted_names,
        [b"CN=device,O=Example\na.example\n127.0.0.1\n::1\na@b.example", b"2.5.4.3=x+C=DE\nhttps://a/\nec:P-256\n30d"],
    ),
    "client-command-line": (
        command_line,
        [
            b"cacerts\n-u\nlocalhost\n--fingerprint\n" + b"ab" * 32,
            b"enroll\n-u\nhttps://a/b\n--new-key\n--wait\n2h\n--tls\n1.2",
        ],
    ),
}
"""By name: a function, and samples of its input."""
