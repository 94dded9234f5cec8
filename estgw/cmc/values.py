"""The values of controls that are structures (RFC 5272 6, RFC 6402 2).

Names, general names and extensions are DER; `estgw.cmc.parts` converts them to objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from estgw.cmc.crmf import CertTemplate
from estgw.cmc.requests import TaggedRequest, decode_request
from estgw.cmc.status import BodyPart, read_reference, take_id, take_ids, write_reference
from estgw.cms.algorithms import Algorithm
from estgw.cms.fields import (
    BIT_STRING,
    BOOLEAN,
    INTEGER,
    Fields,
    context,
    generalized_time,
    inside,
    integer,
    integers,
    items,
    octets,
    read_boolean,
    read_integer,
    read_octets,
    retag,
    sequence,
    tagged,
    text,
)
from estgw.errors import Malformed
from estgw.est.der import SEQUENCE

_ENUMERATED = b"\x0a"
_FALSE = b"\x01\x01\x00"


@dataclass(frozen=True)
class AddExtensions:
    """AddExtensions (RFC 5272 6.5.2): `extensions` is DER; `data` is the id of a nested message, or 0 for this one."""

    data: int
    requests: tuple[int, ...]
    extensions: bytes

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(integer(self.data), integers(self.requests), self.extensions)

    @classmethod
    def decode(cls, der: bytes, what: str = "AddExtensions") -> AddExtensions:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        data, requests = take_id(fields, "reference"), take_ids(fields, "requests", least=0)
        extensions = fields.take("extensions", SEQUENCE)
        fields.end()
        return cls(data, requests, extensions)


@dataclass(frozen=True)
class ModCertTemplate:
    """ModCertTemplate (RFC 5272 6.5.1): an RA's changes to requests; `data` is the path to their message."""

    data: tuple[int, ...]
    requests: tuple[int, ...]
    template: CertTemplate
    replace: bool = True
    """True replaces the parts that the template names; False removes them."""

    def encode(self) -> bytes:
        """Return the DER."""
        replace = b"" if self.replace else _FALSE
        return sequence(integers(self.data), integers(self.requests), replace, self.template.encode())

    @classmethod
    def decode(cls, der: bytes, what: str = "a ModCertTemplate") -> ModCertTemplate:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        data, requests = take_ids(fields, "path"), take_ids(fields, "requests")
        replace = fields.maybe(BOOLEAN)
        template = CertTemplate.decode(fields.take("template", SEQUENCE))
        fields.end()
        return cls(data, requests, template, replace is None or read_boolean(replace, fields.of("replace")))


@dataclass(frozen=True)
class EncryptedPOP:
    """EncryptedPOP (RFC 5272 6.7): `cms` is the DER of a ContentInfo of EnvelopedData."""

    request: TaggedRequest
    cms: bytes = field(repr=False)
    mac: Algorithm
    """The field thePOPAlgID."""
    hash: Algorithm
    """The field witnessAlgID."""
    witness: bytes

    def encode(self) -> bytes:
        """Return the DER."""
        algorithms = self.mac.encode() + self.hash.encode()
        return sequence(self.request.encode(), self.cms, algorithms, octets(self.witness))

    @classmethod
    def decode(cls, der: bytes, what: str = "an EncryptedPOP") -> EncryptedPOP:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        request, cms = decode_request(fields.take("request")), fields.take("ContentInfo", SEQUENCE)
        mac, used = Algorithm.take(fields, "MAC"), Algorithm.take(fields, "hash")
        witness = fields.octets("witness")
        fields.end()
        return cls(request, cms, mac, used, witness)


@dataclass(frozen=True)
class DecryptedPOP:
    """DecryptedPOP (RFC 5272 6.7)."""

    request: int
    mac: Algorithm
    proof: bytes

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(integer(self.request), self.mac.encode(), octets(self.proof))

    @classmethod
    def decode(cls, der: bytes, what: str = "a DecryptedPOP") -> DecryptedPOP:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        request, mac, proof = take_id(fields, "reference"), Algorithm.take(fields, "MAC"), fields.octets("proof")
        fields.end()
        return cls(request, mac, proof)


