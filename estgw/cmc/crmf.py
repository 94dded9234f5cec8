"""CRMF, the other format of a certificate request (RFC 4211, RFC 5272 3.2.1.2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from estgw.cmc import parts
from estgw.cmc.status import take_id
from estgw.cms import algorithms
from estgw.cms.algorithms import Algorithm, PrivateKey
from estgw.cms.faults import BadSignature, within
from estgw.cms.fields import (
    BIT_STRING,
    GENERALIZED_TIME,
    INTEGER,
    UTC_TIME,
    Fields,
    bits,
    context,
    inside,
    integer,
    items,
    oid,
    read_bits,
    read_integer,
    read_time,
    retag,
    sequence,
    tagged,
    time,
)
from estgw.errors import Malformed
from estgw.est.der import SEQUENCE

MAXIMUM_CONTROLS = 20

_PRIMITIVE = {number: context(number, constructed=False) for number in range(10)}
_CONSTRUCTED = {number: context(number) for number in range(10)}
_KEY, _EXTENSIONS = _CONSTRUCTED[6], _CONSTRUCTED[9]
_POP_CHOICES = (_PRIMITIVE[0], _PRIMITIVE[1], _PRIMITIVE[2], _CONSTRUCTED[3], _CONSTRUCTED[4])
"""POPOPrivKey: thisMessage, subsequentMessage, dhMAC, agreeMAC, encryptedKey."""


@dataclass(frozen=True)
class CertTemplate:
    """CertTemplate (RFC 4211 5): the wanted contents of a certificate; None leaves a part to the CA.

    Names, key, extensions and unique identifiers are DER; `parts` reads and makes them.
    """

    version: int | None = None
    serial: int | None = None
    signing_algorithm: Algorithm | None = None
    issuer: bytes | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    subject: bytes | None = None
    public_key: bytes | None = None
    issuer_uid: bytes | None = None
    subject_uid: bytes | None = None
    extensions: bytes | None = None

    def encode(self) -> bytes:
        """Return the DER."""
        made = []
        if self.version is not None:
            made.append(retag(_PRIMITIVE[0], integer(self.version)))
        if self.serial is not None:
            made.append(retag(_PRIMITIVE[1], integer(self.serial)))
        if self.signing_algorithm is not None:
            made.append(retag(_CONSTRUCTED[2], self.signing_algorithm.encode()))
        if self.issuer is not None:
            made.append(tagged(3, self.issuer))
        if self.not_before is not None or self.not_after is not None:
            limits = enumerate((self.not_before, self.not_after))
            made.append(tagged(4, *(tagged(number, time(limit)) for number, limit in limits if limit is not None)))
        if self.subject is not None:
            made.append(tagged(5, self.subject))
        if self.public_key is not None:
            made.append(retag(_KEY, self.public_key))
        if self.issuer_uid is not None:
            made.append(retag(_PRIMITIVE[7], self.issuer_uid))
        if self.subject_uid is not None:
            made.append(retag(_PRIMITIVE[8], self.subject_uid))
        if self.extensions is not None:
            made.append(retag(_EXTENSIONS, self.extensions))
        return sequence(*made)

    @classmethod
    def decode(cls, der: bytes, what: str = "a CertTemplate") -> CertTemplate:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        version, serial = fields.maybe(_PRIMITIVE[0]), fields.maybe(_PRIMITIVE[1])
        method, issuer, validity = (fields.maybe(_CONSTRUCTED[number]) for number in (2, 3, 4))
        subject, key = fields.maybe(_CONSTRUCTED[5]), fields.maybe(_KEY)
        issuer_uid, subject_uid = fields.maybe(_PRIMITIVE[7]), fields.maybe(_PRIMITIVE[8])
        extensions = fields.maybe(_EXTENSIONS)
        fields.end()
        not_before, not_after = (None, None) if validity is None else _validity(validity, fields.of("validity"))
        return cls(
            None if version is None else read_integer(retag(INTEGER, version), fields.of("version")),
            None if serial is None else read_integer(retag(INTEGER, serial), fields.of("serial number")),
            None if method is None else Algorithm.decode(retag(SEQUENCE, method), fields.of("algorithm")),
            None if issuer is None else inside(issuer, fields.of("issuer"), SEQUENCE),
            not_before,
            not_after,
            None if subject is None else inside(subject, fields.of("subject"), SEQUENCE),
            None if key is None else retag(SEQUENCE, key),
            None if issuer_uid is None else retag(BIT_STRING, issuer_uid),
            None if subject_uid is None else retag(BIT_STRING, subject_uid),
            None if extensions is None else retag(SEQUENCE, extensions),
        )


def _validity(der: bytes, what: str) -> tuple[datetime | None, datetime | None]:
    fields = Fields(der, what, _CONSTRUCTED[4])
    first, last = fields.maybe(_CONSTRUCTED[0]), fields.maybe(_CONSTRUCTED[1])
    fields.end()
    if first is None and last is None:
        raise Malformed(f"{what} without a time")
    one, other = (
        None if each is None else read_time(inside(each, what, UTC_TIME, GENERALIZED_TIME), what)
        for each in (first, last)
    )
    return one, other


@dataclass(frozen=True)
class TypeAndValue:
    """AttributeTypeAndValue: an OID and the DER of one value."""

    oid: str
    value: bytes

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(oid(self.oid), self.value)

    @classmethod
    def decode(cls, der: bytes, what: str) -> TypeAndValue:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        name, value = fields.oid("type"), fields.take("value")
        fields.end()
        return cls(name, value)


@dataclass(frozen=True)
class CertRequest:
    """CertRequest (RFC 4211 5): an id, a template, and controls, such as a POP link witness."""

    request_id: int
    template: CertTemplate
    controls: tuple[TypeAndValue, ...] = ()
    as_sent: bytes = field(default=b"", repr=False, compare=False)
    """The DER as received, which the proof of possession is for; empty for a request that was made here."""

    def encode(self) -> bytes:
        """Return the DER.  A request that was received comes back byte for byte."""
        if self.as_sent:
            return self.as_sent
        controls = sequence(*(each.encode() for each in self.controls)) if self.controls else b""
        return sequence(integer(self.request_id), self.template.encode(), controls)

    @classmethod
    def decode(cls, der: bytes, what: str = "a CertRequest") -> CertRequest:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        request_id, template = take_id(fields, "id"), CertTemplate.decode(fields.take("template", SEQUENCE))
        controls = fields.maybe(SEQUENCE)
        fields.end()
        return cls(request_id, template, _pairs(controls, fields.of("controls")), der)


def _pairs(der: bytes | None, what: str) -> tuple[TypeAndValue, ...]:
    if der is None:
        return ()
    found = items(der, what)
    if not 0 < len(found) <= MAXIMUM_CONTROLS:
        raise Malformed(f"{what}: {len(found)} of them, not 1 to {MAXIMUM_CONTROLS}")
    return tuple(TypeAndValue.decode(each, what) for each in found)


class PopKind(IntEnum):
    """The choices of ProofOfPossession (RFC 4211 4)."""

    RA_VERIFIED = 0
    SIGNATURE = 1
    KEY_ENCIPHERMENT = 2
    KEY_AGREEMENT = 3

    @property
    def word(self) -> str:
        """The standard's spelling."""
        return ("raVerified", "signature", "keyEncipherment", "keyAgreement")[self]


