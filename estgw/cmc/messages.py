"""PKIData and PKIResponse, the messages of CMC (RFC 5272 3.2.1, 4.2.1).

Theory of operation.  A Full PKI Request is a SignedData whose content is a PKIData; the response is a SignedData with a
PKIResponse.  Both consist of sequences: controls, requests (in PKIData only), nested CMS messages, and other messages.
Each element has a body part id.  It is unique in its message and not 0, which stands for the message itself.  Controls
and statuses refer to other elements by these ids.

An RA wraps the messages of its clients: they are nested CMS messages with PKIData inside.  `layers` walks this tree; a
path of ids leads from the outermost message to each inner one.

A server has to answer a broken request too, with the ids at fault and with the transaction id and nonce.  So reading
raises `BadMessage`, which holds these as far as they were read before the fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from estgw.cmc.controls import Control
from estgw.cmc.requests import TaggedRequest, decode_request
from estgw.cmc.status import MAXIMUM_ID, BodyPart, StatusInfo, take_id
from estgw.cms import signed
from estgw.cms.fields import INTEGER, Fields, integer, items, oid, read_integer, sequence
from estgw.cms.signed import SignedData
from estgw.errors import Malformed
from estgw.est import ber
from estgw.est.der import SEQUENCE, elements, whole

PKI_DATA, PKI_RESPONSE = "1.3.6.1.5.5.7.12.2", "1.3.6.1.5.5.7.12.3"

MAXIMUM_REQUESTS = 100
MAXIMUM_CONTROLS = 100
MAXIMUM_NESTED = 100
"""Messages in cmsSequence; the same bound holds for otherMsgSequence."""
MAXIMUM_DEPTH = 4
"""Layers of messages in messages: one of the client, and three of RAs."""


class _Numbered(Protocol):
    @property
    def body_part_id(self) -> int: ...


Part = TypeVar("Part", bound=_Numbered)


class BadMessage(Malformed):
    """A message breaks a rule.

    `ids` are the body parts at fault in the form of a bodyList; empty for the message as a whole (0 in a bodyList).
    `seen` are the ids of the outermost message that were read before the fault, and `controls` the controls among them,
    from which a refusal repeats transaction id and nonce.
    """

    def __init__(
        self, text: str, ids: Sequence[BodyPart] = (), seen: Sequence[int] = (), controls: Sequence[Control] = ()
    ) -> None:
        super().__init__(text)
        self.ids, self.seen, self.controls = tuple(ids), tuple(seen), tuple(controls)


@dataclass(frozen=True)
class TaggedContentInfo:
    """A nested CMS message (RFC 5272 3.2.1.3): `der` is its whole ContentInfo."""

    body_part_id: int
    der: bytes

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(integer(self.body_part_id), self.der)

    @classmethod
    def decode(cls, der: bytes) -> TaggedContentInfo:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, "a TaggedContentInfo")
        number, found = take_id(fields), fields.take("ContentInfo", SEQUENCE)
        fields.end()
        return cls(number, found)


@dataclass(frozen=True)
class OtherMsg:
    """A nested message of another type (RFC 5272 3.2.1.4): `oid` is dotted, `value` is DER."""

    body_part_id: int
    oid: str
    value: bytes

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(integer(self.body_part_id), oid(self.oid), self.value)

    @classmethod
    def decode(cls, der: bytes) -> OtherMsg:
        """Return the value from DER.  Raises `Malformed`."""
        fields = Fields(der, "an OtherMsg")
        number, name, value = take_id(fields), fields.oid("type"), fields.take("value")
        fields.end()
        return cls(number, name, value)


def _ids(*parts: Sequence[_Numbered]) -> tuple[int, ...]:
    return tuple(each.body_part_id for part in parts for each in part)


class _Controls:
    """Access to the controls, for both messages."""

    controls: tuple[Control, ...]

    def find(self, name: str) -> tuple[Control, ...]:
        """Return the controls with a name, such as `senderNonce`."""
        return tuple(each for each in self.controls if each.name == name)

    def one(self, name: str) -> Control | None:
        """Return the control with a name, or None.  Raises `BadMessage` if there are several."""
        found = self.find(name)
        if len(found) > 1:
            raise BadMessage(f"{len(found)} controls {name}, not one", [each.body_part_id for each in found])
        return found[0] if found else None

    def value(self, name: str) -> Any:
        """Return the value of the control with a name, or None.  Raises `Malformed`, or `BadMessage` for several."""
        found = self.one(name)
        return None if found is None else found.value


@dataclass(frozen=True)
class PKIData(_Controls):
    """The content of a Full PKI Request."""

    controls: tuple[Control, ...] = ()
    requests: tuple[TaggedRequest, ...] = ()
    cms: tuple[TaggedContentInfo, ...] = ()
    others: tuple[OtherMsg, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """All body part ids, in the order in which they stand."""
        return _ids(self.controls, self.requests, self.cms, self.others)

    @property
    def request_sequence(self) -> bytes:
        """The DER of reqSequence, over which identity proofs are made (RFC 5272 6.2.1)."""
        return sequence(*(each.encode() for each in self.requests))

    def request(self, body_part_id: int) -> TaggedRequest | None:
        """Return the request with a body part id, or None."""
        return next((each for each in self.requests if each.body_part_id == body_part_id), None)

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(
            sequence(*(each.encode() for each in self.controls)),
            self.request_sequence,
            sequence(*(each.encode() for each in self.cms)),
            sequence(*(each.encode() for each in self.others)),
        )

    @classmethod
    def decode(cls, der: bytes) -> PKIData:
        """Return the message from DER or BER.  Raises `BadMessage`, also for ids that are 0 or occur twice.

        Values of controls are not decoded; `Control.value` does that.
        """
        fields = _four(der, "a PKIData", ("controls", "requests", "messages", "other messages"))
        seen = _Seen()
        controls = seen.read(fields[0], "control", Control.decode, MAXIMUM_CONTROLS)
        requests = seen.read(fields[1], "request", decode_request, MAXIMUM_REQUESTS)
        cms = seen.read(fields[2], "message", TaggedContentInfo.decode, MAXIMUM_NESTED)
        others = seen.read(fields[3], "other message", OtherMsg.decode, MAXIMUM_NESTED)
        return cls(controls, requests, cms, others)


@dataclass(frozen=True)
class PKIResponse(_Controls):
    """The content of a Full PKI Response."""

    controls: tuple[Control, ...] = ()
    cms: tuple[TaggedContentInfo, ...] = ()
    others: tuple[OtherMsg, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """All body part ids, in the order in which they stand."""
        return _ids(self.controls, self.cms, self.others)

    @property
    def statuses(self) -> tuple[StatusInfo, ...]:
        """The values of the status controls of both versions, in order.  Raises `Malformed`."""
        found = (each.all_values for each in self.controls if each.name in ("statusInfo", "statusInfoV2"))
        return tuple(status for values in found for status in values)

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(
            sequence(*(each.encode() for each in self.controls)),
            sequence(*(each.encode() for each in self.cms)),
            sequence(*(each.encode() for each in self.others)),
        )

    @classmethod
    def decode(cls, der: bytes) -> PKIResponse:
        """Return the message from DER or BER.  Raises `BadMessage`, also for ids that are 0 or occur twice."""
        fields = _four(der, "a PKIResponse", ("controls", "messages", "other messages"))
        seen = _Seen()
        controls = seen.read(fields[0], "control", Control.decode, MAXIMUM_CONTROLS)
        cms = seen.read(fields[1], "message", TaggedContentInfo.decode, MAXIMUM_NESTED)
        others = seen.read(fields[2], "other message", OtherMsg.decode, MAXIMUM_NESTED)
        return cls(controls, cms, others)


class _Seen:
    """The parts of a message that were read so far, for the text of a fault."""

    def __init__(self) -> None:
        self._ids: dict[int, str] = {}
        self._controls: list[Control] = []

    def read(self, der: bytes, noun: str, decode: Callable[[bytes], Part], most: int) -> tuple[Part, ...]:
        """Return all parts of one sequence.  Raises `BadMessage`."""
        try:
            found = items(der, f"{noun}s")
        except Malformed as fault:
            raise self._fault(str(fault)) from None
        if len(found) > most:
            raise self._fault(f"{len(found)} {noun}s; {most} are the most here")
        return tuple(self._part(each, f"{noun} {place}", noun, decode) for place, each in enumerate(found, 1))

    def _part(self, der: bytes, where: str, noun: str, decode: Callable[[bytes], Part]) -> Part:
        number = _id_of(der)
        try:
            part = decode(der)
        except Malformed as fault:
            name = where if number is None else f"{noun} {number}"
            raise self._fault(f"{name}: {fault}", () if number is None else (number,)) from None
        found = part.body_part_id
        if found == 0:
            raise self._fault(f"{where} has the body part id 0, which stands for the message itself")
        if found in self._ids:
            raise self._fault(f"the body part id {found} is there twice: {self._ids[found]} and {where}", (found,))
        self._ids[found] = where
        if isinstance(part, Control):
            self._controls.append(part)
        return part

    def _fault(self, text: str, ids: Sequence[int] = ()) -> BadMessage:
        return BadMessage(text, ids, tuple(self._ids), self._controls)


def _id_of(der: bytes) -> int | None:
    """The id of a part that may be broken after it: its first INTEGER, two levels down in CRMF.  None if absent."""
    try:
        for _ in range(2):
            first = whole(elements(SEQUENCE + der[1:], "a part")[0])
            if first[:1] == INTEGER:
                number = read_integer(first, "an id")
                return number if 0 < number <= MAXIMUM_ID else None
            der = first
    except (Malformed, IndexError):
        pass
    return None


def _four(der: bytes, what: str, names: Sequence[str]) -> list[bytes]:
    """The sequences of which a message consists, from DER, or from BER that can be converted.  Raises `BadMessage`."""
    try:
        return _sequences(der, what, names)
    except Malformed as fault:
        try:
            plain = ber.to_der(der)
        except Malformed:
            plain = der
        if plain == der:
            raise BadMessage(str(fault)) from None
    return _sequences(plain, what, names)


def _sequences(der: bytes, what: str, names: Sequence[str]) -> list[bytes]:
    try:
        fields = Fields(der, what)
        found = [fields.take(name, SEQUENCE) for name in names]
        fields.end()
    except Malformed as fault:
        raise BadMessage(str(fault)) from None
    return found


# Messages in SignedData.


def pki_data(message: SignedData) -> PKIData:
    """Return the PKIData in a SignedData.  Raises `BadMessage`."""
    return PKIData.decode(_content(message, PKI_DATA, "PKIData"))


def pki_response(message: SignedData) -> PKIResponse:
    """Return the PKIResponse in a SignedData.  Raises `BadMessage`, also for a Simple PKI Response (no content)."""
    return PKIResponse.decode(_content(message, PKI_RESPONSE, "PKIResponse"))


def _content(message: SignedData, kind: str, what: str) -> bytes:
    if message.content_type != kind or message.content is None:
        held = "nothing" if message.content is None else f"content of type {message.content_type}"
        raise BadMessage(f"a SignedData with {held} in place of a {what}")
    return message.content


@dataclass(frozen=True)
class Layer:
    """One message of a tree: `path` are the body part ids that lead to it; empty for the outermost."""

    path: tuple[int, ...]
    message: SignedData
    data: PKIData


def layers(message: SignedData) -> Iterator[Layer]:
    """Yield a request and all requests inside it, outermost first (RFC 5272 8: an RA wraps its clients' messages).

    Other content in cmsSequence is skipped.  Raises `BadMessage` for a part that can't be read and for more than
    `MAXIMUM_DEPTH` layers or `MAXIMUM_REQUESTS` messages in all.
    """
    waiting = [Layer((), message, pki_data(message))]
    outermost, count = waiting[0].data, 0
    while waiting:
        layer = waiting.pop(0)
        yield layer
        for each in layer.data.cms:
            path = (*layer.path, each.body_part_id)
            try:
                inner = _nested(each)
                if inner is None:
                    continue
                count += 1
                if len(path) >= MAXIMUM_DEPTH or count > MAXIMUM_REQUESTS:
                    raise Malformed("a message inside others, too deep or one too many")
                waiting.append(Layer(path, inner, pki_data(inner)))
            except Malformed as fault:
                words = f"message {each.body_part_id}: {fault}"
                raise BadMessage(words, (part_at(path),), outermost.ids, outermost.controls) from None


def part_at(path: tuple[int, ...]) -> BodyPart:
    """Return a reference to a part in the form of a bodyList: one id, or a path of several."""
    return path[0] if len(path) == 1 else path


def _nested(part: TaggedContentInfo) -> SignedData | None:
    """The SignedData with a PKIData in this part, or None if it is something else.  Raises `Malformed`."""
    kind, _ = signed.content_info(part.der)
    inner = signed.parse(part.der) if kind == signed.SIGNED_DATA else None
    return inner if inner is not None and inner.content_type == PKI_DATA else None
