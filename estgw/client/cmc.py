"""Full CMC answers: what they say, and which certificates they carry (RFC 5272 3.2, 6.1; RFC 7030 4.3.2).

A CMC answer says yes or no inside: an HTTP 200 around a failure must not pass for success.  Its signature is not
looked at, since the server has been authenticated and authorized by TLS.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat import asn1

from estgw.client.faults import clean
from estgw.errors import Malformed
from estgw.est import ber, certs, encoding
from estgw.est.csrattrs import decode_oid
from estgw.est.der import SEQUENCE, ContentInfo, decode, elements, whole, wrap

PKI_RESPONSE = "1.3.6.1.5.5.7.12.3"
_SIGNED_DATA = "1.2.840.113549.1.7.2"
_STATUS_INFO, _STATUS_INFO_V2 = "1.3.6.1.5.5.7.7.1", "1.3.6.1.5.5.7.7.25"
_INTEGER, _UTF8 = b"\x02", b"\x0c"

SUCCESS, PENDING, PARTIAL = 0, 3, 7
_STATUS = {
    0: "success", 2: "failed", 3: "pending", 4: "noSupport", 5: "confirmRequired", 6: "popRequired", 7: "partial",
}  # fmt: skip
_FAILURES = (
    "badAlg", "badMessageCheck", "badRequest", "badTime", "badCertId", "unsupportedExt", "mustArchiveKeys",
    "badIdentity", "popRequired", "popFailed", "noKeyReuse", "internalCAError", "tryLater", "authDataFail",
)  # fmt: skip


@dataclass(frozen=True)
class Status:
    """CMCStatusInfo or its second version (RFC 5272 6.1)."""

    code: int
    failure: int | None = None
    text: str = ""

    @property
    def words(self) -> str:
        """Such as `failed (badIdentity): no such secret`, cleaned."""
        words = _STATUS.get(self.code, f"status {self.code}")
        if self.failure is not None:
            is_known = 0 <= self.failure < len(_FAILURES)
            words += f" ({_FAILURES[self.failure] if is_known else f'failInfo {self.failure}'})"
        return words + (f": {clean(self.text, 500)}" if self.text else "")


@dataclass(frozen=True)
class Response:
    """A PKI Response, or a Simple one, which has certificates and no status."""

    der: bytes = field(repr=False)
    is_simple: bool
    statuses: tuple[Status, ...]

    @property
    def worst(self) -> Status | None:
        """The first status that is not success; else the first; None when there is none."""
        return next((one for one in self.statuses if one.code != SUCCESS), next(iter(self.statuses), None))


def request(body: bytes) -> bytes:
    """A Full PKI Request on its way out, as DER; raises `Malformed` unless it is a CMS SignedData."""
    der = encoding.decode(body, certs.PKCS7_LABELS)
    info = decode(ContentInfo, der, "a CMS message")
    if info.content_type.dotted_string != _SIGNED_DATA:
        raise Malformed(f"a CMS message of type {info.content_type.dotted_string}, not SignedData")
    return der


def response(body: bytes) -> Response:
    """An answer of either kind, in any coat; raises `Malformed`."""
    der = encoding.decode(body, certs.PKCS7_LABELS)
    try:
        return _response(der)
    except Malformed:
        return _response(ber.to_der(der))


def words(body: bytes) -> str:
    """What a rejection's PKI Response says (RFC 7030 4.2.3, 4.3.2); empty when it can't be read."""
    try:
        worst = response(body).worst
    except Malformed:
        return ""
    return f"CMC {worst.words}" if worst else ""


def _response(der: bytes) -> Response:
    info = decode(ContentInfo, der, "a CMS message")
    if info.content_type.dotted_string != _SIGNED_DATA:
        raise Malformed(f"a CMS message of type {info.content_type.dotted_string}, not SignedData")
    fields = elements(whole(info.content), "SignedData")
    content = elements(whole(fields[2]), "an EncapsulatedContentInfo") if len(fields) > 2 else []
    if len(content) == 1:
        return Response(der, True, ())
    if len(content) != 2 or decode_oid(whole(content[0])) != PKI_RESPONSE:
        raise Malformed("a SignedData without a PKI Response in it")
    octets = elements(wrap(SEQUENCE, bytes(content[1].data)), "eContent")
    parts = elements(bytes(octets[0].data), "a PKI Response") if octets else []
    controls = elements(whole(parts[0]), "controls") if parts else []
    return Response(der, False, tuple(status for control in controls for status in _statuses(control)))


def _statuses(control: asn1.TLV) -> list[Status]:
    parts = elements(whole(control), "a control")
    if len(parts) != 3 or decode_oid(whole(parts[1])) not in (_STATUS_INFO, _STATUS_INFO_V2):
        return []
    return [_status(value) for value in elements(wrap(SEQUENCE, bytes(parts[2].data)), "control values")]


def _status(value: asn1.TLV) -> Status:
    parts = elements(whole(value), "CMCStatusInfo")
    if len(parts) < 2 or bytes(parts[0].tag_bytes) != _INTEGER:
        raise Malformed("a CMCStatusInfo that can't be read")
    text, failure = "", None
    for part in parts[2:]:
        if bytes(part.tag_bytes) == _UTF8:
            text = bytes(part.data).decode("utf-8", "replace")
        elif bytes(part.tag_bytes) == _INTEGER:
            failure = _number(part)
    return Status(_number(parts[0]), failure, text)


def _number(value: asn1.TLV) -> int:
    return int.from_bytes(bytes(value.data), "big", signed=True)
