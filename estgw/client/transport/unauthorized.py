"""401: the missing credentials, by the server's challenges and by what the request had (RFC 7030 3.2.3, 3.3.2)."""

from __future__ import annotations

from dataclasses import dataclass

from estgw.client.faults import Refused, clean
from estgw.client.transport import answers, challenge
from estgw.client.transport.wire import Answer, values
from estgw.errors import Malformed
from estgw.est import csr
from estgw.est.csr import CHALLENGE_PASSWORD, EST_IDENTITY_LINKING

_UNLINKED = (
    "The CSR is not linked to the connection (RFC 7030 3.5), and some servers answer that with 401 too: "
    "leave out --no-pop, and make the CSR with -R or --new-key in place of --csr."
)


@dataclass(frozen=True)
class Shown:
    """The credentials of the request that got 401, and what the client has beside them."""

    certificate: bool = False
    """The client has a certificate for TLS."""
    password: bool = False
    """The request had an Authorization header."""
    has_password: bool = False
    """The client has a password; without `password` it was not sent, since no challenge asked for it."""
    is_unverified: bool = False
    """The server is not verified and gets neither (RFC 7030 4.1.1)."""
    csr: bytes | None = None
    """The PKCS#10 that was sent, DER."""


def refusal(answer: Answer, shown: Shown) -> Refused:
    """The exception for a 401 that can't be answered, with a sentence that names the option to add."""
    lines = [answers.says(answer), _advice(answer, shown)]
    if (shown.certificate or shown.password) and shown.csr is not None and not _is_linked(shown.csr):
        lines.append(_UNLINKED)
    return Refused("\n".join(lines), http_status=answer.status, words=answer.words, answer=answer)


def _advice(answer: Answer, shown: Shown) -> str:
    """Which credentials are missing, and the option that gives them."""
    challenges = challenge.parse(values(answer.headers, "WWW-Authenticate"))
    schemes = clean(" or ".join(dict.fromkeys(each.scheme.capitalize() for each in challenges)), 100)
    if shown.is_unverified:
        return (
            "This server is not verified, so it gets no password and no certificate: give -c FILE or --implicit first."
        )
    if shown.password:
        if schemes:
            return "The server does not accept the user name and password of -p: check both."
        return (
            "The server does not accept the user name and password of -p, or it misses something else: "
            "it names no challenge."
        )
    if shown.has_password:
        other = "and --cert is not enough." if shown.certificate else "or give a certificate: --cert FILE --key FILE."
        return f"The server wants {schemes or 'no password'}, and -p can answer Basic and Digest only; {other}"
    if shown.certificate:
        return "The certificate of --cert is not enough: give a user name and password as well, -p USER."
    if schemes:
        return (
            f"The request had no credentials, and the server offers {schemes}: give a user name and password, -p USER, "
            "or a certificate, --cert FILE --key FILE."
        )
    return (
        "The request had no credentials, and the server asks for no password (no WWW-Authenticate): "
        "it may want a certificate, --cert FILE --key FILE."
    )


def _is_linked(der: bytes) -> bool:
    try:
        attributes = csr.parse(der).attributes
    except Malformed:
        return True
    return CHALLENGE_PASSWORD in attributes or EST_IDENTITY_LINKING in attributes
