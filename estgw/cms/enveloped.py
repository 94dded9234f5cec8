"""EnvelopedData (RFC 5652 6): encrypt to one public key, read, and decrypt with a private or a shared key.

`encrypt` uses AES-256-CBC (RFC 3565).  `decrypt` accepts shorter keys as well, and AES-GCM in AuthEnvelopedData
(RFC 5083).
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers import algorithms as ciphers
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from estgw.cms import recipients
from estgw.cms.algorithms import Algorithm
from estgw.cms.faults import BadAlgorithm, NotForThisKey
from estgw.cms.fields import (
    SET,
    Fields,
    content,
    context,
    integer,
    items,
    octets,
    oid,
    read_octets,
    retag,
    sequence,
    set_of,
    tagged,
)
from estgw.cms.identifiers import Identifier
from estgw.cms.recipients import NOT_OURS, Recipient
from estgw.cms.signed import DATA, content_info
from estgw.errors import Malformed
from estgw.est import ber
from estgw.est.der import SEQUENCE

ENVELOPED_DATA, AUTH_ENVELOPED_DATA = "1.2.840.113549.1.7.3", "1.2.840.113549.1.9.16.1.23"

_AES_256_CBC = "2.16.840.1.101.3.4.1.42"
_CBC: Mapping[str, int] = {"2.16.840.1.101.3.4.1.2": 16, "2.16.840.1.101.3.4.1.22": 24, _AES_256_CBC: 32}
_GCM: Mapping[str, int] = {
    "2.16.840.1.101.3.4.1.6": 16, "2.16.840.1.101.3.4.1.26": 24, "2.16.840.1.101.3.4.1.46": 32,
}  # fmt: skip


@dataclass(frozen=True)
class EnvelopedData:
    """The fields of an EnvelopedData or AuthEnvelopedData; the content is still encrypted."""

    recipients: tuple[Recipient, ...]
    content_type: str
    algorithm: Algorithm
    encrypted: bytes = field(repr=False)
    mac: bytes = field(default=b"", repr=False)
    """The MAC of AuthEnvelopedData; empty for EnvelopedData."""
    attributes: bytes = field(default=b"", repr=False)
    """The attributes that the MAC covers besides the content: the DER of a SET."""


# Writing.


def encrypt(plain: bytes, public: Any, whom: Identifier, content_type: str = DATA) -> bytes:
    """Return a ContentInfo of EnvelopedData as DER, encrypted to one public key, RSA or EC.  Raises `BadAlgorithm`."""
    content_key = secrets.token_bytes(32)
    version, recipient = recipients.wrap_for(public, whom, content_key)
    iv = secrets.token_bytes(16)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(ciphers.AES(content_key), modes.CBC(iv)).encryptor()
    encrypted = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    cipher = Algorithm(_AES_256_CBC, octets(iv)).encode()
    inner = sequence(oid(content_type), cipher, retag(context(0, constructed=False), octets(encrypted)))
    return sequence(oid(ENVELOPED_DATA), tagged(0, sequence(integer(version), set_of([recipient]), inner)))


# Reading.


def parse(data: bytes) -> EnvelopedData:
    """Return the message in a ContentInfo of EnvelopedData or AuthEnvelopedData, DER or BER.  Raises `Malformed`."""
    kind, body = content_info(ber.to_der(data))
    if kind not in (ENVELOPED_DATA, AUTH_ENVELOPED_DATA):
        raise Malformed(f"a CMS message of type {kind}, not EnvelopedData")
    fields = Fields(body, "an EnvelopedData")
    fields.integer("version")
    fields.maybe(context(0))
    found = recipients.read_all(fields.take("recipients", SET))
    content_type, algorithm, encrypted = _encrypted_content(fields.take("encrypted content", SEQUENCE))
    attributes = fields.maybe(context(1))
    mac = fields.octets("MAC") if kind == AUTH_ENVELOPED_DATA else b""
    return EnvelopedData(
        found,
        content_type,
        algorithm,
        encrypted,
        mac,
        b"" if attributes is None or not mac else retag(SET, attributes),
    )


def _encrypted_content(der: bytes) -> tuple[str, Algorithm, bytes]:
    fields = Fields(der, "an EncryptedContentInfo")
    kind, algorithm = fields.oid("content type"), Algorithm.take(fields, "algorithm")
    found = fields.take("content", context(0), context(0, constructed=False))
    fields.end()
    if found[:1] == context(0, constructed=False):
        return kind, algorithm, content(found)
    # BER may split it into pieces.
    pieces = items(found, "encrypted content", context(0))
    return kind, algorithm, b"".join(read_octets(each, "encrypted content") for each in pieces)


# Decrypting.


def decrypt(data: bytes, private: Any, whom: Identifier | None = None) -> tuple[str, bytes]:
    """Return content type (dotted) and content, decrypted with a private key, RSA or EC.

    `whom` is the identifier of the key's recipient; without it each recipient of the key's kind is tried.  Raises
    `NotForThisKey`, `BadAlgorithm` for an algorithm that is not accepted, `Malformed`.
    """
    message = parse(data)
    kind = "key transport" if isinstance(private, rsa.RSAPrivateKey) else "key agreement"
    for recipient in message.recipients:
        if recipient.kind != kind or whom not in (None, recipient.whom):
            continue
        with contextlib.suppress(NotForThisKey):
            return message.content_type, decrypt_content(message, recipients.content_key(recipient, private))
    raise NotForThisKey(NOT_OURS)


def decrypt_content(message: EnvelopedData, key: bytes) -> bytes:
    """Return the content, decrypted with the content key.  Raises `NotForThisKey`, `BadAlgorithm`, `Malformed`."""
    name, parameters = message.algorithm.oid, message.algorithm.parameters
    try:
        if name in _CBC and not message.mac:
            iv = read_octets(parameters or b"", "an initialization vector")
            decryptor = Cipher(ciphers.AES(_of_length(key, _CBC[name])), modes.CBC(iv)).decryptor()
            unpadder = padding.PKCS7(128).unpadder()
            plain = decryptor.update(message.encrypted) + decryptor.finalize()
            return unpadder.update(plain) + unpadder.finalize()
        if name in _GCM and len(message.mac) == 16:
            nonce = Fields(parameters or b"", "GCM parameters").octets("nonce")
            cipher = AESGCM(_of_length(key, _GCM[name]))
            return cipher.decrypt(nonce, message.encrypted + message.mac, message.attributes or None)
    except (ValueError, InvalidTag) as fault:
        if isinstance(fault, Malformed):
            raise
        raise NotForThisKey(NOT_OURS) from None
    raise BadAlgorithm(f"content encrypted with {message.algorithm.name} is not taken")


def _of_length(key: bytes, length: int) -> bytes:
    if len(key) != length:
        raise NotForThisKey(NOT_OURS)
    return key
