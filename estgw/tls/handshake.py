"""Read the results of a handshake: the client's certificate, its verification, and the channel bindings.

The functions read a pyOpenSSL connection whose handshake is over.  The three calls beyond pyOpenSSL's public methods
are together at the end of the file.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from OpenSSL import SSL
from OpenSSL._util import ffi, lib

from estgw.est import certs
from estgw.est.binding import EXPORTER_CONTEXT, EXPORTER_LABEL, EXPORTER_LENGTH, Binding, BindingType
from estgw.tls.info import TLSInfo


@dataclass
class Verification:
    """The fault that OpenSSL found in one client certificate, if any.

    Only one fault is kept, since a client chooses the length of its chain.
    """

    error: int | None = None
    """An X509_V_ERR number: the first fault at the lowest depth."""
    depth: int = 0
    detail: str = ""
    """What there is to say beyond OpenSSL's words."""

    def record(self, error: int, depth: int, detail: str = "") -> None:
        if self.error is None or depth < self.depth:
            self.error, self.depth, self.detail = error, depth, detail

    @property
    def words(self) -> str | None:
        if self.error is None:
            return None
        return _verify_error_words(self.error) + (f": {self.detail}" if self.detail else "")


def read_info(connection: SSL.Connection, verification: Verification) -> TLSInfo:
    error = verification.words
    verified: list[x509.Certificate] = []
    try:
        certificate = connection.get_peer_certificate(as_cryptography=True)
        sent = connection.get_peer_cert_chain(as_cryptography=True) or []  # a server gets no leaf here
        if certificate is not None:
            certs.require_names(certificate)
    except (ValueError, x509.InvalidVersion):
        # OpenSSL accepts it, but cryptography is stricter, and all later code uses cryptography.
        certificate, sent, error = None, [], "the client's certificates can't be parsed"
    if certificate is not None and error is None:
        # pyOpenSSL resets the store's error whenever the callback accepts a fault, so the callback's record is the only
        # result of the verification.  A resumed session has none, since the callback does not run for it.
        if not _session_reused(connection):
            verified = connection.get_verified_chain(as_cryptography=True) or []
        if not verified:
            error = "not verified on this connection"
    name = connection.get_servername()
    return TLSInfo(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        server_name=name.decode("ascii", "backslashreplace") if name else None,
        certificate=certificate,
        chain=tuple(sent),
        verified_chain=tuple(verified),
        verify_error=error,
        bindings={binding.type: binding for binding in _bindings(connection)},
    )


def _bindings(connection: SSL.Connection) -> list[Binding]:
    found = []
    finished = connection.get_peer_finished() or b""
    if connection.get_protocol_version_name() == "TLSv1.3":
        found.append(Binding(BindingType.TLS13_FINISHED, finished))
    elif not _session_reused(connection):
        # RFC 5929 3.1 defines it as the first Finished of the latest handshake.  Without resumption that is the
        # client's, and without renegotiation there is only one handshake.
        found.append(Binding(BindingType.TLS_UNIQUE, finished))
    # RFC 9266 1: without the extended master secret an exporter does not identify a TLS 1.2 connection.
    if connection.get_protocol_version_name() == "TLSv1.3" or _extended_master_secret(connection):
        value = connection.export_keying_material(EXPORTER_LABEL, EXPORTER_LENGTH, EXPORTER_CONTEXT)
        found.append(Binding(BindingType.TLS_EXPORTER, value))
    return found


# pyOpenSSL wraps none of these three functions; all are in the table that it gets from cryptography.


def _session_reused(connection: SSL.Connection) -> bool:
    return bool(lib.SSL_session_reused(connection._ssl))


def _extended_master_secret(connection: SSL.Connection) -> bool:
    return bool(lib.SSL_get_extms_support(connection._ssl) == 1)


def _verify_error_words(error: int) -> str:
    return bytes(ffi.string(lib.X509_verify_cert_error_string(error))).decode()
