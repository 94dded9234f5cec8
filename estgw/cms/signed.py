"""SignedData (RFC 5652 5): sign, read and verify, and the certs-only form without a signature.

Theory of operation.  Reading and verifying are two steps.  `parse` reads DER or BER and verifies nothing.  The caller
then decides for each `SignerInfo` whether this signer may sign and which public key it has, and passes that key to
`verify`.  The certificates in the message (`bag`) are not trusted: anyone can have put them there.  `certificate_of`
only finds the one that a SignerInfo names.

A signature is over the signed attributes, which hold the content's type and digest, or in their absence over the
content itself.  `verify` requires the attributes for each content type except `DATA` (RFC 5652 5.3): otherwise a
signature over content could be presented as one over attributes.  It checks the digest first, so that changed content
(`BadDigest`) differs from a wrong key (`BadSignature`).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.cms import algorithms
from estgw.cms.algorithms import NO_SIGNATURE, Algorithm, PrivateKey
from estgw.cms.faults import BadDigest, BadSignature, within
from estgw.cms.fields import (
    A_NULL,
    OCTETS,
    SET,
    Fields,
    context,
    inside,
    integer,
    items,
    octets,
    oid,
    read_octets,
    read_oid,
    read_time,
    retag,
    sequence,
    set_of,
    tagged,
    time,
)
from estgw.cms.identifiers import (
    KEY_ID,
    Attribute,
    Identifier,
    IssuerAndSerial,
    decode_attributes,
    decode_identifier,
    encode_identifier,
    is_named,
    key_of,
    single,
)
from estgw.errors import Malformed
from estgw.est import ber, certs
from estgw.est.der import SEQUENCE

DATA, SIGNED_DATA = "1.2.840.113549.1.7.1", "1.2.840.113549.1.7.2"
CONTENT_TYPE, MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
SIGNING_TIME = "1.2.840.113549.1.9.5"

MAXIMUM_SIGNERS = 16
MAXIMUM_CERTIFICATES = 200
"""Certificates in one message.  The longest chain has five; an answer to a batch has one for each of 100 requests."""

_CERTIFICATES, _CRLS = context(0), context(1)
_SIGNED_ATTRIBUTES, _UNSIGNED_ATTRIBUTES = context(0), context(1)


@dataclass(frozen=True)
class SignerInfo:
    """SignerInfo (RFC 5652 5.3): the identifier of the signer's key (`whom`), the algorithms and the signature."""

    whom: Identifier
    digest: Algorithm
    algorithm: Algorithm
    signature: bytes = field(repr=False)
    signed_attributes: tuple[Attribute, ...] = ()
    unsigned_attributes: tuple[Attribute, ...] = ()
    as_sent: bytes = field(default=b"", repr=False, compare=False)
    """The signed attributes as a SET OF, in the sender's order."""

    @property
    def is_signed(self) -> bool:
        """False for id-alg-noSignature, which has a digest in place of the signature (RFC 5272 C.1)."""
        return self.algorithm.oid != NO_SIGNATURE

    @property
    def signing_time(self) -> datetime | None:
        """The time of signing that the signer states, or None.  Raises `Malformed` when it can't be read."""
        value = single(self.signed_attributes, SIGNING_TIME, "the signing time")
        return None if value is None else read_time(value, "the signing time")


@dataclass(frozen=True)
class SignedData:
    """The fields of a SignedData.  Nothing in it is verified; `verify` does that."""

    content_type: str
    content: bytes | None
    """The octets of the content; None in a certs-only message and with a detached signature."""
    certificates: tuple[bytes, ...] = field(default=(), repr=False)
    """The DER of each X.509 certificate.  They are not trusted: anyone can have put them there."""
    crls: tuple[bytes, ...] = field(default=(), repr=False)
    signers: tuple[SignerInfo, ...] = ()

    @property
    def bag(self) -> list[x509.Certificate]:
        """The certificates in the message that can be read, their names included."""
        return [found for each in self.certificates if (found := _readable(each)) is not None]


def _readable(der: bytes) -> x509.Certificate | None:
    try:
        return certs.load_named(der)
    except Malformed:
        return None


@dataclass(frozen=True)
class Signer:
    """A private key that signs, and the identifier of its public key for the reader (`whom`).

    Without a key the message gets id-alg-noSignature, for keys that can't sign (RFC 5272 C.1).
    """

    key: PrivateKey | None = field(repr=False)
    whom: Identifier

    @classmethod
    def of(cls, key: PrivateKey, certificate: x509.Certificate) -> Signer:
        """Return the signer with the key of this certificate."""
        return cls(key, IssuerAndSerial.of(certificate))


