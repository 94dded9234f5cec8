"""401: what the server may want, to judge by its challenges and by what it has been shown (RFC 7030 3.2.3, 3.3.2)."""

from __future__ import annotations

from dataclasses import dataclass

from estgw.client.faults import Refused, clean
from estgw.client.transport import answers, challenge
from estgw.client.transport.wire import Answer, values
from estgw.errors import Malformed
from estgw.est import csr
from estgw.est.csr import CHALLENGE_PASSWORD, EST_IDENTITY_LINKING

_UNLINKED = (
    "The CSR is not linked to the connection (RFC 7030 3.5), which some servers answer with 401 too: "
    "leave --no-pop out, and let -R or --new-key make the CSR in place of --csr."
)


@dataclass(frozen=True)
class Shown:
    """What a server had been shown when it answered 401."""

    certificate: bool = False
    """One of ours was at hand for TLS."""
    password: bool = False
    """The request had an Authorization header."""
    has_password: bool = False
    """We have a password; without `password` it was not sent, for want of a challenge."""
    is_unverified: bool = False
    """The server is unverified and gets neither (RFC 7030 4.1.1)."""
    csr: bytes | None = None
    """The PKCS#10 that was sent, DER."""


def refusal(answer: Answer, shown: Shown) -> Refused:
    """The exception for a 401 that can't be answered, with a sentence about what to add."""
    lines = [answers.says(answer), _advice(answer, shown)]
    if (shown.certificate or shown.password) and shown.csr is not None and not _is_linked(shown.csr):
        lines.append(_UNLINKED)
    return Refused("\n".join(lines), http_status=answer.status, words=answer.words, answer=answer)


def _advice(answer: Answer, shown: Shown) -> str:
    schemes = list(dict.fromkeys(each.scheme for each in challenge.parse(values(answer.headers, "WWW-Authenticate"))))
    if shown.is_unverified:
        return (
            "A server that is not verified gets no password and no certificate: it needs -c FILE or --implicit first."
        )
    if shown.password:
        if schemes:
            return "It does not accept the user name and password."
        return "It does not accept the user name and password, or it misses something else: it names no challenge."
    if shown.has_password:
        wish = clean(" and ".join(schemes), 100) or "nothing"
        also = "and --cert was not enough." if shown.certificate else "or it wants a certificate: --cert and --key."
        return f"It asks for {wish}, which neither Basic nor Digest with our password can answer, {also}"
    if shown.certificate:
        return "The certificate of --cert was not enough: add a password, -p USER."
    if schemes:
        return "It wants to know who you are: -p USER, or --cert and --key."
    return "It asks for no password (no WWW-Authenticate), so it may want a certificate: --cert and --key."


def _is_linked(der: bytes) -> bool:
    try:
        attributes = csr.parse(der).attributes
    except Malformed:
        return True
    return CHALLENGE_PASSWORD in attributes or EST_IDENTITY_LINKING in attributes
