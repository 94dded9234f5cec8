"""One request for a certificate inside a message, from its proof of possession to the certificate (RFC 5272 3.2.1.2).

It is checked as the gateway checks one that comes alone: signature and linking (`pop`), names and template
(`inner_call`).  Then `authorize` is asked, and the CA issues.
"""

from __future__ import annotations

import time

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from estgw.callout.call import Call
from estgw.cmc.requests import CRMFRequest, OtherRequest, PKCS10Request, Possession, TaggedRequest
from estgw.cmc.status import CMCFailInfo, CMCStatus
from estgw.cmc_service import approval, authorize, confirmation, inner_call, passphrase, pending, pop
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.approval import Verdict
from estgw.cmc_service.ca import Certification
from estgw.cmc_service.exchange import Exchange
from estgw.cmc_service.pending import PendingRequest
from estgw.cmc_service.state import mark
from estgw.errors import Malformed, RequestError
from estgw.est import certs, names
from estgw.est import csr as csrs
from estgw.est.csr import CSR

TRANSIENT = (CMCFailInfo.TRY_LATER, CMCFailInfo.INTERNAL_CA_ERROR)
"""After these failures the client may ask about the request again."""
ARCHIVE = "1.3.6.1.5.5.7.5.1.4"  # pkiArchiveOptions (RFC 4211 6.4)


def handle(exchange: Exchange, request: TaggedRequest) -> None:
    """Serve one request: its status goes into the answer.  Raises `Refused`."""
    if isinstance(request, OtherRequest):
        raise Refused(None, f"requests of the format {request.oid} are not known", status=CMCStatus.NO_SUPPORT)
    if exchange.full is not None:
        raise exchange.full
    try:
        csr = request.csr
        names.require_sound(csr.san)
        public = pop.require_key(csr)
        proof = pop.possession_of(exchange, request, public)
        if proof is None:
            return
        linked = pop.link(exchange, request)
    except Malformed as fault:
        raise Refused.by(fault, CMCFailInfo.POP_FAILED) from None
    _require_fresh(exchange, csr, proof)
    changes = exchange.changes.get(request.body_part_id)
    if isinstance(changes, Refused):
        raise changes
    signs = proof is Possession.PROVED
    kept = PendingRequest(mark(exchange.signer.name), request.encode(), linked, signs, changes)
    decide(exchange, request, kept, request.body_part_id)


def _require_fresh(exchange: Exchange, csr: CSR, proof: Possession) -> None:
    """Refuse a second certificate for a key on a shared secret alone, if the message may be a copy.

    An identity proof is good for ever, for the same requests in any message (RFC 5272 6.2.1).  Only a signing time by
    the new key, or the answer to our challenge, tells the sender's message from a copy.  The register remembers keys
    for longer than the register could remember messages.
    """
    signer = exchange.signer
    by_secret = signer.certificate is None and signer.identification is not None
    if not by_secret or signer.signed_at is not None or proof is Possession.CHALLENGE:
        return
    if exchange.service.ca.has_key(csr.spki):
        words = "there is a certificate for this key, and nothing says when the message was signed: "
        raise Refused(CMCFailInfo.BAD_TIME, words + "sign with signingTime (RFC 5652 11.3), or make a new key")


