"""The verdict of a new handshake on a client certificate, without the client.

A connection outlives the anchors and CRLs that its handshake knew.  To learn what a handshake would say now, OpenSSL is
shown the first half of one: a ClientHello of TLS 1.2 and the client's Certificate message, as it was sent.  OpenSSL
verifies that message at once, with its own rules for purpose, depth, key sizes, CRLs and partial chains.  The proof of
the private key, which would come next, was given in the real handshake.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from estgw.tls.handshake import Verification
from estgw.tls.info import Verdict

_RECORD = 16384
"""Bytes of the longest TLS record (RFC 5246 6.2.1)."""


class Rehearsal:
    """Takes verdicts by the rules of one TLS context."""

    def __init__(
        self,
        trust: Callable[[SSL.Context], None],
        anchors: Iterable[x509.Certificate],
        crls: Iterable[x509.CertificateRevocationList],
    ) -> None:
        """`trust` gives a context these anchors and CRLs, and the verify callback."""
        self._trust = trust
        self._moments = (*_moments(anchors), *_moments_of_crls(crls))

    def verdict(self, certificates: Iterable[x509.Certificate]) -> Verdict:
        """What a handshake says now of a client that sends these certificates, its own first."""
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        verification = Verification()
        connection.set_app_data(verification)
        connection.bio_write(_hello() + _certificate_message(certificates))
        with contextlib.suppress(SSL.WantReadError, SSL.Error):  # it wants the rest; or it has refused the certificate
            connection.do_handshake()
        error = verification.words
        chain = [] if error else connection.get_verified_chain(as_cryptography=True) or []
        return Verdict(tuple(chain), error if chain or error else "not verified")

    def stands_until(self, certificates: Iterable[x509.Certificate], since: float) -> float:
        """The moment at which time alone may change a verdict that was taken at `since`; both in seconds since 1970."""
        # Whether the last second still counts is OpenSSL's to say, so it is asked at its beginning and after it.
        edges = (edge for moment in (*self._moments, *_moments(certificates)) for edge in (moment, moment + 1))
        return min((edge for edge in edges if edge > since), default=float("inf"))

    @functools.cached_property
    def _context(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        # In TLS 1.3 the Certificate message is encrypted.
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        key = ec.generate_private_key(ec.SECP256R1())
        context.use_certificate(_self_signed(key))
        context.use_privatekey(key)
        self._trust(context)
        return context


def _moments(certificates: Iterable[x509.Certificate]) -> Iterator[float]:
    """When they begin and end to be valid, in seconds since 1970."""
    for certificate in certificates:
        yield certificate.not_valid_before_utc.timestamp()
        yield certificate.not_valid_after_utc.timestamp()


def _moments_of_crls(crls: Iterable[x509.CertificateRevocationList]) -> Iterator[float]:
    for crl in crls:
        yield crl.last_update_utc.timestamp()
        if crl.next_update_utc is not None:
            yield crl.next_update_utc.timestamp()


@functools.cache
def _hello() -> bytes:
    """A ClientHello of TLS 1.2, as OpenSSL makes it."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    client = SSL.Connection(context, None)
    client.set_connect_state()
    with contextlib.suppress(SSL.WantReadError):
        client.do_handshake()
    return client.bio_read(_RECORD)


def _certificate_message(certificates: Iterable[x509.Certificate]) -> bytes:
    """A Certificate message (RFC 5246 7.4.6) in as many records as it takes."""
    entries = b"".join(_with_length(each.public_bytes(Encoding.DER)) for each in certificates)
    message = b"\x0b" + _with_length(_with_length(entries))
    parts = (message[at : at + _RECORD] for at in range(0, len(message), _RECORD))
    return b"".join(b"\x16\x03\x03" + len(part).to_bytes(2, "big") + part for part in parts)


def _with_length(content: bytes) -> bytes:
    return len(content).to_bytes(3, "big") + content


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """A certificate for the server of the rehearsal, which shows it to no client."""
    name, now = x509.Name([]), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    return builder.not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
