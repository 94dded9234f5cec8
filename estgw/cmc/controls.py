"""The table of all controls of RFC 5272 and RFC 6402: names, directions, types of value, and support by this server.

Code, documents and tests share it.  `taken` says how this server treats a control in a request, `sent` whether it puts
one into a response.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from estgw.cmc import values
from estgw.cmc.status import StatusInfo, read_id, read_ids, take_id
from estgw.cms.faults import within
from estgw.cms.fields import (
    SET,
    Fields,
    integer,
    integers,
    items,
    octets,
    oid,
    read_integer,
    read_octets,
    read_text,
    sequence,
    set_of,
    text,
)
from estgw.cms.identifiers import IssuerAndSerial
from estgw.errors import Malformed

ARC = "1.3.6.1.5.5.7.7."
"""id-cmc (RFC 5272 6)."""


class Direction(Enum):
    """The messages that may have a control."""

    REQUEST = "request"
    RESPONSE = "response"
    BOTH = "both"


class Taken(Enum):
    """How the server treats a control in a request."""

    PROCESSED = "processed"
    IGNORED = "ignored"
    """The control is read and logged, and has no effect."""
    REFUSED = "refused"
    """The control is known and not supported: the whole request fails (RFC 5272 3.2.1.1)."""
    MISPLACED = "misplaced"
    """The control does not belong among a request's controls: the request fails."""


@dataclass(frozen=True)
class Kind:
    """The type of a control's value: its name, and the functions to and from DER."""

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes, str], Any]


def _structure(kind: Any) -> Kind:
    return Kind(kind.__name__, lambda value: value.encode(), kind.decode)


def _old_status(value: StatusInfo) -> bytes:
    if not value.is_old:
        raise Malformed("a CMCStatusInfo can hold neither paths nor an extended failure")
    return value.encode()


def _read_old_status(der: bytes, what: str) -> StatusInfo:
    found = StatusInfo.decode(der, what)
    if not found.is_old:
        raise Malformed(f"{what} with a path or an extended failure")
    return found


OCTET_STRING = Kind("OCTET STRING", octets, read_octets)
NUMBER = Kind("INTEGER", integer, read_integer)
UTF8_STRING = Kind("UTF8String", text, read_text)
BODY_PART_ID = Kind("BodyPartID", integer, read_id)
BODY_PART_LIST = Kind("BodyPartList", integers, read_ids)
BODY_PART_PATH = Kind("BodyPartPath", integers, read_ids)
WITNESS = Kind("Witness", lambda value: value.encode(), values.Witness.decode)
OLD_STATUS = Kind("CMCStatusInfo", _old_status, _read_old_status)


@dataclass(frozen=True)
class Row:
    """One control of the standard."""

    name: str
    number: int
    section: str
    """The section of RFC 5272, unless it names another RFC."""
    direction: Direction
    kind: Kind
    taken: Taken
    sent: bool = False

    @property
    def oid(self) -> str:
        """The dotted OID."""
        return f"{ARC}{self.number}"


_IN, _OUT, _BOTH = Direction.REQUEST, Direction.RESPONSE, Direction.BOTH
_YES, _SKIP, _NO, _NEVER = Taken.PROCESSED, Taken.IGNORED, Taken.REFUSED, Taken.MISPLACED

