"""The client that a message is from: its signatures (RFC 5272 3.2), a shared secret (6.2), or the connection.

RFC 7030 4.3 lets a message of an authenticated client stand without a certificate of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from estgw.auth.identity import Client, Trust
from estgw.cmc.messages import PKIData
from estgw.cmc.requests import OtherRequest, TaggedRequest, decode_request, key_id
from estgw.cmc.status import CMCFailInfo
from estgw.cmc_service import identity_proof, issuers, pending
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.exchange import Service
from estgw.cmc_service.policy import Signer
from estgw.cms import signed
from estgw.cms.identifiers import IssuerAndSerial, key_id_of
from estgw.cms.signed import SignedData, SignerInfo
from estgw.errors import Malformed
from estgw.est import certs, names

NOBODY = Signer("nobody", is_authenticated=False)


@dataclass(frozen=True)
class _Signature:
    """What a good signature shows; nothing where a digest stands in its place (id-alg-noSignature)."""

    certificate: x509.Certificate | None = None
    """The signer's certificate of this CA, None for a new key."""
    at: datetime | None = None
    """The signing time, if the signed attributes have it."""


def identify(service: Service, message: SignedData, data: PKIData) -> Signer:
    """The client that an outermost message is from; raises `Refused`."""
    if not message.signers:
        return NOBODY
    policy = service.policy
    found = [_verified(service, message, data, each) for each in message.signers]
    holders = [each for each in found if each.certificate is not None]
    holder = next((each for each in holders if _is_ra(each.certificate)), next(iter(holders), None))
    identification, secret = identity_proof.verify(policy, service.ca.directory, service.state, data)
    if holder is not None and (certificate := holder.certificate) is not None:
        is_ra = _is_ra(certificate)
        is_allowed, kind = (policy.ras, "RAs") if is_ra else (policy.members, "holders of certificates")
        _require(is_allowed, f"{kind} may not sign here")
        _require_same_client(service.outer.client, certificate)
        return Signer(name_of(certificate), certificate, is_ra, identification, secret, signed_at=holder.at)
    signed_at = next((each.at for each in found if each.at is not None), None)
    if identification is not None:
        _require(policy.secrets, "shared secrets are not taken here")
        name = f"secret {names.escape_controls(identification)}"
        return Signer(name, None, False, identification, secret, signed_at=signed_at)
    if policy.connection and service.outer.client.methods:
        return Signer(f"client {_connected(service.outer.client)}", signed_at=signed_at)
    return NOBODY


def identify_inner(
    service: Service, message: SignedData, data: PKIData, ra: Signer, *, is_checked: bool
) -> tuple[Signer, bool]:
    """The same for a message that an RA has wrapped: its signatures must be good, and the RA is its signer.

    `is_checked` says that the RA has checked the identity (RFC 6402 2.9), by a secret that the CA need not know.  The
    second value is whether an RA has signed this message, too.
    """
    found = [_verified(service, message, data, each) for each in message.signers]
    secret = None
    if not is_checked:
        secret = identity_proof.verify(service.policy, service.ca.directory, service.state, data)[1]
    return replace(ra, secret=secret), any(_is_ra(each.certificate) for each in found)


def name_of(certificate: x509.Certificate) -> str:
    """The name of a signer with this certificate."""
    return f"certificate {certs.serial_hex(certificate)} of {names.dn_text(certificate.subject)}"


def _verified(service: Service, message: SignedData, data: PKIData, signer: SignerInfo) -> _Signature:
    """What one signature shows; raises `Refused` for one that is not good."""
    try:
        if not signer.is_signed:
            signed.verify_digest(message, signer)
            return _Signature()
        certificate = _certificate(service, message, signer)
        is_ours = certificate is not None and issuers.vouch_for(service.ca.issuers, certificate)
        public = None if is_ours else _new_key([*data.requests, *_waiting(service, data)], signer, certificate)
        if public is None and certificate is None:
            raise Refused(CMCFailInfo.BAD_IDENTITY, "the signer is neither one of ours nor a key in the request")
        signed.verify(message, signer, public or certificate)
        at = _signing_time(service, signer)
    except Malformed as fault:
        raise Refused.by(fault) from None
    if public is not None or certificate is None:
        # A key of a request that waits may sign the query, but that says nothing about other requests.
        return _Signature(at=at if any(_has_key(each, public) for each in data.requests) else None)
    _require(is_ours, "the signer's certificate is none of ours")
    _require(issuers.is_valid_now(certificate), "the signer's certificate has expired, or its time has not come")
    _require(issuers.may_sign(certificate), "the signer's certificate is not for signatures")
    _require(not service.ca.is_revoked(certificate), "the signer's certificate is revoked")
    return _Signature(certificate, at)


