"""Secrets of a request: where they are, and its texts and bodies without them.

Everything here is about what a record must not hold.  `docs/records.md` has the list for people.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization

from estgw.callout.call import Call
from estgw.est import answers, certs
from estgw.est.csr import OTP_CHALLENGE, REVOCATION_CHALLENGE
from estgw.est.der import encode_oid
from estgw.logs import masked

REMOVED = "[removed]"
_NAMES = re.compile("PASSWORD|PASSWD|SECRET|TOKEN|KEY|COOKIE|CREDENTIAL", re.IGNORECASE)
_CREDENTIALS = frozenset({"authorization", "proxy-authorization"})
_SECRET_VARIABLES = frozenset({"EST_PASSWORD", "EST_OTP", "EST_REVOCATION_CHALLENGE"})
_PEM_CSR = re.compile(
    r"-----BEGIN (NEW )?CERTIFICATE REQUEST-----.*?(-----END (NEW )?CERTIFICATE REQUEST-----|\Z)", re.DOTALL
)
SHORT = 8
"""A secret of fewer characters is removed where it stands alone: it may occur in base64 by chance."""
SCANNED = 524_288
"""Bytes of a body that are looked at: more than a record holds of it."""
LONGEST_VALUE = 16_384
"""Bytes of an attribute or a control that are looked at; a longer one counts as a secret."""
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
    """Headers without the values of those that are secret; all are plain `str`, and not of a class of aiohttp's."""
    return [[str(name), REMOVED if is_secret_name(name) else str(value)] for name, value in given]


def target(text: str) -> str:
    """A request target without the values of parameters that are named like secrets."""
    path, mark, query = text.partition("?")
    return path + mark + "&".join(f"{name}={REMOVED}" if is_secret else part for name, part, is_secret in _parts(query))


def _parts(query: str) -> Iterator[tuple[str, str, bool]]:
    """Each parameter of a query: its name, the whole, and whether its value is a secret."""
    for part in query.split("&"):
        name, equals, _ = part.partition("=")
        yield name, part, bool(equals) and is_secret_name(name)


def _secrets_of_target(text: str) -> Iterator[str]:
    yield from (part.partition("=")[2] for _, part, is_secret in _parts(text.partition("?")[2]) if is_secret)


def environment(call: Call, given: Mapping[str, str]) -> Mapping[str, str]:
    """The variables of a callout without the values of those that are secret."""
    secret, query = _secret_variables(tuple(given), tuple(call.route.handler_env)), given.get("QUERY_STRING")
    if not secret and not query:
        return given
    found = {**given, **dict.fromkeys(secret, REMOVED)}
    if query:
        found["QUERY_STRING"] = target(f"?{query}")[1:]
    return found


