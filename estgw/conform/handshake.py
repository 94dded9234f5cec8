"""Handshakes that tell something about the server's TLS; no request of a user's goes over these connections."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

from OpenSSL import SSL

from estgw.client.faults import ClientError, Untrusted
from estgw.client.transport.stream import Stream
from estgw.client.transport.wire import MAXIMUM_ANSWER
from estgw.conform.model import Setup
from estgw.conform.probe import Probe

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_REQUEST_STATE = b"certificate request"
"""In the names of OpenSSL's states after a CertificateRequest was read, of both versions."""


def versions(probe: Probe) -> tuple[str, ...]:
    """The versions that the server speaks, `1.2` and `1.3`."""

    def find(probe: Probe) -> tuple[str, ...]:
        found = []
        for version in VERSIONS:
            with contextlib.suppress(Untrusted), probe.line(version):
                found.append(version)
        return tuple(found)

    return probe.once("versions", find)


def resumes(setup: Setup, version: ssl.TLSVersion) -> str:
    """`yes`, `no`, or `-` where the server does not speak that version."""
    context = _context(setup, version)
    try:
        with _connected(setup, context, None) as first:
            # The tickets of TLS 1.3 come after the handshake, so something has to be read.
            first.sendall(_get(setup))
            with contextlib.suppress(TimeoutError):
                first.recv(4096)
            session = first.session
        if session is None or (not session.has_ticket and version is ssl.TLSVersion.TLSv1_3):
            return "no"
        with _connected(setup, context, session) as second:
            return "yes" if second.session_reused else "no"
    except ssl.SSLError:
        return "-"


def _context(setup: Setup, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing secret goes over this connection, so it need not be verified again.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


@contextlib.contextmanager
def _connected(setup: Setup, context: ssl.SSLContext, session: ssl.SSLSession | None) -> Iterator[ssl.SSLSocket]:
    name = None if setup.place.is_address else setup.place.host
    with (
        socket.create_connection(setup.place.origin, timeout=setup.timeout) as raw,
        context.wrap_socket(raw, server_hostname=name, session=session) as wrapped,
    ):
        yield wrapped


def asks_for_certificate(setup: Setup, version: ssl.TLSVersion) -> bool:
    """Whether there is a CertificateRequest in the handshake; raises `OSError` without a connection."""
    seen = False

    def note(connection: SSL.Connection, where: int, _: int) -> None:
        nonlocal seen
        if where & SSL.SSL_CB_LOOP and _REQUEST_STATE in connection.get_state_string():
            seen = True

    context = _pyopenssl(version)
    context.set_info_callback(note)
    with _shaken(setup, context):
        return seen


def renegotiates(setup: Setup) -> bool:
    """Whether the server renegotiates TLS 1.2 when the client asks for it."""
    with _shaken(setup, _pyopenssl(ssl.TLSVersion.TLSv1_2)) as (connection, stream):
        before = connection.total_renegotiations()
        try:
            connection.renegotiate()
            stream.handshake()
            stream.sendall(_get(setup))
            stream.receive(1)
        except (SSL.Error, OSError, ClientError):
            return False
        return connection.total_renegotiations() > before and not connection.renegotiate_pending()


def _get(setup: Setup) -> bytes:
    return f"GET {setup.place.path('cacerts')} HTTP/1.1\r\nHost: {setup.place.authority}\r\n\r\n".encode()


def _pyopenssl(version: ssl.TLSVersion) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(int(version))
    context.set_max_proto_version(int(version))
    context.set_verify(SSL.VERIFY_NONE)
    return context


@contextlib.contextmanager
def _shaken(setup: Setup, context: SSL.Context) -> Iterator[tuple[SSL.Connection, Stream]]:
    with socket.create_connection(setup.place.origin, timeout=setup.timeout) as raw:
        raw.setblocking(False)
        connection = SSL.Connection(context, raw)
        if not setup.place.is_address:
            connection.set_tlsext_host_name(setup.place.host.encode())
        connection.set_connect_state()
        stream = Stream(raw, connection)
        stream.start_clock(setup.timeout, MAXIMUM_ANSWER)
        stream.handshake()
        yield connection, stream
