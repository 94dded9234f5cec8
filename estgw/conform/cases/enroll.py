"""/simpleenroll (RFC 7030 4.2)."""

from __future__ import annotations

import base64
from dataclasses import replace

from cryptography import x509

from estgw.client import keys
from estgw.conform import checks, csrs, facts
from estgw.conform.case import Case
from estgw.conform.http import Reply
from estgw.conform.model import Level, Need, failed, noted, skipped, warned
from estgw.conform.probe import Form, Probe
from estgw.est import certs, csr, encoding, names
from estgw.est.csrattrs import ExtensionWish
from estgw.est.der import elements, whole
from estgw.est.operations import CERTS_ONLY

_UNKNOWN = ExtensionWish("2.25.312593274", value=b"\x05\x00")
"""An extension that no program knows (X.667)."""
_SEALING = x509.KeyUsage(False, False, True, False, False, False, False, False, False)
_SIGNING = x509.KeyUsage(True, False, False, False, False, False, False, False, False)


def issue(probe: Probe) -> str:
    """E1, E2."""
    done = facts.first(probe)
    certificate = checks.issued(done)
    linked = "linked" if probe.way.is_linked else "not linked"
    return f"200, {names.dn_text(certificate.subject)}; the CSR was {linked}"


def cte(probe: Probe) -> str:
    """E3."""
    facts.require_enrolment(probe)
    seen = []
    for value in ("binary", "7bit", "base64"):
        done = facts.enrol(probe, form=Form(headers={"Content-Transfer-Encoding": value}))
        if done.reply.status != 200:
            raise failed(f"with Content-Transfer-Encoding: {value}, a base64 body is {done.reply}")
        seen.append(f"{value}: 200")
    return ", ".join(seen)


def whitespace(probe: Probe) -> str:
    """E4."""
    facts.require_enrolment(probe)
    forms = {
        "one line": base64.b64encode,
        "76 columns with CRLF": lambda der: base64.encodebytes(der).replace(b"\n", b"\r\n"),
        "blanks and tabs": lambda der: b" \r\n\t" + encoding.encode_base64(der).replace(b"\n", b" \n\t") + b"\r\n ",
    }
    found = []
    for what, encode in forms.items():
        done = facts.enrol(probe, form=Form(encode=encode))
        if done.reply.status != 200:
            found.append(f"{what}: {done.reply}")
    return checks.faults(found, ", ".join(f"{what}: 200" for what in forms))


def indefinite(probe: Probe) -> str:
    """X3."""
    facts.require_enrolment(probe)
    reply = facts.enrol(probe, form=Form(change=_ber)).reply
    if reply.status != 200:
        raise warned(f"{reply}; a receiver should read BER (RFC 5967 2.1)")
    return "200"


def _ber(der: bytes) -> bytes:
    """The same CSR with an indefinite length outside; what is signed stays as it is."""
    return b"\x30\x80" + b"".join(map(whole, elements(der, "a CSR"))) + b"\0\0"


def anonymous(probe: Probe) -> str:
    """E5."""
    return checks.refusal_or_end(lambda: facts.anonymous(probe).reply, "the request has no credentials")


def bad_signature(probe: Probe) -> str:
    """E6."""
    facts.require_enrolment(probe)
    return checks.refused(_spoiled(probe), "the CSR's signature is wrong")


def _spoiled(probe: Probe) -> Reply:
    return probe.once("bad signature", lambda probe: facts.enrol(probe, form=Form(change=csrs.spoiled)).reply)


def encipherment_key(probe: Probe) -> str:
    """E7."""
    facts.require_enrolment(probe)
    wish = replace(
        facts.wish(probe), key=keys.generate(keys.parse_spec("rsa:2048")), extensions=(csrs.extension(_SEALING),)
    )
    done = facts.enrol(probe, wish)
    if done.reply.status >= 500:
        raise warned(str(done.reply))
    if not done.reply.is_success:
        raise noted(f"a key that only enciphers is refused: {done.reply}")
    return f"{done.reply.status}"


def extensions(probe: Probe) -> str:
    """E8."""
    facts.require_enrolment(probe)
    asked = (
        csrs.extension(_SIGNING, critical=True),
        csrs.extension(x509.BasicConstraints(ca=False, path_length=None), critical=True),
        _UNKNOWN,
    )
    done = facts.enrol(probe, replace(facts.wish(probe), extensions=asked))
    if done.reply.status >= 500:
        raise failed(f"keyUsage, basicConstraints and an unknown extension: {done.reply}")
    if not done.reply.is_success:
        return f"refused: {done.reply}"
    certificate = checks.issued(done)
    inverted = _inverted(certificate)
    if inverted:
        raise failed("; ".join(inverted))
    return "issued without a contradiction to what was asked"


