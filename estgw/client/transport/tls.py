"""One TLS connection to an EST server: handshake, trust, channel binding, and a socket for http.client.

This module uses pyOpenSSL, since `ssl` has neither the exporter of RFC 9266 nor a verify callback.  Sessions are never
resumed and renegotiation is off, so that the binding belongs to this one handshake (RFC 7030 3.5).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from OpenSSL import SSL, crypto

from estgw.client.faults import ClientError, NoConnection, Untrusted, UsageError, clean
from estgw.client.transport import trust as trust_room
from estgw.client.transport.stream import Stream, reason
from estgw.client.transport.trust import Anchor, Trust, Verdict
from estgw.client.transport.url import Place
from estgw.est import binding as bindings
from estgw.est import certs, names
from estgw.est.binding import Binding, BindingType

VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
_NO_TLS = ("wrong version number", "packet length too long", "http request")
"""OpenSSL's words when the first bytes of the other side are no TLS record."""
_CIPHERS = b"DEFAULT:!aNULL:!eNULL:!PSK:!SRP"
"""OpenSSL's own choice for TLS 1.2, without the suites that RFC 7030 3.2.3 and 6 forbid."""


@dataclass(frozen=True)
class Identity:
    """The client's own certificate and key for TLS client authentication (RFC 7030 3.3.2)."""

    certificate: x509.Certificate
    key: PrivateKeyTypes = field(repr=False)
    chain: tuple[x509.Certificate, ...] = ()
    """Intermediate certificates, sent in the handshake."""


@dataclass(frozen=True)
class Connected:
    """A connection whose server has passed all checks (or, while bootstrapping, none)."""

    stream: Stream = field(repr=False)
    place: Place
    verdict: Verdict
    binding: Binding | None
    version: str
    cipher: str


def connect(
    place: Place,
    trust: Trust,
    *,
    identity: Identity | None = None,
    version: str | None = None,
    timeout: float = 30.0,
    finished: bool = False,
) -> Connected:
    """Open a connection and check the server; `timeout` in seconds is for TCP and for TLS each.

    `version` pins TLS to `1.2` or `1.3`, `finished` makes libest's TLS 1.3 Finished the binding.  Raises
    `NoConnection` if no server answers and `Untrusted` if TLS or a check fails.  An unverified server (while
    bootstrapping) gets no identity.
    """
    problems: list[str] = []
    context = _context(trust, None if trust.bootstrap else identity, version, place, problems)
    raw = _dial(place, timeout)
    try:
        raw.setblocking(False)
        connection = SSL.Connection(context, raw)
        if not place.is_address:
            connection.set_tlsext_host_name(place.host.encode())
        connection.set_connect_state()
        stream = Stream(raw, connection)
        stream.start_clock(timeout, 0)
        _shake(stream, place, problems)
        verdict = _verdict(connection, trust, place)
        return Connected(
            stream,
            place,
            verdict,
            _binding(connection, finished),
            connection.get_protocol_version_name(),
            connection.get_cipher_name() or "",
        )
    except BaseException:
        raw.close()
        raise


def _dial(place: Place, timeout: float) -> socket.socket:
    try:
        raw = socket.create_connection(place.origin, timeout=timeout)
    except TimeoutError:
        raise NoConnection(
            f"{place.authority}: no connection within {timeout:g} s; check host and port of -u, or raise --timeout"
        ) from None
    except ConnectionRefusedError:
        raise NoConnection(
            f"{place.authority}: connection refused: no server listens on port {place.port} there; "
            "check the port in -u, or start the server"
        ) from None
    except socket.gaierror as fault:
        raise NoConnection(f"{place.host}: {fault.strerror}; check the host name in -u") from None
    except OSError as fault:
        raise NoConnection(f"{place.authority}: {fault.strerror or fault}") from None
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return raw


def _shake(stream: Stream, place: Place, problems: Sequence[str]) -> None:
    try:
        stream.handshake()
    except TimeoutError:
        raise NoConnection(f"{place.authority}: the TLS handshake took too long") from None
    except SSL.SysCallError as fault:
        words = "closed the connection" if fault.args[0] == -1 else str(fault.args[1])
        raise Untrusted(f"TLS handshake with {place.authority}: {words}") from None
    except SSL.Error as fault:
        words = reason(fault)
        if words in _NO_TLS:
            raise Untrusted(
                f"{place.authority} does not speak TLS ({words}): a plain HTTP server may listen on port {place.port}; "
                "check the port in -u"
            ) from None
        raise Untrusted(problems[0] if problems else f"TLS handshake with {place.authority}: {words}") from None
    except OSError as fault:
        raise Untrusted(f"TLS handshake with {place.authority}: {fault.strerror or fault}") from None