@functools.lru_cache(maxsize=256)
def _secret_variables(names: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the names whose values are secret; `own` are those of `handler_env`.  Most requests have the same."""
    judged = {name for name in names if name.startswith("HTTP_") or name in own}
    return tuple(name for name in names if name in _SECRET_VARIABLES or (name in judged and is_secret_name(name)))


@dataclass(frozen=True)
class Sent:
    """What a client has sent in one request."""

    target: str = ""
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    csr: bytes | None = None
    """The body as DER if it was read as a CSR, so that it is no private key."""


class Redactor:
    """The texts and bodies of one request without its secrets."""

    def __init__(self, call: Call | None, sent: Sent, environments: Iterable[Mapping[str, str]] = ()) -> None:
        """`environments` are those of its scripts, which may print what is in them."""
        body = sent.body[:SCANNED]
        self.has_secret_body = holds_secret(body, sent.csr)
        """Whether the body holds a secret, so that it is kept nowhere."""
        found = set(_secrets_of_target(sent.target))
        for name, value in sent.headers:
            if is_secret_name(name):
                found.update(_of_header(name, value))
        for given in environments:
            found.update(given[name] for name in _SECRET_VARIABLES if name in given)
        if call is not None:
            found.update(_secrets_of_call(call))
        if self.has_secret_body:
            found.update(_secrets_of_body(body, _readings_of(body, sent.csr)))
        found = {secret for secret in found if secret.strip()}
        self._long = sorted((each for each in found if len(each) >= SHORT), key=len, reverse=True)
        self._short = [each for each in found if len(each) < SHORT]

    def text(self, text: str) -> str:
        """A text without secrets and private keys."""
        if "PRIVATE KEY" in text:
            text = masked(text)
        if self.has_secret_body:
            text = _PEM_CSR.sub(REMOVED, text)
        for secret in self._long:  # a search for one text takes linear time, and a pattern of many does not
            text = text.replace(secret, REMOVED)
        # A pattern looks at each place of a text, and nearly no text has a secret in it.
        found = [secret for secret in self._short if secret in text]
        return _pattern(found).sub(REMOVED, text) if found else text

    def bytes(self, content: bytes) -> bytes:
        """The same for bytes that may be a text; other bytes stay as they are."""
        return self.text(content.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _of_header(name: str, value: str) -> Iterator[str]:
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


def _secrets_of_body(body: bytes, readings: Iterable[bytes]) -> Iterator[str]:
    """The body as text, with and without line breaks, and the texts of its secret attributes."""
    yield body.decode("latin-1").strip()
    for der in readings:
        yield base64.b64encode(der).decode()
        for value in _secret_values(der):
            yield value.decode("utf-8", "replace")
            yield value.decode("latin-1")


def _pattern(secrets: Iterable[str]) -> re.Pattern[str]:
    """Matches each of these short secrets where it stands alone."""
    parts = [re.escape(secret) for secret in sorted(secrets, key=len, reverse=True)]
    return re.compile(rf"(?<![A-Za-z0-9+/])(?:{'|'.join(parts)})(?![A-Za-z0-9+/])")


# Bodies.


def holds_secret(body: bytes, csr: bytes | None = None) -> bool:
    """Whether a body, in any encoding, holds an attribute or a control whose value is a secret, or a private key.

    The OIDs are looked for byte by byte, so a request that can't be parsed is covered as well.  `csr` is the body as
    DER if it was read as a CSR.
    """
    readings = _readings_of(body, csr)
    for der in readings:
        if any(oid in der for oid in _OIDS) and next(_secret_values(der), None) is not None:
            return True
    # A PEM may have a key beside the CSR.
    return b"PRIVATE KEY-----" in body or (csr is None and _is_private_key(body, readings))


def _readings_of(body: bytes, csr: bytes | None) -> tuple[bytes, ...]:
    """The bytes themselves unless they are the text of a CSR, and the DER in them as far as it can be had."""
    if csr is None:
        return tuple(_readings(body))
    return (csr[:SCANNED],) if body.isascii() else (body, csr[:SCANNED])


_REMOVED_OIDS = (
    encode_oid(OTP_CHALLENGE),
    encode_oid(REVOCATION_CHALLENGE),
    encode_oid("1.3.6.1.5.5.7.5.1.1"),  # regToken and authenticator of CRMF (RFC 4211 6.1, 6.2)
    encode_oid("1.3.6.1.5.5.7.5.1.2"),
)
_BINDING_OIDS = (encode_oid("1.2.840.113549.1.9.7"), encode_oid("1.2.840.113549.1.9.16.2.58"))
"""challengePassword and estIdentityLinking: a channel binding, or else perhaps a password."""
_REVOKE = encode_oid("1.3.6.1.5.5.7.7.17")
_OIDS = (*_REMOVED_OIDS, *_BINDING_OIDS, _REVOKE)


def is_binding(text: bytes | str) -> bool:
    """Whether a text is base64 of as many bytes as a channel binding has."""
    given = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        value = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(value) in BINDINGS and base64.b64encode(value) == given


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
    """Tag, content (`LONGEST_VALUE` of it at most) and end of the element there.

    The content of one that is cut off or of indefinite length is all that follows.
    """
    if at + 2 > len(der):
        return 0, der[at:], len(der)
    size = der[at + 1]
    begin = at + 2
    if size & 0x80:
        begin += size & 0x7F
        size = int.from_bytes(der[at + 2 : begin], "big") if 0x80 < der[at + 1] <= 0x84 else len(der)
    return der[at], der[begin : begin + min(size, LONGEST_VALUE)], min(len(der), begin + size)


def _text_at(der: bytes, at: int) -> bytes:
    """The first value of the SET that follows an attribute's type; of a control without one, the value itself."""
    tag, content, _ = _element(der, at)
    return _element(content, 0)[1] if tag == 0x31 else content


def _passphrases(values: bytes) -> Iterator[bytes]:
    """The passphrase in a revokeRequest, the one OCTET STRING in it (RFC 5272 6.11)."""
    if len(values) >= LONGEST_VALUE:
        yield values
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


def _is_private_key(body: bytes, readings: Iterable[bytes]) -> bool:
    """Whether the body is a private key in DER or base64, sent in place of a request."""
    for der in readings if len(body) <= LONGEST_KEY else ():
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
    mark = f"--{answers.BOUNDARY}".encode()
    parts = [_without_key(part) for part in body.split(mark)]
    found = mark.join(parts)
    return found if found != body else REMOVED.encode()


def _without_key(part: bytes) -> bytes:
    head, blank, content = part.partition(b"\r\n\r\n")
    has_key = blank and any(kind in head for kind in (b"application/pkcs8", b"server-generated-key"))
    return head + blank + REMOVED.encode() + b"\r\n" if has_key and content else part
