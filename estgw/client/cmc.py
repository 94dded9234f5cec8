"""Whether the signer of a Full CMC answer may say what it says (RFC 5272 4, RFC 6402 2.10, RFC 7030 4.3.2).

A CMC answer has a status inside: an HTTP 200 around a failure must not pass for success.  A Full PKI Response counts
if an RA or the CA has signed it.  A Simple one, mere certificates, has no signature: TLS has authenticated the server,
and the caller checks that the certificate is the one it asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509

from estgw.client.faults import InvalidAnswer, clean
from estgw.client.transport import trust
from estgw.client.transport.pki_response import MAXIMUM_WORDS, Response, said
from estgw.client.transport.trust import Trust
from estgw.cmc.messages import pki_data
from estgw.cmc.requests import OtherRequest
from estgw.cmc.status import CMCStatus
from estgw.cms import signed
from estgw.cms.identifiers import is_named
from estgw.cms.signed import SIGNED_DATA, SignedData, SignerInfo
from estgw.errors import Malformed
from estgw.est import ber, certs, csr, encoding


def request(body: bytes) -> bytes:
    """A Full PKI Request on its way out, as DER; raises `Malformed` unless it is a CMS SignedData."""
    der = encoding.decode(body, certs.PKCS7_LABELS)
    kind, _ = signed.content_info(ber.to_der(der))
    if kind != SIGNED_DATA:
        raise Malformed(f"a CMS message of type {kind}, not SignedData")
    return der


def marks_of(der: bytes) -> tuple[int | None, bytes | None]:
    """Transaction and nonce of a request; None for one that is missing or can't be read."""
    try:
        data = pki_data(signed.parse(der))
        return data.value("transactionId"), data.value("senderNonce")
    except Malformed:
        return None, None


def has_secret(body: bytes) -> bool:
    """Whether a request (PEM, DER or base64) holds a revocation passphrase or a secret of RFC 7894 in the clear."""
    try:
        data = pki_data(signed.parse(encoding.decode(body, certs.PKCS7_LABELS)))
        if any(each.value.passphrase is not None for each in data.find("revokeRequest")):
            return True
        known = [each.csr.attributes for each in data.requests if not isinstance(each, OtherRequest)]
    except Malformed:
        return False
    return any(csr.OTP_CHALLENGE in each or csr.REVOCATION_CHALLENGE in each for each in known)


def authenticate(found: Response, trusted: Trust, host: str) -> None:
    """Raise `InvalidAnswer` unless an authorized signer has signed a Full PKI Response (RFC 5272 4.2, RFC 6402 2.10).

    `host` is the server's name, which counts under implicit anchors alone (`trust.speaker_fault`).
    """
    if found.is_simple:
        return
    faults = [_objection(found.message, each, trusted, host) for each in found.message.signers]
    if None not in faults:
        why = faults[0] if faults else "it is not signed"
        claim = f"; it says {said(found.worst)}" if found.worst else ""
        raise InvalidAnswer(f"the CMC answer can't be trusted: {why}{claim}")


def _objection(message: SignedData, signer: SignerInfo, trusted: Trust, host: str) -> str | None:
    certificate = signed.certificate_of(message, signer)
    if certificate is None:
        certificate = next((each for each in trusted.explicit if is_named(each, signer.whom)), None)
    if certificate is None:
        return "its signer's certificate is not in it"
    try:
        signed.verify(message, signer, certificate)
    except (Malformed, *certs.UNREADABLE) as fault:
        return clean(str(fault), 200)
    return trust.speaker_fault(trusted, certificate, host, message.bag)


def check_echo(
    found: Response, transaction: int | None, nonce: bytes | None, *, may_lack: bool = False
) -> bytes | None:
    """The server's nonce; raises `InvalidAnswer` unless a Full PKI Response is the one to our message (RFC 5272 6.6).

    It must not have another transaction or nonce than ours.  It may lack them in a refusal, since a server that could
    not read a message has nothing to send back, and in every answer if it `may_lack`.
    """
    if found.content is None:
        return None
    is_refusal = found.worst is not None and found.worst.status == CMCStatus.FAILED
    try:
        pairs = (
            ("transactionId", transaction, found.content.value("transactionId")),
            ("recipientNonce", nonce, found.content.value("recipientNonce")),
        )
        server: bytes | None = found.content.value("senderNonce")
    except Malformed as fault:
        raise InvalidAnswer(f"the CMC answer can't be read: {clean(str(fault), MAXIMUM_WORDS)}") from None
    for name, ours, theirs in pairs:
        if ours is None or ours == theirs or (theirs is None and (may_lack or is_refusal)):
            continue
        claim = f"; it says {said(found.worst)}" if found.worst else ""
        how = "lacks our" if theirs is None else "has another"
        raise InvalidAnswer(f"the CMC answer {how} {name}: it is not for our message (RFC 5272 6.6){claim}")
    return server


def certificate_for(found: Response, spki: bytes, others: Sequence[x509.Certificate] = ()) -> x509.Certificate:
    """The one certificate in the bag for a key (the DER of its SubjectPublicKeyInfo) and none of `others`.

    Raises `InvalidAnswer`.  Beside it the bag may hold the signer's certificate and the whole chain.
    """
    fitting = [each for each in dict.fromkeys(found.message.bag) if each not in others and _is_for(each, spki)]
    if not fitting:
        raise InvalidAnswer("the CMC answer has no certificate for our key in it")
    if len(fitting) > 1:
        raise InvalidAnswer(f"the CMC answer has {len(fitting)} certificates for our key in it")
    return fitting[0]


def _is_for(certificate: x509.Certificate, spki: bytes) -> bool:
    try:
        return certs.spki(certificate) == spki
    except Malformed:
        return False
