"""A laboratory with a CA, a real gateway process, and a client that shows the bytes: what end-to-end tests stand on."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7
from cryptography.x509.oid import AttributeOID, NameOID
from OpenSSL import SSL

from estgw.cli import workspace

ROOT = Path(__file__).resolve().parents[1]
DEADLINE = 20.0
"""Seconds after which a test that waits has waited in vain."""

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
EST = "/.well-known/est"
PKCS10 = "application/pkcs10"
LOGIN = f"{workspace.DEMO_USER}:{workspace.DEMO_PASSWORD}"
CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"

T = TypeVar("T")
_numbers = itertools.count(1)


# The laboratory.


@dataclass(frozen=True)
class Lab:
    """A demo workspace with its CA; copy it to spoil it."""

    path: Path

    @classmethod
    def make(cls, path: Path) -> Lab:
        workspace.prepare_demo(path)
        return cls(path)

    def copy(self, path: Path) -> Lab:
        """A twin with the same CA, keys included."""
        shutil.copytree(self.path, path, symlinks=True, dirs_exist_ok=True)
        return Lab(path)

    @property
    def ca(self) -> Path:
        return self.path / "openssl-ca"

    @property
    def anchor(self) -> Path:
        return self.path / workspace.ANCHOR

    def books(self) -> dict[str, str]:
        """Everything that the CA has written, by digest: two of these are equal when nothing was issued."""
        files = (path for path in sorted(self.ca.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.ca)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def script(self, name: str, text: str) -> Path:
        """Write an executable file in the workspace; a text without `#!` is Bash."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if text.startswith("#!") else f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        return path

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a text that occurs once in a file, as somebody with an editor would."""
        path = self.path / name
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {name}"
        path.write_text(text.replace(old, new))

    def verify(self, certificate: x509.Certificate) -> None:
        """`openssl verify` against the CA, as a TLS client's certificate."""
        run("openssl", "verify", "-purpose", "sslclient", "-CAfile", self.anchor, stdin=pem(certificate))


# The gateway.


class Gateway:
    """A running `estgw serve`: its address, its log and its life."""

    def __init__(self, lab: Lab, config: Path, log_file: Path, process: subprocess.Popen[str], url: str) -> None:
        self.lab, self.config, self.process, self.url = lab, config, process, url
        self.port = int(url.rpartition(":")[2])
        self._log_file = log_file

    @property
    def log_text(self) -> str:
        """The whole of standard error."""
        return self._log_file.read_text(encoding="utf-8")

    @property
    def log(self) -> list[dict[str, Any]]:
        """The log, a dict a line; a line that is no JSON object fails the test."""
        return [json.loads(line) for line in self.log_text.splitlines()]

    @property
    def access(self) -> list[dict[str, Any]]:
        """The access lines; a request's is there before its answer is."""
        return [line for line in self.log if line["event"] == "request"]

    def lines_of(self, request_id: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line.get("request_id") == request_id]

    def wait_for(self, event: str, *, after: int = 0, **fields: Any) -> dict[str, Any]:
        """The first log line past the `after` first ones with that event and those fields, waiting for it."""

        def found() -> dict[str, Any] | None:
            wanted = {"event": event, **fields}
            return next((line for line in self.log[after:] if wanted.items() <= line.items()), None)

        return until(found)

    def configure(self, overrides: Mapping[str, Any]) -> None:
        """Write another configuration for the next reload."""
        _write_config(self.lab, self.config, overrides)

    def reload(self) -> dict[str, Any]:
        """SIGHUP; the log line that says what came of it."""
        before = len(self.log)
        self.process.send_signal(signal.SIGHUP)
        return until(
            lambda: next((line for line in self.log[before:] if str(line["event"]).startswith("reload")), None)
        )

    def connect(self, **options: Any) -> Connection:
        """A TLS connection; the options are those of `Connection`."""
        return Connection(self, **options)

    def get(self, path: str, **options: Any) -> Response:
        """GET on a connection of its own; `path` is absolute or an operation."""
        return self.ask("GET", path, **options)

    def post(self, path: str, body: bytes, *, login: str | None = LOGIN, **options: Any) -> Response:
        """POST a CSR on a connection of its own, with the demo user's password."""
        return self.ask("POST", path, body, login=login, **options)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str | None] | None = None,
        login: str | None = None,
        **options: Any,
    ) -> Response:
        with self.connect(**options) as connection:
            return connection.ask(method, path, body, headers=headers, login=login)


