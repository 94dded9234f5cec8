"""A record read as the request that it is about, to be repeated."""

from __future__ import annotations

import base64
import binascii
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
                address=_text(record["connection"].get("peer"), "connection.peer"),
                port=int(record["connection"].get("port", 0)),
                tls=_tls(tls),
                scheme=auth.get("scheme"),
                user=auth.get("user"),
                is_verified=auth.get("verified") is True,
                refused=_refused(record),
            )
        except (TypeError, ValueError, AttributeError, KeyError) as fault:
            raise RecordError(f"{identifier}: no sound record: {fault}") from None


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f'"{key}" is no text')
    return value


def _line(request: dict[str, Any]) -> tuple[str, str]:
    parts = _text(request.get("line"), "request.line").split(" ")
    if len(parts) != 3:
        raise ValueError('"request.line" is no request line')
    return parts[0], parts[1]


def _pairs(request: dict[str, Any]) -> list[tuple[str, str]]:
    return [(_text(name, "request.headers"), _text(value, "request.headers")) for name, value in request["headers"]]


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
    try:
        return base64.b64decode(_text(body, "request.body"), validate=True)
    except binascii.Error:
        raise ValueError('"request.body" is not base64') from None


def _tls(tls: dict[str, Any]) -> TLSInfo:
    found = tls.get("certificate")
    certificate = _certificate(found) if found else None
    bindings = {
        (kind := BindingType(name)): Binding(kind, base64.b64decode(_text(value, "tls.bindings"), validate=True))
        for name, value in (tls.get("bindings") or {}).items()
    }
    return TLSInfo(
        version=_text(tls.get("version"), "tls.version"),
        cipher=_text(tls.get("cipher", ""), "tls.cipher"),
        server_name=tls.get("server_name"),
        certificate=certificate,
        chain=tuple(_certificate(pem) for pem in tls.get("chain") or ()),
        bindings=bindings,
    )


def _certificate(pem: Any) -> x509.Certificate:
    try:
        made = x509.load_pem_x509_certificate(_text(pem, "tls.certificate").encode())
    except ValueError:
        raise ValueError('"tls.certificate" or "tls.chain" has no certificate in PEM') from None
    certs.require_names(made)
    return made


def _refused(record: Record) -> Refused | None:
    outcome = record["outcome"]
    if outcome.get("gate") != Gate.PASSWORD:
        return None
    return Refused(int(outcome.get("status") or 401), str(outcome.get("reason", "")))
