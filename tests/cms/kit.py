"""Keys of every kind with a certificate each, the openssl command, and pyasn1 as a second opinion on ASN.1."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pyasn1.codec.der.decoder import decode as read_asn1
from pyasn1.codec.der.encoder import encode as write_asn1

from tests.tls.pki import DAY, NOW, Credential

KEYS = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ml-dsa-44": mldsa.MLDSA44PrivateKey.generate,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
    "ml-dsa-87": mldsa.MLDSA87PrivateKey.generate,
}
OPENSSL_SIGNS = ["rsa", "p256", "p384", "p521"]
OPENSSL_DECRYPTS = ["rsa", "p256", "p384", "p521"]


@functools.cache
def holder(kind: str, name: str = "holder") -> Credential:
    """A key of that kind and a self-signed certificate for it."""
    key: Any = KEYS[kind]()
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(named).issuer_name(named).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    is_prehashed = isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey))
    return Credential(builder.sign(key, hashes.SHA256() if is_prehashed else None), key)


def files(directory: Path, kind: str) -> list[str]:
    """Names of PEM files with certificate and key."""
    credential = holder(kind)
    certificate, key = directory / f"{kind}.crt", directory / f"{kind}.key"
    certificate.write_bytes(credential.certificate.public_bytes(Encoding.PEM))
    key.write_bytes(credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return [str(certificate), str(key)]


def openssl(arguments: Sequence[str], data: bytes) -> bytes:
    """What `openssl cms` makes of some bytes, DER in and out."""
    done = subprocess.run(["openssl", "cms", "-binary", *arguments], input=data, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def reads(der: bytes, kind: Any) -> Any:
    """pyasn1's opinion of some DER: it takes it, to the last byte, and would write the very same."""
    found, rest = read_asn1(der, asn1Spec=kind)
    assert rest == b""
    assert write_asn1(found).hex() == der.hex()
    return found
