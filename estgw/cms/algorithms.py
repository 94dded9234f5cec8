"""AlgorithmIdentifiers and their digests, MACs and signatures.

An algorithm that the tables lack is refused with `BadAlgorithm`.  So are SHA-1 and MD5 in signatures.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa

from estgw.cms.faults import BadAlgorithm, BadSignature
from estgw.cms.fields import A_NULL, Fields, context, inside, oid, read_integer, sequence
from estgw.errors import Malformed
from estgw.est import oids
from estgw.est.der import SEQUENCE

PrivateKey: TypeAlias = (
    "rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey"
    " | mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey"
)
"""The kinds of key that `sign` accepts."""

SHA1, SHA256 = "1.3.14.3.2.26", "2.16.840.1.101.3.4.2.1"
SHA384, SHA512 = "2.16.840.1.101.3.4.2.2", "2.16.840.1.101.3.4.2.3"
HMAC_SHA1, HMAC_SHA256 = "1.3.6.1.5.5.8.1.2", "1.2.840.113549.2.9"
HMAC_SHA384, HMAC_SHA512 = "1.2.840.113549.2.10", "1.2.840.113549.2.11"
RSA, RSA_PSS, MGF1 = "1.2.840.113549.1.1.1", "1.2.840.113549.1.1.10", "1.2.840.113549.1.1.8"
ED25519 = "1.3.101.112"
NO_SIGNATURE = "1.3.6.1.5.5.7.6.2"
"""id-alg-noSignature (RFC 5272 appendix C.1): a digest in place of a signature."""

DIGESTS: Mapping[str, str] = {SHA1: "sha1", SHA256: "sha256", SHA384: "sha384", SHA512: "sha512"}
"""hashlib's names by OID.  SHA-1 is for identity proofs and thumbprints (RFC 5272), never for signatures."""
MACS: Mapping[str, str] = {
    HMAC_SHA1: "sha1", "1.2.840.113549.2.7": "sha1", HMAC_SHA256: "sha256", HMAC_SHA384: "sha384",
    HMAC_SHA512: "sha512",
}  # fmt: skip
_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    SHA256: hashes.SHA256(), SHA384: hashes.SHA384(), SHA512: hashes.SHA512(),
}  # fmt: skip
_RSA = {"1.2.840.113549.1.1.11": SHA256, "1.2.840.113549.1.1.12": SHA384, "1.2.840.113549.1.1.13": SHA512}
_ECDSA = {"1.2.840.10045.4.3.2": SHA256, "1.2.840.10045.4.3.3": SHA384, "1.2.840.10045.4.3.4": SHA512}
_ML_DSA: Mapping[str, Any] = {
    "2.16.840.1.101.3.4.3.17": mldsa.MLDSA44PublicKey,
    "2.16.840.1.101.3.4.3.18": mldsa.MLDSA65PublicKey,
    "2.16.840.1.101.3.4.3.19": mldsa.MLDSA87PublicKey,
}
_NAMES: Mapping[str, str] = {
    SHA1: "SHA-1", SHA256: "SHA-256", SHA384: "SHA-384", SHA512: "SHA-512",
    "1.2.840.113549.2.5": "MD5", "1.2.840.113549.1.1.4": "md5WithRSAEncryption",
    "1.2.840.113549.1.1.5": "sha1WithRSAEncryption", "1.2.840.10045.4.1": "ecdsa-with-SHA1",
    "1.2.840.10040.4.3": "dsa-with-SHA1", "1.2.840.113549.1.1.7": "rsaesOaep", MGF1: "mgf1",
    HMAC_SHA1: "HMAC-SHA1", "1.2.840.113549.2.7": "HMAC-SHA1", HMAC_SHA256: "HMAC-SHA256",
    HMAC_SHA384: "HMAC-SHA384", HMAC_SHA512: "HMAC-SHA512", NO_SIGNATURE: "noSignature",
    "2.16.840.1.101.3.4.1.2": "aes128-CBC", "2.16.840.1.101.3.4.1.22": "aes192-CBC",
    "2.16.840.1.101.3.4.1.42": "aes256-CBC", "2.16.840.1.101.3.4.1.5": "aes128-wrap",
    "2.16.840.1.101.3.4.1.25": "aes192-wrap", "2.16.840.1.101.3.4.1.45": "aes256-wrap",
    "1.3.132.1.11.1": "dhSinglePass-stdDH-sha256kdf", "1.3.132.1.11.2": "dhSinglePass-stdDH-sha384kdf",
    "1.3.132.1.11.3": "dhSinglePass-stdDH-sha512kdf", "1.2.840.113549.3.7": "des-ede3-CBC",
}  # fmt: skip