def sign(
    content_type: str,
    content: bytes,
    signers: Sequence[Signer],
    *,
    certificates: Sequence[x509.Certificate] = (),
    crls: Sequence[bytes] = (),
    signing_time: datetime | None = None,
) -> bytes:
    """Return a ContentInfo of SignedData as DER.  Each signer signs content type, digest and time.

    `content_type` is a dotted OID, `crls` are DER.  Without a signer the message is unsigned, as a revocation by
    passphrase may be (RFC 5272 6.11).  Raises `BadAlgorithm` for a key of a kind that `PrivateKey` lacks.
    """
    made = [_signer_info(each, content_type, content, signing_time) for each in signers]
    encapsulated = sequence(oid(content_type), tagged(0, octets(content)))
    is_new = content_type != DATA or any(isinstance(each.whom, bytes) for each in signers)
    bag = [each.public_bytes(Encoding.DER) for each in certificates]
    return _content_info(3 if is_new else 1, encapsulated, bag, crls, made)


def certs_only(certificates: Sequence[x509.Certificate], crls: Sequence[bytes] = ()) -> bytes:
    """Return the Simple PKI Response (RFC 5272 4.1) as DER: certificates and CRLs and nothing else."""
    return _content_info(1, sequence(oid(DATA)), [each.public_bytes(Encoding.DER) for each in certificates], crls, [])


def parse(data: bytes) -> SignedData:
    """Return the message in a ContentInfo of SignedData, DER or BER.  Raises `Malformed`."""
    try:
        return _parse(data)
    except Malformed:
        der = ber.to_der(data)
        if der == data:
            raise
    return _parse(der)


def verify(message: SignedData, signer: SignerInfo, public: Any) -> None:
    """Check one signature with a public key; `public` may be a certificate, which has the key.

    Raises `BadAlgorithm` for an algorithm that is not accepted, `BadDigest` when the content was changed after it was
    signed, `BadSignature` when the signature does not fit or is absent, `Malformed` for attributes that can't be read.
    """
    if message.content is None:
        raise BadSignature("a signature without the content that it is for")
    if not signer.is_signed:
        raise BadSignature("a digest in place of a signature (id-alg-noSignature)")
    if isinstance(public, x509.Certificate):
        public = key_of(public)
    if not signer.signed_attributes:
        # RFC 5652 5.3: without them a signature over content could be presented as one over attributes.
        if message.content_type != DATA:
            raise BadSignature("a signature without the signed attributes that this content type must have")
        algorithms.verify(public, signer.algorithm, signer.signature, message.content, signer.digest.oid)
        return
    _check_attributes(message, signer)
    in_order = set_of(each.encode() for each in signer.signed_attributes)
    try:
        algorithms.verify(public, signer.algorithm, signer.signature, in_order, signer.digest.oid)
    except BadSignature:
        # RFC 5652 5.4 signs the DER of the attributes, which is sorted.  Some writers sign them in the order sent.
        if signer.as_sent in (b"", in_order) or set_of(items(signer.as_sent, "attributes", SET)) != in_order:
            raise
        algorithms.verify(public, signer.algorithm, signer.signature, signer.as_sent, signer.digest.oid)


def verify_digest(message: SignedData, signer: SignerInfo) -> None:
    """Check the digest in place of a signature (id-alg-noSignature, RFC 5272 C.1).

    It shows that the message was not damaged by accident; it proves no identity.  Raises as `verify` does.
    """
    if signer.is_signed or message.content is None:
        raise BadSignature("no digest in place of a signature, or nothing that it is for")
    _check_attributes(message, signer)
    in_order = set_of(each.encode() for each in signer.signed_attributes)
    if not hmac.compare_digest(signer.signature, algorithms.digest(signer.digest, in_order)):
        raise BadSignature("the digest in place of a signature is another")


def certificate_of(message: SignedData, signer: SignerInfo) -> x509.Certificate | None:
    """The signer's certificate, or None if the message does not have it."""
    return next((each for each in message.bag if is_named(each, signer.whom)), None)


def _check_attributes(message: SignedData, signer: SignerInfo) -> None:
    algorithms.require_strong(signer.digest)
    kind = single(signer.signed_attributes, CONTENT_TYPE, "the signed content type")
    found = single(signer.signed_attributes, MESSAGE_DIGEST, "the signed digest")
    if kind is None or found is None:
        raise BadSignature("signed attributes without content type or digest")
    if read_oid(kind, "the signed content type") != message.content_type:
        raise BadSignature("the signed content type is not the message's")
    expected = algorithms.digest(signer.digest, message.content or b"")
    if not hmac.compare_digest(read_octets(found, "the signed digest"), expected):
        raise BadDigest("the content is not what was signed: its digest is another")


# Writing.