@contextlib.contextmanager
def running_gateway(
    lab: Lab,
    overrides: Mapping[str, Any] | None = None,
    *,
    clean: bool = True,
    options: Iterable[str] = (),
    status: int = 0,
    temporary: Path | None = None,
) -> Iterator[Gateway]:
    """Serve a workspace on a port of the kernel's choice; SIGTERM at the end must be a clean end, or else `status`.

    `overrides` are merged into the shipped conf.yaml; None as a value takes a key away.  `clean` is whether a
    traceback in the log fails the test; what is left in its temporary directory always does, unless that is given.
    """
    number = next(_numbers)
    config, log_file = lab.path / f"conf-{number}.yaml", lab.path / f"log-{number}"
    _write_config(lab, config, overrides or {})
    command = [sys.executable, "-W", "error", "-m", "estgw", "serve", "-c", str(config), *options]
    own = temporary is None
    temporary = temporary or lab.path / f"tmp-{number}"
    temporary.mkdir(exist_ok=not own)
    # Workers, if there are any, know no -W of ours.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "PYTHONWARNINGS": "error"}
    with (
        log_file.open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
    ):
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert ready.startswith("estgw ready https://localhost:"), log_file.read_text()
            gateway = Gateway(lab, config, log_file, process, ready.split()[-1])
            yield gateway
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == status, log_file.read_text()
        finally:
            process.kill()
    if clean:
        text = log_file.read_text()
        assert "Traceback" not in text, text
        assert "unexpected error" not in text, text
    assert not own or not list(temporary.iterdir()), "a request's private directory was left behind"


def _write_config(lab: Lab, path: Path, overrides: Mapping[str, Any]) -> None:
    shipped = yaml.safe_load((lab.path / "conf.yaml").read_text())
    # Tests guess passwords all the time from one address, and one that fails should not wait for what hangs.
    ours = {
        "server": {"listen": ["127.0.0.1:0"], "drain_timeout": 10},
        "client_auth": {"guess_delay": 0},
        "callouts": {"operations": {"fullcmc": {"enabled": True}}},
    }
    base = _merge(shipped, ours)
    temporary = path.with_suffix(".new")
    temporary.write_text(yaml.safe_dump(_merge(base, overrides)))
    temporary.replace(path)


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


# The client.


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
    standard one, whose sockets can't export keying material; `source` is the address to come from.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        version: ssl.TLSVersion | None = None,
        certificate: tuple[Path, Path] | None = None,
        anchor: Path | None = None,
        pyopenssl: bool = False,
        source: str = "127.0.0.1",
    ) -> None:
        address = ("127.0.0.1", gateway.port)
        self.plain = socket.create_connection(address, timeout=DEADLINE, source_address=(source, 0))
        try:
            anchor = anchor or gateway.lab.anchor
            make = self._pyopenssl if pyopenssl else self._standard
            self.tls: Any = make(anchor, version, certificate)
        except BaseException:
            self.plain.close()
            raise
        self._received = b""

    def _standard(
        self, anchor: Path, version: ssl.TLSVersion | None, certificate: tuple[Path, Path] | None
    ) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(anchor))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context.wrap_socket(self.plain, server_hostname="localhost")

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


# Requests for certificates.

KEY = ec.generate_private_key(ec.SECP256R1())
"""One key for all tests that are not about keys."""
KEY_PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def csr(
    name: str | x509.Name = "device-1",
    *san: x509.GeneralName,
    key: Any = KEY,
    challenge: str | bytes | None = None,
    extensions: Iterable[x509.ExtensionType] = (),
) -> bytes:
    """A CSR as DER; `challenge` is the challengePassword, as a UTF8String."""
    subject = name if isinstance(name, x509.Name) else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder(subject)
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    if challenge is not None:
        text = challenge.encode() if isinstance(challenge, str) else challenge
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, text)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def armoured(der: bytes, label: str = "CERTIFICATE REQUEST") -> bytes:
    """PEM."""
    text = base64.encodebytes(der)
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label.encode(), text, label.encode())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def enrol(gateway: Gateway, directory: Path, name: str = "device-1", *san: x509.GeneralName) -> tuple[Path, Path]:
    """Get a certificate with the demo user's password; the two PEM files to log in with."""
    certificate, key = directory / "client.pem", directory / "client.key"
    certificate.write_bytes(pem(gateway.post("simpleenroll", csr(name, *san)).certificate))
    key.write_bytes(KEY_PEM)
    return certificate, key


# Odds and ends.


def run(
    *command: str | Path, stdin: bytes = b"", status: int | None = 0, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, which must be the one expected; None is any."""
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=DEADLINE, check=False, **options)
    assert status is None or done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done


def until(found: Callable[[], T | None]) -> T:
    """Wait for something; a test that waits in vain fails."""
    end = time.monotonic() + DEADLINE
    while True:
        if result := found():
            return result
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
