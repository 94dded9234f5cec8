"""/serverkeygen (RFC 7030 4.4)."""

from __future__ import annotations

from dataclasses import replace

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key

from estgw.client import keygen
from estgw.client.faults import ClientError
from estgw.client.sealing import Secret
from estgw.client.transport import answers, multipart
from estgw.client.transport.multipart import Part
from estgw.conform import checks, csrs, facts
from estgw.conform.case import Case
from estgw.conform.cases import core
from estgw.conform.http import Reply
from estgw.conform.model import Level, Need, failed, noted, skipped
from estgw.conform.probe import Form, Probe
from estgw.errors import Malformed
from estgw.est import certs, csr, encoding
from estgw.est.csrattrs import AttributeWish
from estgw.est.der import wrap
from estgw.est.keygen import ASYMMETRIC_DECRYPT_KEY_ID, DECRYPT_KEY_ID

_OPERATION = Form("serverkeygen")
_UNKNOWN_ID = wrap(b"\x04", b"estgw-conform-no-such-key")


def off_or_on(probe: Probe) -> str:
    """G1."""
    is_on = core.is_offered(probe, "serverkeygen")
    raise noted("on: the server makes keys for its clients" if is_on else "off, as RFC 7030 6 recommends")


def anonymous(probe: Probe) -> str:
    """G2."""
    form = replace(_OPERATION, with_login=False)
    return checks.refusal_or_end(lambda: facts.enrol(probe, form=form).reply, "the request has no credentials")


def ignores_key(probe: Probe) -> str:
    """G4."""
    _require(probe)
    done = facts.enrol(probe, form=replace(_OPERATION, change=csrs.spoiled))
    if done.reply.status != 200:
        raise failed(f"a CSR whose signature is wrong: {done.reply}; key and signature do not count here")
    certificate = _certificate(done.reply)
    if certs.spki(certificate) == csr.parse(done.der).spki:
        raise failed("the certificate is for the key in the CSR")
    return "200 for a CSR whose signature is wrong, and a new key"


def parts(probe: Probe) -> str:
    """G5."""
    found = _parts(_good(probe))
    return " and ".join(f"{each.content_type} {each.smime_type}".strip() for each in found)


def pkcs8(probe: Probe) -> str:
    """G6."""
    key_part = _parts(_good(probe))[0]
    if key_part.content_type != keygen.CLEAR:
        raise skipped("the key comes encrypted, though nobody asked for it: a server may insist")
    body = key_part.body.strip()
    if body.startswith(b"-----"):
        raise failed("the key is PEM; RFC 8951 3.2.4 wants base64 of DER")
    try:
        load_der_private_key(encoding.decode_base64(body), password=None)
    except Malformed as fault:
        raise failed(f"the key is {fault}") from None
    except certs.UNREADABLE:
        raise failed("the key is no PKCS#8 in DER that can be read") from None
    return "base64 of a PKCS#8 in DER"


def certificate(probe: Probe) -> str:
    """G7."""
    reply = _good(probe)
    part = _parts(reply)[1]
    if part.content_type != "application/pkcs7-mime" or part.smime_type != "certs-only":
        raise failed(f"the certificate's part is {part.content_type} {part.smime_type}".rstrip())
    _certificate(reply)
    try:
        keygen.read(reply.answer, Secret())
    except ClientError as fault:
        raise failed(str(fault)) from None
    return "one certificate, for the key beside it"


def no_capabilities(probe: Probe) -> str:
    """G8."""
    _require(probe)
    wish = replace(facts.wish(probe), attributes=(AttributeWish(DECRYPT_KEY_ID, (_UNKNOWN_ID,)),))
    reply = facts.enrol(probe, wish, _OPERATION).reply
    checks.refused(reply, "the CSR names a key to encrypt with, and no algorithms")
    return checks.reason(reply, "a CSR that names a key to encrypt with, and no algorithms")


def unknown_id(probe: Probe) -> str:
    """G9, G10."""
    _require(probe)
    seen = []
    for name, oid in (("symmetric", DECRYPT_KEY_ID), ("asymmetric", ASYMMETRIC_DECRYPT_KEY_ID)):
        listed = Secret.shared(bytes(32), b"-").attributes[1]
        wish = replace(facts.wish(probe), attributes=(AttributeWish(oid, (_UNKNOWN_ID,)), listed))
        reply = facts.enrol(probe, wish, _OPERATION).reply
        seen.append(f"{name}: {checks.refused(reply, f'the CSR names an unknown {name} key to encrypt with')}")
    return "; ".join(seen)


