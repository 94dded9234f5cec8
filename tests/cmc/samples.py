"""Sample messages: requests of both formats, and a value for every control of the table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from estgw.cmc import crmf, parts, proofs
from estgw.cmc.controls import Control
from estgw.cmc.crmf import CertTemplate, TypeAndValue
from estgw.cmc.messages import PKI_DATA, PKI_RESPONSE, PKIData, PKIResponse
from estgw.cmc.requests import CRMFRequest, PKCS10Request
from estgw.cmc.status import CMCFailInfo, CMCStatus, PendInfo, StatusInfo
from estgw.cmc.values import (
    AddExtensions,
    ControlsProcessed,
    DecryptedPOP,
    EncryptedPOP,
    GetCert,
    GetCRL,
    LraPopWitness,
    ModCertTemplate,
    PublicationInfo,
    PublishTrustAnchors,
    RevokeRequest,
)
from estgw.cms import enveloped, signed
from estgw.cms.algorithms import HMAC_SHA256, SHA256, Algorithm
from estgw.cms.identifiers import IssuerAndSerial
from estgw.cms.signed import Signer
from tests.kit.ca import common_name, holder
from tests.kit.csr import csr
from tests.kit.keys import KEY

KEY_ID = b"\x01" * 20
SECRET, WHO = "correct horse battery", "d\u00e9vice 7"
MOMENT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
SHA, HMAC = Algorithm(SHA256), Algorithm(HMAC_SHA256)


def extension(value: x509.ExtensionType, *, critical: bool = False) -> x509.Extension[Any]:
    return x509.Extension(value.oid, critical, value)


EXTENSIONS = parts.write_extensions(
    [
        extension(x509.SubjectKeyIdentifier(KEY_ID)),
        extension(x509.SubjectAlternativeName([x509.DNSName("device.example")]), critical=True),
    ]
)
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pkcs10(number: int = 101, key: Any = KEY) -> PKCS10Request:
    """A PKCS#10 with the subject key identifier `KEY_ID`."""
    return PKCS10Request(number, csr("device", x509.SubjectKeyIdentifier(KEY_ID), key=key))


def crmf_request(number: int = 102, key: Any = KEY, *controls: TypeAndValue) -> CRMFRequest:
    request = crmf.request_for(key.public_key(), number, common_name("device").public_bytes(), EXTENSIONS, controls)
    return CRMFRequest(crmf.prove(key, request))


FULL_TEMPLATE = CertTemplate(
    version=2,
    serial=-5,
    signing_algorithm=SHA,
    issuer=common_name("CA").public_bytes(),
    not_before=MOMENT,
    not_after=datetime(2055, 1, 1, tzinfo=UTC),
    subject=common_name("device").public_bytes(),
    public_key=SPKI,
    issuer_uid=b"\x03\x02\x00\x01",
    subject_uid=b"\x03\x02\x04\x10",
    extensions=EXTENSIONS,
)
CHALLENGE = b"y" * 64
ENVELOPE = enveloped.encrypt(CHALLENGE, KEY.public_key(), KEY_ID)
DNS = b"\x82\x0edevice.example"  # GeneralName dNSName
WITNESS = proofs.pop_link_witness_v2(b"random", SECRET)

