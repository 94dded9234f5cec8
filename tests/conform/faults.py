"""For each MUST case a server that breaks it, and nothing else that the case looks at."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography import x509

from estgw.client.sealing import Secret
from estgw.cmc.messages import pki_data
from estgw.cmc.status import CMCFailInfo, StatusInfo
from estgw.cms import signed
from estgw.est import certs, csr, csrattrs
from estgw.est.csr import CHALLENGE_PASSWORD
from estgw.est.csrattrs import AttributeWish, CsrAttrs, ExtensionWish
from estgw.est.der import SEQUENCE, wrap
from tests.client.rogue import CERTS_ONLY, Request, bag, reply
from tests.conform.judging import identity
from tests.conform.server import (
    CMC_RESPONSE,
    LABEL,
    Good,
    Refused,
    digest_response,
    multipart,
    part,
    server_hello,
)
from tests.kit.ca import CA, SERVER_AUTH, Credential, root
from tests.kit.keys import OTHER


@dataclass(frozen=True)
class Fault:
    """What is wrong with the answers (`good`), the transport (`est`), and what the user gives besides (`setup`)."""

    answer: Callable[[Good, Request], Any] | None = None
    good: dict[str, Any] = field(default_factory=dict)
    est: dict[str, Any] = field(default_factory=dict)
    setup: dict[str, Any] = field(default_factory=dict)
    holder: Callable[[CA], Credential] | None = None
    status: str = "FAIL"


def on(operation: str, answer: Callable[[Good, Request], Any]) -> Callable[[Good, Request], Any]:
    """Answer one operation so, and leave the others alone."""
    return lambda good, request: answer(good, request) if request.operation == operation else ...


def always(operation: str, given: bytes) -> Fault:
    return Fault(on(operation, lambda *_: given))


def issues(operation: str = "simpleenroll") -> Fault:
    """Issues whatever is asked for, to anybody."""
    return Fault(on(operation, lambda good, request: good.issue(csr.parse(request.body))))


def typed(operation: str, content_type: str) -> Fault:
    """Changes the type of a right answer."""
    line = f"Content-Type: {content_type}".encode()
    return Fault(
        on(operation, lambda good, request: re.sub(rb"Content-Type: [^\r]+", line, good.answer(request), count=1))
    )


# HTTP authentication.


def if_basic(accepts: Callable[[bytes], bool]) -> Fault:
    """Logs in with any Basic credentials of a kind."""

    def answer(good: Good, request: Request) -> Any:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        try:
            pair = base64.b64decode(text, validate=True)
        except ValueError:
            pair = b""
        return good.issue(good.checked(request)) if scheme == "Basic" and accepts(pair) else ...

    return Fault(on("simpleenroll", answer))


def any_header(good: Good, request: Request) -> Any:
    return good.issue(good.checked(request)) if request.headers.get("Authorization") else ...


def any_uri(good: Good, request: Request) -> Any:
    """Digest without a look at the path that it was made for."""
    parts = dict(re.findall(r'(\w+)="?([^",]*)"?', request.headers.get("Authorization", "")))
    if "response" in parts and parts["response"] == digest_response(parts, request.method):
        return good.issue(good.checked(request))
    raise good.unauthorized()


# Certificates that are not what was asked for.


def other_key(good: Good, request: Request) -> Any:
    subject = csr.parse(request.body).subject
    return reply(body=bag(good.ca.sign(subject, OTHER.public_key())), content_type=CERTS_ONLY)


def as_ca(good: Good, request: Request) -> Any:
    asked = csr.parse(request.body)
    constraints = (x509.BasicConstraints(ca=True, path_length=None), True)
    issued = good.ca.sign(asked.subject, asked.request.public_key(), [constraints])
    return reply(body=bag(issued), content_type=CERTS_ONLY)


def wordless(_: Good, request: Request) -> Any:
    """Refuses with bytes that nobody can read."""
    try:
        csr.verify(csr.parse(request.body))
    except ValueError:
        return reply(400, b"\xff\xfe\x00", content_type=None)
    return ...


def no_rekey(good: Good, request: Request) -> Any:
    asked, old = csr.parse(request.body), request.peer
    if old is not None and certs.spki(old) != asked.spki:
        raise Refused(400, "the key must stay")
    return ...


def stranger_renews(good: Good, request: Request) -> Any:
    if request.peer is None:
        raise Refused(403, "a certificate is needed")
    return good.issue(good.checked(request))


def renews(compare: Callable[[csr.CSR, x509.Certificate], bool]) -> Fault:
    """Renews without a full comparison of the names."""

    def answer(good: Good, request: Request) -> Any:
        asked = csr.parse(request.body)
        return good.issue(asked) if request.peer is not None and compare(asked, request.peer) else ...

    return Fault(on("simplereenroll", answer))


def _names(san: x509.SubjectAlternativeName | None) -> set[Any]:
    return set(san or ())


# Bindings.


def linked(accepts: Callable[[str, str], bool]) -> Fault:
    """Takes a challengePassword that is not quite the binding."""

    def answer(good: Good, request: Request) -> Any:
        asked = csr.parse(request.body)
        text = asked.text_attribute(CHALLENGE_PASSWORD)
        return good.issue(asked) if text is not None and accepts(text, request.binding) else ...

    return Fault(on("simpleenroll", answer))


def is_base64(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 12
    except ValueError:
        return False


def no_printable(_: Good, request: Request) -> Any:
    value = csr.parse(request.body).attributes.get(CHALLENGE_PASSWORD)
    if value and bytes(value[0].tag_bytes) == b"\x13":
        raise Refused(400, "UTF8String is wanted")
    return ...


def no_linking(_: Good, request: Request) -> Any:
    if CHALLENGE_PASSWORD in csr.parse(request.body).attributes:
        raise Refused(400, "challengePassword is not known here")
    return ...


# CSR attributes, keys, CMC.


def attributes(*items: str | AttributeWish) -> Fault:
    return Fault(good={"attributes": CsrAttrs(items).encode()})


EXTENSION = AttributeWish(
    csrattrs.EXTENSION_REQUEST, (wrap(SEQUENCE, ExtensionWish("2.5.29.15", value=b"\x03\x02\x07\x80").encode()),)
)
KEY = AttributeWish(csrattrs.EC_PUBLIC_KEY, (csrattrs.encode_oid("1.2.840.10045.3.1.7"),))
RSA = AttributeWish(csrattrs.RSA_ENCRYPTION)


def key_of_csr(good: Good, request: Request) -> Any:
    """Makes no key, and certifies the one in the CSR."""
    asked = csr.parse(request.body)
    return good.made(asked, lambda key, _: multipart(key, certs.pack([good.certificate(asked)])))


def made(change: Callable[[bytes, bytes], bytes]) -> Fault:
    return Fault(on("serverkeygen", lambda good, request: good.made(csr.parse(request.body), change)))


def in_the_clear(condition: Callable[[csr.CSR], bool]) -> Fault:
    """Ignores the wish for encryption."""

    def answer(good: Good, request: Request) -> Any:
        asked = csr.parse(request.body)
        return good.made(asked) if condition(asked) else ...

    return Fault(on("serverkeygen", answer))


def checks_signature(_: Good, request: Request) -> Any:
    csr.verify(csr.parse(request.body))
    return ...


def cmc(answer: Callable[[Good, Any], bytes]) -> Fault:
    """A wrong answer to a right message."""

    def answered(good: Good, request: Request) -> Any:
        if not request.headers.get("Authorization"):
            return ...
        try:
            data = pki_data(signed.parse(request.der))
        except ValueError:
            return ...
        return answer(good, data) if data.requests else ...

    return Fault(on("fullcmc", answered))


def issued(good: Good, data: Any, *infos: Any, **echo: Any) -> Any:
    return good.respond(data, [good.certificate(data.requests[0].csr)], 200, *infos, **echo)


def bad_cmc(body: bytes) -> Fault:
    """A refusal without a CMC response."""

    def answer(good: Good, request: Request) -> Any:
        given = good.answer(request)
        return reply(400, body, "text/plain") if given.startswith(b"HTTP/1.1 400") else given

    return Fault(on("fullcmc", answer))


# Transport.


def down_at(sees: Callable[[Request], bool], **more: Any) -> Fault:
    """Goes down for good at a request."""

    def answer(good: Good, request: Request) -> Any:
        good.is_down = good.is_down or sees(request)
        return None if good.is_down else ...

    return Fault(answer, **more)


def speaks(version: int) -> Callable[[bytes], bytes | None]:
    """Takes an old version."""
    return lambda first: server_hello(version, 0x002F) if first[9:11] == version.to_bytes(2, "big") else None


def takes_weak(first: bytes) -> bytes | None:
    return server_hello(0x0303, 0x001B) if b"\x00\x18\x00\x1a\x00\x1b" in first else None


def speaks_http(first: bytes) -> bytes | None:
    return reply(200, b"hello", "text/plain") if first.startswith(b"GET ") else None


def only_seals(ca: CA) -> Credential:
    """A server certificate whose key may not sign."""
    key = OTHER
    usage = x509.KeyUsage(False, False, True, False, True, False, False, False, False)
    extensions = [
        (usage, True),
        (x509.ExtendedKeyUsage([SERVER_AUTH]), False),
        (x509.SubjectAlternativeName([x509.DNSName("localhost")]), False),
    ]
    return Credential(ca.sign(x509.Name([]), key.public_key(), extensions), key)


STRANGER = root("A stranger").issue("device-1")
SECRET = Secret.shared(bytes(range(16)), b"device-7")
SUB = root("Sub CA")

FAULTS: dict[str, Fault] = {
    "core.prefix": always("cacerts", reply(404)),
    "core.mandatory": always("simplereenroll", reply(404)),
    "core.label": Fault(
        lambda _, request: reply(404) if f"/{LABEL}/" in request.target else ..., setup={"label": LABEL}
    ),
    "core.no-label": Fault(
        lambda _, request: ... if f"/{LABEL}/" in request.target else reply(404), setup={"label": LABEL}
    ),
    "core.methods": Fault(
        lambda good, request: reply(200) if (request.method, request.operation) == ("GET", "simpleenroll") else ...
    ),
    "tls.plain": Fault(est={"greet": speaks_http}),
    "tls.old-versions": Fault(est={"greet": speaks(0x0302)}),
    "tls.server-cert": Fault(holder=only_seals),
    "tls.asks-client": Fault(est={"asks_client": False}),
    "tls.weak-suites": Fault(est={"greet": takes_weak}),
    "http.challenge": Fault(
        lambda good, request: ... if request.headers.get("Authorization") or request.method == "GET" else reply(401)
    ),
    "http.wrong-password": if_basic(lambda pair: pair.startswith(b"estuser:")),
    "http.empty-user": if_basic(lambda pair: pair.startswith(b":")),
    "http.digest": Fault(
        lambda good, request: (
            reply(401, content_type=None, WWW_Authenticate='Digest realm="estrealm", nonce=abc, qop="auth"')
            if request.operation == "simpleenroll" and not request.headers.get("Authorization")
            else ...
        )
    ),
    "http.digest-uri": Fault(on("simpleenroll", any_uri), good={"digest": ("MD5", "SHA-256")}),
    "http.odd-basic": Fault(
        on(
            "simpleenroll",
            lambda good, request: good.issue(good.checked(request)) if request.headers.get("Authorization") else ...,
        )
    ),
    "cacerts.status": always("cacerts", reply(500)),
    "cacerts.form": Fault(on("cacerts", lambda good, _: reply(body=certs.pack([good.ca.certificate])))),
    "cacerts.type": typed("cacerts", "application/octet-stream"),
    "cacerts.root": Fault(on("cacerts", lambda good, _: reply(body=bag(good.ca.vouch(SUB))))),
    "cacerts.chain": Fault(good={"issuer": SUB}),
    "enroll.issue": Fault(on("simpleenroll", other_key)),
    "enroll.cte": Fault(
        lambda good, request: (
            reply(400, b"no DER") if request.headers.get("Content-Transfer-Encoding") == "binary" else ...
        )
    ),
    "enroll.anonymous": issues(),
    "enroll.bad-signature": issues(),
    "enroll.extensions": Fault(on("simpleenroll", as_ca)),
    "enroll.type": typed("simpleenroll", "application/pkcs7-mime"),
    "enroll.one": Fault(
        on("simpleenroll", lambda good, request: good.issue(good.checked(request), good.ca.certificate))
    ),
    "enroll.failure": Fault(on("simpleenroll", wordless)),
    "enroll.later": always("simpleenroll", reply(202, content_type=None)),
    "reenroll.renew": Fault(on("simplereenroll", other_key)),
    "reenroll.rekey": Fault(on("simplereenroll", no_rekey)),
    "reenroll.subject": renews(lambda asked, old: _names(asked.san) == _names(certs.san(old))),
    "reenroll.san-added": renews(
        lambda asked, old: asked.subject == old.subject and _names(asked.san) >= _names(certs.san(old))
    ),
    "reenroll.san-removed": renews(
        lambda asked, old: asked.subject == old.subject and _names(asked.san) <= _names(certs.san(old))
    ),
    "reenroll.other-ca": Fault(on("simplereenroll", stranger_renews), setup={"other": identity(STRANGER)}),
    "pop.right-1.2": Fault(on("simpleenroll", no_linking)),
    "pop.one-off": linked(lambda text, right: text[1:] == right[1:]),
    "pop.other-connection": linked(lambda text, _: is_base64(text)),
    "pop.empty": linked(lambda text, _: not text),
    "pop.not-base64": linked(lambda text, _: bool(text) and not is_base64(text)),
    "pop.string-types": Fault(on("simpleenroll", no_printable)),
    "pop.advertised": Fault(good={"must_link": True}),
    "csrattrs.get": always("csrattrs", reply(400, b"what?")),
    "csrattrs.form": always("csrattrs", reply(200, b"bm9uZQ==", "application/csrattrs")),
    "csrattrs.extension-once": attributes(EXTENSION, EXTENSION),
    "csrattrs.key-once": attributes(KEY, RSA),
    "keygen.anonymous": Fault(on("serverkeygen", lambda good, request: good.made(csr.parse(request.body)))),
    "keygen.ignores-key": Fault(on("serverkeygen", checks_signature)),
    "keygen.parts": made(lambda key, issued: part("application/pkcs8", key) + b"--b--\r\n"),
    "keygen.pkcs8": made(lambda key, issued: multipart(key[:40], issued)),
    "keygen.certificate": Fault(on("serverkeygen", key_of_csr)),
    "keygen.no-capabilities": in_the_clear(lambda asked: "1.2.840.113549.1.9.15" not in asked.attributes),
    "keygen.unknown-id": in_the_clear(lambda _: True),
    "keygen.sealed": replace(in_the_clear(lambda _: True), setup={"secret": SECRET}),
    "cmc.junk": Fault(on("fullcmc", lambda good, _: reply(200, b"MAA=", CMC_RESPONSE))),
    "cmc.form": typed("fullcmc", "application/pkcs7-mime"),
    "cmc.error-body": bad_cmc(b"no"),
    "cmc.status": cmc(lambda good, data: issued(good, data, StatusInfo.failed(CMCFailInfo.BAD_REQUEST))),
    "cmc.nonces": cmc(lambda good, data: issued(good, data, recipientNonce=b"another's")),
    "hostile.too-long": down_at(lambda request: len(request.body) > 1_000_000),
    "hostile.too-slow": Fault(est={"one_at_a_time": True}),
    "hostile.half-body": Fault(est={"dies_of_half": True}),
    "hostile.two-lengths": Fault(
        lambda _, request: reply(200) if request.body == b"MAA=" else ..., good={"is_lax": True}
    ),
    "hostile.nul": down_at(lambda request: "\0" in request.headers.get("X-Odd", ""), good={"is_lax": True}),
    "hostile.deep-der": down_at(lambda request: len(request.body) > 10_000),
    "hostile.tail": down_at(lambda request: b"A" * 16 in request.body.replace(b"\n", b"")),
    "hostile.many-sans": down_at(lambda request: len(request.body) > 100_000),
}
