"""A CA's key in an HSM: `private/cakey.uri` has its PKCS#11 URI (RFC 7512), in place of cakey.pem.

A key is found by token and object; `module-path` is the vendor's library, `pin-source` a file with the PIN (0600):

    pkcs11:token=est;object=ca?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/srv/est/hsm-pin

A library of PKCS#11 must be opened in the process that uses it, so keys are kept by process.  `python-pkcs11` is in the
extra `estgw[hsm]`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, unquote_to_bytes

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from estgw.errors import Malformed
from estgw.est import certs
from estgw.register.engine import RegisterBusy, RegisterUnfit

FILE = "private/cakey.uri"
MODULE, PIN = "module-path", "pin-source"
_PATH = {"token": "token_label", "serial": "token_serial", "object": "label", "id": "id", "type": ""}
"""Attributes that are understood, and what python-pkcs11 calls them."""
FINAL = ("PinIncorrect", "PinLocked", "PinExpired", "NoSuchKey", "KeyFunctionNotPermitted", "MechanismInvalid")
"""Faults that a person must mend, by python-pkcs11's names: to ask again could lock the token."""


def is_used(folder: Path) -> bool:
    """Whether the key of the CA in this directory is in an HSM."""
    return (folder / FILE).exists()


@dataclass(frozen=True)
class URI:
    """Where a key is."""

    module: str
    pin_file: Path
    token: Mapping[str, str | bytes]
    key: Mapping[str, str | bytes]

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read the file; raises `RegisterUnfit` with what to change."""
        try:
            text = file.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as fault:
            raise RegisterUnfit(f"{file}: {fault}") from None
        path, _, query = text.partition("?")
        if not path.startswith("pkcs11:") or re.search(r"\s", text):
            raise RegisterUnfit(f"{file}: it must have one URI that begins with pkcs11: (RFC 7512)")
        found = dict(part.partition("=")[::2] for part in [*path[7:].split(";"), *query.split("&")] if part)
        if unknown := sorted(found.keys() - _PATH.keys() - {MODULE, PIN}):
            raise RegisterUnfit(f"{file}: {unknown[0]} is not understood; there are {', '.join([*_PATH, MODULE, PIN])}")
        if missing := [key for key in (MODULE, PIN) if not found.get(key, "").startswith("/")]:
            raise RegisterUnfit(f"{file}: it lacks {missing[0]}, the absolute path of a file")
        if not {"token", "serial"} & found.keys() or not {"object", "id"} & found.keys():
            raise RegisterUnfit(f"{file}: it must name a token (or its serial) and an object (or its id)")
        read = {key: unquote_to_bytes if key in ("id", "serial") else unquote for key in _PATH}
        values = {_PATH[key]: read[key](value) for key, value in found.items() if _PATH.get(key)}
        token = {name: value for name, value in values.items() if name.startswith("token_")}
        key = {name: value for name, value in values.items() if name not in token}
        return cls(unquote(found[MODULE]), Path(unquote(found[PIN])), token, key)

    def pin(self) -> str:
        """The PIN; raises `RegisterUnfit` for a file that others can read."""
        try:
            if self.pin_file.stat().st_mode & 0o077:
                raise RegisterUnfit(f"{self.pin_file}: others can read it; chmod 600 {self.pin_file}")
            return self.pin_file.read_text().strip()
        except (OSError, ValueError) as fault:
            raise RegisterUnfit(f"{self.pin_file}: {getattr(fault, 'strerror', None) or 'no text'}") from None


class HSMKey:
    """What a builder of certificates needs of a private key.  A lost session is opened anew, once."""

    kind = ""
    """PKCS#11's name of the type."""

    def __init__(self, uri: URI, public: Any) -> None:
        self._uri, self._public = uri, public

    def public_key(self) -> Any:
        """The key in the CA's certificate."""
        return self._public

    @property
    def key_size(self) -> int:
        """Bits."""
        size: int = self._public.key_size
        return size

    def _signed(self, data: bytes, mechanism: str) -> bytes:
        for is_last in (False, True):
            with _faults(self._uri.module, is_last=is_last):
                from pkcs11 import Mechanism

                signature: bytes = _opened(self._uri, self.kind).sign(data, mechanism=getattr(Mechanism, mechanism))
                return signature
        raise AssertionError("the second try returns or raises")


