"""Keys: one for all tests that are not about keys, and one of every kind."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

KEY = ec.generate_private_key(ec.SECP256R1())
"""One key for all tests that are not about keys."""
OTHER = ec.generate_private_key(ec.SECP256R1())

KEYS: dict[str, Callable[[], Any]] = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ml-dsa-44": mldsa.MLDSA44PrivateKey.generate,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
    "ml-dsa-87": mldsa.MLDSA87PrivateKey.generate,
}
"""How to make a key of each kind."""

SHA256_ECDSA, SHA1_ECDSA = "1.2.840.10045.4.3.2", "1.2.840.10045.4.1"
SHA256_RSA, SHA1_RSA, MD5_RSA = "1.2.840.113549.1.1.11", "1.2.840.113549.1.1.5", "1.2.840.113549.1.1.4"
SHA256_DSA, ED25519, ED448 = "2.16.840.1.101.3.4.3.2", "1.3.101.112", "1.3.101.113"
_HASHES: dict[str, hashes.HashAlgorithm] = {
    SHA256_ECDSA: hashes.SHA256(),
    SHA1_ECDSA: hashes.SHA1(),
    SHA256_RSA: hashes.SHA256(),
    SHA1_RSA: hashes.SHA1(),
    MD5_RSA: hashes.MD5(),
    SHA256_DSA: hashes.SHA256(),
}
_ALGORITHMS: dict[type, str] = {
    ec.EllipticCurvePrivateKey: SHA256_ECDSA,
    rsa.RSAPrivateKey: SHA256_RSA,
    dsa.DSAPrivateKey: SHA256_DSA,
    ed25519.Ed25519PrivateKey: ED25519,
    ed448.Ed448PrivateKey: ED448,
    mldsa.MLDSA44PrivateKey: "2.16.840.1.101.3.4.3.17",
    mldsa.MLDSA65PrivateKey: "2.16.840.1.101.3.4.3.18",
    mldsa.MLDSA87PrivateKey: "2.16.840.1.101.3.4.3.19",
}


@functools.cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """An RSA key, made once."""
    return rsa.generate_private_key(65537, bits)


def key_pem(key: Any = KEY, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    text: bytes = key.private_bytes(Encoding.PEM, form, NoEncryption())
    return text


KEY_PEM = key_pem()


def hash_for(key: Any) -> hashes.SHA256 | None:
    """What the library wants to be told: the kinds that hash on their own take None."""
    return hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) else None


def algorithm_of(key: Any) -> str:
    """The OID of the signature algorithm that a key uses unless a test says otherwise."""
    return next(algorithm for kind, algorithm in _ALGORITHMS.items() if isinstance(key, kind))


def signature(key: Any, body: bytes, algorithm: str) -> bytes:
    made: bytes
    match key:
        case ec.EllipticCurvePrivateKey():
            made = key.sign(body, ec.ECDSA(_HASHES[algorithm]))
        case rsa.RSAPrivateKey():
            made = key.sign(body, padding.PKCS1v15(), _HASHES[algorithm])
        case dsa.DSAPrivateKey():
            made = key.sign(body, _HASHES[algorithm])
        case _:
            made = key.sign(body)
    return made
