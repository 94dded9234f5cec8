"""CAs that issue whatever a test wants: certificates and CRLs in memory, PEM files where a program wants them."""

from __future__ import annotations

import datetime as dt
import functools
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.kit.der import BIT_STRING, INTEGER, SEQUENCE, oid, tlv
from tests.kit.keys import KEY, KEYS, SHA256_ECDSA, hash_for, key_pem, signature

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DAY = dt.timedelta(days=1)
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CMC_RA = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")
RA_USAGES = (SERVER_AUTH, CMC_RA)


def name(text: str) -> x509.Name:
    """An RFC 4514 string as a Name."""
    return x509.Name.from_rfc4514_string(text)


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


@dataclass(frozen=True)
class Credential:
    """A key, its certificate, and the CA certificates to send along."""

    certificate: x509.Certificate
    key: Any
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def certificates(self) -> list[x509.Certificate]:
        return [self.certificate, *self.chain]

    @property
    def pem(self) -> bytes:
        return pem(self.certificate)

    @property
    def key_pem(self) -> bytes:
        return key_pem(self.key)

    @property
    def both(self) -> bytes:
        """Key and certificate, for programs that want them in one file."""
        return self.key_pem + self.pem

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """PEM files for certificates and key."""
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        certificate.write_bytes(pem(*self.certificates))
        key.write_bytes(self.key_pem)
        return certificate, key


class CA(Credential):
    """A credential that issues others; `chain` is what its clients have to send along."""

    def sign(
        self,
        subject: x509.Name,
        public_key: Any,
        extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
        **validity: Any,
    ) -> x509.Certificate:
        """A certificate with these extensions, each with whether it is critical, and no others."""
        return _sign(self.certificate.subject, self.key, subject, public_key, extensions, **validity)

    def issue(self, name: str, **wishes: Any) -> Credential:
        """A client's certificate; the wishes are those of `_profile` and `_sign`."""
        key, extensions, validity = _profile(self.key, **wishes)
        return Credential(self.sign(common_name(name), key.public_key(), extensions, **validity), key, self.chain)

    def server(self, name: str = "localhost", **wishes: Any) -> Credential:
        """A server's certificate, for localhost unless the wishes say otherwise."""
        return self.issue(name, **{"eku": (SERVER_AUTH,), "names": ("localhost", "127.0.0.1", "::1"), **wishes})

    def sub(self, name: str, **wishes: Any) -> CA:
        """A subordinate CA."""
        key, extensions, validity = _profile(self.key, is_ca=True, eku=None, **wishes)
        certificate = self.sign(common_name(name), key.public_key(), extensions, **validity)
        return CA(certificate, key, (certificate, *self.chain))

    def certify(self, der: bytes, **validity: Any) -> x509.Certificate:
        """What a simple CA makes of a CSR: its subject, extensions and key."""
        request = x509.load_der_x509_csr(der)
        extensions = [(extension.value, extension.critical) for extension in request.extensions]
        return self.sign(request.subject, request.public_key(), extensions, **validity)

    def vouch(self, other: CA, **validity: Any) -> x509.Certificate:
        """A CA certificate for another CA's key: a subordinate's, or with the same name a rollover's."""
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        return self.sign(other.certificate.subject, other.key.public_key(), [(constraints, True)], **validity)

    def crl(
        self, *revoked: Credential, starts: dt.datetime = NOW - DAY, ends: dt.datetime = NOW + DAY
    ) -> x509.CertificateRevocationList:
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(starts).next_update(ends)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        for credential in revoked:
            entry = x509.RevokedCertificateBuilder().revocation_date(starts)
            builder = builder.add_revoked_certificate(entry.serial_number(credential.certificate.serial_number).build())
        return builder.sign(self.key, hash_for(self.key))


def root(name: str = "Test CA", *, key: Any = None, **wishes: Any) -> CA:
    """A root CA."""
    key = key or KEYS["p256"]()
    key, extensions, validity = _profile(key, is_ca=True, eku=None, key=key, **wishes)
    own = common_name(name)
    return CA(_sign(own, key, own, key.public_key(), extensions, **validity), key)


@functools.cache
def holder(kind: str, name: str = "holder") -> CA:
    """A key of that kind and a self-signed certificate for it, made once."""
    return root(name, key=KEYS[kind]())


def certificate(
    ca: CA,
    subject: str | x509.Name = "CN=device-1",
    *extensions: x509.ExtensionType,
    key: Any = KEY,
    **wishes: Any,
) -> x509.Certificate:
    """A certificate of a CA with these extensions and no others."""
    subject = name(subject) if isinstance(subject, str) else subject
    return ca.sign(subject, key.public_key(), [(wanted, False) for wanted in extensions], **wishes)


def broken_certificate(ca: CA, subject: bytes, *extensions: bytes, version: int = 2) -> bytes:
    """A certificate as DER whose subject and extensions are taken as they are, correctly signed."""
    validity = tlv(SEQUENCE, tlv(0x17, b"250101000000Z"), tlv(0x17, b"491231235959Z"))
    spki = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
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
    return tlv(SEQUENCE, body, algorithm, tlv(BIT_STRING, b"\0", signature(ca.key, body, SHA256_ECDSA)))


def key_usage(is_ca: bool) -> x509.KeyUsage:
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


def _profile(
    signer: Any,
    *,
    is_ca: bool = False,
    eku: Any = (CLIENT_AUTH,),
    names: Sequence[str] = (),
    key: Any = None,
    padding: int = 0,
    **validity: Any,
) -> tuple[Any, list[tuple[x509.ExtensionType, bool]], dict[str, Any]]:
    """Key, extensions and validity of an ordinary certificate.

    `eku` None leaves the extension out, `names` are host names and addresses, `padding` is that many bytes of an
    extension that no program knows.
    """
    key = key or KEYS["p256"]()
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=is_ca, path_length=None), True),
        (key_usage(is_ca), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False),
    ]
    if eku:
        extensions.append((x509.ExtendedKeyUsage(eku), False))
    if names:
        extensions.append((x509.SubjectAlternativeName([_general_name(text) for text in names]), False))
    if padding:
        extensions.append((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.9900.1"), bytes(padding)), False))
    return key, extensions, validity


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _sign(
    issuer: x509.Name,
    key: Any,
    subject: x509.Name,
    public_key: Any,
    extensions: Iterable[tuple[x509.ExtensionType, bool]],
    *,
    serial: int | None = None,
    starts: dt.datetime = NOW - DAY,
    ends: dt.datetime = NOW + 30 * DAY,
) -> x509.Certificate:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key)
    builder = builder.serial_number(serial or x509.random_serial_number())
    builder = builder.not_valid_before(starts).not_valid_after(ends)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(key, hash_for(key))