TABLE: tuple[Row, ...] = (
    Row("statusInfo", 1, "6.1.2", _BOTH, OLD_STATUS, _SKIP),
    Row("identification", 2, "6.2.3", _IN, UTF8_STRING, _YES),
    Row("identityProof", 3, "6.2.2", _IN, OCTET_STRING, _YES),
    Row("dataReturn", 4, "6.4", _BOTH, OCTET_STRING, _YES, sent=True),
    Row("transactionId", 5, "6.6", _BOTH, NUMBER, _YES, sent=True),
    Row("senderNonce", 6, "6.6", _BOTH, OCTET_STRING, _YES, sent=True),
    Row("recipientNonce", 7, "6.6", _BOTH, OCTET_STRING, _YES, sent=True),
    Row("addExtensions", 8, "6.5.2", _IN, _structure(values.AddExtensions), _YES),
    Row("encryptedPOP", 9, "6.7", _OUT, _structure(values.EncryptedPOP), _NEVER, sent=True),
    Row("decryptedPOP", 10, "6.7", _IN, _structure(values.DecryptedPOP), _YES),
    Row("lraPOPWitness", 11, "6.8", _IN, _structure(values.LraPopWitness), _YES),
    Row("getCert", 15, "6.9", _IN, _structure(values.GetCert), _YES),
    Row("getCRL", 16, "6.10", _IN, _structure(values.GetCRL), _YES),
    Row("revokeRequest", 17, "6.11", _IN, _structure(values.RevokeRequest), _YES),
    Row("regInfo", 18, "6.12", _IN, OCTET_STRING, _YES),
    Row("responseInfo", 19, "6.12", _OUT, OCTET_STRING, _NEVER),
    Row("queryPending", 21, "6.13", _IN, OCTET_STRING, _YES),
    Row("popLinkRandom", 22, "6.3.1.3", _IN, OCTET_STRING, _YES),
    Row("popLinkWitness", 23, "6.3.1.2", _IN, OCTET_STRING, _YES),
    Row("confirmCertAcceptance", 24, "6.14", _IN, _structure(IssuerAndSerial), _YES),
    Row("statusInfoV2", 25, "6.1.1", _BOTH, _structure(StatusInfo), _SKIP, sent=True),
    Row("trustedAnchors", 26, "6.15", _OUT, _structure(values.PublishTrustAnchors), _NEVER, sent=True),
    Row("authData", 27, "6.16", _BOTH, BODY_PART_ID, _NO),
    Row("batchRequests", 28, "6.17", _IN, BODY_PART_LIST, _YES),
    Row("batchResponses", 29, "6.17", _OUT, BODY_PART_LIST, _NEVER, sent=True),
    Row("publishCert", 30, "6.18", _IN, _structure(values.PublicationInfo), _NO),
    Row("modCertTemplate", 31, "6.5.1", _IN, _structure(values.ModCertTemplate), _YES),
    Row("controlProcessed", 32, "6.19", _IN, _structure(values.ControlsProcessed), _YES),
    Row("popLinkWitnessV2", 33, "6.3.1.1", _IN, WITNESS, _YES),
    Row("identityProofV2", 34, "6.2.1", _IN, WITNESS, _YES),
    Row("raIdentityWitness", 35, "RFC 6402 2.9", _IN, BODY_PART_PATH, _YES),
    Row("changeSubjectName", 36, "RFC 6402 2.8", _IN, Kind("ChangeSubjectName", bytes, lambda der, _: der), _NEVER),
    Row("responseBody", 37, "RFC 6402 2.6", _OUT, BODY_PART_PATH, _NEVER),
)

BY_NAME: Mapping[str, Row] = {row.name: row for row in TABLE}
BY_OID: Mapping[str, Row] = {row.oid: row for row in TABLE}

MAXIMUM_VALUES = 20
"""Values of one control.  The standard's controls have one each; StatusInfo may have several."""


@dataclass(frozen=True)
class Control:
    """TaggedAttribute (RFC 5272 3.2.1.1): `oid` is dotted, each value is DER."""

    body_part_id: int
    oid: str
    values: tuple[bytes, ...]

    @classmethod
    def make(cls, body_part_id: int, name: str, *given: Any) -> Control:
        """Return a control with a name of the table, such as `senderNonce`, and values of its kind."""
        row = BY_NAME[name]
        return cls(body_part_id, row.oid, tuple(row.kind.encode(each) for each in given))

    @property
    def row(self) -> Row | None:
        """The row of the table, or None for a control that the standard does not define."""
        return BY_OID.get(self.oid)

    @property
    def name(self) -> str:
        """The name in the table, or the dotted OID."""
        return self.row.name if self.row else self.oid

    @property
    def words(self) -> str:
        """Its name for a sentence, such as `control 3 (senderNonce)`."""
        return f"control {self.body_part_id} ({self.name})"

    @property
    def all_values(self) -> tuple[Any, ...]:
        """The values, decoded as the table says, or as DER for a control that it lacks.

        Raises `Malformed` with the control's name.
        """
        if self.row is None:
            return self.values
        with within(self.words):
            return tuple(self.row.kind.decode(each, "its value") for each in self.values)

    @property
    def value(self) -> Any:
        """The one value, decoded.  Raises `Malformed`, also for another number of values."""
        if len(self.values) != 1:
            raise Malformed(f"{self.words}: {len(self.values)} values, not one")
        return self.all_values[0]

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(integer(self.body_part_id), oid(self.oid), set_of(self.values))

    @classmethod
    def decode(cls, der: bytes, what: str = "a control") -> Control:
        """Return the control from DER.  Values are not decoded.  Raises `Malformed`."""
        fields = Fields(der, what)
        number, name = take_id(fields), fields.oid("type")
        found = items(fields.take("values", SET), what, SET)
        fields.end()
        if len(found) > MAXIMUM_VALUES:
            raise Malformed(f"{what} with {len(found)} values; {MAXIMUM_VALUES} are the most here")
        return cls(number, name, tuple(found))
