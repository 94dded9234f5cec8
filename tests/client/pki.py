"""Throw-away CAs and certificates for the client's tests."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from estgw.est import certs

DAY = dt.timedelta(days=1)


def name(text: str) -> x509.Name:
    return x509.Name.from_rfc4514_string(f"CN={text}")


@dataclass(frozen=True)
class Holder:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @cached_property
    def both(self) -> bytes:
        return self.key_pem + self.pem


class CA(Holder):
    """A CA that signs whatever a test wants."""

    def sign(self, builder, public_key, *, start=-1, days=30):
        now = dt.datetime.now(dt.UTC)
        return (
            builder.issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + start * DAY)
            .not_valid_after(now + days * DAY)
            .sign(self.key, hashes.SHA256())
        )

    def issue(self, common_name, *, dns=(), ips=(), usages=(ExtendedKeyUsageOID.SERVER_AUTH,), start=-1, days=30):
        key = ec.generate_private_key(ec.SECP256R1())
        builder = x509.CertificateBuilder().subject_name(name(common_name))
        san = [x509.DNSName(one) for one in dns] + [x509.IPAddress(ipaddress.ip_address(one)) for one in ips]
        if san:
            builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        return Holder(self.sign(builder, key.public_key(), start=start, days=days), key)

    def certify(self, der, *, days=30):
        """What a simple CA makes of a CSR: its subject, SAN and key."""
        request = x509.load_der_x509_csr(der)
        builder = x509.CertificateBuilder().subject_name(request.subject)
        for extension in request.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        return self.sign(builder, request.public_key(), days=days)

    def vouch(self, other, *, subject=None, days=30):
        """A CA certificate for another CA's key: a subordinate's, or with our own name a rollover's."""
        builder = x509.CertificateBuilder().subject_name(subject or other.certificate.subject)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return self.sign(builder, other.key.public_key(), days=days)


def make_ca(common_name="Test CA", *, start=-1, days=300):
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name(common_name))
        .issuer_name(name(common_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start * DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return CA(certificate, key)


RA_USAGES = (ExtendedKeyUsageOID.SERVER_AUTH, certs.CMC_RA)
