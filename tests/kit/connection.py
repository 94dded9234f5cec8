"""The client that shows the bytes: one raw TLS connection, HTTP requests, and answers taken apart."""

from __future__ import annotations

import base64
import contextlib
import functools
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7
from OpenSSL import SSL

from tests.kit.processes import DEADLINE

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
EST = "/.well-known/est"
PKCS10 = "application/pkcs10"
CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"


class Server(Protocol):
    """What a connection has to know of its server."""

    @property
    def port(self) -> int: ...

    @property
    def anchor(self) -> Path: ...


@dataclass(frozen=True)
class Response:
    """An answer, as it came."""

    status: int
    head: bytes
    body: bytes
    headers: list[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        lines = self.head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")[1:]
        object.__setattr__(
            self, "headers", [(name, value.strip()) for name, _, value in (x.partition(":") for x in lines)]
        )

    def header(self, name: str) -> str | None:
        """A header's value; a test fails when it came twice."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, values
        return values[0] if values else None

    def retries_after(self, seconds: int) -> bool:
        """Whether the client is told to come back after between once and twice so many seconds."""
        return seconds <= int(self.header("Retry-After") or 0) <= 2 * seconds

    @property
    def words(self) -> str:
        """What a person reads: the text, which is plain."""
        assert self.header("Content-Type") == "text/plain; charset=utf-8", self
        return self.body.decode().rstrip("\n")

    @property
    def der(self) -> bytes:
        return base64.b64decode(self.body.replace(b"\n", b""), validate=True)

    @property
    def certificates(self) -> list[x509.Certificate]:
        """The certificates of a certs-only PKCS#7."""
        assert self.status == 200, self
        return pkcs7.load_der_pkcs7_certificates(self.der)

    @property
    def certificate(self) -> x509.Certificate:
        """The one certificate of an enrolment."""
        (found,) = self.certificates
        return found


class Connection:
    """One TLS connection to a gateway, raw: bytes out, bytes in.

    `version` pins TLS to one version, `certificate` is a pair of PEM files, `pyopenssl` takes that library for the
    standard one, whose sockets can't export keying material; `source` is the address to come from, and `header` what a
    load balancer sends before TLS.
    """

    def __init__(
        self,
        server: Server,
        *,
        version: ssl.TLSVersion | None = None,
        certificate: tuple[Path, Path] | None = None,
        anchor: Path | None = None,
        pyopenssl: bool = False,
        source: str = "127.0.0.1",
        header: bytes = b"",
    ) -> None:
        address = ("127.0.0.1", server.port)
        self.plain = socket.create_connection(address, timeout=DEADLINE, source_address=(source, 0))
        try:
            self.plain.sendall(header)
            anchor = anchor or server.anchor
            make = self._pyopenssl if pyopenssl else self._standard
            self.tls: Any = make(anchor, version, certificate)
        except BaseException:
            self.plain.close()
            raise
        self._received = b""

    def _standard(
        self, anchor: Path, version: ssl.TLSVersion | None, certificate: tuple[Path, Path] | None
    ) -> ssl.SSLSocket:
        files = tuple((str(path), path.read_bytes()) for path in certificate or ())
        context = _context(anchor.read_text(), version, files)
        made = context.wrap_socket(self.plain, server_hostname="localhost", do_handshake_on_connect=False)
        try:
            made.do_handshake()
        except BaseException:
            made.close()
            raise
        return made

    def _pyopenssl(
        self, anchor: Path, version: ssl.TLSVersion | None, certificate: tuple[Path, Path] | None
    ) -> SSL.Connection:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.load_verify_locations(str(anchor))
        context.set_verify(SSL.VERIFY_PEER)
        if version is not None:
            context.set_min_proto_version(int(version))
            context.set_max_proto_version(int(version))
        if certificate is not None:
            context.use_certificate_chain_file(str(certificate[0]))
            context.use_privatekey_file(str(certificate[1]))
        self.plain.settimeout(None)  # else pyOpenSSL wants to be told when to try again
        connection = SSL.Connection(context, self.plain)
        connection.set_tlsext_host_name(b"localhost")
        connection.set_connect_state()
        connection.do_handshake()
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if isinstance(self.tls, SSL.Connection):
            with contextlib.suppress(SSL.Error):
                self.tls.shutdown()
        self.tls.close()
        self.plain.close()

    @property
    def tls_unique(self) -> bytes:
        """RFC 5929, as the standard library has it."""
        value: bytes = self.tls.get_channel_binding("tls-unique")
        return value

    @property
    def tls_exporter(self) -> bytes:
        """RFC 9266; with `pyopenssl` only."""
        value: bytes = self.tls.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        return value

    def send(self, data: bytes) -> None:
        self.tls.sendall(data)

    def receive(self) -> bytes:
        """What comes next: at most one TLS record; empty at the end."""
        try:
            data: bytes = self.tls.recv(65536)
        except (SSL.ZeroReturnError, SSL.SysCallError, ssl.SSLEOFError, ConnectionResetError):
            return b""
        return data

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        parts = [self._received]
        while part := self.receive():
            parts.append(part)
        self._received = b""
        return b"".join(parts)

    def response(self, method: str = "GET") -> Response:
        """The next answer; it has a Content-Length, or no body can follow."""
        head = self._until(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        found = Response(status, head, b"")
        if status < 200 or status in (204, 304) or method == "HEAD":
            return found
        length = found.header("Content-Length")
        assert length is not None, head
        while len(self._received) < int(length):
            self._more()
        body, self._received = self._received[: int(length)], self._received[int(length) :]
        return Response(status, head, body)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str | None] | None = None,
        login: str | None = None,
    ) -> Response:
        """One request and its answer."""
        self.send(request(method, path, body, headers=headers, login=login))
        return self.response(method)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            self._more()
        found, _, self._received = self._received.partition(mark)
        return found + mark

    def _more(self) -> None:
        data = self.receive()
        assert data, f"the connection ended after {self._received!r}"
        self._received += data


@functools.lru_cache(64)
def _context(anchor: str, version: ssl.TLSVersion | None, files: Sequence[tuple[str, bytes]]) -> ssl.SSLContext:
    """For each set of certificates, once; `files` are a client's certificate and key with what is in them now."""
    context = ssl.create_default_context(cadata=anchor)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if files:
        context.load_cert_chain(*(path for path, _ in files))
    return context


def request(
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    headers: Mapping[str, str | None] | None = None,
    login: str | None = None,
) -> bytes:
    """The bytes of a request; None as a header's value leaves that header out."""
    target = path if path.startswith("/") else f"{EST}/{path}"
    fields: dict[str, str | None] = {"Host": "localhost", "User-Agent": "test", "Accept": "*/*"}
    if body is not None:
        fields |= {"Content-Type": PKCS10, "Content-Length": str(len(body))}
    if login is not None:
        fields["Authorization"] = basic(login)
    fields |= headers or {}
    lines = [
        f"{method} {target} HTTP/1.1",
        *(f"{name}: {value}" for name, value in fields.items() if value is not None),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def basic(login: str) -> str:
    """The value of an Authorization header."""
    return f"Basic {base64.b64encode(login.encode()).decode()}"