def sealed(probe: Probe) -> str:
    """G11, G12, G13, G14."""
    secret = probe.setup.secret
    wish = replace(facts.wish(probe), attributes=secret.attributes)
    reply = facts.enrol(probe, wish, _OPERATION).reply
    if reply.status != 200:
        raise failed(f"{reply}; is the key of --decrypt-key or --decrypt-cert known to the server?")
    try:
        anchors = [*probe.setup.trust.explicit, *facts.bag(probe)]
        keygen.read(reply.answer, secret, lambda: anchors)
    except ClientError as fault:
        raise failed(str(fault)) from None
    return "the key opens with ours, its signature is good, and it fits the certificate"


def _first(probe: Probe) -> Reply:
    return probe.once("keygen", lambda probe: facts.enrol(probe, form=_OPERATION).reply)


def _require(probe: Probe) -> None:
    """A refusal proves nothing where a plain request is refused too."""
    if _first(probe).status != 200:
        raise skipped(f"a plain request is answered with {_first(probe)}: see keygen.parts")


def _good(probe: Probe) -> Reply:
    reply = _first(probe)
    if reply.status in (202, 401, 403):
        raise skipped(f"the server's policy: {reply}")
    if reply.status != 200:
        raise failed(str(reply))
    return reply


def _parts(reply: Reply) -> tuple[Part, Part]:
    """The key's part and the certificate's."""
    if reply.type != "multipart/mixed":
        raise failed(f"Content-Type: {reply.get('Content-Type') or 'missing'}")
    try:
        found = multipart.split(reply.answer.headers, reply.body)
    except ClientError as fault:
        raise failed(str(fault)) from None
    if len(found) != 2:
        raise failed(f"{len(found)} parts; a private key and a certificate are wanted")
    is_key = [each.content_type == keygen.CLEAR or each.smime_type == keygen.ENCRYPTED for each in found]
    if sorted(is_key) != [False, True]:
        raise failed("the parts are " + ", ".join(f"{each.content_type} {each.smime_type}".strip() for each in found))
    return found[is_key.index(True)], found[is_key.index(False)]


def _certificate(reply: Reply) -> x509.Certificate:
    try:
        bag = answers.bag_of(_parts(reply)[1].body)
    except ClientError as fault:
        raise failed(str(fault)) from None
    if len(bag) != 1:
        raise failed(f"{len(bag)} certificates; the answer holds the issued one alone")
    return bag[0]


_ALL = (Need.ISSUE, Need.LOGIN, Need.KEYGEN)
CASES = (
    Case("off-or-on", "keygen", Level.INFO, "RFC 7030 4.4, 6", ("G1",),
         "serverkeygen is the server's choice.", off_or_on),
    Case("anonymous", "keygen", Level.MUST, "RFC 7030 4.4", ("G2", "Z4"),
         "A request without credentials gets no key.", anonymous, (Need.ISSUE, Need.KEYGEN)),
    Case("ignores-key", "keygen", Level.MUST, "RFC 7030 4.4.1", ("G4",),
         "The CSR's key and signature are ignored.", ignores_key, _ALL),
    Case("parts", "keygen", Level.MUST, "RFC 7030 4.4.2", ("G5",),
         "The answer is multipart/mixed of a private key and a certificate.", parts, _ALL),
    Case("pkcs8", "keygen", Level.MUST, "RFC 7030 4.4.2, RFC 8951 3.2.4", ("G6", "X1"),
         "A key that is not encrypted is base64 of PKCS#8 in DER.", pkcs8, _ALL),
    Case("certificate", "keygen", Level.MUST, "RFC 7030 4.4.2", ("G7",),
         "The certificate comes as in simpleenroll, and is for the key beside it.", certificate, _ALL),
    Case("no-capabilities", "keygen", Level.MUST, "RFC 7030 4.4.1", ("G8", "G15"),
         "A CSR that names a key to encrypt with and no algorithms is refused, with a reason.", no_capabilities, _ALL),
    Case("unknown-id", "keygen", Level.MUST, "RFC 7030 4.4.1.1, 4.4.1.2", ("G9", "G10"),
         "A CSR that names an unknown key to encrypt with is refused; no key comes in the clear.", unknown_id, _ALL),
    Case("sealed", "keygen", Level.MUST, "RFC 7030 4.4.2", ("G11", "G12", "G13", "G14"),
         "A key that was asked for encrypted comes signed, and encrypted to the key that was named.", sealed,
         (*_ALL, Need.SECRET)),
)  # fmt: skip
