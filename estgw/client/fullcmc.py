"""Full CMC from the client's side: messages made and signed, answers checked and unpacked (RFC 5272, RFC 7030 4.3).

    with Session("https://est.example", anchors, identity=identity) as session:
        certificate = fullcmc.Transaction(session, fullcmc.Author.holder(identity)).enroll(cmcrequest.pkcs10(plan, key))

A transaction gets one certificate, one revocation or one CRL.  Each of its messages has the transaction's number and a
nonce of its own, and an answer must have both.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from estgw.client import cmc, crls
from estgw.client.cmcrequest import BODY_PART_ID, Request, RequestMaker
from estgw.client.faults import InvalidAnswer, Refused, TryLater, UsageError, clean
from estgw.client.transport import answers, pki_response
from estgw.client.transport.pki_response import Response
from estgw.client.transport.session import Session
from estgw.client.transport.tls import Identity
from estgw.client.transport.wire import Answer, parameter
from estgw.cmc import proofs
from estgw.cmc.controls import Control
from estgw.cmc.messages import PKI_DATA, PKIData
from estgw.cmc.status import CMCFailInfo, CMCStatus
from estgw.cmc.values import EncryptedPOP, GetCRL, RevokeRequest
from estgw.cms import enveloped, signed
from estgw.cms.identifiers import IssuerAndSerial, key_id_of
from estgw.cms.signed import Signer
from estgw.errors import Malformed
from estgw.est.binding import Binding

_NONCE_LENGTH = 16
_KEY_ID_LENGTH = 20
_TYPES = ("application/pkcs7-mime", "application/x-pkcs7-mime")
_SMIME_TYPES = ("cmc-response", "certs-only")
"""In lower case: RFC 5273 itself writes CMC-Response in more than one way."""


@dataclass(frozen=True)
class Author:
    """The signers of a transaction's messages."""

    signers: tuple[Signer, ...] = ()
    """Empty when a passphrase revokes (RFC 5272 6.11)."""
    certificates: tuple[x509.Certificate, ...] = ()
    """The signer's certificate and its chain, sent in the message."""
    needs_request: bool = False
    """Whether only the request shows the signers' keys; a message without one then has digests as signatures."""

    @classmethod
    def holder(cls, identity: Identity) -> Author:
        """The holder of a certificate, on its own behalf or as an RA."""
        signer = Signer.of(identity.key, identity.certificate)  # type: ignore[arg-type]  # signing says which it takes
        return cls((signer,), (identity.certificate, *identity.chain))

    @classmethod
    def new_key(cls, key: PrivateKeyTypes, *, can_sign: bool = True) -> Author:
        """The key that a certificate is asked for, named by the identifier in the request (RFC 5272 3.2).

        `cmcrequest.with_key_id` puts it there.  A key that can't sign leaves a digest in its place (RFC 5272 C.1).
        """
        signer = Signer(key if can_sign else None, key_id_of(key.public_key()))  # type: ignore[arg-type]
        return cls((signer,), needs_request=True)

    @classmethod
    def nobody(cls) -> Author:
        """A client without a certificate that asks for none; at most the connection authenticates it."""
        return cls((Signer(None, secrets.token_bytes(_KEY_ID_LENGTH)),))

    def signing(self, data: PKIData) -> list[Signer]:
        """The signers of this message."""
        if data.requests or not self.needs_request:
            return list(self.signers)
        return [Signer(None, each.whom) for each in self.signers]


@dataclass(frozen=True)
class Secret:
    """A secret that the client shares with the CA, and the CA's name for it (RFC 5272 6.2)."""

    text: str = field(repr=False)
    identification: str | None = None


