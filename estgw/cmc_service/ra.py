"""Controls of a registration authority, about its own requests and those of the messages that it wraps.

RFC 5272 6.5 (changes), 6.8 (possession), 6.17 (batches), 6.19 (controls done); RFC 6402 2.9 (identity).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from cryptography import x509

from estgw.cmc import parts
from estgw.cmc.controls import Control
from estgw.cmc.messages import PKIData
from estgw.cmc.requests import OtherRequest
from estgw.cmc.status import CMCFailInfo, CMCStatus, StatusInfo
from estgw.cmc_service import identity_proof
from estgw.cmc_service.answer import Answer, Refused
from estgw.errors import Malformed
from estgw.est.csr import NewNames

Path = tuple[int, ...]

CONTROLS = (
    "addExtensions", "modCertTemplate", "lraPOPWitness", "controlProcessed", "raIdentityWitness", "batchRequests",
)  # fmt: skip
"""Only an RA may send these."""


@dataclass(frozen=True)
class Statements:
    """The controls about the message at `path` in the messages of RAs above it, and in its own if an RA signed it."""

    by: Sequence[tuple[Path, PKIData]]
    """The messages that RAs have signed, outermost first, each with its path."""
    path: Path

    def _find(self, name: str) -> Iterator[tuple[Path, Control]]:
        """Controls of that name, each with the path from its message to this one."""
        for start, data in self.by:
            for control in data.find(name):
                yield self.path[len(start) :], control

    @property
    def possession(self) -> frozenset[int]:
        """Requests in this message whose proof of possession an RA has verified (6.8)."""
        said = ((way, control.value) for way, control in self._find("lraPOPWitness"))
        return frozenset(one for way, value in said if way == _way(value.data) for one in value.requests)

    @property
    def processed(self) -> frozenset[int]:
        """Controls of this message that an RA has processed (6.19)."""
        return frozenset(
            path[-1]
            for way, control in self._find("controlProcessed")
            for part in control.value.parts
            if (path := (part,) if isinstance(part, int) else part)[:-1] == way
        )

    def identity(self, data: PKIData) -> bool:
        """Whether an RA has checked the identity proof of this message (RFC 6402 2.9)."""
        proofs = {each.body_part_id for name in identity_proof.CONTROLS for each in data.find(name)}
        said = [(way, control.value) for way, control in self._find("raIdentityWitness")]
        return bool(proofs & self.processed) or any(
            value == way or (value[:-1] == way and value[-1] in proofs) for way, value in said
        )

    def changes(self, data: PKIData, may_add: Collection[str]) -> dict[int, NewNames | Refused]:
        """The names that the RAs give to requests of this message, or why a request can't have them (6.5)."""
        made: dict[int, NewNames | Refused] = {}
        for way, control in (*self._find("addExtensions"), *self._find("modCertTemplate")):
            value = control.value
            target = _way(value.data) if isinstance(value.data, int) else (() if value.data == (0,) else value.data)
            for number in value.requests if way == target else ():
                request = data.request(number)
                if request is None or isinstance(request, OtherRequest) or isinstance(made.get(number), Refused):
                    continue
                try:
                    before = made.get(number) or NewNames(request.csr.subject, request.csr.san)
                    assert isinstance(before, NewNames)
                    made[number] = _changed(before, control, may_add)
                except Malformed as fault:
                    made[number] = Refused.by(fault)
                except Refused as why:
                    made[number] = why
        return made


def _way(number: int) -> Path:
    return (number,) if number else ()


def _changed(names: NewNames, control: Control, may_add: Collection[str]) -> NewNames:
    """Names after the change that one control makes; raises `Refused`, `Malformed`."""
    if control.name == "addExtensions":
        return NewNames(names.subject, _san(names.san, control.value.extensions, may_add))
    template, replace = control.value.template, control.value.replace
    others = (
        template.version, template.serial, template.signing_algorithm, template.issuer, template.not_before,
        template.not_after, template.public_key, template.issuer_uid, template.subject_uid,
    )  # fmt: skip
    if any(each is not None for each in others):
        raise Refused(CMCFailInfo.BAD_REQUEST, f"{control.words}: nothing but subject and extensions can be changed")
    subject, san = names.subject, names.san
    if template.subject is not None:
        subject = parts.read_name(template.subject if replace else parts.EMPTY_NAME)
    if template.extensions is not None:
        changed = _san(san, template.extensions, may_add)
        san = changed if replace else None
    return NewNames(subject, san)


def _san(
    before: x509.SubjectAlternativeName | None, extensions: bytes, may_add: Collection[str]
) -> x509.SubjectAlternativeName | None:
    """The subjectAltName among these extensions; raises `Refused` for any other extension."""
    san = before
    for extension in parts.read_extensions(extensions):
        known = isinstance(extension.value, x509.SubjectAlternativeName)
        if not known or "subjectAltName" not in may_add:
            raise Refused(
                CMCFailInfo.UNSUPPORTED_EXT, f"the extension {extension.oid.dotted_string} can't be added here"
            )
        san = extension.value
    return san


# Batches (RFC 5272 6.17): each message gets its own response.


def is_batch(data: PKIData, number: int) -> bool:
    """Whether the message with that id is in a batch."""
    return any(number in control.value for control in data.find("batchRequests"))


def summary(answer: Answer, number: int) -> list[StatusInfo]:
    """The status of a message of a batch, for the outer response; its own response has the details."""
    states = {each.status for each in answer.statuses} or {CMCStatus.SUCCESS}
    status = states.pop() if len(states) == 1 else CMCStatus.PARTIAL
    failure = next((each.failure for each in answer.statuses if each.failure is not None), None)
    return [StatusInfo(status, (number,), None, failure if status == CMCStatus.FAILED else None)]