@dataclass(frozen=True)
class Algorithm:
    """AlgorithmIdentifier (RFC 5280 4.1.1.2): an OID, and the DER of its parameters or None."""

    oid: str
    parameters: bytes | None = None

    def encode(self) -> bytes:
        """Return the DER."""
        return sequence(oid(self.oid), self.parameters or b"")

    @classmethod
    def decode(cls, der: bytes, what: str = "an AlgorithmIdentifier") -> Algorithm:
        """Return the algorithm from DER.  Raises `Malformed`."""
        fields = Fields(der, what)
        name = fields.oid("algorithm")
        parameters = fields.take("parameters") if fields.left else None
        fields.end()
        return cls(name, parameters)

    @classmethod
    def take(cls, fields: Fields, name: str) -> Algorithm:
        """Return the algorithm in the next field of a structure.  Raises `Malformed`."""
        return cls.decode(fields.take(name, SEQUENCE), fields.of(name))

    @property
    def name(self) -> str:
        """A name for people, or the dotted OID."""
        return _NAMES.get(self.oid) or oids.name_of(self.oid)


def digest(algorithm: Algorithm, data: bytes) -> bytes:
    """Return the digest of some data.  Raises `BadAlgorithm`."""
    if algorithm.oid not in DIGESTS:
        raise BadAlgorithm(f"the digest {algorithm.name} is not taken")
    return hashlib.new(DIGESTS[algorithm.oid], data).digest()


def mac(algorithm: Algorithm, key: bytes, data: bytes) -> bytes:
    """Return the HMAC of some data.  Raises `BadAlgorithm`."""
    if algorithm.oid not in MACS:
        raise BadAlgorithm(f"the MAC {algorithm.name} is not taken")
    return hmac.digest(key, data, MACS[algorithm.oid])


def digest_for(public: Any) -> Algorithm:
    """Return the digest to use with a key in CMS (RFC 5754, RFC 8419 3.1, RFC 9882 3.3).  Raises `BadAlgorithm`."""
    match public:
        case rsa.RSAPublicKey():
            return Algorithm(SHA256)
        case ec.EllipticCurvePublicKey():
            return Algorithm(SHA256 if public.key_size <= 256 else SHA384)
        case (
            ed25519.Ed25519PublicKey() | mldsa.MLDSA44PublicKey() | mldsa.MLDSA65PublicKey() | mldsa.MLDSA87PublicKey()
        ):
            return Algorithm(SHA512)
    raise BadAlgorithm(f"a key of kind {_kind(public)} does not sign here")


def signature_for(public: Any) -> Algorithm:
    """Return the signature algorithm to use with a key.  Raises `BadAlgorithm`."""
    used = digest_for(public).oid
    match public:
        case rsa.RSAPublicKey():
            return Algorithm(next(name for name, hashed in _RSA.items() if hashed == used), A_NULL)
        case ec.EllipticCurvePublicKey():
            return Algorithm(next(name for name, hashed in _ECDSA.items() if hashed == used))
        case ed25519.Ed25519PublicKey():
            return Algorithm(ED25519)
    return Algorithm(next(name for name, kind in _ML_DSA.items() if isinstance(public, kind)))


