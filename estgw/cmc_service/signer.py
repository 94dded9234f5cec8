"""Who answers for a message: its signatures, and proofs by shared secrets (RFC 5272 3.2, 6.2; RFC 7030 4.3)."""

import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import ca
from cmc_ca import Books, may_sign, valid_now
from cryptography import x509

from estgw.cmc import proofs
from estgw.cmc.messages import PKIData
from estgw.cmc.requests import OtherRequest, TaggedRequest, decode_request, key_id
from estgw.cmc.status import CMCFailInfo
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.pending import Kept
from estgw.cmc_service.policy import Policy, Who
from estgw.cmc_service.state import Spent, State, mark
from estgw.cms import signed
from estgw.cms.identifiers import IssuerAndSerial, key_id_of
from estgw.cms.signed import SignedData, SignerInfo
from estgw.errors import Malformed
from estgw.est import certs, names

SECRETS = "cmc-secrets"
PROOFS = ("identityProofV2", "identityProof")


@dataclass(frozen=True)
class _Signature:
    """What a good signature shows: nothing but that, where a digest stands in its place (id-alg-noSignature)."""

    certificate: x509.Certificate | None = None
    """The signer's certificate of ours, None for a new key."""
    at: datetime | None = None
    """When it was made, if the signed attributes say so."""


class Desk:
    """Where messages are checked in."""

    def __init__(self, policy: Policy, books: Books, state: State) -> None:
        self._policy, self._books, self._state = policy, books, state

    def identify(self, message: SignedData, data: PKIData) -> Who:
        """Who answers for an outermost message; raises `Refused`."""
        found = [self._signer(message, data, each) for each in message.signers]
        holders = [each for each in found if each.certificate is not None]
        holder = next((each for each in holders if _is_ra(each.certificate)), next(iter(holders), None))
        identification, secret = self.proved(data)
        if holder is not None and (certificate := holder.certificate) is not None:
            is_ra = _is_ra(certificate)
            _require(
                self._policy.ras if is_ra else self._policy.members,
                f"{'RAs' if is_ra else 'holders of certificates'} may not sign here",
            )
            _require_same_client(certificate)
            return Who(_named(certificate), certificate, is_ra, identification, secret, signed_at=holder.at)
        signed_at = next((each.at for each in found if each.at is not None), None)
        if identification is not None:
            _require(self._policy.secrets, "shared secrets are not taken here")
            name = f"secret {names.escape_controls(identification)}"
            return Who(name, None, False, identification, secret, signed_at=signed_at)
        if self._policy.connection and os.environ["EST_AUTH_METHODS"]:
            return Who(f"client {_client()}", signed_at=signed_at)
        return Who("nobody", is_authenticated=False)

    def identify_inner(self, message: SignedData, data: PKIData, ra: Who, *, vouched: bool) -> tuple[Who, bool]:
        """The same for a message that an RA has wrapped: it must be sound, but it is the RA who answers for it.

        `vouched` is whether the RA has checked the identity (RFC 6402 2.9), by a secret that it may know alone.  The
        second value is whether an RA has signed this one, too.
        """
        found = [self._signer(message, data, each) for each in message.signers]
        secret = None if vouched else self.proved(data)[1]
        return replace(ra, secret=secret), any(_is_ra(each.certificate) for each in found)

    def _signer(self, message: SignedData, data: PKIData, signer: SignerInfo) -> "_Signature":
        """What one signature shows; raises `Refused` for one that is not good."""
        try:
            if not signer.is_signed:
                signed.verify_digest(message, signer)
                return _Signature()
            certificate = self._certificate(message, signer)
            ours = certificate is not None and self._books.vouches_for(certificate)
            public = None if ours else _new_key([*data.requests, *self._waiting(data)], signer, certificate)
            if public is None and certificate is None:
                raise Refused(CMCFailInfo.BAD_IDENTITY, "the signer is neither one of ours nor a key in the request")
            signed.verify(message, signer, public or certificate)
            at = self._signing_time(signer)
        except Malformed as fault:
            raise Refused.by(fault) from None
        if public is not None or certificate is None:
            # A key of a request that waits may sign the question, but it says nothing about other requests.
            return _Signature(at=at if any(_has_key(each, public) for each in data.requests) else None)
        _require(ours, "the signer's certificate is none of ours")
        self._require_good(certificate)
        return _Signature(certificate, at)

    def _waiting(self, data: PKIData) -> list[TaggedRequest]:
        """The requests that a message asks about by queryPending: their keys may sign the question."""
        kept = (self._state.get("pending", each.value.hex()) for each in data.find("queryPending"))
        return [decode_request(Kept.decode(value).request) for value in kept if value is not None]

    def _certificate(self, message: SignedData, signer: SignerInfo) -> x509.Certificate | None:
        if (found := signed.certificate_of(message, signer)) is not None:
            return found
        ours = isinstance(signer.whom, IssuerAndSerial) and self._books.is_ours(signer.whom.issuer)
        return self._books.find(signer.whom.serial) if ours else None  # type: ignore[union-attr]

    def _require_good(self, certificate: x509.Certificate) -> None:
        _require(valid_now(certificate), "the signer's certificate has expired, or its time has not come")
        _require(may_sign(certificate), "the signer's certificate is not for signatures")
        _require(not ca.is_revoked(certificate), "the signer's certificate is revoked")

    def _signing_time(self, signer: SignerInfo) -> datetime | None:
        """The sender's word, and part of what is signed (RFC 5272 6.1.4, badTime); raises `Refused`, `Malformed`."""
        moment = signer.signing_time
        if moment is not None and abs(datetime.now(UTC) - moment) > self._policy.clock:
            raise Refused(CMCFailInfo.BAD_TIME, f"signed at {moment:%Y-%m-%d %H:%M:%S} UTC, which is too far from now")
        return moment

    def proved(self, data: PKIData) -> tuple[str | None, str | None]:
        """Identification and secret, both None where no proof is given; raises `Refused` for a wrong one."""
        try:
            given = {name: data.value(name) for name in PROOFS}
            identification = data.value("identification")
        except Malformed as fault:
            raise Refused.by(fault) from None
        parts = [each.body_part_id for name in PROOFS for each in data.find(name)]
        if not parts:
            return None, None
        if given["identityProof"] is not None and given["identityProofV2"] is None and not self._policy.old_proofs:
            raise Refused(CMCFailInfo.BAD_ALG, "identityProof rests on SHA-1; use identityProofV2", parts)
        secret = secret_of(self._books.folder, identification)
        sequence, known = data.request_sequence, secret or ""
        try:
            good = all(
                proofs.is_identity_proof_v2(value, sequence, known, identification)
                if name == "identityProofV2"
                else proofs.is_identity_proof(value, sequence, known, identification)
                for name, value in given.items()
                if value is not None
            )
        except Malformed as fault:
            raise Refused(Refused.by(fault).failure, str(fault), parts) from None
        kind = "unknown" if secret is None else "wrong"
        if not self._judge(kind, identification, good and secret is not None, parts):
            raise Refused(CMCFailInfo.BAD_IDENTITY, "the proof of identity is wrong", parts)
        return identification, secret

    def _judge(self, kind: str, identification: str | None, good: bool, parts: list[int]) -> bool:
        """Whether the proof is right, as one of the few guesses for this identification; raises `Refused` after those.

        Names that somebody makes up are of a kind of their own, so that they take no room from those with a secret.
        """
        lasts, most = self._policy.tries_per, self._policy.tries
        try:
            return self._state.judge(kind, mark(identification), lasts, most=most, is_right=good)
        except Spent:
            raise Refused(CMCFailInfo.TRY_LATER, "too many wrong proofs for this identification", parts) from None