def decide(exchange: Exchange, request: PKCS10Request | CRMFRequest, kept: PendingRequest, part: int) -> None:
    """Check what may have changed while the request waited, ask `authorize`, and issue.

    Also for a request that the client asks about by queryPending: its proofs were good when it came.
    """
    service = exchange.service
    if time.monotonic() > service.deadline:
        raise Refused(CMCFailInfo.TRY_LATER, "no time left for this request: send fewer in one message")
    _require_client(exchange)
    try:
        call = inner_call.make(exchange, request, kept)
        pending_id = authorize.environment(call)["EST_PENDING_ID"]
    except Malformed as fault:
        raise Refused.by(fault) from None
    except RequestError as refusal:
        raise Refused.of(refusal) from None
    try:
        verdict = _verdict(exchange, call)
    except Refused as why:
        if why.failure not in TRANSIENT:
            pending.forget(service.state, pending_id)
        raise
    policy = service.policy
    if verdict.waits:
        token = pending.wait(service.state, kept, pending_id, policy.remember)
        exchange.answer.wait(part, token, policy.retry)
        return
    with pending.issuing(service.state, kept, pending_id, policy.remember, int(service.outer.timeout)):
        certificate = verdict.certificate
        if certificate is None:
            with verdict:
                certificate = _issue(exchange, call, kept.signs)
                verdict.issued(certificate)
    status = CMCStatus.SUCCESS
    if policy.confirm is not None:
        confirmation.expect(service.state, certificate, exchange.signer, policy.confirm)
        status = CMCStatus.CONFIRM_REQUIRED
    exchange.answer.good(part, certificate, status=status)


def _require_client(exchange: Exchange) -> None:
    """A certificate that proves its holder's identity to simplereenroll does so here, no other (RFC 7030 3.3.2).

    The holder of another certificate may still revoke it, confirm it and ask for lists.
    """
    certificate = exchange.signer.certificate
    if certificate is not None and not certs.may_authenticate(certificate):
        words = "the signer's certificate is not for clients: its extended key usage lacks clientAuth; enroll instead"
        raise Refused(CMCFailInfo.BAD_IDENTITY, words)


def _verdict(exchange: Exchange, call: Call) -> Verdict:
    """The word of `authorize`, then that of a person, if the policy wants it."""
    service = exchange.service
    for path, content in call.files():
        path.write_bytes(content)
    if not authorize.authorize(call, service.deadline - time.monotonic() + 1):
        return Verdict(waits=True)
    if not service.policy.human:
        return Verdict()
    return approval.verdict(service.ca, authorize.environment(call), service.state, mark(exchange.signer.name))


# Issuing.


def _issue(exchange: Exchange, call: Call, signs: bool) -> x509.Certificate:
    """A certificate, in the register; raises `Refused`, `CAError`."""
    assert call.csr is not None
    policy, ca, csr = exchange.service.policy, exchange.service.ca, call.csr.pkcs10
    if policy.must_archive and not _may_sign(csr):
        words = "keys for encryption are kept here, so the server makes them: ask serverkeygen"
        raise Refused(CMCFailInfo.MUST_ARCHIVE_KEYS, words)
    if ARCHIVE in csr.attributes:
        raise Refused(CMCFailInfo.BAD_REQUEST, "private keys of clients are not archived here")
    if policy.no_key_reuse and ca.has_key(csr.spki):
        raise Refused(CMCFailInfo.NO_KEY_REUSE, "there is a certificate for this key: make a new key")
    certificate = ca.issue(
        Certification(
            subject=call.csr.subject,
            public_key=csr.request.public_key(),
            san=list(call.csr.san or ()),
            profile=policy.profile,
            lifetime=policy.lifetime,
            signs=not _is_for_both(csr) or (signs and _may_sign(csr)),
            pending_id=call.pending_id or "",
        )
    )
    if (challenge := csr.text_attribute(csrs.REVOCATION_CHALLENGE)) is not None:
        passphrase.remember(exchange.service.state, certificate, challenge)
    return certificate


def _is_for_both(csr: CSR) -> bool:
    """Whether a key of this kind can encrypt as well as sign."""
    return isinstance(csr.request.public_key(), rsa.RSAPublicKey | ec.EllipticCurvePublicKey)


def _may_sign(csr: CSR) -> bool:
    """Whether the request's key usage has signatures; without that extension it is all that the key can do."""
    try:
        usage = csr.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    encrypts = usage.key_encipherment or usage.data_encipherment or usage.key_agreement
    return usage.digital_signature or usage.content_commitment or not encrypts
