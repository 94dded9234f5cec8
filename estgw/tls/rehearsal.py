"""Verify a client certificate again, as a new handshake would, without the client.

Theory of operation.  A connection may live longer than the anchors and CRLs of its handshake: the configuration is
reloaded, a CRL or a certificate expires.  Then its client certificate has to be verified with the present ones, by the
same rules.  These rules are OpenSSL's, for purpose, depth, key sizes, CRLs and partial chains; this module does not
repeat them.  It makes an OpenSSL connection in memory and feeds it the first half of a handshake:

1. a ClientHello of TLS 1.2 (in TLS 1.3 the Certificate message is encrypted);
2. a Certificate message with the certificates that the client sent in its real handshake.

OpenSSL verifies that message at once, with the verify callback of the real context.  The handshake then stops for want
of the CertificateVerify message.  That proof of the private key was given in the real handshake.

Time alone changes a verdict only when a certificate or CRL begins or ends to be valid.  `stands_until` returns the next
such moment, so that callers can keep a verdict until then.
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
    """Verifies client certificates by the rules of one TLS context."""

    def __init__(
        self,
        trust: Callable[[SSL.Context], None],
        anchors: Iterable[x509.Certificate],
        crls: Iterable[x509.CertificateRevocationList],
    ) -> None:
        """`trust` sets these anchors and CRLs, and the verify callback, in a context."""
        self._trust = trust
        self._moments = (*_moments(anchors), *_moments_of_crls(crls))

    def verdict(self, certificates: Iterable[x509.Certificate]) -> Verdict:
        """Return the result of a handshake now with a client that sends these certificates, its own first."""
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        verification = Verification()
        connection.set_app_data(verification)
        connection.bio_write(_hello() + _certificate_message(certificates))
        # OpenSSL waits for the next message, or it has refused the certificate.
        with contextlib.suppress(SSL.WantReadError, SSL.Error):
            connection.do_handshake()
        error = verification.words
        chain = [] if error else connection.get_verified_chain(as_cryptography=True) or []
        return Verdict(tuple(chain), error if chain or error else "not verified")

    def stands_until(self, certificates: Iterable[x509.Certificate], since: float) -> float:
        """The next moment at which time alone may change a verdict made at `since`; both in seconds since 1970."""
        # OpenSSL decides whether the last second counts, so that second's beginning and end are both such moments.
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
    """The moments at which certificates begin and end to be valid, in seconds since 1970."""
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
    """A ClientHello of TLS 1.2, made by OpenSSL."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    client = SSL.Connection(context, None)
    client.set_connect_state()
    with contextlib.suppress(SSL.WantReadError):
        client.do_handshake()
    return client.bio_read(_RECORD)


def _certificate_message(certificates: Iterable[x509.Certificate]) -> bytes:
    """A Certificate message (RFC 5246 7.4.6), in one or more records."""
    entries = b"".join(_with_length(each.public_bytes(Encoding.DER)) for each in certificates)
    message = b"\x0b" + _with_length(_with_length(entries))
    parts = (message[at : at + _RECORD] for at in range(0, len(message), _RECORD))
    return b"".join(b"\x16\x03\x03" + len(part).to_bytes(2, "big") + part for part in parts)


def _with_length(content: bytes) -> bytes:
    return len(content).to_bytes(3, "big") + content


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """A certificate for the server in memory; no client ever sees it."""
    name, now = x509.Name([]), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    return builder.not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