def _signer_info(signer: Signer, content_type: str, content: bytes, moment: datetime | None) -> tuple[bytes, bytes]:
    """The AlgorithmIdentifier of the digest, and the SignerInfo, both as DER."""
    public = None if signer.key is None else signer.key.public_key()
    used = Algorithm(algorithms.SHA256) if public is None else algorithms.digest_for(public)
    attributes = [
        Attribute(CONTENT_TYPE, (oid(content_type),)),
        Attribute(MESSAGE_DIGEST, (octets(algorithms.digest(used, content)),)),
    ]
    if moment is not None:
        attributes.append(Attribute(SIGNING_TIME, (time(moment),)))
    to_sign = set_of(each.encode() for each in attributes)
    if signer.key is None:
        method, signature = Algorithm(NO_SIGNATURE, A_NULL), algorithms.digest(used, to_sign)
    else:
        method, signature = algorithms.signature_for(public), algorithms.sign(signer.key, to_sign)
    version = 3 if isinstance(signer.whom, bytes) else 1
    return used.encode(), sequence(
        integer(version),
        encode_identifier(signer.whom),
        used.encode(),
        retag(_SIGNED_ATTRIBUTES, to_sign),
        method.encode(),
        octets(signature),
    )


def _content_info(
    version: int, encapsulated: bytes, bag: Sequence[bytes], crls: Sequence[bytes], made: Sequence[tuple[bytes, bytes]]
) -> bytes:
    signed = sequence(
        integer(version),
        set_of({digest for digest, _ in made}),
        encapsulated,
        retag(_CERTIFICATES, set_of(set(bag))) if bag else b"",
        retag(_CRLS, set_of(set(crls))) if crls else b"",
        set_of(info for _, info in made),
    )
    return sequence(oid(SIGNED_DATA), tagged(0, signed))


# Reading.


def content_info(der: bytes) -> tuple[str, bytes]:
    """Return content type (dotted) and content (DER) of a ContentInfo (RFC 5652 3).  Raises `Malformed`."""
    fields = Fields(der, "a ContentInfo")
    kind, found = fields.oid("content type"), fields.take("content", context(0))
    fields.end()
    return kind, inside(found, "a ContentInfo's content")


def _parse(der: bytes) -> SignedData:
    kind, body = content_info(der)
    if kind != SIGNED_DATA:
        raise Malformed(f"a CMS message of type {kind}, not SignedData")
    fields = Fields(body, "a SignedData")
    version = fields.integer("version")
    if not 1 <= version <= 5:
        raise Malformed(f"a SignedData of version {version}")
    fields.take("digest algorithms", SET)
    content_type, content = _encapsulated(fields.take("content", SEQUENCE))
    bag, crls = fields.maybe(_CERTIFICATES), fields.maybe(_CRLS)
    signers = items(fields.take("signers", SET), "a SignedData's signers", SET)
    fields.end()
    if len(signers) > MAXIMUM_SIGNERS:
        raise Malformed(f"a SignedData with {len(signers)} signers; {MAXIMUM_SIGNERS} are the most here")
    return SignedData(
        content_type,
        content,
        _only_x509(bag, "a SignedData's certificates", _CERTIFICATES),
        _only_x509(crls, "a SignedData's CRLs", _CRLS),
        tuple(_read_signer(each, number) for number, each in enumerate(signers, 1)),
    )


def _encapsulated(der: bytes) -> tuple[str, bytes | None]:
    fields = Fields(der, "an EncapsulatedContentInfo")
    kind, found = fields.oid("content type"), fields.maybe(context(0))
    fields.end()
    if found is None:
        return kind, None
    return kind, read_octets(inside(found, "a SignedData's content", OCTETS), "a SignedData's content")


def _only_x509(der: bytes | None, what: str, tag: bytes) -> tuple[bytes, ...]:
    """The X.509 elements of a CertificateSet or of the CRLs.  Attribute certificates and others have other tags."""
    found = [] if der is None else items(der, what, tag)
    if len(found) > MAXIMUM_CERTIFICATES:
        raise Malformed(f"{what}: {len(found)} of them; {MAXIMUM_CERTIFICATES} are the most here")
    return tuple(each for each in found if each[:1] == SEQUENCE)


def _read_signer(der: bytes, number: int) -> SignerInfo:
    with within(f"signer {number}"):
        fields = Fields(der, "a SignerInfo")
        fields.integer("version")
        whom = decode_identifier(fields.take("name", SEQUENCE, KEY_ID), "a signer's name")
        used = Algorithm.take(fields, "digest algorithm")
        signed = fields.maybe(_SIGNED_ATTRIBUTES)
        method = Algorithm.take(fields, "signature algorithm")
        signature = fields.octets("signature")
        unsigned = fields.maybe(_UNSIGNED_ATTRIBUTES)
        fields.end()
        return SignerInfo(
            whom,
            used,
            method,
            signature,
            () if signed is None else decode_attributes(signed, "signed attributes", _SIGNED_ATTRIBUTES),
            () if unsigned is None else decode_attributes(unsigned, "unsigned attributes", _UNSIGNED_ATTRIBUTES),
            b"" if signed is None else retag(SET, signed),
        )
