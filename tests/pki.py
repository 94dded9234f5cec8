"""CSRs and certificates to feed the gateway with, byte by byte, so that they can be wrong in every way.

CAs come from `tests.tls.pki`; what is here makes the things that no library agrees to make.
"""

from __future__ import annotations

import base64
import functools
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.tls.pki import CA, DAY, NOW

VECTORS = Path(__file__).parent / "vectors"

P256 = ec.generate_private_key(ec.SECP256R1())
"""One key for all tests that are not about keys."""
OTHER = ec.generate_private_key(ec.SECP256R1())

EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7"
SAN = "2.5.29.17"
CN = "2.5.4.3"

BOOLEAN, INTEGER, BIT_STRING, OCTETS = 0x01, 0x02, 0x03, 0x04
UTF8, PRINTABLE, T61, IA5, UNIVERSAL, BMP = 0x0C, 0x13, 0x14, 0x16, 0x1C, 0x1E
SEQUENCE, SET = 0x30, 0x31

SHA256_ECDSA, SHA1_ECDSA = "1.2.840.10045.4.3.2", "1.2.840.10045.4.1"
SHA256_RSA, SHA1_RSA, MD5_RSA = "1.2.840.113549.1.1.11", "1.2.840.113549.1.1.5", "1.2.840.113549.1.1.4"
SHA256_DSA, ED25519 = "2.16.840.1.101.3.4.3.2", "1.3.101.112"
_HASHES: dict[str, hashes.HashAlgorithm] = {
    SHA256_ECDSA: hashes.SHA256(),
    SHA1_ECDSA: hashes.SHA1(),
    SHA256_RSA: hashes.SHA256(),
    SHA1_RSA: hashes.SHA1(),
    MD5_RSA: hashes.MD5(),
    SHA256_DSA: hashes.SHA256(),
}


# DER, written down a second time so that the tests do not stand on what they test.


