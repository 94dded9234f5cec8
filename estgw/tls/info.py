"""What is known of a TLS connection: facts alone, so that whoever judges them needs no TLS library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509

from estgw.est.binding import Binding, BindingType


@dataclass(frozen=True)
class Verdict:
    """What verification says of a client certificate: a chain, leaf first, or an error."""

    chain: tuple[x509.Certificate, ...]
    error: str | None


@dataclass(frozen=True)
class TLSInfo:
    """One connection, as far as EST cares."""

    version: str
    """`TLSv1.2` or `TLSv1.3`."""
    cipher: str
    server_name: str | None
    """The name the client asked for (SNI)."""
    certificate: x509.Certificate | None
    """The client's.  The handshake proved that it has the key; who vouches for it, `verified_chain` says."""
    chain: tuple[x509.Certificate, ...] = ()
    """The other certificates the client sent, in its order."""
    verified_chain: tuple[x509.Certificate, ...] = ()
    """From the client's certificate to the trust anchor; empty unless verification succeeded."""
    verify_error: str | None = None
    """What is wrong, mostly in OpenSSL's words; None when verified, and when there was no certificate."""
    bindings: Mapping[BindingType, Binding] = field(default_factory=dict)
    """The channel bindings that this connection has."""
