"""The outcome of a request: CMCStatus, CMCFailInfo and the status controls (RFC 5272 6.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import TypeAlias

from estgw.cms.fields import (
    GENERALIZED_TIME,
    INTEGER,
    Fields,
    context,
    generalized_time,
    integer,
    items,
    octets,
    oid,
    read_integer,
    read_time,
    retag,
    sequence,
    text,
)
from estgw.errors import Malformed
from estgw.est.der import SEQUENCE

MAXIMUM_ID = 4294967295
"""bodyIdMax (RFC 5272 3.2.2)."""


class _Named(IntEnum):
    """A number with its name in the standard."""

    @property
    def word(self) -> str:
        """The name in the standard's spelling, such as `badRequest`."""
        first, *rest = self.name.split("_")
        return _SPELLED.get(self.name) or first.lower() + "".join(each.capitalize() for each in rest)


class CMCStatus(_Named):
    """CMCStatus (RFC 5272 6.1.3)."""

    SUCCESS = 0
    FAILED = 2
    PENDING = 3
    NO_SUPPORT = 4
    CONFIRM_REQUIRED = 5
    POP_REQUIRED = 6
    PARTIAL = 7


class CMCFailInfo(_Named):
    """CMCFailInfo (RFC 5272 6.1.4)."""

    BAD_ALG = 0
    BAD_MESSAGE_CHECK = 1
    BAD_REQUEST = 2
    BAD_TIME = 3
    BAD_CERT_ID = 4
    UNSUPPORTED_EXT = 5
    MUST_ARCHIVE_KEYS = 6
    BAD_IDENTITY = 7
    POP_REQUIRED = 8
    POP_FAILED = 9
    NO_KEY_REUSE = 10
    INTERNAL_CA_ERROR = 11
    TRY_LATER = 12
    AUTH_DATA_FAIL = 13


_SPELLED = {"INTERNAL_CA_ERROR": "internalCAError"}


def status_word(status: int) -> str:
    """The name of a CMCStatus, or its number."""
    return CMCStatus(status).word if status in set(CMCStatus) else f"status {status}"


def failure_word(failure: int) -> str:
    """The name of a CMCFailInfo, or its number, since closed environments may define others."""
    return CMCFailInfo(failure).word if failure in set(CMCFailInfo) else f"failInfo {failure}"


# Body parts.

BodyPart: TypeAlias = "int | tuple[int, ...]"
"""BodyPartReference: an id in this message, or a path of ids through nested ones."""


def read_id(der: bytes, what: str = "a body part id") -> int:
    """Return a BodyPartID from DER.  Raises `Malformed` unless it is an INTEGER from 0 to 4294967295."""
    found = read_integer(der, what)
    if not 0 <= found <= MAXIMUM_ID:
        raise Malformed(f"{what} out of range: not 0 to {MAXIMUM_ID}")
    return found


def take_id(fields: Fields, name: str = "body part id") -> int:
    """Return the next field of a structure, a BodyPartID.  Raises `Malformed`."""
    return read_id(fields.take(name, INTEGER), fields.of(name))


def take_ids(fields: Fields, name: str, *, least: int = 1) -> tuple[int, ...]:
    """Return the next field of a structure, a BodyPartList or BodyPartPath.  Raises `Malformed`."""
    return read_ids(fields.take(name, SEQUENCE), fields.of(name), least=least)


def read_ids(der: bytes, what: str, *, least: int = 1) -> tuple[int, ...]:
    """Return a BodyPartList or BodyPartPath from DER.  Raises `Malformed`, also for fewer than `least` ids."""
    found = tuple(read_id(each, what) for each in items(der, what))
    if len(found) < least:
        raise Malformed(f"{what} without a body part id")
    return found


def read_reference(der: bytes, what: str) -> BodyPart:
    """Return a BodyPartReference from DER.  Raises `Malformed`."""
    return read_id(der, what) if der[:1] == INTEGER else read_ids(der, what)


def write_reference(part: BodyPart) -> bytes:
    """Return a BodyPartReference as DER."""
    return integer(part) if isinstance(part, int) else sequence(*map(integer, part))