def _inverted(certificate: x509.Certificate) -> list[str]:
    """What a certificate says against the wish for digitalSignature and no CA (RFC 5272 3.1)."""
    found = []
    try:
        for extension in certificate.extensions:
            if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
                found.append("CA:FALSE was asked for, and the certificate is a CA's")
            if isinstance(extension.value, x509.KeyUsage) and not extension.value.digital_signature:
                found.append("digitalSignature was asked for, and the certificate forbids it")
            if isinstance(extension.value, x509.KeyUsage) and extension.value.key_cert_sign:
                found.append("the certificate may sign certificates, and nobody asked for that")
    except certs.UNREADABLE as fault:
        found.append(f"the certificate's extensions can't be read: {fault}")
    return found


def type_(probe: Probe) -> str:
    """E16."""
    reply = _issued(probe)
    value = reply.get("Content-Type") or "missing"
    kind = reply.answer.headers.get_param("smime-type")
    if reply.type != "application/pkcs7-mime" or not isinstance(kind, str) or kind.lower() != "certs-only":
        raise failed(f"Content-Type: {value}")
    if value != CERTS_ONLY:
        raise warned(f"Content-Type: {value}; libest compares the bytes of {CERTS_ONLY!r}")
    return f"Content-Type: {value}"


def one(probe: Probe) -> str:
    """E17."""
    reply = _issued(probe)
    checks.der_of(reply)
    found = checks.certificates(reply)
    if len(found) != 1:
        raise failed(f"{len(found)} certificates; the answer holds the issued one alone")
    return "one certificate"


def failure(probe: Probe) -> str:
    """E18, E20."""
    return checks.reason(_spoiled(probe), "a CSR with a wrong signature")


def later(probe: Probe) -> str:
    """E21, E22."""
    done = facts.first(probe)
    if done.reply.status != 202:
        raise skipped("no request was answered with 202: name a label whose requests wait for a person")
    value = done.reply.get("Retry-After")
    if value is None:
        raise failed("202 without Retry-After")
    # A new connection has a new binding, so the same request is signed again (RFC 7030 3.5).
    asked = csr.parse(done.der)
    again = facts.enrol(probe, replace(facts.wish(probe), subject=asked.subject)).reply
    if again.status not in (200, 202):
        raise failed(f"the same request again: {again}")
    if not value.isdigit():
        raise warned(f"Retry-After: {value}; strongSwan and Bouncy Castle read whole seconds only")
    return f"202, Retry-After: {value}; the same request again: {again.status}"


def _issued(probe: Probe) -> Reply:
    facts.require_enrolment(probe)
    return facts.first(probe).reply


BOTH = (Need.ISSUE, Need.LOGIN)
CASES = (
    Case("issue", "enroll", Level.MUST, "RFC 7030 4.2, 4.2.1", ("E1", "E2", "E5", "X2"),
         "A CSR of a client that is logged in is answered with a certificate for its key.", issue, BOTH),
    Case("cte", "enroll", Level.MUST, "RFC 8951 3", ("E3", "X1"),
         "Content-Transfer-Encoding is ignored: the body is base64 whatever it says.", cte, BOTH),
    Case("whitespace", "enroll", Level.SHOULD, "RFC 8951 3.1", ("E4",),
         "White space in base64 is ignored.", whitespace, BOTH),
    Case("ber", "enroll", Level.SHOULD, "RFC 5967 2.1", ("X3",),
         "A CSR in BER, with an indefinite length outside, is read.", indefinite, BOTH),
    Case("anonymous", "enroll", Level.MUST, "RFC 7030 4.2", ("E5", "Z4"),
         "A CSR without any credentials gets no certificate.", anonymous, (Need.ISSUE,)),
    Case("bad-signature", "enroll", Level.MUST, "RFC 7030 4.2.1", ("E6",),
         "A CSR whose signature is wrong is refused.", bad_signature, BOTH),
    Case("encipherment-key", "enroll", Level.SHOULD, "RFC 7030 4.2.1", ("E7",),
         "A CSR for a key that only enciphers is taken, or refused in words.", encipherment_key, BOTH),
    Case("extensions", "enroll", Level.MUST, "RFC 5272 3.1", ("E8",),
         "Wishes for extensions are met, changed or dropped, and never turned into the opposite.", extensions, BOTH),
    Case("type", "enroll", Level.MUST, "RFC 7030 4.2.3", ("E16", "U10"),
         "The type is application/pkcs7-mime; smime-type=certs-only.", type_, BOTH),
    Case("one", "enroll", Level.MUST, "RFC 7030 4.2.3, RFC 8951 3", ("E17", "X1"),
         "The answer is base64 of DER, and holds the issued certificate alone.", one, BOTH),
    Case("failure", "enroll", Level.MUST, "RFC 7030 4.2.3, RFC 8951 5.1", ("E18", "E20", "E19"),
         "A refusal is a 4xx or 5xx with a reason in plain text or a PKI Response.", failure, BOTH),
    Case("later", "enroll", Level.MUST, "RFC 7030 4.2.3", ("E21", "E22"),
         "A 202 has Retry-After, and the same request may be sent again.", later, BOTH),
)  # fmt: skip