class Transaction:
    """One exchange with a CA for one purpose: call one of `enroll`, `revoke` and `crl`.

    After a `TryLater`, call the same method again: it asks with the token that the CA has given (RFC 5272 6.13), or
    sends its message again if there is none.  All raise the exceptions of `estgw.client.faults`.
    """

    def __init__(self, session: Session, author: Author, secret: Secret | None = None) -> None:
        self._session = session
        self._author = author
        self._secret = secret
        self._number = secrets.randbits(63) | 1
        self._nonce = b""
        self._theirs: bytes | None = None
        self._token: bytes | None = None
        self._request: Request | None = None
        self.words: list[str] = []
        """The words of the last answer's statuses, cleaned."""

    def enroll(self, make: RequestMaker, key: PrivateKeyTypes | None = None) -> x509.Certificate:
        """Get a certificate; a `key` can answer the challenge that the CA encrypts to it (RFC 5272 6.7)."""
        response, answer = self._begin(lambda binding: self._enrolment(make, binding))
        challenge = _challenge(response)
        if challenge is not None and key is not None:
            response, answer = self._ask(self._proved(challenge, key))
        if response.worst is not None and response.worst.status == CMCStatus.CONFIRM_REQUIRED:
            certificate = self._certificate(response)
            pairs = [("confirmCertAcceptance", IssuerAndSerial.of(certificate))]
            _require_success(*self._ask(lambda _: self._data(pairs)))
            return certificate
        judge(response, answer)
        return self._certificate(response)

    def revoke(self, target: IssuerAndSerial, reason: int = 0, passphrase: str | None = None) -> None:
        """Revoke a certificate for a reason of RFC 5280 5.3.1; a `passphrase` may stand for a signature."""
        secret = None if passphrase is None else passphrase.encode()
        pairs = [("revokeRequest", RevokeRequest(target.issuer, target.serial, reason, passphrase=secret))]
        _require_success(*self._begin(lambda _: self._data(pairs)))

    def crl(self, issuer: x509.Name) -> x509.CertificateRevocationList:
        """The newest CRL of a CA, with its signature checked under the session's anchors (RFC 5272 6.10)."""
        pairs = [("getCRL", GetCRL(issuer.public_bytes()))]
        response, answer = self._begin(lambda _: self._data(pairs))
        judge(response, answer)
        return crls.newest(response.message, issuer, self._session.trust)

    # Messages to the CA.

    def _enrolment(self, make: RequestMaker, binding: Binding | None) -> PKIData:
        if self._secret is None:
            self._request = make(binding, None)
            return self._data([], self._request)
        random = secrets.token_bytes(proofs.MINIMUM_RANDOM)
        self._request = make(binding, proofs.pop_link_witness_v2(random, self._secret.text))
        linked = proofs.link_witness(self._request) is not None
        return self._data([("popLinkRandom", random)] if linked else [], self._request)

    def _proved(self, challenge: EncryptedPOP, key: PrivateKeyTypes) -> Callable[[Binding | None], PKIData]:
        """The same request again, with the proof that we could decrypt the challenge with its key."""
        asked = self._request
        if asked is None or challenge.request.encode() != asked.encode():
            raise InvalidAnswer("the CMC answer has a challenge for another request than ours")
        try:
            _, value = enveloped.decrypt(challenge.cms, key)
            proof = proofs.answer(challenge, value, BODY_PART_ID)
        except Malformed as fault:
            raise InvalidAnswer(f"the CMC answer's challenge can't be met: {clean(str(fault), 200)}") from None
        return lambda _: self._data([("decryptedPOP", proof)], asked)

    def _data(self, pairs: Sequence[tuple[str, Any]], asked: Request | None = None) -> PKIData:
        """A message with these controls, the transaction's own, and the proof of identity for the request."""
        requests = () if asked is None else (asked,)
        made: list[tuple[str, Any]] = [("transactionId", self._number), ("senderNonce", self._nonce)]
        if self._theirs is not None:
            made.append(("recipientNonce", self._theirs))
        if self._secret is not None:
            name = self._secret.identification
            if name is not None:
                made.append(("identification", name))
            over = PKIData(requests=requests).request_sequence
            made.append(("identityProofV2", proofs.identity_proof_v2(over, self._secret.text, name)))
        numbered = enumerate([*made, *pairs], BODY_PART_ID + 1)
        return PKIData(tuple(Control.make(at, *pair) for at, pair in numbered), requests)

    def _begin(self, compose: Callable[[Binding | None], PKIData]) -> tuple[Response, Answer]:
        """Send the first message or, if it is pending, ask for its state (RFC 5272 6.13)."""
        token = self._token
        if token is None:
            self._theirs = None  # a message that is sent again answers nothing
            return self._ask(compose)
        return self._ask(lambda _: self._data([("queryPending", token)]))

    def _ask(self, compose: Callable[[Binding | None], PKIData]) -> tuple[Response, Answer]:
        """Send a message and return its answer, which has been checked to belong to it."""

        def make(binding: Binding | None) -> bytes:
            self._nonce = secrets.token_bytes(_NONCE_LENGTH)
            try:
                data = compose(binding)
                return signed.sign(
                    PKI_DATA,
                    data.encode(),
                    self._author.signing(data),
                    certificates=self._author.certificates,
                    signing_time=datetime.now(UTC),
                )
            except Malformed as fault:
                raise UsageError(f"no CMC message can be made of this: {fault}") from None

        try:
            answer = self._session.fullcmc(make)
            response = self._checked(answer)
        except (TryLater, Refused) as fault:
            found = self._inside(fault.answer)
            if isinstance(fault, TryLater):
                self._token = _token(found) or self._token
            if found is None or _challenge(found) is None:
                raise
            return found, fault.answer
        self._token = _token(response)
        return response, answer

    # Answers from the CA.

    def _inside(self, answer: Answer | None) -> Response | None:
        """The PKI Response in a 202 or a rejection, if there is one that can be trusted; the HTTP status is enough."""
        try:
            return None if answer is None else self._checked(answer)
        except InvalidAnswer:
            return None

    def _checked(self, answer: Answer) -> Response:
        response = read(answer)
        cmc.authenticate(response, self._session.trust, self._session.place.host)
        self._theirs = cmc.check_echo(response, self._number, self._nonce)
        self.words = response.words
        return response

    def _certificate(self, response: Response) -> x509.Certificate:
        assert self._request is not None
        try:
            wanted = self._request.csr.spki
        except Malformed as fault:
            raise UsageError(f"the request can't be used: {fault}") from None
        return cmc.certificate_for(response, wanted, self._author.certificates)