# The status itself.


@dataclass(frozen=True)
class PendInfo:
    """PendInfo (RFC 5272 6.1.1): the token and the time for the next query."""

    token: bytes
    time: datetime
    """Has a time zone, and whole seconds."""

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(octets(self.token), generalized_time(self.time))

    @classmethod
    def decode(cls, der: bytes, what: str = "a PendInfo") -> PendInfo:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        token = fields.octets("token")
        moment = read_time(fields.take("time", GENERALIZED_TIME), fields.of("time"))
        fields.end()
        return cls(token, moment)


@dataclass(frozen=True)
class ExtendedFailInfo:
    """A failure that no standard defines: `oid` is dotted, `value` is DER."""

    oid: str
    value: bytes

    def encode(self) -> bytes:
        """Return the DER of a SEQUENCE."""
        return sequence(oid(self.oid), self.value)

    @classmethod
    def decode(cls, der: bytes, what: str = "an ExtendedFailInfo") -> ExtendedFailInfo:
        """Return the value from the DER of a SEQUENCE.  Raises `Malformed`."""
        fields = Fields(der, what)
        name, value = fields.oid("OID"), fields.take("value")
        fields.end()
        return cls(name, value)


_EXTENDED = context(1)


@dataclass(frozen=True)
class StatusInfo:
    """CMCStatusInfoV2 (RFC 5272 6.1.1), or the old CMCStatusInfo, which is a subset of it.

    `body_list` refers to parts of the request; 0 is the whole request.  `status` and `failure` may be numbers that
    `CMCStatus` and `CMCFailInfo` lack.
    """

    status: int
    body_list: tuple[BodyPart, ...]
    text: str | None = None
    failure: int | None = None
    pending: PendInfo | None = None
    extended: ExtendedFailInfo | None = None

    @classmethod
    def failed(cls, failure: CMCFailInfo, body_list: Sequence[BodyPart] = (0,), text: str | None = None) -> StatusInfo:
        """Return the status of a refusal."""
        return cls(CMCStatus.FAILED, tuple(body_list), text, failure)

    @property
    def words(self) -> str:
        """A description such as `failed (badIdentity): no such secret`.  The peer's text is not cleaned."""
        words = status_word(self.status)
        if self.failure is not None:
            words += f" ({failure_word(self.failure)})"
        if self.extended is not None:
            words += f" ({self.extended.oid})"
        return f"{words}: {self.text}" if self.text else words

    @property
    def is_old(self) -> bool:
        """Whether CMCStatusInfo of RFC 2797 can hold it, which has no paths and no extended failure."""
        return self.extended is None and all(isinstance(part, int) for part in self.body_list)

    def encode(self) -> bytes:
        """Return the DER."""
        parts = [integer(self.status), sequence(*map(write_reference, self.body_list))]
        if self.text is not None:
            parts.append(text(self.text))
        if self.failure is not None:
            parts.append(integer(self.failure))
        elif self.pending is not None:
            parts.append(self.pending.encode())
        elif self.extended is not None:
            parts.append(retag(_EXTENDED, self.extended.encode()))
        return sequence(*parts)

    @classmethod
    def decode(cls, der: bytes, what: str = "a CMCStatusInfoV2") -> StatusInfo:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        status = read_id(fields.take("status", INTEGER), fields.of("status"))
        listed = fields.of("body list")
        body_list = tuple(read_reference(each, listed) for each in items(fields.take("body list", SEQUENCE), listed))
        words = fields.maybe_text("text")
        failure, pending, extended = fields.maybe(INTEGER), fields.maybe(SEQUENCE), fields.maybe(_EXTENDED)
        fields.end()
        if sum(each is not None for each in (failure, pending, extended)) > 1:
            raise Malformed(f"{what} with more than one kind of further information")
        return cls(
            status,
            body_list,
            words,
            None if failure is None else read_id(failure, fields.of("failure")),
            None if pending is None else PendInfo.decode(pending),
            None if extended is None else ExtendedFailInfo.decode(retag(SEQUENCE, extended)),
        )