@dataclass(frozen=True)
class SignaturePop:
    """POPOSigningKey: `signed_input` is the DER of a POPOSigningKeyInput, as a SEQUENCE."""

    algorithm: Algorithm
    signature: bytes = field(repr=False)
    signed_input: bytes | None = None

    def encode(self) -> bytes:
        """Return the DER, with the tag of the choice."""
        given = b"" if self.signed_input is None else retag(_CONSTRUCTED[0], self.signed_input)
        return tagged(PopKind.SIGNATURE, given, self.algorithm.encode(), bits(self.signature))


@dataclass(frozen=True)
class OtherPop:
    """Any other proof: `value` is a POPOPrivKey as DER, or empty for raVerified."""

    kind: PopKind
    value: bytes = b""

    def encode(self) -> bytes:
        """Return the DER, with the tag of the choice."""
        return b"\x80\x00" if self.kind is PopKind.RA_VERIFIED else tagged(self.kind, self.value)

    @property
    def is_challenge(self) -> bool:
        """Whether it asks for encryptedPOP: subsequentMessage challengeResp (RFC 4211 4.2, RFC 5272 6.7)."""
        return self.value == _CHALLENGE_RESPONSE


Pop: TypeAlias = "SignaturePop | OtherPop"
_CHALLENGE_RESPONSE = b"\x81\x01\x01"
RA_VERIFIED = OtherPop(PopKind.RA_VERIFIED)
CHALLENGE = OtherPop(PopKind.KEY_ENCIPHERMENT, _CHALLENGE_RESPONSE)
"""Asks for an encrypted challenge, for RSA keys.  For others use `OtherPop(PopKind.KEY_AGREEMENT, CHALLENGE.value)`."""


