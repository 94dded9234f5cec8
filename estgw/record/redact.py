"""Secrets of a request: where they are, and its texts and bodies without them.

Everything here is about what a record must not hold.  `docs/records.md` has the list for people.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Iterable, Iterator, Mapping

from cryptography.hazmat.primitives import serialization

from estgw.callout.call import Call
from estgw.est import certs
from estgw.est.csr import OTP_CHALLENGE, REVOCATION_CHALLENGE
from estgw.est.der import encode_oid
from estgw.logs import masked

REMOVED = "[removed]"
_NAMES = re.compile("PASSWORD|PASSWD|SECRET|TOKEN|KEY|COOKIE|CREDENTIAL", re.IGNORECASE)
_CREDENTIALS = frozenset({"authorization", "proxy-authorization"})
_SECRET_VARIABLES = frozenset({"EST_PASSWORD", "EST_OTP", "EST_REVOCATION_CHALLENGE"})
_QUERY = re.compile(
    r"([?&][^=&#\s]*(?:password|passwd|secret|token|key|cookie|credential)[^=&#\s]*=)([^&#\s]*)", re.IGNORECASE
)
_PEM_CSR = re.compile(
    r"-----BEGIN (NEW )?CERTIFICATE REQUEST-----.*?(-----END (NEW )?CERTIFICATE REQUEST-----|\Z)", re.DOTALL
)
SHORT = 8
"""A secret of fewer characters is removed where it stands alone: it may occur in base64 by chance."""
BINDINGS = (12, 32, 48)
"""Bytes of a channel binding: a Finished of TLS 1.2 (or 1.3 with SHA-256 or SHA-384), or an exporter."""


def is_secret_name(name: str) -> bool:
    """Whether a header or a variable of `handler_env` with this name holds a secret."""
    return _is_secret_name(name) if len(name) <= LONGEST_CACHED else _NAMES.search(name) is not None


LONGEST_CACHED = 64
"""Characters of a name whose answer is remembered: most requests have the same headers."""


@functools.lru_cache(maxsize=1024)
def _is_secret_name(name: str) -> bool:
    return name.lower() in _CREDENTIALS or _NAMES.search(name) is not None


def headers(given: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Headers without the values of those that are secret."""
    return [[name, REMOVED if is_secret_name(name) else value] for name, value in given]


def line(text: str) -> str:
    """A request line, URL or query without the values of parameters that are named like secrets."""
    return _QUERY.sub(rf"\1{REMOVED}", text)


def environment(call: Call, given: Mapping[str, str]) -> dict[str, str]:
    """The variables of a callout without the values of those that are secret."""

    found = dict(given)
    own = [name for name in found if name.startswith("HTTP_")]
    for name in (*_SECRET_VARIABLES, *(name for name in (*own, *call.route.handler_env) if is_secret_name(name))):
        if name in found:
            found[name] = REMOVED
    if found.get("QUERY_STRING"):
        found["QUERY_STRING"] = line(f"?{found['QUERY_STRING']}")[1:]
    return found


class Redactor:
    """The texts and bodies of one request without its secrets."""

    def __init__(
        self, call: Call | None, given: Iterable[tuple[str, str]], body: bytes = b"", target: str = ""
    ) -> None:
        """`given` are the request's headers, `body` is its body as it came, `target` is its target."""
        self.has_secret_body = holds_secret(body)
        """Whether the body holds a secret, so that it is kept nowhere."""
        found = {secret for name, value in given if is_secret_name(name) for secret in _secrets_of_header(name, value)}
        found.update(value for _, value in _QUERY.findall(target))
        if call is not None:
            found.update(_secrets_of_call(call))
        if self.has_secret_body:
            found.update(_secrets_of_body(body))
        self._pattern = _pattern(found)

    def text(self, text: str) -> str:
        """A text without secrets and private keys."""
        text = masked(text)
        if self.has_secret_body:
            text = _PEM_CSR.sub(REMOVED, text)
        return self._pattern.sub(REMOVED, text) if self._pattern else text

    def bytes(self, content: bytes) -> bytes:
        """The same for bytes that may be a text; other bytes stay as they are."""
        text = content.decode("latin-1")
        plain = content.decode("utf-8", "surrogateescape")
        if self._pattern and not plain.isascii():
            return self.text(plain).encode("utf-8", "surrogateescape")
        return self.text(text).encode("latin-1")


def _secrets_of_header(name: str, value: str) -> Iterator[str]:
    """The value itself, and what of it a script or a sentence might quote."""
    yield value
    scheme, _, rest = value.strip().partition(" ")
    if name.lower() not in _CREDENTIALS:
        return
    yield rest.strip()
    if scheme.lower() == "basic":
        try:
            raw = base64.b64decode(rest.strip(), validate=True)
        except (binascii.Error, ValueError):
            return
        for codec in ("utf-8", "latin-1"):
            yield raw.decode(codec, "replace").partition(":")[2]
    elif scheme.lower() == "digest":
        yield from re.findall(r'response\s*=\s*"?([0-9A-Za-z]+)', rest, re.IGNORECASE)


def _secrets_of_call(call: Call) -> Iterator[str]:
    if call.client.claimed and call.client.claimed.password:
        yield call.client.claimed.password
    yield from (value for name, value in call.route.handler_env.items() if is_secret_name(name))


def _secrets_of_body(body: bytes) -> Iterator[str]:
    """The body as text, with and without line breaks, and the texts of its secret attributes."""
    text = body.decode("latin-1")
    yield text.strip()
    for der in _readings(body):
        yield base64.b64encode(der).decode()
        for value in _secret_values(der):
            yield value.decode("utf-8", "replace")
            yield value.decode("latin-1")


