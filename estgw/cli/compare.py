"""What differs between a recorded request and its replay, as far as a policy can make a difference.

Serial numbers, dates, signatures and request ids differ each time, so they are not compared.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from estgw.est import certs, names, oids, zeroing
from estgw.record.redact import REMOVED
from estgw.record.ring import Record

SLACK = 2
"""Seconds by which two lifetimes may differ, as they are rounded."""
_KEY_IDS = ("2.5.29.14", "2.5.29.35")
"""subjectKeyIdentifier and authorityKeyIdentifier follow from the keys."""
_TEXT = "text/plain"


@dataclass(frozen=True)
class Difference:
    """One difference in words."""

    what: str
    before: str
    now: str

    @property
    def line(self) -> str:
        """For a person."""
        return f"{self.what}: {self.before or 'none'} -> {self.now or 'none'}"


def differences(before: Record, now: Record) -> list[Difference]:
    """What a replay has changed."""
    found = []
    for what, (old, new) in _facts(before, now):
        if old != new:
            found.append(Difference(what, old, new))
    return found


def _facts(before: Record, now: Record) -> Iterator[tuple[str, tuple[str, str]]]:
    if (_status(before), _gate(before)) != (_status(now), _gate(now)):
        yield "outcome", (_outcome(before), _outcome(now))
        return
    yield "words", (_words(before), _words(now))
    yield "type", (_type(before), _type(now))
    if not _status(now).startswith("2"):
        return
    old, new = _certificates(before), _certificates(now)
    if not old and not new:
        yield "body", (_body(before), _body(now))
        return
    yield "certificates", (str(len(old)), str(len(new)))
    for first, second in zip(old, new, strict=False):
        yield from _certificate(first, second, has_new_key=now["operation"] == "serverkeygen")


def _outcome(record: Record) -> str:
    """Status, gate and words."""
    words = ": ".join(filter(None, (_gate(record), _words(record))))
    return ", ".join(filter(None, (_status(record), words)))


def _status(record: Record) -> str:
    return str(record["outcome"].get("status") or "no answer")


def _gate(record: Record) -> str:
    return str(record["outcome"].get("gate") or "")


def _response(record: Record) -> dict[str, Any]:
    return record.get("response") or {}


def _content(record: Record) -> bytes:
    body = _response(record).get("body")
    return base64.b64decode(body, validate=True) if body and body != REMOVED else b""


def _type(record: Record) -> str:
    headers = _response(record).get("headers") or []
    return next((value for name, value in headers if name.lower() == "content-type"), "")


def _words(record: Record) -> str:
    """What a person reads in the answer, without the request's id."""
    if not _type(record).startswith(_TEXT):
        return ""
    return _content(record).decode("utf-8", "replace").strip().replace(record["id"], "ID")


def _body(record: Record) -> str:
    """Another answer, in so many words as fit."""
    content = _content(record)
    return f"{len(content)} bytes, {base64.b64encode(content[:60]).decode()}" if content else ""


def _certificates(record: Record) -> list[x509.Certificate]:
    """Those in the answer: the issued one, or all in the body."""
    if issued := record.get("issued"):
        return [x509.load_pem_x509_certificate(issued["pem"].encode())]
    found = zeroing.certificates(_content(record))
    return [each for each in found if record["operation"] != "fullcmc" or not _is_ca(each)]


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *certs.UNREADABLE):
        return False


def _certificate(
    first: x509.Certificate, second: x509.Certificate, *, has_new_key: bool
) -> Iterator[tuple[str, tuple[str, str]]]:
    yield "subject", (names.dn_text(first.subject), names.dn_text(second.subject))
    yield "names", (_names(first), _names(second))
    yield "issuer", (names.dn_text(first.issuer), names.dn_text(second.issuer))
    if not has_new_key:
        yield "key", (certs.spki(first).hex()[-16:], certs.spki(second).hex()[-16:])
    old, new = _lifetime(first), _lifetime(second)
    is_same = abs(old - new) <= SLACK or first.not_valid_after_utc == second.not_valid_after_utc
    yield "lifetime", (_days(old), _days(old) if is_same else _days(new))
    for oid in sorted({*_extensions(first), *_extensions(second)}):
        yield oids.name_of(oid), (_extensions(first).get(oid, ""), _extensions(second).get(oid, ""))


def _names(certificate: x509.Certificate) -> str:
    return ", ".join(names.san_text(entry) for entry in certs.san(certificate) or ())


def _lifetime(certificate: x509.Certificate) -> float:
    return (certificate.not_valid_after_utc - certificate.not_valid_before_utc).total_seconds()


def _days(seconds: float) -> str:
    return f"{seconds / 86400:.4g} days"


def _extensions(certificate: x509.Certificate) -> dict[str, str]:
    """The values of the extensions in short words, without those that are compared elsewhere."""
    found = {}
    for extension in certificate.extensions:
        number = extension.oid.dotted_string
        if number in _KEY_IDS or number == "2.5.29.17":
            continue
        text = re.sub(r"<(\w+)\(|\)>|<ObjectIdentifier\(oid=|, name=", " ", repr(extension.value))
        if isinstance(extension.value, x509.ExtendedKeyUsage):
            text = ", ".join(oids.name_of(each.dotted_string) for each in extension.value)
        found[number] = f"{'critical ' if extension.critical else ''}{' '.join(text.split())}"
    return found


def describe(record: Record) -> str:
    """The outcome in a few words."""
    outcome, issued = record["outcome"], record.get("issued")
    words = [_status(record), _gate(record), _words(record).partition("\n")[0]]
    if issued:
        made = x509.load_pem_x509_certificate(issued["pem"].encode())
        words += [issued["subject"], _days(_lifetime(made))]
    reason = outcome.get("reason", "") if str(outcome.get("status", "")).startswith("5") else ""
    return ", ".join(part for part in (*words, reason) if part)
