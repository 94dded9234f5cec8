"""The Full PKI Response while it is made: the status of each part of a request (RFC 5272 4.2, 6.1)."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509

from estgw.cmc.controls import Control
from estgw.cmc.messages import PKI_RESPONSE, BadMessage, PKIResponse, TaggedContentInfo
from estgw.cmc.status import BodyPart, CMCFailInfo, CMCStatus, PendInfo, StatusInfo
from estgw.cms import signed
from estgw.cms.faults import BadAlgorithm, BadSignature
from estgw.errors import Forbidden, Malformed, RequestError
from estgw.est.names import escape_controls

NONCE = 16  # octets
WORDS = 500  # characters of a statusString
FORBIDDEN = (CMCFailInfo.BAD_IDENTITY, CMCFailInfo.AUTH_DATA_FAIL, CMCFailInfo.POP_FAILED, CMCFailInfo.POP_REQUIRED)


class Refused(Exception):
    """A part of a message fails, or all of it (no parts).  The text is for the client and for the log."""

    def __init__(
        self,
        failure: CMCFailInfo | None,
        words: str,
        parts: Sequence[BodyPart] = (),
        status: CMCStatus = CMCStatus.FAILED,
    ) -> None:
        super().__init__(words)
        self.failure, self.parts, self.status = failure, tuple(parts), status

    @classmethod
    def by(cls, fault: Malformed, signature: CMCFailInfo = CMCFailInfo.BAD_MESSAGE_CHECK) -> Refused:
        """The refusal for what a parser or a verifier has found; `signature` is the code for a wrong signature."""
        parts = fault.ids if isinstance(fault, BadMessage) else ()
        match fault:
            case BadAlgorithm():
                return cls(CMCFailInfo.BAD_ALG, str(fault), parts)
            case BadSignature():
                return cls(signature, str(fault), parts)
        return cls(CMCFailInfo.BAD_REQUEST, str(fault), parts)

    @classmethod
    def of(cls, refusal: RequestError) -> Refused:
        """The refusal that a check of the gateway has for a request that comes alone."""
        failure = CMCFailInfo.BAD_IDENTITY if isinstance(refusal, Forbidden) else CMCFailInfo.BAD_REQUEST
        return cls(failure, refusal.public.removesuffix("."))


@dataclass
class Answer:
    """The decisions so far; `seal` makes a signed message of them."""

    statuses: list[StatusInfo] = field(default_factory=list)
    certificates: list[x509.Certificate] = field(default_factory=list)
    crls: list[bytes] = field(default_factory=list)
    extra: list[tuple[str, Any]] = field(default_factory=list)
    """Controls by name, with their values."""
    echo: tuple[Control, ...] = ()
    """The controls of the request: nonce, transaction and dataReturn are returned."""
    nested: list[tuple[int, bytes]] = field(default_factory=list)
    """Responses to the messages of a batch: the message's id, and a ContentInfo."""
    own_nonce: bytes = field(default_factory=lambda: secrets.token_bytes(NONCE))

    def good(self, part: BodyPart, *certificates: x509.Certificate, status: CMCStatus = CMCStatus.SUCCESS) -> None:
        """This part is done, with these certificates."""
        self.statuses.append(StatusInfo(status, (part,)))
        self.certificates.extend(certificates)

    def wait(self, part: BodyPart, token: bytes, seconds: int) -> None:
        """This part waits; the client asks for it again with queryPending."""
        when = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
        self.statuses.append(StatusInfo(CMCStatus.PENDING, (part,), pending=PendInfo(token, when)))
        print(f"{_name((part,))}: pending", file=sys.stderr)

    def bad(self, why: Refused, *parts: BodyPart) -> None:
        """These parts fail, or those that the refusal names, or the whole message."""
        named = why.parts or parts or (0,)
        words = escape_controls(str(why))[:WORDS].encode("utf-8", "replace").decode()
        self.statuses.append(StatusInfo(why.status, named, words, why.failure))
        label = why.failure.word if why.failure is not None else why.status.word
        print(f"{_name(named)}: {label}: {words}", file=sys.stderr)

    def absorb(self, other: Answer, message: int) -> None:
        """Take over the answer to a message inside: its body part paths begin with that message's id."""
        for each in other.statuses:
            inside = [part if isinstance(part, tuple) else (part,) for part in each.body_list]
            parts = [(message, *way) for way in inside]
            self.statuses.append(StatusInfo(each.status, tuple(parts), each.text, each.failure, each.pending))
        self.certificates += other.certificates
        self.crls += other.crls
        self.extra += other.extra

    @property
    def http_status(self) -> int:
        """200 where a part succeeded, 202 where all parts wait, else the status of the worst failure."""
        stated = {each.status for each in self.statuses}
        if not stated & {CMCStatus.FAILED, CMCStatus.NO_SUPPORT}:
            return 202 if stated == {CMCStatus.PENDING} else 200
        if stated - {CMCStatus.FAILED, CMCStatus.NO_SUPPORT}:
            return 200
        failures = {each.failure for each in self.statuses}
        if CMCFailInfo.INTERNAL_CA_ERROR in failures:
            return 500
        if CMCFailInfo.TRY_LATER in failures:
            return 503
        return 403 if failures <= set(FORBIDDEN) else 400

    def seal(self, signer: signed.Signer, chain: Sequence[x509.Certificate]) -> bytes:
        """The signed PKIResponse as DER (4.2)."""
        sent = [*self._verdicts(), *self._echoed(), *self.extra]
        numbered = [Control.make(number, name, value) for number, (name, value) in enumerate(sent, 1)]
        inner = [TaggedContentInfo(len(numbered) + at, der) for at, (_, der) in enumerate(self.nested, 2)]
        if inner:
            numbered.append(Control.make(len(sent) + 1, "batchResponses", tuple(each.body_part_id for each in inner)))
        content = PKIResponse(tuple(numbered), tuple(inner)).encode()
        bag = list(dict.fromkeys([*chain, *self.certificates]))
        now = datetime.now(UTC)
        return signed.sign(PKI_RESPONSE, content, [signer], certificates=bag, crls=self.crls, signing_time=now)

    def _verdicts(self) -> list[tuple[str, StatusInfo]]:
        """One statusInfoV2 for all parts that succeeded and one for each other; `partial` when there are both (6.1)."""
        stated = self.statuses or [StatusInfo(CMCStatus.SUCCESS, (0,))]
        well = tuple(part for each in stated if each.status == CMCStatus.SUCCESS for part in each.body_list)
        rest = [each for each in stated if each.status != CMCStatus.SUCCESS]
        made = [StatusInfo(CMCStatus.SUCCESS, tuple(dict.fromkeys(well)))] if well else []
        failed = any(each.status in (CMCStatus.FAILED, CMCStatus.NO_SUPPORT) for each in rest)
        if failed and len({each.status for each in stated}) > 1:
            made.insert(0, StatusInfo(CMCStatus.PARTIAL, (0,)))
        return [("statusInfoV2", each) for each in (*made, *rest)]

    def _echoed(self) -> list[tuple[str, Any]]:
        """Transaction and data unchanged, the nonces in their new roles (RFC 5272 6.4, 6.6)."""
        made: list[tuple[str, Any]] = []
        for control in self.echo:
            if control.name not in ("transactionId", "senderNonce", "dataReturn"):
                continue
            try:
                value = control.value
            except Malformed:
                continue  # it is the fault that is being reported
            name = "recipientNonce" if control.name == "senderNonce" else control.name
            if name == "dataReturn" or name not in (before for before, _ in made):
                made.append((name, value))
        if any(name in ("transactionId", "recipientNonce") for name, _ in made):
            made.append(("senderNonce", self.own_nonce))
        return made


def _name(parts: Sequence[BodyPart]) -> str:
    if list(parts) == [0]:
        return "the message"
    texts = (".".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in parts)
    return f"body part {', '.join(texts)}"
