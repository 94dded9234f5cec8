"""A record read as the request that it is about, to be repeated."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from estgw.est import certs
from estgw.est.binding import Binding, BindingType
from estgw.record.folder import RecordError
from estgw.record.gates import Gate
from estgw.record.redact import REMOVED
from estgw.record.ring import Record
from estgw.tls.info import TLSInfo


@dataclass(frozen=True)
class Refused:
    """A refusal by the password gate, which can't be judged again: a record has no password."""

    status: int
    reason: str


@dataclass(frozen=True)
class Origin:
    """One request as a record has it."""

    id: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    """Those whose values are known."""
    body: bytes
    address: str
    port: int
    tls: TLSInfo
    """What the handshake established; whether the certificate verifies is not said."""
    scheme: str | None
    user: str | None
    is_verified: bool
    refused: Refused | None = None

    @classmethod
    def of(cls, record: Record) -> Origin:
        """Raises `RecordError` for a record that can't be repeated, in words that say why."""
        identifier = record["id"]
        request, tls, auth = record.get("request"), record["tls"], record.get("auth") or {}
        if record["kind"] == "handshake":
            raise RecordError(f"{identifier}: a handshake that failed; there is no request to replay")
        if not request or not tls:
            raise RecordError(f"{identifier}: what came was no HTTP request; there is nothing to replay")
        try:
            method, target = _line(request)
            return cls(
                id=identifier,
                method=method,
                target=target,
                headers=tuple((name, value) for name, value in _pairs(request) if value != REMOVED),
                body=_body(record, request, method),
                address=record["connection"]["peer"],
                port=record["connection"]["port"],
                tls=_tls(tls),
                scheme=auth.get("scheme"),
                user=auth.get("user"),
                is_verified=bool(auth.get("verified")),
                refused=_refused(record),
            )
        except ValueError as fault:
            raise RecordError(f"{identifier}: no sound record: {fault}") from None


def _line(request: dict[str, Any]) -> tuple[str, str]:
    parts = request["line"].split(" ")
    if len(parts) != 3:
        raise ValueError('"request.line" is no request line')
    return parts[0], parts[1]


def _pairs(request: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in request["headers"]]


def _body(record: Record, request: dict[str, Any], method: str) -> bytes:
    """The body; raises `RecordError` if it is not there as a whole."""
    identifier, body = record["id"], request.get("body")
    if body == REMOVED:
        raise RecordError(f"{identifier}: its body held a secret and was not recorded, so it can't be replayed")
    if request.get("cut"):
        raise RecordError(f"{identifier}: its body is cut off in the record, so it can't be replayed")
    if body is None:
        if method == "POST" and request.get("length") and record["outcome"].get("gate") != Gate.PATH:
            raise RecordError(f"{identifier}: its body did not arrive, so it can't be replayed")
        return b""
    return base64.b64decode(body)


def _tls(tls: dict[str, Any]) -> TLSInfo:
    found = tls.get("certificate")
    certificate = _certificate(found) if found else None
    bindings = {
        (kind := BindingType(name)): Binding(kind, base64.b64decode(value, validate=True))
        for name, value in (tls.get("bindings") or {}).items()
    }
    return TLSInfo(
        version=tls["version"],
        cipher=tls["cipher"],
        server_name=tls.get("server_name"),
        certificate=certificate,
        chain=tuple(map(_certificate, tls["chain"])),
        bindings=bindings,
    )


def _certificate(pem: str) -> x509.Certificate:
    try:
        made = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        raise ValueError('"tls.certificate" or "tls.chain" has no certificate in PEM') from None
    certs.require_names(made)
    return made


def _refused(record: Record) -> Refused | None:
    outcome = record["outcome"]
    if outcome.get("gate") != Gate.PASSWORD:
        return None
    return Refused(outcome["status"] or 401, outcome["reason"])
