"""The CAs, keys, password and server certificates of one start: all are made anew, and no key is written to a disk."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from estgw.est import certs

CA_NAME = "estgw quirk CA, trust it nowhere"
STRANGER_NAME = "estgw quirk stranger, trust it nowhere"
USER = "quirk"
AES_KEY_ID = b"quirk-key"
"""The name of the shared AES key with which a client may want its new key encrypted (RFC 7030 4.4.1.1)."""
WRONG_HOST = "wrong-host.invalid"

SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH

_DAY = timedelta(days=1)
Key = ec.EllipticCurvePrivateKey
Extensions = Iterable[tuple[x509.ExtensionType, bool]]


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key = field(repr=False)


@dataclass(frozen=True)
class Face:
    """The certificate and the TLS versions that a port shows."""

    names: tuple[str, ...] = ()
    """In the subject alternative name; empty: the names under which the server is reached."""
    usages: tuple[x509.ObjectIdentifier, ...] = (SERVER_AUTH,)
    by_stranger: bool = False
    has_expired: bool = False
    version: int | None = None
    """The only TLS version, as pyOpenSSL numbers them; None: 1.2 and 1.3."""


class Material:
    """What one start has made.  `old` and `new` are the two roots of a CA that changes its key; `old` issues."""

    def __init__(self, names: Sequence[str]) -> None:
        """Make it all; `names` are the host names and addresses of the server."""
        self.names = tuple(dict.fromkeys(names))
        self.password = secrets.token_urlsafe(12)
        self.aes_key = secrets.token_bytes(32)
        self.old = _root(CA_NAME, ends=200 * _DAY)
        self.new = _root(CA_NAME, ends=400 * _DAY)
        self.stranger = _root(STRANGER_NAME, ends=200 * _DAY)
        self.old_with_new = _cross(self.old, self.new)
        self.new_with_old = _cross(self.new, self.old)
        self.other_key = ec.generate_private_key(ec.SECP256R1())
        """The key that wrong answers are about."""

    @property
    def rollover(self) -> tuple[x509.Certificate, ...]:
        """The four certificates after a change of the CA's key (RFC 4210 4.4)."""
        return (self.new.certificate, self.old.certificate, self.old_with_new, self.new_with_old)

    @property
    def own(self) -> frozenset[bytes]:
        """The fingerprints of all CA certificates, which are no client's."""
        found = (*self.rollover, self.stranger.certificate)
        return frozenset(one.fingerprint(hashes.SHA256()) for one in found)

    def face(self, wanted: Face) -> Pair:
        """A server certificate, and a key for it."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = wanted.names or self.names
        extensions = [
            *_leaf(key.public_key(), wanted.usages),
            (x509.SubjectAlternativeName([_general_name(name) for name in names]), False),
        ]
        now = _now()
        starts, ends = (now - 30 * _DAY, now - _DAY) if wanted.has_expired else (now - _DAY, now + 90 * _DAY)
        issuer = self.stranger if wanted.by_stranger else self.old
        subject = common_name(names[0])
        return Pair(sign(issuer, subject, key.public_key(), extensions, (starts, ends)), key)

    def issue(
        self, subject: x509.Name, key: CertificatePublicKeyTypes, *, by_stranger: bool = False, san: Extensions = ()
    ) -> x509.Certificate:
        """A client's certificate."""
        now = _now()
        issuer = self.stranger if by_stranger else self.old
        return sign(issuer, subject, key, [*_leaf(key, (CLIENT_AUTH,)), *san], (now - _DAY, now + 30 * _DAY))


def sign(
    issuer: Pair,
    subject: x509.Name,
    key: CertificatePublicKeyTypes,
    extensions: Extensions,
    validity: tuple[datetime, datetime],
) -> x509.Certificate:
    """A certificate with these extensions and no others; `validity` is its first and its last moment, UTC."""
    return _build(issuer.certificate.subject, issuer.key, subject, key, extensions, validity)


def common_name(text: str) -> x509.Name:
    """A subject of a common name alone."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _root(name: str, *, ends: timedelta) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    own = common_name(name)
    now = _now()
    return Pair(_build(own, key, own, key.public_key(), _ca(key.public_key()), (now - _DAY, now + ends)), key)


def _cross(of: Pair, by: Pair) -> x509.Certificate:
    """The key of one root, signed by the other."""
    now = _now()
    extensions = [
        *_ca(of.key.public_key()),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key()), False),
    ]
    return sign(by, of.certificate.subject, of.key.public_key(), extensions, (now - _DAY, now + 190 * _DAY))


def _build(
    issuer: x509.Name,
    signer: Key,
    subject: x509.Name,
    key: CertificatePublicKeyTypes,
    extensions: Extensions,
    validity: tuple[datetime, datetime],
) -> x509.Certificate:
    builder = x509.CertificateBuilder().issuer_name(issuer).subject_name(subject).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(validity[0]).not_valid_after(validity[1])
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    with certs.without_warnings():
        return builder.sign(signer, hashes.SHA256())


def _ca(key: CertificatePublicKeyTypes) -> list[tuple[x509.ExtensionType, bool]]:
    return [
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (_usage(is_ca=True), True),
        (x509.SubjectKeyIdentifier.from_public_key(key), False),
    ]


def _leaf(
    key: CertificatePublicKeyTypes, usages: Sequence[x509.ObjectIdentifier]
) -> list[tuple[x509.ExtensionType, bool]]:
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(is_ca=False), True),
        (x509.SubjectKeyIdentifier.from_public_key(key), False),
        (x509.ExtendedKeyUsage(usages), False),
    ]


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
