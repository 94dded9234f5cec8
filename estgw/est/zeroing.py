"""Certificates in what a script printed, in whatever form, and the same output with their signatures zeroed.

A certificate whose signature is zero shows all that a CA would have certified, and nothing accepts it.  The signature
keeps its length, so the rest of the output stays as it is, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from cryptography import x509

from estgw.errors import Malformed
from estgw.est import ber, certs, encoding

_SEQUENCE, _BIT_STRING, _OCTET_STRING = 0x30, 0x03, 0x04
_CONSTRUCTED = 0x20
_DEPTH = 64
"""Elements in elements; CMS messages in CMS messages have a few dozen."""
_BLOCK = re.compile(rb"-----BEGIN ([^-\r\n]+)-----\r?\n([A-Za-z0-9+/=\s]*)-----END \1-----")
_IN_WORDS = re.compile(r"-----BEGIN [^-\n]*CERTIFICATE-----.*?(?:-----END [^-\n]*CERTIFICATE-----|\Z)", re.DOTALL)


def certificates(output: bytes) -> list[x509.Certificate]:
    """Every certificate in what a script printed, in order."""
    found = []
    for der in _parts(output):
        found += [certs.load(der[start:end]) for start, end, _ in _certificates(der, (0, len(der)))]
    return found


def without_signatures(output: bytes, known: Collection[bytes] = ()) -> bytes:
    """The output with the signature of every certificate zeroed, but for those whose DER is `known`."""
    if _BLOCK.search(output):
        return _BLOCK.sub(lambda block: _in_block(block, known), output)
    for der in _parts(output):
        zeroed = _zeroed(der, known)
        return zeroed if output.lstrip()[:1] == b"0" and der in output else encoding.encode_base64(zeroed)
    return output


def without_certificates(words: str) -> str:
    """Words, such as stderr, without the PEM of any certificate."""
    return _IN_WORDS.sub("(a certificate, left out)", words)


def _in_block(block: re.Match[bytes], known: Collection[bytes]) -> bytes:
    if b"PRIVATE KEY" in block[1]:
        return block[0]
    try:
        der = encoding.decode_base64(block[2])
    except Malformed:
        return block[0]
    zeroed = _zeroed(_definite(der), known)
    return encoding.encode_pem(zeroed, block[1].decode("latin-1")).rstrip(b"\n")


def _parts(output: bytes) -> Iterator[bytes]:
    """The DER in an output: of each PEM block that is no key, else of the whole."""
    if _BLOCK.search(output):
        for block in _BLOCK.finditer(output):
            if b"PRIVATE KEY" not in block[1]:
                try:
                    yield _definite(encoding.decode_base64(block[2]))
                except Malformed:
                    continue
        return
    try:
        yield _definite(encoding.decode(output, ()))
    except Malformed:
        return


def _definite(der: bytes) -> bytes:
    """The same with definite lengths, where it is BER that can be read."""
    try:
        return ber.to_der(der)
    except Malformed:
        return der


def _zeroed(der: bytes, known: Collection[bytes]) -> bytes:
    made = bytearray(der)
    for start, end, signature in _certificates(der, (0, len(der))):
        if der[start:end] not in known:
            made[signature[0] : signature[1]] = bytes(signature[1] - signature[0])
    return bytes(made)


_Place = tuple[int, int]


def _certificates(der: bytes, place: _Place, depth: int = 0) -> Iterator[tuple[int, int, _Place]]:
    """Begin and end of each certificate, and where the bits of its signature are."""
    for start, content, end in _elements(der, place):
        tag = der[start]
        if tag == _SEQUENCE and (signature := _signature_of_certificate(der, (content, end), der[start:end])):
            yield start, end, signature
        elif (tag & _CONSTRUCTED or tag == _OCTET_STRING) and depth < _DEPTH:
            yield from _certificates(der, (content, end), depth + 1)


def _signature_of_certificate(der: bytes, place: _Place, whole: bytes) -> _Place | None:
    """Where the signature of a certificate is; None for anything else (RFC 5280 4.1)."""
    parts = list(_elements(der, place))
    if [der[start] for start, _, _ in parts] != [_SEQUENCE, _SEQUENCE, _BIT_STRING]:
        return None
    try:
        certs.load(whole)
    except Malformed:
        return None
    _, content, end = parts[2]
    return content + 1, end  # the first octet counts unused bits


def _elements(der: bytes, place: _Place) -> Iterator[tuple[int, int, int]]:
    """Begin, begin of the content, and end of the elements that fill a place exactly; none where they do not."""
    found, (at, end) = [], place
    while at < end:
        if der[at] & 0x1F == 0x1F or at + 2 > end or der[at + 1] == 0x80 or der[at + 1] > 0x84:
            return
        octets = der[at + 1] & 0x7F if der[at + 1] & 0x80 else 0
        content = at + 2 + octets
        size = int.from_bytes(der[at + 2 : content], "big") if octets else der[at + 1]
        if content + size > end:
            return
        found.append((at, content, content + size))
        at = content + size
    yield from found


def is_zeroed(certificate: x509.Certificate) -> bool:
    """Whether nothing can accept this certificate, because its signature is zero."""
    return not any(certificate.signature)