def sign(key: PrivateKey, data: bytes) -> bytes:
    """Return a signature by the algorithm `signature_for(key.public_key())`.

    Raises `BadAlgorithm` for other kinds of key.
    """
    used = _HASHES[digest_for(key.public_key()).oid]
    match key:
        case rsa.RSAPrivateKey():
            return key.sign(data, padding.PKCS1v15(), used)
        case ec.EllipticCurvePrivateKey():
            return key.sign(data, ec.ECDSA(used))
    return key.sign(data)


def verify(public: Any, algorithm: Algorithm, signature: bytes, data: bytes, digest_oid: str = "") -> None:
    """Check a signature with a public key.  Raises `BadAlgorithm` or `BadSignature`.

    CMS may name the key's algorithm alone, rsaEncryption.  Then `digest_oid` gives the digest, from the SignerInfo
    (RFC 3370 3.2).
    """
    name = algorithm.oid
    try:
        match public:
            case rsa.RSAPublicKey() if name == RSA_PSS:
                used, salt = _pss(algorithm)
                public.verify(signature, data, padding.PSS(padding.MGF1(used), salt), used)
            case rsa.RSAPublicKey() if name in _RSA or (name == RSA and digest_oid in _HASHES):
                public.verify(signature, data, padding.PKCS1v15(), _HASHES[_RSA.get(name, digest_oid)])
            case ec.EllipticCurvePublicKey() if name in _ECDSA:
                public.verify(signature, data, ec.ECDSA(_HASHES[_ECDSA[name]]))
            case ed25519.Ed25519PublicKey() if name == ED25519:
                public.verify(signature, data)
            case _ if name in _ML_DSA and isinstance(public, _ML_DSA[name]):
                public.verify(signature, data)
            case _:
                raise BadAlgorithm(f"a signature by {algorithm.name} with a key of kind {_kind(public)} is not taken")
    except InvalidSignature:
        raise BadSignature("the signature does not fit the key") from None
    except (UnsupportedAlgorithm, ValueError) as fault:
        if isinstance(fault, Malformed):
            raise
        raise BadSignature("the signature can't be checked with this key") from None


def require_strong(algorithm: Algorithm) -> None:
    """Raise `BadAlgorithm` for a digest that is too weak or unknown for signatures."""
    if algorithm.oid not in _HASHES:
        raise BadAlgorithm(f"a signature on a digest by {algorithm.name} is not taken; use SHA-256")


def _kind(public: Any) -> str:
    return type(public).__name__.removesuffix("PublicKey")


_PSS_HASH, _PSS_MASK, _PSS_SALT = context(0), context(1), context(2)


def _pss(algorithm: Algorithm) -> tuple[hashes.HashAlgorithm, int]:
    """The hash and the salt's octets in RSASSA-PSS-params (RFC 4055 3.1).  The defaults, SHA-1, are refused."""
    fields = Fields(algorithm.parameters or b"", "RSASSA-PSS parameters")
    hashed, masked, salt = fields.maybe(_PSS_HASH), fields.maybe(_PSS_MASK), fields.maybe(_PSS_SALT)
    if hashed is None or masked is None or salt is None:
        raise BadAlgorithm("a signature by RSASSA-PSS with SHA-1 is not taken; use SHA-256")
    fields.end()
    used = Algorithm.decode(inside(hashed, "the hash of RSASSA-PSS", SEQUENCE))
    mask = Algorithm.decode(inside(masked, "the mask of RSASSA-PSS", SEQUENCE))
    require_strong(used)
    if mask.oid != MGF1 or Algorithm.decode(mask.parameters or b"").oid != used.oid:
        raise BadAlgorithm("a signature by RSASSA-PSS whose mask has another hash is not taken")
    length = read_integer(inside(salt, "the salt of RSASSA-PSS"), "the salt's length")
    if not 0 <= length <= 512:
        raise Malformed(f"a salt of {length} octets")
    return _HASHES[used.oid], length
