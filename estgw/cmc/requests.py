"""TaggedRequest: a certificate request in one of three formats (RFC 5272 3.2.1.2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from estgw.cmc import crmf
from estgw.cmc.crmf import CertReqMsg, OtherPop, PopKind
from estgw.cmc.status import take_id
from estgw.cms.algorithms import NO_SIGNATURE, Algorithm
from estgw.cms.faults import BadAlgorithm, BadSignature, within
from estgw.cms.fields import Fields, context, integer, oid, retag, sequence
from estgw.errors import Malformed
from estgw.est import csr as csr_tools
from estgw.est.csr import CSR
from estgw.est.der import SEQUENCE

_TCR, _CRM, _ORM = context(0), context(1), context(2)
_WEAK = {
    "1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.2.840.10045.4.1", "1.2.840.10040.4.3", "1.3.14.3.2.29",
}  # fmt: skip


@dataclass(frozen=True)
class PKCS10Request:
    """tcr: `der` is the whole CertificationRequest."""

    body_part_id: int
    der: bytes

    def encode(self) -> bytes:
        """Return the DER of a TaggedRequest."""
        return retag(_TCR, sequence(integer(self.body_part_id), self.der))

    @cached_property
    def csr(self) -> CSR:
        """The CSR, parsed.  Raises `Malformed`."""
        return csr_tools.parse(self.der)


@dataclass(frozen=True)
class CRMFRequest:
    """crm: the certReqId is the body part id (RFC 5272 3.2.2)."""

    message: CertReqMsg

    @property
    def body_part_id(self) -> int:
        """The certReqId."""
        return self.message.request.request_id

    def encode(self) -> bytes:
        """Return the DER of a TaggedRequest."""
        return retag(_CRM, self.message.encode())

    @cached_property
    def csr(self) -> CSR:
        """The request as a CSR with an empty signature.  Raises `Malformed`."""
        template = self.message.request.template
        if template.subject is None or template.public_key is None:
            raise Malformed("a CRMF request without subject or public key")
        return csr_tools.parse(crmf.carrier(self.message))


@dataclass(frozen=True)
class OtherRequest:
    """orm: a format that no standard defines; `oid` is dotted, `value` is DER."""

    body_part_id: int
    oid: str
    value: bytes

    def encode(self) -> bytes:
        """Return the DER of a TaggedRequest."""
        return retag(_ORM, sequence(integer(self.body_part_id), oid(self.oid), self.value))


TaggedRequest: TypeAlias = "PKCS10Request | CRMFRequest | OtherRequest"


def decode_request(der: bytes) -> TaggedRequest:
    """Return the request from DER.  Raises `Malformed`."""
    match der[:1]:
        case tag if tag == _CRM:
            return CRMFRequest(CertReqMsg.decode(retag(SEQUENCE, der), "a CRMF request"))
        case tag if tag == _TCR:
            fields = Fields(der, "a PKCS#10 request", _TCR)
            number, found = take_id(fields), fields.take("CertificationRequest", SEQUENCE)
            fields.end()
            return PKCS10Request(number, found)
        case tag if tag == _ORM:
            fields = Fields(der, "a request of another format", _ORM)
            number, name, value = take_id(fields), fields.oid("type"), fields.take("value")
            fields.end()
            return OtherRequest(number, name, value)
    raise Malformed(f"tag 0x{der[:1].hex()}, which is no format of a request")


class Possession(Enum):
    """The proof of possession in a request."""

    PROVED = "proved"
    """A signature that was verified."""
    RA_VERIFIED = "raVerified"
    """The request claims that an RA has verified it.  The caller decides whether that RA may."""
    CHALLENGE = "challenge"
    """The request asks for encryptedPOP (RFC 5272 6.7), for a key that can't sign."""
    ABSENT = "absent"
    """No proof: id-alg-noSignature, no POP, or a kind of proof that is not supported."""


def possession(request: PKCS10Request | CRMFRequest) -> Possession:
    """Verify a request's own proof of possession and return its kind.

    Raises `BadSignature` when it does not fit, `BadAlgorithm` for weak algorithms such as SHA-1, `Malformed` for a
    request that can't be read or a key that is too weak.
    """
    with within(f"request {request.body_part_id}"):
        return _pkcs10(request) if isinstance(request, PKCS10Request) else _crmf(request.message)


def _pkcs10(request: PKCS10Request) -> Possession:
    name = request.csr.request.signature_algorithm_oid.dotted_string
    if name == NO_SIGNATURE:
        return Possession.ABSENT
    if name in _WEAK:
        raise BadAlgorithm(f"a signature by {Algorithm(name).name} is not taken; use SHA-256")
    try:
        csr_tools.verify(request.csr)
    except Malformed as fault:
        raise (fault if _fits(request.csr.request) else BadSignature(str(fault))) from None
    return Possession.PROVED


def _fits(request: x509.CertificateSigningRequest) -> bool:
    """False only for a signature that was checked and does not fit."""
    try:
        return request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        return True


def _crmf(message: CertReqMsg) -> Possession:
    match message.pop:
        case None:
            return Possession.ABSENT
        case OtherPop(kind=PopKind.RA_VERIFIED):
            return Possession.RA_VERIFIED
        case OtherPop():
            return Possession.CHALLENGE if message.pop.is_challenge else Possession.ABSENT
    crmf.verify_pop(message)
    return Possession.PROVED


def key_id(request: PKCS10Request | CRMFRequest) -> bytes | None:
    """The subject key identifier in a request, which identifies its key as a signer (RFC 5272 3.2); None if absent.

    Raises `Malformed`.
    """
    try:
        return request.csr.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return None
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("a subject key identifier that can't be read") from None
