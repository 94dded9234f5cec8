"""Private keys: making, loading, storing, and signing with them.

There is no DSA, and RSA starts at 2048 bits, since no CA takes less.  ML-DSA follows RFC 9881.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from estgw.client.faults import ClientError, UsageError, clean
from estgw.est import certs
from estgw.est.csrattrs import EC_PUBLIC_KEY, RSA_ENCRYPTION, KeyWish, encode_oid
from estgw.est.der import SEQUENCE, wrap

DEFAULT = "ec:P-256"
FORMS = "ec:P-256, ec:P-384, ec:P-521, rsa:3072 (2048 to 16384), ed25519, ed448, ml-dsa-44, ml-dsa-65 or ml-dsa-87"

_CURVES: dict[str, tuple[ec.EllipticCurve, str, str]] = {
    "P-256": (ec.SECP256R1(), "1.2.840.10045.3.1.7", "SHA-256"),
    "P-384": (ec.SECP384R1(), "1.3.132.0.34", "SHA-384"),
    "P-521": (ec.SECP521R1(), "1.3.132.0.35", "SHA-512"),
}
_PlainKey: TypeAlias = (
    ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | mldsa.MLDSA44PrivateKey
    | mldsa.MLDSA65PrivateKey
    | mldsa.MLDSA87PrivateKey
)
_PLAIN = {
    "ed25519": "1.3.101.112",
    "ed448": "1.3.101.113",
    "ml-dsa-44": "2.16.840.1.101.3.4.3.17",
    "ml-dsa-65": "2.16.840.1.101.3.4.3.18",
    "ml-dsa-87": "2.16.840.1.101.3.4.3.19",
}
"""Kinds whose OID names key and signature at once, without parameters."""
_PLAIN_TYPES: dict[str, type[_PlainKey]] = {
    "ed25519": ed25519.Ed25519PrivateKey,
    "ed448": ed448.Ed448PrivateKey,
    "ml-dsa-44": mldsa.MLDSA44PrivateKey,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey,
    "ml-dsa-87": mldsa.MLDSA87PrivateKey,
}
_HASHES: dict[str, tuple[hashes.SHA256 | hashes.SHA384 | hashes.SHA512, str, str]] = {
    "SHA-256": (hashes.SHA256(), "1.2.840.10045.4.3.2", "1.2.840.113549.1.1.11"),
    "SHA-384": (hashes.SHA384(), "1.2.840.10045.4.3.3", "1.2.840.113549.1.1.12"),
    "SHA-512": (hashes.SHA512(), "1.2.840.10045.4.3.4", "1.2.840.113549.1.1.13"),
}
"""Hash, then the OIDs of ECDSA and of RSA PKCS#1 v1.5 with it (RFC 5758, RFC 4055)."""
HASH_OIDS = {
    "2.16.840.1.101.3.4.2.1": "SHA-256",
    "2.16.840.1.101.3.4.2.2": "SHA-384",
    "2.16.840.1.101.3.4.2.3": "SHA-512",
} | {oid: name for name, (_, ecdsa, pkcs1) in _HASHES.items() for oid in (ecdsa, pkcs1)}
"""OIDs in CSR attributes that ask for a hash, with or without the signature around it."""
KEY_OIDS = (EC_PUBLIC_KEY, RSA_ENCRYPTION, *_PLAIN.values())
_NULL = b"\x05\x00"
_MINIMUM_BITS, _MAXIMUM_BITS = 2048, 16384


@dataclass(frozen=True)
class KeySpec:
    """A kind of key: `kind` is `ec`, `rsa`, or the whole name of another kind; `detail` is a curve or a size."""

    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.detail}" if self.detail else self.kind


def parse_spec(text: str) -> KeySpec:
    """Read `--new-key`; raises `UsageError`."""
    kind, _, detail = text.strip().partition(":")
    kind = kind.lower()
    if kind == "ec":
        curve = detail.upper() if detail.upper().startswith("P-") else f"P-{detail}"
        if curve in _CURVES:
            return KeySpec(kind, curve)
    elif kind == "rsa" and detail.isascii() and detail.isdigit() and len(detail) < 6:
        if _MINIMUM_BITS <= int(detail) <= _MAXIMUM_BITS:
            return KeySpec(kind, detail)
    elif kind in _PLAIN and not detail:
        return KeySpec(kind)
    raise UsageError(f"no kind of key: {clean(text, 100)!r}; there are {FORMS}")


