"""RecipientInfo (RFC 5652 6.2): the content key of a message, encrypted for each recipient.

Three kinds are supported: RSA (RFC 3560; PKCS#1 v1.5 for reading only), ephemeral-static ECDH with AES key wrap
(RFC 5753), and a key that both sides share already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from estgw.cms.algorithms import MGF1, RSA, SHA1, SHA256, SHA384, SHA512, Algorithm
from estgw.cms.faults import BadAlgorithm, NotForThisKey
from estgw.cms.fields import (
    A_NULL,
    BIT_STRING,
    OCTETS,
    SET,
    Fields,
    bits,
    context,
    inside,
    integer,
    items,
    octets,
    read_bits,
    read_octets,
    sequence,
    tagged,
)
from estgw.cms.identifiers import KEY_ID, Identifier, IssuerAndSerial, decode_identifier, encode_identifier
from estgw.errors import Malformed
from estgw.est.der import SEQUENCE

MAXIMUM_RECIPIENTS = 20
NOT_OURS = "it is not encrypted to this key, or has been changed"

_OAEP, _EC_KEY = "1.2.840.113549.1.1.7", "1.2.840.10045.2.1"
_AES_256_WRAP, _ECDH_SHA256 = "2.16.840.1.101.3.4.1.45", "1.3.132.1.11.1"
WRAPS: Mapping[str, int] = {
    "2.16.840.1.101.3.4.1.5": 16, "2.16.840.1.101.3.4.1.25": 24, _AES_256_WRAP: 32,
}  # fmt: skip
"""AES key wrap (RFC 3565), and the octets of its key."""
# SHA-1 is strong enough to derive or mask a key, and is OpenSSL's default for both.
_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    SHA1: hashes.SHA1(), SHA256: hashes.SHA256(), SHA384: hashes.SHA384(), SHA512: hashes.SHA512(),  # noqa: S303
}  # fmt: skip
_AGREEMENTS = {
    "1.3.133.16.840.63.0.2": SHA1, _ECDH_SHA256: SHA256, "1.3.132.1.11.2": SHA384, "1.3.132.1.11.3": SHA512,
}  # fmt: skip


@dataclass(frozen=True)
class Recipient:
    """One RecipientInfo."""

    kind: str
    """`key transport`, `key agreement`, `shared key`, `password` or `other`."""
    whom: Identifier | None = None
    """The identifier of the recipient's key; for a shared key its name.  None for the kinds without one."""
    algorithm: Algorithm | None = None
    encrypted_key: bytes = field(default=b"", repr=False)
    originator: bytes = field(default=b"", repr=False)
    """The ephemeral public key of a key agreement, as an X9.62 point; empty if it is identified in another way."""
    ukm: bytes = field(default=b"", repr=False)


# Writing.


def wrap_for(public: Any, whom: Identifier, content_key: bytes) -> tuple[int, bytes]:
    """Return EnvelopedData's version and a RecipientInfo for one public key.  Raises `BadAlgorithm`."""
    match public:
        case rsa.RSAPublicKey():
            return _to_rsa(public, whom, content_key)
        case ec.EllipticCurvePublicKey():
            return 2, _to_ec(public, whom, content_key)
    raise BadAlgorithm(f"nothing can be encrypted to a key of kind {type(public).__name__}")


def _to_rsa(public: rsa.RSAPublicKey, whom: Identifier, content_key: bytes) -> tuple[int, bytes]:
    """EnvelopedData's version, which depends on the kind of identifier, and KeyTransRecipientInfo (RFC 5652 6.2.1)."""
    used = _HASHES[SHA256]
    hashed = Algorithm(SHA256, A_NULL).encode()
    parameters = sequence(tagged(0, hashed), tagged(1, Algorithm(MGF1, hashed).encode()))
    encrypted = public.encrypt(content_key, padding.OAEP(padding.MGF1(used), used, None))
    version = 2 if isinstance(whom, bytes) else 0
    method = Algorithm(_OAEP, parameters).encode()
    return version, sequence(integer(version), encode_identifier(whom), method, octets(encrypted))


def _to_ec(public: ec.EllipticCurvePublicKey, whom: Identifier, content_key: bytes) -> bytes:
    """KeyAgreeRecipientInfo (RFC 5652 6.2.2, RFC 5753 3.1.1), always of version 3."""
    ours = ec.generate_private_key(public.curve)
    wrapping = Algorithm(_AES_256_WRAP)
    key = _agreed(ours, public, _ECDH_SHA256, wrapping, b"")
    point = ours.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    originator = tagged(0, tagged(1, Algorithm(_EC_KEY).encode(), bits(point)))
    name = tagged(0, octets(whom)) if isinstance(whom, bytes) else whom.encode()
    wrapped = sequence(name, octets(keywrap.aes_key_wrap(key, content_key)))
    method = Algorithm(_ECDH_SHA256, wrapping.encode()).encode()
    return tagged(1, integer(3), originator, method, sequence(wrapped))


def _agreed(
    private: ec.EllipticCurvePrivateKey, public: ec.EllipticCurvePublicKey, scheme: str, wrapping: Algorithm, ukm: bytes
) -> bytes:
    """The key that both sides derive (RFC 5753 7.2: ECC-CMS-SharedInfo)."""
    length = WRAPS[wrapping.oid]
    user = tagged(0, octets(ukm)) if ukm else b""
    info = sequence(wrapping.encode(), user, tagged(2, octets((length * 8).to_bytes(4, "big"))))
    return X963KDF(_HASHES[_AGREEMENTS[scheme]], length, info).derive(private.exchange(ec.ECDH(), public))


# Reading.