def _context(
    trust: Trust, identity: Identity | None, version: str | None, place: Place, problems: list[str]
) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    # RFC 8996 ended TLS 1.0 and 1.1 for EST as well.
    context.set_min_proto_version(VERSIONS[version or "1.2"])
    context.set_max_proto_version(VERSIONS[version or "1.3"])
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(_CIPHERS)
    if path := os.environ.get("SSLKEYLOGFILE"):
        context.set_keylog_callback(_keylog(Path(path)))
    if identity is not None:
        _present(context, identity)
    if trust.bootstrap:
        context.set_verify(SSL.VERIFY_NONE)
        return context
    store = context.get_cert_store()
    if store is None:
        raise ClientError("OpenSSL gives no certificate store")
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    for anchor in trust.explicit:
        store.add_cert(crypto.X509.from_cryptography(anchor))
    if trust.implicit:
        context.set_default_verify_paths()

    def check(_: SSL.Connection, x509_: crypto.X509, error: int, depth: int, ok: int) -> bool:
        try:
            with certs.without_warnings():
                certificate = x509_.to_cryptography()
                if not ok:
                    problems.append(_path_problem(error, depth, certificate))
                elif depth == 0 and (words := trust_room.objection(trust, certificate, place.host)):
                    problems.append(words)
        except certs.UNREADABLE as fault:
            problems.append(f"{_which(depth)} can't be read: {clean(str(fault), 200)}")
        return not problems

    context.set_verify(SSL.VERIFY_PEER, check)
    return context


def _present(context: SSL.Context, identity: Identity) -> None:
    try:
        context.use_certificate(identity.certificate)
        for link in identity.chain:
            context.add_extra_chain_cert(link)
        context.use_privatekey(identity.key)  # type: ignore[arg-type]  # its stub knows the older kinds only
        context.check_privatekey()
    except (SSL.Error, TypeError) as fault:
        words = reason(fault) if isinstance(fault, SSL.Error) else str(fault)
        raise UsageError(f"--cert and --key can't be used for TLS: {words}") from None


def _path_problem(error: int, depth: int, certificate: x509.Certificate) -> str:
    words = {
        10: "has expired",
        9: "is not valid yet",
        18: "is self-signed and not one of our anchors",
        19: "leads to a root that is not one of our anchors",
        20: "has an issuer that we do not trust",
        21: "has an issuer that we do not trust",
        26: "may not be a TLS server's (extended key usage)",
    }.get(error, f"does not verify (OpenSSL's error {error})")
    return f"{_which(depth)} {words}: {clean(names.dn_text(certificate.subject), 200)}"


def _which(depth: int) -> str:
    return "the server's certificate" if depth == 0 else f"the certificate {depth} above the server's"


def _verdict(connection: SSL.Connection, trust: Trust, place: Place) -> Verdict:
    try:
        with certs.without_warnings():
            return _judged(connection, trust, place)
    except certs.UNREADABLE as fault:
        raise Untrusted(f"a certificate of the server's can't be read: {clean(str(fault), 200)}") from None


def _judged(connection: SSL.Connection, trust: Trust, place: Place) -> Verdict:
    if trust.bootstrap:
        leaf = connection.get_peer_certificate(as_cryptography=True)
        if leaf is None:
            raise Untrusted("the server sent no certificate")
        return Verdict(leaf, Anchor.NONE, "nobody")
    chain = connection.get_verified_chain(as_cryptography=True)
    sent = connection.get_peer_cert_chain(as_cryptography=True)
    return trust_room.judge(trust, chain or (), place.host, sent or ())


def _binding(connection: SSL.Connection, finished: bool) -> Binding | None:
    if connection.get_protocol_version_name() == "TLSv1.2":
        # Full handshakes only (no resumption), so the first Finished is the client's: RFC 5929 3.1.
        kind, value = BindingType.TLS_UNIQUE, connection.get_finished()
    elif finished:
        kind, value = BindingType.TLS13_FINISHED, connection.get_finished()
    else:
        kind = BindingType.TLS_EXPORTER
        value = connection.export_keying_material(
            bindings.EXPORTER_LABEL, bindings.EXPORTER_LENGTH, bindings.EXPORTER_CONTEXT
        )
    return Binding(kind, value) if value else None


def _keylog(path: Path) -> Callable[[SSL.Connection, bytes], None]:
    """A callback for the TLS secrets.  A file that can't be written is an error now, before the handshake."""

    def append(data: bytes) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, data)
        finally:
            os.close(handle)

    def write(_: SSL.Connection, line: bytes) -> None:
        with contextlib.suppress(OSError):
            append(line + b"\n")

    try:
        append(b"")
    except OSError as fault:
        raise UsageError(f"SSLKEYLOGFILE: {clean(str(path), 200)}: {fault.strerror}") from None
    return write