@dataclass(frozen=True)
class CertReqMsg:
    """CertReqMsg (RFC 4211 3)."""

    request: CertRequest
    pop: Pop | None = None
    reg_info: tuple[TypeAndValue, ...] = ()

    def encode(self) -> bytes:
        """Return the DER."""
        information = sequence(*(each.encode() for each in self.reg_info)) if self.reg_info else b""
        return sequence(self.request.encode(), self.pop.encode() if self.pop else b"", information)

    @classmethod
    def decode(cls, der: bytes, what: str = "a CertReqMsg") -> CertReqMsg:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        request = CertRequest.decode(fields.take("request", SEQUENCE))
        pop = fields.maybe(_PRIMITIVE[0], *(_CONSTRUCTED[kind] for kind in (1, 2, 3)))
        information = fields.maybe(SEQUENCE)
        fields.end()
        with within(what):
            return cls(request, None if pop is None else _read_pop(pop), _pairs(information, "regInfo"))


def _read_pop(der: bytes) -> Pop:
    kind = PopKind(der[0] & 0x1F)
    if kind is PopKind.RA_VERIFIED:
        if der != b"\x80\x00":
            raise Malformed("raVerified with something in it")
        return RA_VERIFIED
    if kind is not PopKind.SIGNATURE:
        return OtherPop(
            kind, inside(der, kind.word, *(_PRIMITIVE[n] for n in (0, 1, 2)), *(_CONSTRUCTED[n] for n in (3, 4)))
        )
    fields = Fields(der, "a proof of possession", _CONSTRUCTED[1])
    given = fields.maybe(_CONSTRUCTED[0])
    method = Algorithm.take(fields, "algorithm")
    signature = read_bits(fields.take("signature", BIT_STRING), fields.of("signature"))
    fields.end()
    return SignaturePop(method, signature, None if given is None else retag(SEQUENCE, given))


# Proof of possession (RFC 4211 4.1).


def prove(key: PrivateKey, request: CertRequest) -> CertReqMsg:
    """Return a request signed with the key for which it wants a certificate.

    Raises `BadAlgorithm` for a key of a kind that can't sign.
    """
    method = algorithms.signature_for(key.public_key())
    return CertReqMsg(request, SignaturePop(method, algorithms.sign(key, request.encode())))


def request_for(
    public: Any, request_id: int, subject: bytes, extensions: bytes | None = None, controls: Sequence[TypeAndValue] = ()
) -> CertRequest:
    """Return a request for a certificate on a public key, with subject and key, as RFC 5272 3.2.1.2.2 requires.

    `subject` is the DER of a Name, `extensions` the DER of Extensions.
    """
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    template = CertTemplate(subject=subject, public_key=spki, extensions=extensions)
    return CertRequest(request_id, template, tuple(controls))


def verify_pop(message: CertReqMsg) -> None:
    """Check a proof of possession by signature.

    Raises `BadSignature` when it is absent or does not fit, `BadAlgorithm`, and `Malformed` for a template without
    subject or key, or with a POPOSigningKeyInput in addition to them, which RFC 5272 3.2.1.2.2 forbids.
    """
    template = message.request.template
    if template.subject is None or template.public_key is None:
        raise Malformed("a CRMF request without subject or public key")
    if not isinstance(message.pop, SignaturePop):
        raise BadSignature("a CRMF request without a signature to prove possession")
    if message.pop.signed_input is not None:
        raise Malformed("a CRMF request with a POPOSigningKeyInput beside its subject and key")
    public = parts.load_key(template.public_key)
    algorithms.verify(public, message.pop.algorithm, message.pop.signature, message.request.encode())


def carrier(message: CertReqMsg) -> bytes:
    """Return the request as a PKCS#10 in DER with an empty signature: subject, key, extensions, controls as attributes.

    If the proof of possession is a signature, the PKCS#10 names its algorithm.
    """
    template = message.request.template
    pairs = [(each.oid, each.value) for each in message.request.controls]
    if isinstance(message.pop, SignaturePop):
        algorithm = message.pop.algorithm.encode()
        return parts.carrier(template.subject, template.public_key, template.extensions, pairs, algorithm)
    return parts.carrier(template.subject, template.public_key, template.extensions, pairs)
