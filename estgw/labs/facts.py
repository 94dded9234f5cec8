"""Facts of one record, as checks ask for them."""

from __future__ import annotations

import base64

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from estgw.errors import Malformed
from estgw.est import certs, csr, names
from estgw.est.csr import CSR
from estgw.record.redact import REMOVED
from estgw.record.ring import Record


def status(record: Record) -> int | None:
    """The HTTP status; None: no answer was sent."""
    found = record["outcome"].get("status")
    return found if isinstance(found, int) else None


def gate(record: Record) -> str:
    """The gate that refused; empty if none did."""
    return str(record["outcome"].get("gate") or "")


def refusal(record: Record) -> str:
    """How a request ended, in a sentence: for one that did not end as it should."""
    outcome = record["outcome"]
    if gate(record):
        words = f"the gate {gate(record)} refused it ({outcome.get('status') or 'no answer'})"
        hint = outcome.get("hint") or outcome.get("reason")
        return f"{words}: {str(hint).splitlines()[0]}" if hint else f"{words}."
    return f"it was answered with {outcome.get('status')}."


def body(record: Record, part: str = "request") -> bytes:
    """The body of the request or the `response`; empty if it is not recorded."""
    text = (record.get(part) or {}).get("body")
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) and text != REMOVED else b""
    except ValueError:
        return b""


def asked(record: Record) -> CSR | None:
    """The CSR of a request, also of one that was refused before anybody looked at it; None: none can be read."""
    if record.get("operation") == "fullcmc":
        return None
    pem = ((record.get("request") or {}).get("csr") or {}).get("pem")
    content = pem.encode() if isinstance(pem, str) else body(record)
    try:
        return csr.parse(content) if content else None
    except Malformed:
        return None


def subject(record: Record) -> str:
    """The subject that a request asks for, or that its client has in TLS; empty if there is none."""
    wanted = asked(record)
    return names.dn_text(wanted.subject) if wanted else tls_subject(record)


def tls_subject(record: Record) -> str:
    """The subject of the client's certificate in TLS; empty without one."""
    return str((record.get("tls") or {}).get("subject") or "")


def issued(record: Record) -> x509.Certificate | None:
    """The certificate that was issued."""
    return _loaded((record.get("issued") or {}).get("pem"))


def client(record: Record) -> x509.Certificate | None:
    """The client's certificate in TLS, whether it verifies or not."""
    return _loaded((record.get("tls") or {}).get("certificate"))


def _loaded(pem: object) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(pem.encode()) if isinstance(pem, str) else None
    except certs.UNREADABLE:
        return None


def login_fault(record: Record) -> str:
    """Why the client's certificate in TLS does not count; empty if it does."""
    verify = record["tls"].get("verify")
    return "" if verify == "SUCCESS" else f"The certificate was shown, and does not count: {verify}."


def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the issuer's key has signed the certificate, and the names fit."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def handler_variable(record: Record, name: str) -> str:
    """A variable of the handler's environment; empty if it did not run or has none."""
    for callout in record["callouts"]:
        if callout.get("kind") == "handler":
            return str((callout.get("environment") or {}).get(name, ""))
    return ""


def words(record: Record) -> str:
    """What the client could read in a refusal."""
    return body(record, "response").decode("utf-8", "replace").strip()
