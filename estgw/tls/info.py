"""The facts about a TLS connection, without a TLS library, so that scripts and policies can use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.est.binding import Binding, BindingType

_PARSED = 4096
"""Bytes of what is read of one certificate."""


@dataclass(frozen=True)
class Verdict:
    """The result of verifying a client certificate: a chain, leaf first, or an error."""

    chain: tuple[x509.Certificate, ...]
    error: str | None


@dataclass(frozen=True)
class TLSInfo:
    """The facts about one connection that EST needs."""

    version: str
    """`TLSv1.2` or `TLSv1.3`."""
    cipher: str
    server_name: str | None
    """The host name for which the client asked (SNI)."""
    certificate: x509.Certificate | None
    """The client's certificate.  The handshake proved that the client has its key; `verified_chain` has its issuers."""
    chain: tuple[x509.Certificate, ...] = ()
    """The other certificates that the client sent, in its order."""
    verified_chain: tuple[x509.Certificate, ...] = ()
    """From the client's certificate to the trust anchor; empty unless verification succeeded."""
    verify_error: str | None = None
    """The fault of the certificate, mostly in OpenSSL's words; None if it was verified or absent."""
    bindings: Mapping[BindingType, Binding] = field(default_factory=dict)
    """The channel bindings of this connection."""

    @cached_property
    def size(self) -> int:
        """Bytes that its certificates take in memory, roughly."""
        found = [*self.chain, *self.verified_chain, *filter(None, [self.certificate])]
        return sum(2 * len(each.public_bytes(Encoding.DER)) + _PARSED for each in found)