VALUES: dict[str, list[Any]] = {
    "statusInfo": [
        StatusInfo(CMCStatus.SUCCESS, (1,)),
        StatusInfo(CMCStatus.FAILED, (1, 2), "no", CMCFailInfo.BAD_ALG),
        StatusInfo(CMCStatus.PENDING, (0,), pending=PendInfo(b"token", MOMENT)),
    ],
    "identification": [WHO],
    "identityProof": [b"\x00" * 20],
    "dataReturn": [b"", b"anything"],
    "transactionId": [0, -1, 10132985123483401, 1 << 159],
    "senderNonce": [b"nonce"],
    "recipientNonce": [b"nonce"],
    "addExtensions": [AddExtensions(0, (101,), EXTENSIONS), AddExtensions(5, (), EXTENSIONS)],
    "encryptedPOP": [
        EncryptedPOP(CRMFRequest(crmf_request().message), ENVELOPE, HMAC, SHA, b"w"),
        EncryptedPOP(pkcs10(), ENVELOPE, HMAC, SHA, b"w"),
    ],
    "decryptedPOP": [DecryptedPOP(101, HMAC, b"proof")],
    "lraPOPWitness": [LraPopWitness(0, (101, 102)), LraPopWitness(7, ())],
    "getCert": [GetCert(DNS, 77)],
    "getCRL": [
        GetCRL(common_name("CA").public_bytes()),
        GetCRL(common_name("CA").public_bytes(), DNS, MOMENT, b"\x03\x02\x05\x60"),
    ],
    "revokeRequest": [
        RevokeRequest(common_name("CA").public_bytes(), 77),
        RevokeRequest(common_name("CA").public_bytes(), 77, 4, MOMENT, b"passphrase", "why"),
    ],
    "regInfo": [b"info"],
    "responseInfo": [b"info"],
    "queryPending": [b"token"],
    "popLinkRandom": [b"r" * 64],
    "popLinkWitness": [b"w" * 20],
    "confirmCertAcceptance": [IssuerAndSerial(common_name("CA").public_bytes(), 77)],
    "statusInfoV2": [
        StatusInfo(CMCStatus.SUCCESS, (1, (5, 1))),
        StatusInfo.failed(CMCFailInfo.INTERNAL_CA_ERROR, text="no"),
        StatusInfo(CMCStatus.PARTIAL, (0,), "later", pending=PendInfo(b"token", MOMENT)),
    ],
    "trustedAnchors": [PublishTrustAnchors(3, SHA, (b"a" * 32, b"b" * 32)), PublishTrustAnchors(4, SHA, ())],
    "authData": [5],
    "batchRequests": [(5, 6)],
    "batchResponses": [(5, 6)],
    "publishCert": [PublicationInfo(SHA, (b"a" * 32,), bytes.fromhex("3003020100"))],
    "modCertTemplate": [
        ModCertTemplate((0,), (101,), CertTemplate(subject=common_name("another").public_bytes())),
        ModCertTemplate((5, 1), (101, 102), FULL_TEMPLATE, replace=False),
    ],
    "controlProcessed": [ControlsProcessed((1, (5, 2)))],
    "popLinkWitnessV2": [WITNESS],
    "identityProofV2": [WITNESS],
    "raIdentityWitness": [(5, 1)],
    "changeSubjectName": [bytes.fromhex("3000")],
    "responseBody": [(5,)],
}
"""Values for every control of the table."""


def request_message(key: Any = KEY) -> bytes:
    """A Full PKI Request from a new client: signed with its new key, and with an identity proof by a shared secret."""
    requests = (pkcs10(key=key), crmf_request(102, key))
    proof = proofs.identity_proof_v2(PKIData(requests=requests).request_sequence, SECRET, WHO)
    controls = (
        Control.make(1, "transactionId", 10132985123483401),
        Control.make(2, "senderNonce", b"\x10\x20"),
        Control.make(3, "identification", WHO),
        Control.make(4, "identityProofV2", proof),
    )
    return signed.sign(PKI_DATA, PKIData(controls, requests).encode(), [Signer(key, KEY_ID)], signing_time=MOMENT)


def response_message(*statuses: StatusInfo) -> bytes:
    """A signed Full PKI Response with a certificate in its bag."""
    ca = holder("p256", "CA")
    controls = tuple(Control.make(number, "statusInfoV2", each) for number, each in enumerate(statuses, 1))
    content = PKIResponse((*controls, Control.make(90, "recipientNonce", b"\x10\x20"))).encode()
    signer = Signer.of(ca.key, ca.certificate)
    return signed.sign(PKI_RESPONSE, content, [signer], certificates=[ca.certificate], signing_time=MOMENT)
