"""Reading the server's answers: certificates, reasons, and the time to try again."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from cryptography import x509

from estgw.client.faults import InvalidAnswer, NotOffered, Refused, ServerFailed, TryLater, clean
from estgw.client.transport.wire import Answer, parameter
from estgw.errors import Malformed
from estgw.est import ber, certs, der, encoding
from estgw.est.operations import Operation

MAXIMUM_CERTIFICATES = 100
"""Certificates in one bag.  Validation takes the square of the number, and no CA has more."""
DEFAULT_DELAY = 60
"""Seconds to wait when a 202 names no time, although RFC 7030 4.2.3 demands it."""
MAXIMUM_DELAY = 366 * 24 * 3600

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""The first three letters of all forms of an HTTP date (RFC 9110 5.6.7)."""

_SIGNED_DATA = "1.2.840.113549.1.7.2"
_PKCS7_TYPES = ("application/pkcs7-mime", "application/x-pkcs7-mime")
_CERTIFICATE_TYPES = (*_PKCS7_TYPES, "application/pkix-cert")
"""The last is the type of the earliest drafts."""
_CERTIFICATES = b"\xa0"


def require_ok(answer: Answer, operation: Operation, now: datetime | None = None, *, hint: str = "") -> None:
    """Return for a 200; raise the exception for any other status (RFC 7030 4.2.3, 4.3.2).

    `now` (UTC) is compared with a Retry-After date, `hint` a sentence for an operation that is not there.
    """
    status = answer.status
    if status == 200:
        return
    words = answer.words or _cmc_words(answer)
    text = says(answer)
    retry_after = answer.headers.get("Retry-After")
    if (status == 202 and operation.may_wait) or (status in (429, 503) and retry_after):
        raise _try_later(retry_after, text, now or datetime.now(UTC), answer)
    if status in (404, 501):
        lines = [f"this server does not offer {operation.name}: {text}", hint]
        raise NotOffered("\n".join(filter(None, lines)), http_status=status, words=words)
    if 400 <= status < 500:
        raise Refused(text, http_status=status, words=words, answer=answer)
    if 500 <= status < 600:
        raise ServerFailed(text)
    raise InvalidAnswer(f"{text}, which {operation.name} never answers")


def says(answer: Answer) -> str:
    """An unsuccessful answer for a person: the status and the server's own words, cleaned."""
    words = answer.words or _cmc_words(answer)
    return f"the server says {answer.status} {answer.reason}".rstrip() + (f": {words}" if words else "")


def _cmc_words(answer: Answer) -> str:
    """The words of a PKI Response in a rejection; the CMC modules are loaded only for one."""
    if answer.content_type not in _PKCS7_TYPES:
        return ""
    from estgw.client.transport import pki_response

    return pki_response.words(answer.body)


def _try_later(retry_after: str | None, says: str, now: datetime, answer: Answer) -> TryLater:
    seconds = delay(retry_after, now)
    said = seconds is not None
    seconds = DEFAULT_DELAY if seconds is None else seconds
    when = now + timedelta(seconds=seconds)
    text = f"{says}\nSend the same request again in {seconds} s, at {when:%Y-%m-%d %H:%M:%S} UTC."
    return TryLater(text, seconds=seconds, when=when, said=said, answer=answer)


def delay(retry_after: str | None, now: datetime) -> int | None:
    """Retry-After in whole seconds from `now`, whether it is a number or a date (RFC 9110 10.2.3).

    None when it is missing or neither; at least 1, so that no client asks in a busy loop, and at most a year.
    Raises `InvalidAnswer` for a date that does not exist.
    """
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return max(1, min(int(text[:12]), MAXIMUM_DELAY))
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        if text[:3].lower() not in _DAYS:
            return None
        raise InvalidAnswer(f"the server's Retry-After is a date that does not exist: {clean(text, 100)!r}") from None
    return until(when if when.tzinfo else when.replace(tzinfo=UTC), now)


def until(when: datetime, now: datetime) -> int:
    """Whole seconds from `now`, with the bounds of `delay`."""
    return max(1, min(math.ceil((when - now).total_seconds()), MAXIMUM_DELAY))


def bag(answer: Answer) -> list[x509.Certificate]:
    """The certificates of a certs-only answer (RFC 7030 4.1.3, 4.2.3); raises `InvalidAnswer`."""
    if answer.content_type not in _CERTIFICATE_TYPES:
        raise InvalidAnswer(f"an answer of type {clean(answer.content_type, 100)!r}, not application/pkcs7-mime")
    kind = parameter(answer.headers, "smime-type")
    if kind is not None and kind.lower() != "certs-only":
        raise InvalidAnswer(f"a PKCS#7 of smime-type {clean(kind, 100)!r}, not certs-only")
    return bag_of(answer.body)


def bag_of(body: bytes) -> list[x509.Certificate]:
    """The certificates of a certs-only PKCS#7, or one bare certificate; as PEM, DER or base64."""
    try:
        data = encoding.decode(body, (*certs.PKCS7_LABELS, *certs.CERTIFICATE_LABELS))
        try:
            found = _certificates(data)
        except Malformed:
            # Senders of CMS may use BER (RFC 5652 5.1); the second reading reports other faults.
            found = _certificates(ber.to_der(data))
    except Malformed as fault:
        raise InvalidAnswer(f"the server's certificates can't be read: {fault}") from None
    if not found:
        raise InvalidAnswer("the server's PKCS#7 holds no certificate")
    return found


def _certificates(data: bytes) -> list[x509.Certificate]:
    """Not `certs.unpack`: some servers leave the SET unsorted, which does no harm."""
    first = der.elements(data, "a PKCS#7 or a certificate")
    if not first or bytes(first[0].tag_bytes) != b"\x06":
        return [certs.load_named(data)]
    info = der.decode(der.ContentInfo, data, "a ContentInfo")
    if info.content_type.dotted_string != _SIGNED_DATA:
        raise Malformed(f"a CMS message of type {info.content_type.dotted_string}, not SignedData")
    found: list[x509.Certificate] = []
    for part in der.elements(der.whole(info.content), "SignedData"):
        if bytes(part.tag_bytes) == _CERTIFICATES:
            members = der.elements(der.wrap(der.SEQUENCE, bytes(part.data)), "a set of certificates")
            if len(members) > MAXIMUM_CERTIFICATES:
                raise InvalidAnswer(f"{len(members)} certificates; {MAXIMUM_CERTIFICATES} is the maximum")
            found += [certs.load_named(der.whole(member)) for member in members]
    return found
