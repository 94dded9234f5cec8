"""A throw-away PKI: CAs, certificates and CRLs in memory, PEM files where a program wants them."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DAY = dt.timedelta(days=1)
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True)
class Credential:
    """A key, its certificate, and the CA certificates to send along."""

    certificate: x509.Certificate
    key: Any
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def certificates(self) -> list[x509.Certificate]:
        return [self.certificate, *self.chain]

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """PEM files for certificates and key."""
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        certificate.write_bytes(pem(self.certificates))
        key.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, key


class CA(Credential):
    """A credential that issues others; `chain` is what its clients have to send along."""

    def issue(self, name: str, **wishes: Any) -> Credential:
        certificate, key = build(name, issuer=self, **wishes)
        return Credential(certificate, key, self.chain)

    def sub(self, name: str, **wishes: Any) -> CA:
        certificate, key = build(name, issuer=self, is_ca=True, eku=None, **wishes)
        return CA(certificate, key, (certificate, *self.chain))

    def crl(self, *revoked: Credential, starts: dt.datetime = NOW - DAY, ends: dt.datetime = NOW + DAY):
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(starts).next_update(ends)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        for credential in revoked:
            entry = x509.RevokedCertificateBuilder().revocation_date(starts)
            builder = builder.add_revoked_certificate(entry.serial_number(credential.certificate.serial_number).build())
        return builder.sign(self.key, _hash(self.key))


def root(name: str, **wishes: Any) -> CA:
    certificate, key = build(name, issuer=None, is_ca=True, eku=None, **wishes)
    return CA(certificate, key)


def build(
    name: str,
    *,
    issuer: CA | None,
    is_ca: bool = False,
    eku: Any = (CLIENT_AUTH,),
    starts: dt.datetime = NOW - DAY,
    ends: dt.datetime = NOW + 30 * DAY,
    key: Any = None,
    padding: int = 0,
) -> tuple[x509.Certificate, Any]:
    """`eku` None leaves the extension out; `padding` is that many bytes of an extension nobody knows."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key())
    builder = builder.issuer_name(issuer.certificate.subject if issuer else subject)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(starts).not_valid_after(ends)
    signer = issuer.key if issuer else key
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=is_ca, path_length=None), True),
        (_key_usage(is_ca), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False),
    ]
    if eku:
        extensions.append((x509.ExtendedKeyUsage(eku), False))
    if eku and SERVER_AUTH in eku:
        addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
        extensions.append((x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses]), False))
    if padding:
        extensions.append((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.9900.1"), bytes(padding)), False))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer, _hash(signer)), key


def _key_usage(is_ca: bool) -> x509.KeyUsage:
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


def pem(certificates: list[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _hash(key: Any) -> hashes.SHA256 | None:
    return hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) else None
