"""A CMC answer taken apart: certificates, statuses and their words, before anything is verified (RFC 5272 4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from estgw.client.faults import clean
from estgw.cmc.messages import PKIResponse, pki_response
from estgw.cmc.status import CMCStatus, StatusInfo
from estgw.cms import signed
from estgw.cms.signed import SignedData
from estgw.errors import Malformed
from estgw.est import ber, certs, encoding

MAXIMUM_WORDS = 500
"""Characters of a status that are shown."""


@dataclass(frozen=True)
class Response:
    """A PKI Response, or a Simple one, which has certificates and no status.  Nothing in it has been verified."""

    der: bytes = field(repr=False)
    message: SignedData = field(repr=False)
    content: PKIResponse | None
    """None for a Simple PKI Response."""
    statuses: tuple[StatusInfo, ...] = ()

    @property
    def is_simple(self) -> bool:
        """Whether it holds certificates and no status."""
        return self.content is None

    @property
    def worst(self) -> StatusInfo | None:
        """The first status that is not success; else the first; None when there is none."""
        failed = (each for each in self.statuses if each.status != CMCStatus.SUCCESS)
        return next(failed, next(iter(self.statuses), None))

    @property
    def words(self) -> list[str]:
        """The words of the statuses, cleaned."""
        return [said(each) for each in self.statuses]


def said(status: StatusInfo) -> str:
    """Such as `failed (badIdentity): no such secret`, cleaned."""
    return clean(status.words, MAXIMUM_WORDS)


def response(body: bytes) -> Response:
    """An answer of either kind, as PEM, DER or base64; raises `Malformed`."""
    der = ber.to_der(encoding.decode(body, certs.PKCS7_LABELS))
    message = signed.parse(der)
    if message.content is None and not message.signers:
        return Response(der, message, None)
    content = pki_response(message)
    return Response(der, message, content, content.statuses)


def words(body: bytes) -> str:
    """The words of a PKI Response in a rejection (RFC 7030 4.2.3, 4.3.2); empty if it can't be read."""
    try:
        worst = response(body).worst
    except Malformed:
        return ""
    return f"CMC {said(worst)}" if worst else ""
