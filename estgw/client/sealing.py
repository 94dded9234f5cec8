"""How a key from the server is to be encrypted on its way, and how we are going to open it (RFC 7030 4.4.1)."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from estgw.client import cms, files, options
from estgw.client.faults import UsageError, clean
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
    """How the key is to be encrypted, and how we will open it; both None: TLS is enough."""

    key_id: bytes = b""
    key: bytes | None = field(default=None, repr=False)
    certificate: Path | None = None
    certificate_key: Path | None = None
    capabilities: tuple[bytes, ...] = ()

    @property
    def is_wanted(self) -> bool:
        """Whether the key must not come in the clear."""
        return self.key is not None or self.certificate is not None

    @property
    def attributes(self) -> tuple[AttributeWish, ...]:
        """What the CSR says about it (RFC 7030 4.4.1)."""
        if not self.is_wanted:
            return ()
        oid = DECRYPT_KEY_ID if self.key is not None else ASYMMETRIC_DECRYPT_KEY_ID
        return (
            AttributeWish(oid, (wrap(b"\x04", self.key_id),)),
            AttributeWish(SMIME_CAPABILITIES, (wrap(SEQUENCE, b"".join(self.capabilities)),)),
        )


def wanted(arguments: argparse.Namespace) -> Secret:
    """The `--decrypt-...` options; raises `UsageError`."""
    if arguments.decrypt_key is not None and arguments.decrypt_cert is not None:
        raise UsageError("--decrypt-key or --decrypt-cert, not both")
    given = _key_id(arguments.decrypt_key_id)
    if arguments.decrypt_key is not None:
        if given is None:
            raise UsageError("--decrypt-key needs --decrypt-key-id, the key's name on the server")
        key = _shared_key(arguments.decrypt_key)
        return Secret(given, key=key, capabilities=_capabilities(cms.WRAPS[len(key)], *_CONTENT_CIPHERS))
    if arguments.decrypt_cert is not None:
        if arguments.decrypt_cert_key is None:
            raise UsageError("--decrypt-cert needs --decrypt-cert-key")
        certificate = options.certificates(arguments.decrypt_cert)[0]
        return Secret(
            given or _subject_key_id(certificate),
            certificate=arguments.decrypt_cert,
            certificate_key=arguments.decrypt_cert_key,
            capabilities=_recipient_capabilities(certificate),
        )
    if given is not None or arguments.decrypt_cert_key is not None:
        raise UsageError("--decrypt-key-id and --decrypt-cert-key need --decrypt-key or --decrypt-cert")
    return Secret()


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
    """RSAES-OAEP with SHA-256, and with SHA-1, which is its default and means empty parameters (RFC 3560)."""
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


def _key_id(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        value = bytes.fromhex(text[2:]) if text.lower().startswith("0x") else text.encode()
    except ValueError:
        raise UsageError(f"--decrypt-key-id: {clean(text, 100)!r} is not hex") from None
    if not value:
        raise UsageError("--decrypt-key-id is empty")
    return value


def _shared_key(path: Path) -> bytes:
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