class ECKey(HSMKey):
    """A key for ECDSA."""

    kind = "EC"

    @property
    def curve(self) -> ec.EllipticCurve:
        """Its curve."""
        curve: ec.EllipticCurve = self._public.curve
        return curve

    def sign(self, data: bytes, algorithm: ec.ECDSA) -> bytes:
        """A signature as X.509 has it."""
        assert isinstance(algorithm.algorithm, hashes.HashAlgorithm)
        digest = hashes.Hash(algorithm.algorithm)
        digest.update(data)
        raw = self._signed(digest.finalize(), "ECDSA")
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))


class RSAKey(HSMKey):
    """A key for RSA with PKCS#1 v1.5."""

    kind = "RSA"

    def sign(self, data: bytes, padding: object, algorithm: hashes.HashAlgorithm) -> bytes:
        """A signature as X.509 has it."""
        return self._signed(data, f"{algorithm.name.upper()}_RSA_PKCS")


ec.EllipticCurvePrivateKey.register(ECKey)
rsa.RSAPrivateKey.register(RSAKey)


def load(folder: Path, *, is_dry: bool = False) -> tuple[x509.Certificate, Any]:
    """The certificate of the CA in a directory, and its key, which is tried.

    A dry run gets a new key of the same kind: the HSM is not asked, and the signatures of a dry run count for nothing.
    Raises `RegisterUnfit` for what a person must mend, and `RegisterBusy` for an HSM that is not there.
    """
    if (folder / "private/cakey.pem").exists():
        raise RegisterUnfit(f"{folder}/private has both cakey.pem and cakey.uri: remove the one that does not count")
    file = next(
        (file for file in (folder / "issuer.pem", folder / "cacert.pem") if file.exists()), folder / "cacert.pem"
    )
    try:
        issuer = certs.load_pem(file.read_bytes())[0]
    except (OSError, Malformed, IndexError) as fault:
        raise RegisterUnfit(f"{file}: {fault}") from None
    public: Any = issuer.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise RegisterUnfit(f"{file}: keys in an HSM are EC or RSA here")
    kind: type[ECKey | RSAKey] = ECKey if isinstance(public, ec.EllipticCurvePublicKey) else RSAKey
    if is_dry:
        if isinstance(public, ec.EllipticCurvePublicKey):
            return issuer, ec.generate_private_key(public.curve)
        return issuer, rsa.generate_private_key(65537, public.key_size)
    key = kind(URI.read(folder / FILE), public)
    _require_fit(key, public, file)
    return issuer, key


def _require_fit(key: ECKey | RSAKey, public: Any, file: Path) -> None:
    how: Any = (ec.ECDSA(hashes.SHA256()),) if isinstance(key, ECKey) else (padding.PKCS1v15(), hashes.SHA256())
    try:
        public.verify(key.sign(b"estgw", *how), b"estgw", *how)
    except InvalidSignature:
        raise RegisterUnfit(f"{file}: the key in the HSM is another one than the certificate's") from None


_sessions: dict[tuple[int, str, str], Any] = {}
"""Handles of keys by process, library and place."""


def _opened(uri: URI, kind: str) -> Any:
    """The key's handle in this process."""
    import pkcs11

    name = (os.getpid(), uri.module, str((uri.token, uri.key)))
    if name not in _sessions:
        token = pkcs11.lib(uri.module).get_token(**uri.token)
        session = token.open(user_pin=uri.pin())
        wanted: Any = {"object_class": pkcs11.ObjectClass.PRIVATE_KEY, "key_type": pkcs11.KeyType[kind], **uri.key}
        _sessions[name] = session.get_key(**wanted)
    return _sessions[name]


@contextlib.contextmanager
def _faults(module: str, *, is_last: bool) -> Iterator[None]:
    """Make faults of PKCS#11 those of a register.  Before the last try, forget what is open instead."""
    try:
        import pkcs11
    except ImportError:
        raise RegisterUnfit("a key in an HSM needs python-pkcs11: pip install 'estgw[hsm]'") from None
    try:
        yield
    except (pkcs11.PKCS11Error, RuntimeError, OSError) as fault:
        name = type(fault).__name__
        words = f"the HSM: {name}{f': {fault}' if str(fault) else ''}"
        if name in FINAL:
            raise RegisterUnfit(words) from None
        if is_last:
            raise RegisterBusy(words) from None
        _forget(module)


def _forget(module: str) -> None:
    """Close what is open by a library, so that the next use begins from nothing: an HSM may have been restarted."""
    import pkcs11

    for name in [name for name in _sessions if name[1] == module]:
        del _sessions[name]
    with contextlib.suppress(pkcs11.PKCS11Error, RuntimeError):
        pkcs11.lib(module).reinitialize()