def tlv(tag: int, *content: bytes) -> bytes:
    """One element: tag, length, content."""
    inner = b"".join(content)
    if len(inner) < 128:
        return bytes([tag, len(inner)]) + inner
    length = len(inner).to_bytes((len(inner).bit_length() + 7) // 8, "big")
    return bytes([tag, 128 + len(length)]) + length + inner


def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    return tlv(6, b"".join(_base128(number) for number in (40 * first + second, *rest)))


def _base128(number: int) -> bytes:
    digits = [number & 127]
    while number := number >> 7:
        digits.append(128 + (number & 127))
    return bytes(reversed(digits))


def dn(*rdns: tuple[str, int, bytes]) -> bytes:
    """A Name of single-valued RDNs: OID, string tag, bytes."""
    return tlv(SEQUENCE, *(tlv(SET, tlv(SEQUENCE, oid(kind), tlv(tag, text))) for kind, tag, text in rdns))


def attribute(kind: str, *values: bytes) -> bytes:
    """An Attribute with these values, none if need be."""
    return tlv(SEQUENCE, oid(kind), tlv(SET, *values))


def challenge(text: str, tag: int = UTF8, codec: str = "utf-8") -> bytes:
    """A challengePassword attribute."""
    return attribute(CHALLENGE_PASSWORD, tlv(tag, text.encode(codec)))


def extension_request(*extensions: bytes) -> bytes:
    """An extensionRequest attribute."""
    return attribute(EXTENSION_REQUEST, tlv(SEQUENCE, *extensions))


def extension(kind: str, value: bytes) -> bytes:
    return tlv(SEQUENCE, oid(kind), tlv(OCTETS, value))


def san(*names: x509.GeneralName) -> bytes:
    """An extensionRequest that asks for these names and nothing else."""
    return extension_request(extension(SAN, x509.SubjectAlternativeName(names).public_bytes()))


# Requests.


def csr(
    subject: str | bytes | x509.Name = "device-1",
    *attributes: bytes,
    key: Any = P256,
    algorithm: str | None = None,
    version: int = 0,
    spki: bytes | None = None,
    shuffled: bool = False,
) -> bytes:
    """A CSR as DER, correctly signed over whatever is in it.

    DER puts the attributes in order; `shuffled` leaves them as they are given.
    """
    if isinstance(subject, str):
        subject = dn((CN, UTF8, subject.encode()))
    elif isinstance(subject, x509.Name):
        subject = subject.public_bytes()
    spki = spki or key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    chosen = attributes if shuffled else tuple(sorted(attributes))
    body = tlv(SEQUENCE, tlv(INTEGER, bytes([version])), subject, spki, tlv(0xA0, *chosen))
    algorithm = algorithm or _algorithm(key)
    null = tlv(5) if isinstance(key, rsa.RSAPrivateKey) else b""
    signature = tlv(BIT_STRING, b"\0", _sign(key, body, algorithm))
    return tlv(SEQUENCE, body, tlv(SEQUENCE, oid(algorithm), null), signature)


def _algorithm(key: Any) -> str:
    kinds = {
        ec.EllipticCurvePrivateKey: SHA256_ECDSA,
        rsa.RSAPrivateKey: SHA256_RSA,
        dsa.DSAPrivateKey: SHA256_DSA,
        ed25519.Ed25519PrivateKey: ED25519,
    }
    return next(name for kind, name in kinds.items() if isinstance(key, kind))


def _sign(key: Any, body: bytes, algorithm: str) -> bytes:
    signature: bytes
    match key:
        case ec.EllipticCurvePrivateKey():
            signature = key.sign(body, ec.ECDSA(_HASHES[algorithm]))
        case rsa.RSAPrivateKey():
            signature = key.sign(body, padding.PKCS1v15(), _HASHES[algorithm])
        case dsa.DSAPrivateKey():
            signature = key.sign(body, _HASHES[algorithm])
        case _:
            signature = key.sign(body)
    return signature


def pem(der: bytes, label: str = "CERTIFICATE REQUEST") -> bytes:
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(der) + f"-----END {label}-----\n".encode()


@functools.cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """An RSA key, made once."""
    return rsa.generate_private_key(65537, bits)


# Certificates.


def name(text: str) -> x509.Name:
    """An RFC 4514 string as a Name."""
    return x509.Name.from_rfc4514_string(text)


def certificate(
    ca: CA,
    subject: str | x509.Name = "CN=device-1",
    *extensions: x509.ExtensionType,
    key: Any = P256,
    serial: int | None = None,
    starts: Any = NOW - DAY,
    ends: Any = NOW + 30 * DAY,
) -> x509.Certificate:
    """A certificate of a CA with these extensions and no others."""
    subject = name(subject) if isinstance(subject, str) else subject
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(ca.certificate.subject)
    builder = builder.public_key(key.public_key()).serial_number(serial or x509.random_serial_number())
    builder = builder.not_valid_before(starts).not_valid_after(ends)
    for wanted in extensions:
        builder = builder.add_extension(wanted, critical=False)
    return builder.sign(ca.key, hashes.SHA256())


def broken_certificate(ca: CA, subject: bytes, *extensions: bytes, version: int = 2) -> bytes:
    """A certificate as DER whose subject and extensions are taken as they are, correctly signed."""
    validity = tlv(SEQUENCE, tlv(0x17, b"250101000000Z"), tlv(0x17, b"491231235959Z"))
    spki = P256.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    algorithm = tlv(SEQUENCE, oid(SHA256_ECDSA))
    body = tlv(
        SEQUENCE,
        tlv(0xA0, tlv(INTEGER, bytes([version]))),
        tlv(INTEGER, b"\x01"),
        algorithm,
        ca.certificate.subject.public_bytes(),
        validity,
        subject,
        spki,
        *([tlv(0xA3, tlv(SEQUENCE, *extensions))] if extensions else []),
    )
    return tlv(SEQUENCE, body, algorithm, tlv(BIT_STRING, b"\0", _sign(ca.key, body, SHA256_ECDSA)))


def key_pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    text: bytes = key.private_bytes(Encoding.PEM, form, NoEncryption())
    return text


def vector(file: str) -> bytes:
    """A published message, as it stands."""
    return (VECTORS / file).read_bytes()