def secret_of(folder: Path, identification: str | None) -> str | None:
    """The secret of that identification: `cmc-secrets` has an identification and a secret a line."""
    file = folder / SECRETS
    if identification is None or not file.exists():
        return None
    if file.stat().st_mode & 0o077:
        ca.fail(f"{file}: others may read the secrets in it; chmod 600")
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *secret = line.split(maxsplit=1)
        if not secret:
            ca.fail(f"{file}:{number}: not an identification and a secret")
        if hmac.compare_digest(name.encode(), identification.encode()):
            return secret[0].strip()
    return None


def _new_key(
    requests: Iterable[TaggedRequest], signer: SignerInfo, certificate: x509.Certificate | None
) -> object | None:
    """The key of a request that signs the message itself (RFC 5272 3.2): named by its identifier.

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
        raise unread  # it may be the one whose key has signed
    return None


def _has_key(request: TaggedRequest, public: object) -> bool:
    """Whether it is this key that is to be certified."""
    try:
        return not isinstance(request, OtherRequest) and _public(request.csr.request) == public
    except Malformed:
        return False


def _is_ra(certificate: x509.Certificate | None) -> bool:
    """Whether its holder is an RA as in TLS (RFC 7030 3.7): the gateway's own certificate has id-kp-cmcRA, too."""
    return certificate is not None and certs.may_authenticate(certificate) and certs.has_eku(certificate, ca.CMC_RA)


def _public(holder: x509.CertificateSigningRequest | x509.Certificate) -> object | None:
    """The key, or None for one of a kind that nobody here knows."""
    try:
        return holder.public_key()
    except certs.UNREADABLE:
        return None


def _require_same_client(certificate: x509.Certificate) -> None:
    """A client that shows a certificate of ours in TLS signs with it, or with one for the same names; or is an RA."""
    env = os.environ
    if env["EST_CLIENT_TRUST"] != "explicit" or env["EST_CLIENT_IS_RA"] == "1":
        return
    shown = certs.load_pem(Path(env["EST_CLIENT_CERT_FILE"]).read_bytes())[0]
    same = names.name_key(shown.subject) == names.name_key(certificate.subject)
    same = same and names.san_key(certs.san(shown)) == names.san_key(certs.san(certificate))
    _require(shown == certificate or same, "the message is signed by another than the TLS client, which is no RA")


def _require(condition: bool, words: str) -> None:
    if not condition:
        raise Refused(CMCFailInfo.BAD_IDENTITY, words)


def _named(certificate: x509.Certificate) -> str:
    return f"certificate {certs.serial_hex(certificate)} of {names.dn_text(certificate.subject)}"


def _client() -> str:
    """The client of the connection, so that no two go by the same name."""
    shown, user = os.environ.get("EST_CLIENT_CERT_SHA256", "none"), os.environ.get("REMOTE_USER")
    return f"with the certificate {shown} and the user name {user!r}"
