"""No message twice, and nonces (RFC 5272 6.6).

A message is remembered as long as it could come again.  One with a signing time of its signer's own is refused as soon
as it is older than `clock` allows.  JSS, and so Dogtag's tools, send none: then the signer's certificate ends it or,
where a secret or a login stands for the certificate, `remember`.  After that `inner_request` judges what rests on a
secret, and a client that can log in needs no copy of a message.
"""

from __future__ import annotations

from datetime import UTC, datetime

from estgw.cmc.messages import PKIData
from estgw.cmc.status import CMCFailInfo, CMCStatus
from estgw.cmc_service.answer import Answer, Refused
from estgw.cmc_service.exchange import Service
from estgw.cmc_service.policy import Signer
from estgw.cmc_service.state import mark
from estgw.cms import signed


def require_new(
    service: Service, signer: Signer, message: signed.SignedData, data: PKIData, der: bytes
) -> tuple[str, str]:
    """Refuse a message, or a nonce of one sender, that came before; an answer to ours must bring our nonce back.

    Returns the kind and key of what is remembered, to be forgotten if nothing comes of the message.  Raises `Refused`,
    `Full`.
    """
    policy, state = service.policy, service.state
    now, nonce, transaction = datetime.now(UTC), data.value("senderNonce"), data.value("transactionId")
    # What is signed, and not how: a signature, the bag and unsigned attributes can be changed on the way.
    content = message.content, signer.signed_at
    key = mark(signer.name, "nonce", nonce) if nonce is not None else mark(signer.name, *content)
    if signer.signed_at is not None:
        kind, lasts = "message", signer.signed_at + policy.clock - now
    else:
        kind, lasts = "untimed", policy.remember
        if signer.certificate is not None:
            lasts = signer.certificate.not_valid_after_utc - now
    # Until version 2 of the table, every message was of this kind, and known by its bytes.
    is_known = any(state.get("message", each) is not None for each in (key, mark(signer.name, der)))
    if service.is_replay:  # the state is a copy, in which the message is known from when it came
        return kind, key
    if is_known or not state.put(kind, key, b"", lasts, mark(signer.name)):
        words = "this message has been here before" if nonce is None else "this senderNonce has been used before"
        raise Refused(CMCFailInfo.BAD_REQUEST, f"{words}: make a new one for each message")
    answered = data.value("recipientNonce")
    if answered is not None and state.get("sent", mark(signer.name, transaction)) != answered:
        raise Refused(CMCFailInfo.BAD_REQUEST, "the recipientNonce is none that was sent in this transaction")
    return kind, key


def expect_next(service: Service, signer: Signer, data: PKIData, answer: Answer) -> None:
    """Keep our nonce where the client is to come back in the same transaction."""
    unfinished = {CMCStatus.PENDING, CMCStatus.POP_REQUIRED, CMCStatus.CONFIRM_REQUIRED}
    if unfinished & {each.status for each in answer.statuses}:
        state, key = service.state, mark(signer.name, data.value("transactionId"))
        state.drop("sent", key)
        state.put("sent", key, answer.own_nonce, service.policy.remember, mark(signer.name))