def _waiting(service: Service, data: PKIData) -> list[TaggedRequest]:
    """The requests that a message asks about by queryPending: their keys may sign it."""
    kept = (pending.by_token(service.state, each.value) for each in data.find("queryPending"))
    return [decode_request(each.request) for each in kept if each is not None]


def _certificate(service: Service, message: SignedData, signer: SignerInfo) -> x509.Certificate | None:
    """The signer's certificate, from the message or from the register."""
    if (found := signed.certificate_of(message, signer)) is not None:
        return found
    whom = signer.whom
    if isinstance(whom, IssuerAndSerial) and issuers.have_name(service.ca.issuers, whom.issuer):
        return service.ca.find(whom.serial)
    return None


def _signing_time(service: Service, signer: SignerInfo) -> datetime | None:
    """The time that the client has signed (RFC 5272 6.1.4, badTime); raises `Refused`, `Malformed`."""
    moment = signer.signing_time
    is_off = moment is not None and abs(datetime.now(UTC) - moment) > service.policy.clock
    if is_off and not service.is_replay:
        raise Refused(CMCFailInfo.BAD_TIME, f"signed at {moment:%Y-%m-%d %H:%M:%S} UTC, which is too far from now")
    return moment


def _new_key(
    requests: Iterable[TaggedRequest], signer: SignerInfo, certificate: x509.Certificate | None
) -> object | None:
    """The key of a request that signs the message itself (RFC 5272 3.2), named by its identifier.

    Some clients name it by a certificate that they have made for it themselves.
    """
    own = certificate is not None and certificate.issuer == certificate.subject
    if isinstance(signer.whom, IssuerAndSerial) and not own:
        return None
    unread: Refused | None = None
    for request in requests:
        if isinstance(request, OtherRequest):
            continue
        try:
            public, wanted_id = _public(request.csr.request), key_id(request)
        except Malformed as fault:
            unread = unread or Refused(CMCFailInfo.BAD_REQUEST, str(fault), (request.body_part_id,))
            continue
        if public is None:
            continue
        by_id = isinstance(signer.whom, bytes) and signer.whom in (wanted_id, key_id_of(public))
        if by_id or (own and certificate is not None and _public(certificate) == public):
            return public
    if unread is not None and certificate is None:
        raise unread  # its key may be the one that has signed
    return None


def _has_key(request: TaggedRequest, public: object) -> bool:
    """Whether the request is for this key."""
    try:
        return not isinstance(request, OtherRequest) and _public(request.csr.request) == public
    except Malformed:
        return False


def _is_ra(certificate: x509.Certificate | None) -> bool:
    """Whether its holder is an RA, as in TLS (RFC 7030 3.7): the gateway's own certificate has id-kp-cmcRA, too."""
    return certificate is not None and certs.may_authenticate(certificate) and certs.has_eku(certificate, certs.CMC_RA)


def _public(holder: x509.CertificateSigningRequest | x509.Certificate) -> object | None:
    """The key, or None for one of an unknown kind."""
    try:
        return holder.public_key()
    except certs.UNREADABLE:
        return None


def _require_same_client(client: Client, certificate: x509.Certificate) -> None:
    """A TLS client with a certificate of this CA signs with it or with one for the same names, or is an RA."""
    shown = client.certificate
    if client.trust is not Trust.EXPLICIT or client.is_ra or shown is None:
        return
    is_same = names.name_key(shown.subject) == names.name_key(certificate.subject)
    is_same = is_same and names.san_key(certs.san(shown)) == names.san_key(certs.san(certificate))
    _require(shown == certificate or is_same, "the message is signed by another than the TLS client, which is no RA")


def _require(condition: bool, words: str) -> None:
    if not condition:
        raise Refused(CMCFailInfo.BAD_IDENTITY, words)


def _connected(client: Client) -> str:
    """The client of the connection, under a name that no other client has."""
    shown = client.certificate.fingerprint(SHA256()).hex() if client.certificate else "none"
    return f"with the certificate {shown} and the user name {client.user!r}"