def wished(wish: KeyWish) -> KeySpec | None:
    """The kind of key that a server asks for; None for a kind that can't be made here.

    A bare algorithm gets a default curve or size.  Raises `Malformed` for parameters that can't be read.
    """
    if wish.oid == EC_PUBLIC_KEY:
        if wish.parameters is None:
            return KeySpec("ec", "P-256")
        found = [name for name, (_, oid, _) in _CURVES.items() if oid == wish.curve]
        return KeySpec("ec", found[0]) if found else None
    if wish.oid == RSA_ENCRYPTION:
        bits = wish.bits or 3072
        return KeySpec("rsa", str(bits)) if _MINIMUM_BITS <= bits <= _MAXIMUM_BITS else None
    return next((KeySpec(kind) for kind, oid in _PLAIN.items() if oid == wish.oid), None)


def spec_of(key: PrivateKeyTypes) -> KeySpec:
    """The kind of a key; raises `UsageError` for one that can't sign a CSR."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        found = [name for name, (curve, _, _) in _CURVES.items() if curve.name == key.curve.name]
        if found:
            return KeySpec("ec", found[0])
    elif isinstance(key, rsa.RSAPrivateKey):
        return KeySpec("rsa", str(key.key_size))
    for kind, plain in _PLAIN_TYPES.items():
        if isinstance(key, plain):
            return KeySpec(kind)
    raise UsageError(f"a key that can't be used here; there are {FORMS}")


def generate(spec: KeySpec) -> PrivateKeyTypes:
    """Make a key."""
    if spec.kind == "ec":
        return ec.generate_private_key(_CURVES[spec.detail][0])
    if spec.kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=int(spec.detail))
    try:
        made: PrivateKeyTypes = _PLAIN_TYPES[spec.kind].generate()
    except UnsupportedAlgorithm:
        raise ClientError(f"this OpenSSL can't make {spec} keys") from None
    return made


def load(data: bytes, ask: Callable[[], bytes] | None = None) -> PrivateKeyTypes:
    """A private key from PEM or DER; `ask` gets the password of an encrypted one.  Raises `UsageError`."""
    loader = serialization.load_pem_private_key if b"-----BEGIN" in data else serialization.load_der_private_key
    try:
        return loader(data, password=None)
    except TypeError:
        password = ask() if ask is not None else b""
    except certs.UNREADABLE:
        # The library's own words are left out: they might quote key material.
        raise UsageError("not a private key, or of a kind that can't be read") from None
    if not password:
        raise UsageError("the private key is encrypted, and there is no terminal to ask for its password")
    try:
        return loader(data, password=password)
    except certs.UNREADABLE:
        raise UsageError("the private key can't be read: is the password right?") from None


def to_pem(key: PrivateKeyTypes) -> bytes:
    """Unencrypted PKCS#8 in PEM; the mode of the file protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def spki(key: PrivateKeyTypes) -> bytes:
    """The SubjectPublicKeyInfo of a private key, DER."""
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def sign(key: PrivateKeyTypes, data: bytes, hash_name: str | None = None) -> tuple[bytes, bytes]:
    """AlgorithmIdentifier (DER) and signature.

    `hash_name` is the hash that the server asks for; without one, an EC key takes the hash of its size and RSA takes
    SHA-256.  Kinds with a fixed hash ignore it.
    """
    spec = spec_of(key)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm, ecdsa, _ = _HASHES[hash_name or _CURVES[spec.detail][2]]
        return wrap(SEQUENCE, encode_oid(ecdsa)), key.sign(data, ec.ECDSA(algorithm))
    if isinstance(key, rsa.RSAPrivateKey):
        algorithm, _, pkcs1 = _HASHES[hash_name or "SHA-256"]
        return wrap(SEQUENCE, encode_oid(pkcs1) + _NULL), key.sign(data, padding.PKCS1v15(), algorithm)
    plain: Callable[[bytes], bytes] = key.sign  # type: ignore[union-attr, assignment]  # spec_of has refused the others
    return wrap(SEQUENCE, encode_oid(_PLAIN[spec.kind])), plain(data)