@dataclass(frozen=True)
class LraPopWitness:
    """LraPopWitness (RFC 5272 6.8): an RA has verified the possession of the keys of these requests.

    `data` is the id of a nested message, or 0 for this one.
    """

    data: int
    requests: tuple[int, ...]

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(integer(self.data), integers(self.requests))

    @classmethod
    def decode(cls, der: bytes, what: str = "an LraPopWitness") -> LraPopWitness:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        data, requests = take_id(fields, "reference"), take_ids(fields, "requests", least=0)
        fields.end()
        return cls(data, requests)


# In RFC 5272 the issuer is a GeneralName in one control and a Name in the others.  Their tags differ, so a wrong one is
# recognized and accepted in reading.  It is never written.
A_BARE_NAME = "a bare Name, where RFC 5272 6.9 has a GeneralName"
A_GENERAL_NAME = "a GeneralName, where RFC 5272 has a Name"


def _take_general_name(fields: Fields) -> tuple[bytes, str]:
    """The issuer as the DER of a GeneralName, and a note if another type was sent: JSS, and so Dogtag, sends a Name."""
    found = fields.take("issuer", SEQUENCE, *_GENERAL_NAME)
    return (tagged(_DIRECTORY, found), A_BARE_NAME) if found[:1] == SEQUENCE else (found, "")


def _take_name(fields: Fields) -> tuple[bytes, str]:
    """The issuer as the DER of a Name, and a note if another type was sent."""
    found = fields.take("issuer", SEQUENCE, context(_DIRECTORY))
    if found[:1] == SEQUENCE:
        return found, ""
    return inside(found, fields.of("issuer"), SEQUENCE), A_GENERAL_NAME


@dataclass(frozen=True)
class GetCert:
    """GetCert (RFC 5272 6.9): `issuer` is the DER of a GeneralName."""

    issuer: bytes
    serial: int
    issuer_sent_as: str = field(default="", compare=False)
    """`A_BARE_NAME` if the issuer was sent in that wrong form, or empty."""

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(self.issuer, integer(self.serial))

    @classmethod
    def decode(cls, der: bytes, what: str = "a GetCert") -> GetCert:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        (issuer, sent_as), serial = _take_general_name(fields), fields.integer("serial number")
        fields.end()
        return cls(issuer, serial, sent_as)


@dataclass(frozen=True)
class GetCRL:
    """GetCRL (RFC 5272 6.10): `issuer` is the DER of a Name, `name` of a GeneralName, `reasons` of ReasonFlags."""

    issuer: bytes
    name: bytes | None = None
    time: datetime | None = None
    reasons: bytes | None = None
    issuer_sent_as: str = field(default="", compare=False)
    """`A_GENERAL_NAME` if the issuer was sent in that wrong form, or empty."""

    def encode(self) -> bytes:
        """Return the DER."""
        moment = b"" if self.time is None else generalized_time(self.time)
        return sequence(self.issuer, self.name or b"", moment, self.reasons or b"")

    @classmethod
    def decode(cls, der: bytes, what: str = "a GetCRL") -> GetCRL:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        (issuer, sent_as), name = _take_name(fields), fields.maybe(*_GENERAL_NAME)
        moment, reasons = fields.maybe_time("time"), fields.maybe(BIT_STRING)
        fields.end()
        return cls(issuer, name, moment, reasons, sent_as)


_DIRECTORY = 4  # directoryName, an explicit tag because Name is a CHOICE (RFC 5280 4.2.1.6)
_GENERAL_NAME = tuple(bytes([0x80 | number | (0x20 if number in (0, 3, 4, 5) else 0)]) for number in range(9))

REASONS = {
    0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded",
    5: "cessationOfOperation", 6: "certificateHold", 8: "removeFromCRL", 9: "privilegeWithdrawn", 10: "aACompromise",
}  # fmt: skip
"""CRLReason (RFC 5280 5.3.1)."""