def read_all(der: bytes) -> tuple[Recipient, ...]:
    """Return the recipients of a SET of RecipientInfo.  Raises `Malformed`."""
    found = tuple(each for one in items(der, "recipients", SET) for each in _read(one))
    if len(found) > MAXIMUM_RECIPIENTS:
        raise Malformed(f"a message for {len(found)} recipients; {MAXIMUM_RECIPIENTS} are the most here")
    return found


def _read(der: bytes) -> list[Recipient]:
    match der[:1]:
        case tag if tag == SEQUENCE:
            fields = Fields(der, "a KeyTransRecipientInfo")
            fields.integer("version")
            whom = decode_identifier(fields.take("name", SEQUENCE, KEY_ID), "a recipient")
            return [Recipient("key transport", whom, Algorithm.take(fields, "algorithm"), _key(fields))]
        case tag if tag == context(1):
            return _agreeing(der)
        case tag if tag == context(2):
            fields = Fields(der, "a KEKRecipientInfo", tag)
            fields.integer("version")
            name = Fields(fields.take("name", SEQUENCE), "a KEKIdentifier").octets("key identifier")
            return [Recipient("shared key", name, Algorithm.take(fields, "algorithm"), _key(fields))]
        case tag if tag == context(3):
            return [Recipient("password")]
    return [Recipient("other")]


def _agreeing(der: bytes) -> list[Recipient]:
    what = "a KeyAgreeRecipientInfo"
    fields = Fields(der, what, context(1))
    fields.integer("version")
    originator = inside(fields.take("originator", context(0)), what)
    ukm = fields.maybe(context(1))
    method = Algorithm.take(fields, "algorithm")
    point = b""
    if originator[:1] == context(1):
        parts = Fields(originator, what, context(1))
        parts.take("algorithm", SEQUENCE)
        point = read_bits(parts.take("key", BIT_STRING), "an originator's key")
    user = b"" if ukm is None else read_octets(inside(ukm, what, OCTETS), what)
    made = []
    for each in items(fields.take("keys", SEQUENCE), what):
        inner = Fields(each, "a RecipientEncryptedKey")
        named = inner.take("name", SEQUENCE, context(0))
        if named[:1] == SEQUENCE:
            whom: Identifier = IssuerAndSerial.decode(named)
        else:
            whom = Fields(named, what, context(0)).octets("key identifier")
        made.append(Recipient("key agreement", whom, method, _key(inner), point, user))
    return made


def _key(fields: Fields) -> bytes:
    found = fields.octets("encrypted key")
    fields.end()
    return found


# Decrypting.


def content_key(recipient: Recipient, private: Any) -> bytes:
    """Return the content key, decrypted with a private key, RSA or EC.

    Raises `NotForThisKey`, `BadAlgorithm`, `Malformed`.
    """
    method = recipient.algorithm
    assert method is not None
    try:
        if isinstance(private, rsa.RSAPrivateKey):
            return private.decrypt(recipient.encrypted_key, _rsa_padding(method))
        return _by_agreement(private, recipient, method)
    except (ValueError, UnsupportedAlgorithm, keywrap.InvalidUnwrap) as fault:
        if isinstance(fault, Malformed):
            raise
        raise NotForThisKey(NOT_OURS) from None


def unwrap(recipient: Recipient, key: bytes) -> bytes:
    """Return the content key, unwrapped with a shared key.  Raises `NotForThisKey`, `BadAlgorithm`."""
    method = recipient.algorithm
    if method is None or WRAPS.get(method.oid) != len(key):
        name = "nothing" if method is None else method.name
        raise BadAlgorithm(f"it is wrapped with {name}, which does not fit a key of {len(key)} bytes")
    try:
        return keywrap.aes_key_unwrap(key, recipient.encrypted_key)
    except (ValueError, keywrap.InvalidUnwrap):
        raise NotForThisKey(NOT_OURS) from None


def _by_agreement(private: Any, recipient: Recipient, method: Algorithm) -> bytes:
    if not isinstance(private, ec.EllipticCurvePrivateKey) or method.oid not in _AGREEMENTS or not recipient.originator:
        raise BadAlgorithm(f"key agreement by {method.name} is not taken")
    wrapping = Algorithm.decode(method.parameters or b"", "a key wrap algorithm")
    if wrapping.oid not in WRAPS:
        raise BadAlgorithm(f"keys wrapped with {wrapping.name} are not taken")
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(private.curve, recipient.originator)
    except (ValueError, UnsupportedAlgorithm):
        raise NotForThisKey(NOT_OURS) from None
    return keywrap.aes_key_unwrap(
        _agreed(private, public, method.oid, wrapping, recipient.ukm), recipient.encrypted_key
    )


def _rsa_padding(method: Algorithm) -> Any:
    """The padding of an encrypted key: OAEP (RFC 3560), or PKCS#1 v1.5, whose padding errors OpenSSL conceals."""
    if method.oid == RSA:
        return padding.PKCS1v15()
    if method.oid != _OAEP:
        raise BadAlgorithm(f"key transport by {method.name} is not taken")
    fields = Fields(method.parameters or sequence(), "RSAES-OAEP parameters")
    hashed, masked = fields.maybe(context(0)), fields.maybe(context(1))
    if fields.left:
        raise BadAlgorithm("RSAES-OAEP with a label is not taken")
    used = SHA1 if hashed is None else Algorithm.decode(inside(hashed, "OAEP's hash")).oid
    mask = SHA1
    if masked is not None:
        mask = Algorithm.decode(Algorithm.decode(inside(masked, "OAEP's mask")).parameters or b"").oid
    if used not in _HASHES or mask not in _HASHES:
        raise BadAlgorithm("RSAES-OAEP with a hash that is not taken")
    return padding.OAEP(padding.MGF1(_HASHES[mask]), _HASHES[used], None)
