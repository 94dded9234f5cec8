"""CSRs, certificates and times as a record has them."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any, overload

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.est import certs, names, oids
from estgw.est.csr import CSR
from estgw.record.redact import REMOVED

CUT = 262_144
"""Bytes of a body, of a script's stdout and of its stderr that a record holds; the rest is cut off."""


def moment(seconds: float) -> str:
    """A time as a record has it: UTC, with milliseconds."""
    whole, part = divmod(int(seconds * 1000), 1000)
    return f"{_second(whole)}.{part:03}Z"


@functools.lru_cache(maxsize=8)
def _second(whole: int) -> str:
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@overload
def milliseconds(seconds: float) -> float: ...


@overload
def milliseconds(seconds: None) -> None: ...


def milliseconds(seconds: float | None) -> float | None:
    """A duration as a record has it; None is unknown."""
    return None if seconds is None else round(seconds * 1000, 2)


def pem(certificate: x509.Certificate) -> str:
    """A certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM).decode()


def csr(csr: CSR, *, is_secret: bool) -> dict[str, Any]:
    """A CSR as a record has it; the whole of one that holds a secret is left out."""
    san = csr.san
    return {
        "subject": csr.subject_text,
        "names": [names.san_text(entry) for entry in san or ()],
        "key": _key(csr),
        "signature": _signature(csr),
        "sha256": csr.sha256,
        "pem": REMOVED if is_secret else csr.pem.decode() if len(csr.der) <= CUT else None,
    }


_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def _key(csr: CSR) -> str:
    """The kind of key, such as `EC P-256`, in words."""
    try:
        key: Any = csr.request.public_key()
    except certs.UNREADABLE:
        return "unknown"
    kind = type(key).__name__.removesuffix("PublicKey")  # isinstance is slow with these abstract classes
    if kind == "EC":
        return f"EC {_CURVES.get(key.curve.name, key.curve.name)}"
    return f"{kind} {key.key_size}" if hasattr(key, "key_size") else kind


def _signature(csr: CSR) -> str:
    return oids.name_of(csr.request.signature_algorithm_oid.dotted_string)


def read(certificate: x509.Certificate) -> None:
    """Let cryptography parse what a record shows of a certificate: it does so once, and warns of odd names."""
    with certs.without_warnings():
        _ = subject(certificate), certs.san(certificate)


def subject(certificate: x509.Certificate) -> str:
    """The subject as an RFC 4514 string; a script may have made a certificate whose names can't be read."""
    try:
        return names.dn_text(certificate.subject)
    except certs.UNREADABLE:
        return "unreadable"


def issued(certificate: x509.Certificate) -> dict[str, Any]:
    """An issued certificate as a record has it."""
    san = certs.san(certificate)
    return {
        "serial": certs.serial_hex(certificate),
        "subject": subject(certificate),
        "names": [names.san_text(entry) for entry in san or ()],
        "not_after": moment(certificate.not_valid_after_utc.timestamp()),
        "pem": pem(certificate),
    }