def _require_success(response: Response, answer: Answer) -> None:
    """Raise unless a message that asks for no certificate has had its effect."""
    if response.is_simple:
        raise InvalidAnswer("mere certificates in answer to a CMC message that asks for none")
    judge(response, answer)


def _challenge(response: Response) -> EncryptedPOP | None:
    """The challenge of an answer that asks for proof of possession (RFC 5272 6.7), by status or by failure."""
    worst = response.worst
    if response.content is None or worst is None:
        return None
    if worst.status != CMCStatus.POP_REQUIRED and worst.failure != CMCFailInfo.POP_REQUIRED:
        return None
    try:
        found: EncryptedPOP | None = response.content.value("encryptedPOP")
    except Malformed as fault:
        raise InvalidAnswer(f"the CMC answer can't be read: {clean(str(fault), 200)}") from None
    return found


def _token(response: Response | None) -> bytes | None:
    """The token to ask with when the answer comes later."""
    found = response.statuses if response is not None else ()
    return next((each.pending.token for each in found if each.pending is not None), None)


def read(answer: Answer) -> Response:
    """The PKI Response in an HTTP answer; raises `InvalidAnswer`."""
    if answer.content_type not in _TYPES:
        raise InvalidAnswer(f"a CMC answer of type {clean(answer.content_type, 100)!r}")
    kind = parameter(answer.headers, "smime-type")
    if kind is not None and kind.lower() not in _SMIME_TYPES:
        raise InvalidAnswer(f"a CMC answer of smime-type {clean(kind, 100)!r}")
    try:
        return pki_response.response(answer.body)
    except Malformed as fault:
        raise InvalidAnswer(f"the CMC answer can't be read: {clean(str(fault), pki_response.MAXIMUM_WORDS)}") from None


def judge(found: Response, answer: Answer) -> None:
    """Return if the CMC status is success; other statuses raise, whatever the HTTP status is."""
    if found.is_simple:
        return
    worst = found.worst
    if worst is None:
        raise InvalidAnswer("a CMC answer without any status")
    if worst.status == CMCStatus.PENDING:
        raise _later(found, pki_response.said(worst), answer)
    if worst.status != CMCStatus.SUCCESS:
        words = pki_response.said(worst)
        raise Refused(f"the CMC answer is {words}", http_status=answer.status, words=words, answer=answer)


def _later(found: Response, words: str, answer: Answer) -> TryLater:
    """The error for a pending request: ask again after the later of both times (RFC 5272 6.1.1, RFC 7030 4.2.3)."""
    now = datetime.now(UTC)
    told = [answers.until(each.pending.time, now) for each in found.statuses if each.pending is not None]
    header = answers.delay(answer.headers.get("Retry-After"), now)
    told += [] if header is None else [header]
    seconds = max(told, default=answers.DEFAULT_DELAY)
    when = now + timedelta(seconds=seconds)
    text = f"the CMC answer is {words}\nCome back in {seconds} s, at {when:%Y-%m-%d %H:%M:%S} UTC."
    return TryLater(text, seconds=seconds, when=when, said=bool(told), answer=answer)
