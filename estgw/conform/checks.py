"""Judgements that several cases share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography import x509

from estgw.client.faults import ClientError, Untrusted, clean
from estgw.client.transport import answers
from estgw.conform.csrs import Wish
from estgw.conform.facts import Enrolment
from estgw.conform.http import Reply
from estgw.conform.model import failed, skipped, warned
from estgw.errors import Malformed
from estgw.est import certs, csr, encoding, names


def refused(reply: Reply, what: str) -> str:
    """Return what was seen when a request was refused with 4xx; `what` says why it had to be."""
    if reply.status == 200:
        raise failed(f"{what}, and the server answers {reply}")
    if reply.status == 202:
        raise warned(f"{what}, and the server answers 202: a person would have to find the fault")
    if reply.is_refusal:
        return str(reply)
    if reply.status >= 500:
        raise warned(f"{what}: {reply}; a 4xx would tell the client that the fault is its own")
    raise failed(f"{what}, and the server answers {reply}")


def no_redirect(reply: Reply) -> None:
    """WARN for a redirect, which a server may send and few clients follow (RFC 7030 3.2.1)."""
    if 300 <= reply.status < 400:
        where = clean(reply.get("Location") or "nowhere", 200)
        raise warned(f"a redirect to {where}; few clients follow it: judge that address instead")


def reason(reply: Reply, what: str) -> str:
    """The words of a refusal for a person (RFC 7030 4.2.3, RFC 8951 5.1); `what` was refused."""
    if reply.status < 400:
        raise failed(f"{what}: {reply}")
    if reply.type == "application/pkcs7-mime":
        return f"{reply.status} with a PKI Response"
    if reply.type not in ("", "text/plain"):
        raise warned(f"{reply.status} of type {reply.type}; clients read plain text or a PKI Response")
    if not reply.body.strip():
        raise warned(f"{reply.status} without a reason for the client's user")
    try:
        text = reply.body.decode()
    except UnicodeDecodeError:
        raise failed(f"{reply.status} with bytes that are no text, and the type says text") from None
    if text.lstrip()[:5].lower() in ("<html", "<!doc"):
        raise failed(f"{reply.status} with HTML, and the type says plain text")
    return str(reply)


def refusal_or_end(ask: Callable[[], Reply], what: str) -> str:
    """The same for a request that may also end the connection, in TLS or in HTTP."""
    try:
        reply = ask()
    except Untrusted as fault:
        return f"the connection ends: {fault}"
    return refused(reply, what)


def issued(done: Enrolment, wish: Wish | None = None) -> x509.Certificate:
    """The certificate of an answer that had to be a 200, and the right one."""
    reply = done.reply
    if reply.status == 202:
        raise skipped("the server answers 202: a person has to approve requests here")
    if reply.status in (401, 403):
        raise skipped(f"the server's policy refuses this client: {reply}")
    if reply.status != 200:
        raise failed(f"{reply}")
    bag = certificates(reply)
    try:
        key = csr.parse(done.der).spki
        fitting = [each for each in bag if certs.spki(each) == key]
    except Malformed as fault:
        raise failed(f"the certificate can't be read: {fault}") from None
    if not fitting:
        raise failed("200, and the certificate is for another key than the CSR's")
    if wish is not None and names.name_key(fitting[0].subject) != names.name_key(wish.subject):
        shown = names.dn_text(fitting[0].subject)
        raise warned(f"the certificate is for {shown}, the CSR asked for {names.dn_text(wish.subject)}")
    return fitting[0]


def certificates(reply: Reply) -> list[x509.Certificate]:
    """The certificates of a certs-only answer; a FAIL when they can't be read."""
    try:
        return answers.bag_of(reply.body)
    except ClientError as fault:
        raise failed(f"200, and {fault}") from None


def der_of(reply: Reply) -> bytes:
    """The DER in a body of base64 (RFC 8951 3); a FAIL for PEM, for DER as it is, and for anything else."""
    body = reply.body.strip()
    if body.startswith(b"-----BEGIN"):
        raise failed("the body is PEM; RFC 8951 3 wants base64 of DER without armour")
    if body[:1] == b"\x30" and not body.isascii():
        raise failed("the body is DER as it is; RFC 8951 3 wants its base64")
    try:
        return encoding.decode_base64(body.rstrip(b"\0"))
    except Malformed as fault:
        raise failed(f"the body is {fault}") from None


def faults(found: Sequence[str], good: str) -> str:
    """Return `good`, or raise a WARN with everything that was found."""
    if found:
        raise warned("; ".join(found))
    return good