@dataclass(frozen=True)
class RevokeRequest:
    """RevokeRequest (RFC 5272 6.11): `issuer` is the DER of a Name, `reason` a key of `REASONS`."""

    issuer: bytes
    serial: int
    reason: int = 0
    invalidity_date: datetime | None = None
    passphrase: bytes | None = field(default=None, repr=False)
    """The field sharedSecret: the passphrase that was agreed on when the certificate was issued."""
    comment: str | None = None
    issuer_sent_as: str = field(default="", compare=False)
    """`A_GENERAL_NAME` if the issuer was sent in that wrong form, or empty."""

    def encode(self) -> bytes:
        """Return the DER."""
        made = [self.issuer, integer(self.serial), retag(_ENUMERATED, integer(self.reason))]
        if self.invalidity_date is not None:
            made.append(generalized_time(self.invalidity_date))
        if self.passphrase is not None:
            made.append(octets(self.passphrase))
        if self.comment is not None:
            made.append(text(self.comment))
        return sequence(*made)

    @classmethod
    def decode(cls, der: bytes, what: str = "a RevokeRequest") -> RevokeRequest:
        """Return the value from DER.  Raises `Malformed`, also for a reason that RFC 5280 does not define."""
        fields = Fields(der, what)
        (issuer, sent_as), serial = _take_name(fields), fields.integer("serial number")
        reason = read_integer(retag(INTEGER, fields.take("reason", _ENUMERATED)), fields.of("reason"))
        if reason not in REASONS:
            raise Malformed(f"{what} with a reason that is none of RFC 5280's")
        moment = fields.maybe_time("date")
        passphrase, comment = fields.maybe_octets("passphrase"), fields.maybe_text("comment")
        fields.end()
        return cls(issuer, serial, reason, moment, passphrase, comment, sent_as)


@dataclass(frozen=True)
class Witness:
    """IdentityProofV2 and PopLinkWitnessV2 (RFC 5272 6.2.1, 6.3.1.1): the hash for the key, the MAC, and its value."""

    hash: Algorithm
    """The field proofAlgID or keyGenAlgorithm."""
    mac: Algorithm
    witness: bytes

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(self.hash.encode(), self.mac.encode(), octets(self.witness))

    @classmethod
    def decode(cls, der: bytes, what: str = "a witness") -> Witness:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        used, mac = Algorithm.take(fields, "hash"), Algorithm.take(fields, "MAC")
        witness = fields.octets("value")
        fields.end()
        return cls(used, mac, witness)


@dataclass(frozen=True)
class PublishTrustAnchors:
    """PublishTrustAnchors (RFC 5272 6.15): `anchors` are hashes; the certificates are in the SignedData."""

    number: int
    """The field seqNumber, which grows with each change."""
    hash: Algorithm
    anchors: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(integer(self.number), self.hash.encode(), sequence(*map(octets, self.anchors)))

    @classmethod
    def decode(cls, der: bytes, what: str = "PublishTrustAnchors") -> PublishTrustAnchors:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        number, used = fields.integer("number"), Algorithm.take(fields, "hash")
        anchors = tuple(read_octets(each, fields.of("hash")) for each in items(fields.take("anchors"), what))
        fields.end()
        return cls(number, used, anchors)


@dataclass(frozen=True)
class PublicationInfo:
    """CMCPublicationInfo (RFC 5272 6.18): `info` is the DER of PKIPublicationInfo (RFC 4211 6.3)."""

    hash: Algorithm
    certificates: tuple[bytes, ...]
    info: bytes

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(self.hash.encode(), sequence(*map(octets, self.certificates)), self.info)

    @classmethod
    def decode(cls, der: bytes, what: str = "a CMCPublicationInfo") -> PublicationInfo:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        used = Algorithm.take(fields, "hash")
        hashes = tuple(read_octets(each, fields.of("hash")) for each in items(fields.take("hashes"), what))
        info = fields.take("publication information", SEQUENCE)
        fields.end()
        return cls(used, hashes, info)


@dataclass(frozen=True)
class ControlsProcessed:
    """ControlsProcessed (RFC 5272 6.19): the controls that an RA has processed."""

    parts: tuple[BodyPart, ...]

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(sequence(*map(write_reference, self.parts)))

    @classmethod
    def decode(cls, der: bytes, what: str = "ControlsProcessed") -> ControlsProcessed:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        found = items(fields.take("list", SEQUENCE), what)
        fields.end()
        return cls(tuple(read_reference(each, what) for each in found))
