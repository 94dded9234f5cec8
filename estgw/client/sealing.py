"""Encryption of a key that the server makes: the attributes that ask for it, and the keys for it (RFC 7030 4.4.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from estgw.client import cms, files
from estgw.client.faults import UsageError
from estgw.cms.identifiers import key_id_of, key_of, subject_key_id
from estgw.errors import Malformed
from estgw.est import csrattrs
from estgw.est.csrattrs import AttributeWish
from estgw.est.der import SEQUENCE, wrap
from estgw.est.keygen import ASYMMETRIC_DECRYPT_KEY_ID, DECRYPT_KEY_ID, SMIME_CAPABILITIES

_CONTENT_CIPHERS = ("2.16.840.1.101.3.4.1.42", "2.16.840.1.101.3.4.1.2")  # AES-256-CBC, AES-128-CBC
_OAEP, _MGF1, _SHA256 = "1.2.840.113549.1.1.7", "1.2.840.113549.1.1.8", "2.16.840.1.101.3.4.2.1"
_EC_AGREEMENT = "1.3.132.1.11.1"  # dhSinglePass-stdDH-sha256kdf-scheme: RFC 5753
_NULL = b"\x05\x00"


@dataclass(frozen=True)
class Secret:
    """A shared key or a certificate that the private key is encrypted to; with neither, TLS is enough."""

    key_id: bytes = b""
    key: bytes | None = field(default=None, repr=False)
    certificate: Path | None = None
    certificate_key: Path | None = None
    capabilities: tuple[bytes, ...] = ()

    @classmethod
    def shared(cls, key: bytes, key_id: bytes) -> Self:
        """An AES key that the server knows under this identifier."""
        return cls(key_id, key=key, capabilities=_capabilities(cms.WRAPS[len(key)], *_CONTENT_CIPHERS))

    @classmethod
    def of_recipient(cls, certificate: Path, key: Path, key_id: bytes | None = None) -> Self:
        """A certificate to encrypt to, and the file of its key; raises `UsageError`."""
        recipient = files.certificates(certificate)[0]
        return cls(
            key_id or _subject_key_id(recipient),
            certificate=certificate,
            certificate_key=key,
            capabilities=_recipient_capabilities(recipient),
        )

    @property
    def is_wanted(self) -> bool:
        """Whether the private key must come encrypted."""
        return self.key is not None or self.certificate is not None

    @property
    def attributes(self) -> tuple[AttributeWish, ...]:
        """The attributes of the CSR that ask for it (RFC 7030 4.4.1)."""
        if not self.is_wanted:
            return ()
        oid = DECRYPT_KEY_ID if self.key is not None else ASYMMETRIC_DECRYPT_KEY_ID
        return (
            AttributeWish(oid, (wrap(b"\x04", self.key_id),)),
            AttributeWish(SMIME_CAPABILITIES, (wrap(SEQUENCE, b"".join(self.capabilities)),)),
        )


def _recipient_capabilities(certificate: x509.Certificate) -> tuple[bytes, ...]:
    match _public_key(certificate):
        case rsa.RSAPublicKey():
            return (*_oaep(), *_capabilities(csrattrs.RSA_ENCRYPTION, *_CONTENT_CIPHERS))
        case ec.EllipticCurvePublicKey():
            wrapping = wrap(SEQUENCE, csrattrs.encode_oid(cms.WRAPS[32]))
            agreement = wrap(SEQUENCE, csrattrs.encode_oid(_EC_AGREEMENT) + wrapping)
            return (agreement, *_capabilities(*cms.WRAPS.values(), *_CONTENT_CIPHERS))
    raise UsageError("--decrypt-cert has to be for an RSA or EC key")


def _oaep() -> tuple[bytes, bytes]:
    """RSAES-OAEP with SHA-256, and with SHA-1: the default, which has empty parameters (RFC 3560)."""
    identifier = csrattrs.encode_oid(_OAEP)
    sha256 = wrap(SEQUENCE, csrattrs.encode_oid(_SHA256) + _NULL)
    mask = wrap(SEQUENCE, csrattrs.encode_oid(_MGF1) + sha256)
    parameters = wrap(SEQUENCE, wrap(b"\xa0", sha256) + wrap(b"\xa1", mask))
    return wrap(SEQUENCE, identifier + parameters), wrap(SEQUENCE, identifier + wrap(SEQUENCE, b""))


def _capabilities(*oids: str) -> tuple[bytes, ...]:
    """SMIMECapability values; RFC 8551 2.5.2 wants a NULL with rsaEncryption alone."""
    return tuple(
        wrap(SEQUENCE, csrattrs.encode_oid(oid) + (_NULL if oid == csrattrs.RSA_ENCRYPTION else b"")) for oid in oids
    )


def read_key(path: Path) -> bytes:
    """A shared AES key, in hex or as it is; raises `UsageError`."""
    data = files.read(path)
    try:
        key = bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        key = data
    if len(key) not in cms.WRAPS:
        raise UsageError(f"{path}: an AES key has 16, 24 or 32 bytes (or as many hex pairs)")
    return key


def _subject_key_id(certificate: x509.Certificate) -> bytes:
    """The certificate's own identifier, else RFC 5280 4.2.1.2's first method."""
    return subject_key_id(certificate) or key_id_of(_public_key(certificate))


def _public_key(certificate: x509.Certificate) -> Any:
    try:
        return key_of(certificate)
    except Malformed as fault:
        raise UsageError(f"--decrypt-cert has {fault}") from None
