"""Certificates that the client is to accept (RFC 5272 6.14, confirmCertAcceptance)."""

from __future__ import annotations

from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.cmc_service.policy import Signer
from estgw.cmc_service.state import State, mark
from estgw.est import certs


def expect(state: State, certificate: x509.Certificate, signer: Signer, lasts: timedelta) -> None:
    """Await a confirmation from the signer of the request, or from the new certificate's holder."""
    value = mark(signer.name).encode() + certificate.public_bytes(Encoding.DER)
    state.put("unconfirmed", certs.serial_hex(certificate), value, lasts)


def confirm(state: State, certificate: x509.Certificate, signer: Signer) -> bool:
    """Note a confirmation; False where none is awaited from this signer."""
    serial = certs.serial_hex(certificate)
    value = state.get("unconfirmed", serial)
    is_owner = signer.certificate == certificate or (value or b"")[:64] == mark(signer.name).encode()
    return value is not None and is_owner and state.drop("unconfirmed", serial)


def overdue(state: State) -> list[x509.Certificate]:
    """Some certificates whose confirmation did not come in time."""
    return [certs.load(value[64:]) for value in state.ended("unconfirmed", 5)]


def close(state: State, certificate: x509.Certificate) -> None:
    """An overdue certificate is revoked."""
    state.drop("unconfirmed", certs.serial_hex(certificate))
