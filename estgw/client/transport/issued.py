"""The certificate in the answer to an enrolment: for which key, for which names, and by which CA (RFC 7030 4.2.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.x509.oid import NameOID

from estgw.client.faults import ClientError, InvalidAnswer, clean
from estgw.client.transport import trust
from estgw.errors import Malformed
from estgw.est import certs, csr, names
from estgw.est.csr import CSR

_OWN = (NameOID.COMMON_NAME, NameOID.SERIAL_NUMBER, NameOID.USER_ID, NameOID.EMAIL_ADDRESS)
"""Attributes of a subject that name one holder; an organization has many."""
_HINT = "--any-certificate accepts it all the same"


def for_key(found: Sequence[x509.Certificate], request: CSR) -> x509.Certificate:
    """The certificate for the CSR's key; raises `InvalidAnswer`.

    RFC 7030 4.2.3 allows only the issued certificate; some servers add the chain, which does no harm.
    """
    try:
        fitting = [certificate for certificate in found if certs.spki(certificate) == request.spki]
    except Malformed as fault:
        raise InvalidAnswer(str(fault)) from None
    if len(fitting) != 1:
        raise InvalidAnswer("the certificate in the answer is for another key than the CSR's")
    return fitting[0]


def require_names(certificate: x509.Certificate, request: CSR) -> None:
    """Raise `InvalidAnswer` if the certificate has none of the names that the CSR asks for.

    A CA may leave names out and add others.  A certificate without any of them is somebody else's.
    """
    wanted = _names(request.subject, request.san)
    try:
        changed = csr.change_subject_name(request)
    except Malformed as fault:
        raise InvalidAnswer(f"the names in the CSR can't be read: {fault}") from None
    if changed is not None:  # RFC 6402 2.8: the CSR has the old names, and the certificate these
        wanted |= _names(changed.subject, changed.san)
    if wanted and not wanted & _names(certificate.subject, certs.san(certificate)):
        raise InvalidAnswer(
            f"the certificate in the answer has none of the names in the CSR: it is for {_shown(certificate)}, "
            f"and the CSR is for {clean(', '.join(sorted(wanted)), 300)}; {_HINT}"
        )


def require_issuer(
    certificate: x509.Certificate,
    anchors: Sequence[x509.Certificate],
    cacerts: Callable[[], Sequence[x509.Certificate]],
) -> None:
    """Raise `InvalidAnswer` unless an explicit anchor or a certificate of /cacerts has signed the certificate.

    `cacerts` is called only if no anchor has.  The server has been authenticated, so its own CAs count whether they
    lead to our anchors or not (RFC 7030 4.1.3).
    """
    if _is_signed_by_one_of(certificate, anchors):
        return
    issuer = clean(names.dn_text(certificate.issuer), 200)
    try:
        shown = cacerts()
    except ClientError as fault:
        raise InvalidAnswer(
            f"the certificate in the answer is signed by {issuer}, which is none of our anchors, and /cacerts does not "
            f"help: {fault}; {_HINT}"
        ) from None
    if not _is_signed_by_one_of(certificate, shown):
        raise InvalidAnswer(
            f"the certificate in the answer is signed by {issuer}, which is neither one of our anchors nor in the "
            f"server's /cacerts; {_HINT}"
        )


def _is_signed_by_one_of(certificate: x509.Certificate, issuers: Sequence[x509.Certificate]) -> bool:
    """Whether one of them has signed it.  OpenSSL also compares names whose encodings differ."""
    direct = any(trust.is_signed_by(certificate, issuer) for issuer in issuers)
    return direct or trust.path_fault(certificate, issuers, ()) is None


def _shown(certificate: x509.Certificate) -> str:
    """The names in a certificate, for a message."""
    entries = [names.san_text(entry) for entry in certs.san(certificate) or ()][:5]
    return clean(", ".join([names.dn_text(certificate.subject) or "no subject", *entries]), 300)


def _names(subject: x509.Name, san: x509.SubjectAlternativeName | None) -> set[str]:
    """The names of one holder as folded values: some CAs move a host from the common name to the SAN."""
    own = {names.fold(part.value) for part in subject if part.oid in _OWN}
    return own | {names.fold(names.san_text(entry).partition(":")[2]) for entry in san or ()}