def _pattern(secrets: Iterable[str]) -> re.Pattern[str] | None:
    """Matches each secret, the longest first."""
    parts = [
        re.escape(secret) if len(secret) >= SHORT else rf"(?<![A-Za-z0-9+/]){re.escape(secret)}(?![A-Za-z0-9+/])"
        for secret in sorted({secret for secret in secrets if secret.strip()}, key=len, reverse=True)
    ]
    return re.compile("|".join(parts)) if parts else None


# Bodies.


def holds_secret(body: bytes) -> bool:
    """Whether a body, in any encoding, holds an attribute or a control whose value is a secret, or a private key.

    The OIDs are looked for byte by byte, so a request that can't be parsed is covered as well.
    """
    return any(next(_secret_values(der), None) is not None for der in _readings(body)) or _is_private_key(body)


_REMOVED_OIDS = (
    encode_oid(OTP_CHALLENGE),
    encode_oid(REVOCATION_CHALLENGE),
    encode_oid("1.3.6.1.5.5.7.5.1.1"),  # regToken and authenticator of CRMF (RFC 4211 6.1, 6.2)
    encode_oid("1.3.6.1.5.5.7.5.1.2"),
)
_BINDING_OIDS = (encode_oid("1.2.840.113549.1.9.7"), encode_oid("1.2.840.113549.1.9.16.2.58"))
"""challengePassword and estIdentityLinking: a channel binding, or else perhaps a password."""
_REVOKE = encode_oid("1.3.6.1.5.5.7.7.17")


def is_binding(text: bytes | str) -> bool:
    """Whether a text is base64 of as many bytes as a channel binding has."""
    try:
        return len(base64.b64decode(text, validate=True)) in BINDINGS
    except (binascii.Error, ValueError):
        return False


def _secret_values(der: bytes) -> Iterator[bytes]:
    for oid in _REMOVED_OIDS:
        yield from (_text_at(der, at) for at in _ends(der, oid))
    for oid in _BINDING_OIDS:
        yield from (text for at in _ends(der, oid) if not is_binding(text := _text_at(der, at)))
    for at in _ends(der, _REVOKE):
        yield from _passphrases(_element(der, at)[1])


def _ends(der: bytes, oid: bytes) -> Iterator[int]:
    """Where each occurrence of an OID ends."""
    at = der.find(oid)
    while at >= 0:
        yield at + len(oid)
        at = der.find(oid, at + 1)


def _element(der: bytes, at: int) -> tuple[int, bytes, int]:
    """Tag, content and end of the element there; of one that is cut off or indefinite, all that follows."""
    if at + 2 > len(der):
        return 0, der[at:], len(der)
    size = der[at + 1]
    begin = at + 2
    if size & 0x80:
        begin += size & 0x7F
        size = int.from_bytes(der[at + 2 : begin], "big") if 0x80 < der[at + 1] <= 0x84 else len(der)
    return der[at], der[begin : begin + size], min(len(der), begin + size)


def _text_at(der: bytes, at: int) -> bytes:
    """The first value of the SET that follows an attribute's type; of a control without one, the value itself."""
    tag, content, _ = _element(der, at)
    return _element(content, 0)[1] if tag == 0x31 else content


def _passphrases(values: bytes) -> Iterator[bytes]:
    """The passphrase in a revokeRequest, the one OCTET STRING in it (RFC 5272 6.11)."""
    _, request, _ = _element(values, 0)
    at = 0
    while at < len(request):
        tag, content, at = _element(request, at)
        if tag == 0x04:
            yield content


_ARMOUR = re.compile(rb"-----[^-]*-----")


def _readings(body: bytes) -> Iterator[bytes]:
    """The bytes themselves, and what they are if they are base64 or PEM, whole or not."""
    yield body
    text = re.sub(rb"[^A-Za-z0-9+/]", b"", _ARMOUR.sub(b"", body)) if body.isascii() else b""
    text = text[: len(text) - (len(text) % 4 == 1)]  # one character more is no base64
    if text:
        yield binascii.a2b_base64(text + b"=" * (-len(text) % 4))


LONGEST_KEY = 32768
"""Bytes of a private key, in any encoding."""


def _is_private_key(body: bytes) -> bool:
    """Whether the body is a private key, sent in place of a request."""
    if b"PRIVATE KEY-----" in body:
        return True
    for der in _readings(body) if len(body) <= LONGEST_KEY else ():
        try:
            serialization.load_der_private_key(der, password=None)
        except TypeError:  # it is encrypted
            return True
        except certs.UNREADABLE:
            continue
        return True
    return False


def without_base64(words: bytes) -> bytes:
    """Words of a serverkeygen script for the client without what may be a key."""
    return _BASE64.sub(REMOVED.encode(), words)


_BASE64 = re.compile(rb"[A-Za-z0-9+/=]{40,}")


def keygen_body(body: bytes) -> bytes:
    """The answer of serverkeygen without its private key, encrypted or not (RFC 7030 4.4.2)."""
    found = _KEY_PART.sub(rb"\1" + REMOVED.encode() + rb"\3", body)
    return found if found != body else REMOVED.encode()


_KEY_PART = re.compile(
    rb"(Content-Type: (?:application/pkcs8|application/pkcs7-mime; smime-type=server-generated-key)\r\n"
    rb"(?:[A-Za-z-]+: [^\r\n]*\r\n)*\r\n)(.*?)(\r\n--)",
    re.DOTALL,
)
