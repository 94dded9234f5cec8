"""A workspace with a CA in it, as `estgw init` lays it out, and its scripts run as the gateway runs them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from estgw.cli import workspace
from estgw.errors import Malformed
from estgw.est import keygen
from estgw.est.csr import parse
from tests.kit import warm
from tests.kit.ca import pem
from tests.kit.der import armoured
from tests.kit.processes import PATH, run

SAN_KINDS: dict[type, str] = {x509.DNSName: "DNS", x509.IPAddress: "IP", x509.RFC822Name: "email"}


def _is_opened(path: Path) -> bool:
    """Whether SQLite has made a file by opening a register."""
    return path.name.endswith("-shm") or (path.name.endswith("-wal") and not path.stat().st_size)


FULLCMC = {
    "EST_POP_LINKING": "optional",
    "EST_MAY_CHANGE_SUBJECT": "0",
    "EST_NAME_BOUNDS": "rfc5280 4096 16384",
}
"""The variables that the gateway sets for fullcmc alone, with their defaults."""


@dataclass(frozen=True)
class Result:
    """How a script ended."""

    status: int
    out: bytes
    err: str

    @property
    def words(self) -> str:
        return self.out.decode().strip()

    @property
    def certificate(self) -> x509.Certificate:
        assert self.status == 0, self
        return x509.load_pem_x509_certificate(self.out)


@dataclass(frozen=True)
class Workspace:
    """conf.yaml, handlers/ and openssl-ca/ in one directory; tests that change files take a copy."""

    path: Path

    @classmethod
    def create(cls, path: Path, *options: str) -> Workspace:
        """Lay out the shipped files and make a CA; the options are those of `create-ca`."""
        workspace.init(path)
        made = cls(path)
        result = made.create_ca(*options)
        assert result.returncode == 0, result.stderr
        return made

    @classmethod
    def demo(cls, path: Path) -> Workspace:
        """What `estgw demo` makes: a CA and the demo user."""
        workspace.prepare_demo(path)
        return cls(path)

    def copy(self, path: Path) -> Workspace:
        """A twin with the same CA, keys included."""
        path.mkdir(parents=True, exist_ok=True)
        run("/bin/cp", "-a", f"{self.path}/.", path)  # in half of the time of shutil.copytree
        return Workspace(path)

    @property
    def ca(self) -> Path:
        return self.path / "openssl-ca"

    @property
    def anchor(self) -> Path:
        return self.path / workspace.ANCHOR

    @property
    def root(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.anchor.read_bytes())

    # Its files.

    def books(self) -> dict[str, str]:
        """Everything that the CA has written, by digest: two of these are equal when nothing was issued.

        SQLite makes a -shm and an empty -wal file when a register is opened, so these are left out.
        """
        files = (path for path in sorted(self.ca.rglob("*")) if path.is_file() and not _is_opened(path))
        return {str(path.relative_to(self.ca)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    @property
    def rows(self) -> list[list[str]]:
        """The index: type, end, revocation, serial number, file, subject."""
        return [line.split("\t") for line in (self.ca / "index.txt").read_text().splitlines()]

    def load(self, file: str) -> list[x509.Certificate]:
        """The certificates of a file in the CA's directory."""
        return x509.load_pem_x509_certificates((self.ca / file).read_bytes())

    def script(self, name: str, text: str) -> Path:
        """Write an executable file in the workspace; a text without `#!` is Bash."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if text.startswith("#!") else f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        return path

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a text that occurs once in a file, as a user does in an editor."""
        path = self.path / name
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {name}"
        path.write_text(text.replace(old, new))

    # The scripts of its CA.

    def create_ca(self, *options: str, path: str = PATH) -> subprocess.CompletedProcess[str]:
        return self.tool("create-ca", *options, path=path)

    def tool(self, script: str, *options: str, path: str = PATH) -> subprocess.CompletedProcess[str]:
        """Run one of the CA's own scripts."""
        return subprocess.run(
            [self.ca / script, *options], capture_output=True, text=True, env={"PATH": path}, check=False
        )

    def do(self, script: str, *options: str) -> str:
        """Run one of the CA's own scripts, which must succeed; what it says."""
        done = self.tool(script, *options)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def verify(self, certificate: x509.Certificate) -> None:
        """`openssl verify` against the CA, as a TLS client's certificate."""
        run("openssl", "verify", "-purpose", "sslclient", "-CAfile", self.anchor, stdin=pem(certificate))

    @property
    def bag(self) -> list[x509.Certificate]:
        """What /cacerts hands out, in the order of the wire."""
        handed = x509.load_pem_x509_certificates(self.run("openssl/cacerts").out)
        return pkcs7.load_der_pkcs7_certificates(pkcs7.serialize_certificates(handed, Encoding.DER))

    # Its handlers.

    def environment(self, path: Path, private: Path, request: bytes | None) -> dict[str, str]:
        """What the gateway would tell the script at that path; the CSR lies in the private directory afterwards.

        EST_PENDING_ID is new each time: to the script, each run is a request of its own, not a repeat of another one.
        """
        environment = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "8443",
            "REQUEST_METHOD": "POST",
            "SCRIPT_NAME": f"/.well-known/est/{path.name}",
            "QUERY_STRING": "",
            "REMOTE_ADDR": "192.0.2.9",
            "REMOTE_PORT": "40000",
            "SSL_PROTOCOL": "TLSv1.3",
            "SSL_CIPHER": "TLS_AES_256_GCM_SHA384",
            "SSL_CLIENT_VERIFY": "NONE",
            "EST_CONTRACT": "1",
            "EST_REQUEST_ID": "7f3a",
            "EST_OPERATION": path.name,
            "EST_PROFILE": "rfc",
            "EST_CA_DIR": str(self.ca),
            "EST_TMPDIR": str(private),
            "TMPDIR": str(private),
            "HOME": str(private),
            "EST_TIMEOUT": "30",
            "EST_AUTH_METHODS": "",
            "EST_CLIENT_TRUST": "none",
            "EST_CLIENT_IS_RA": "0",
            "EST_POP_REQUIRED": "0",
            "PATH": PATH,
            "LC_CTYPE": "C.UTF-8",
            "TZ": "UTC",
        }
        if path.name == "fullcmc":
            environment |= FULLCMC
        if request is not None:
            file = private / "csr-of-the-client.pem"
            file.write_bytes(armoured(request))
            environment |= keygen_environment(request) | csr_environment(request)
            environment |= {"EST_CSR_FILE": str(file), "EST_PENDING_ID": os.urandom(8).hex()}
            environment["EST_RENEW_CERT_FILE"] = str(self.ca / "server.pem")  # any certificate of this CA
        return environment

    def run(self, script: str, request: bytes | None = None, **env: str) -> Result:
        """Run handlers/SCRIPT as the contract says: environment from empty, plain files, a new session."""
        path = self.path / "handlers" / script
        with tempfile.TemporaryDirectory() as private:
            environment = self.environment(path, Path(private), request) | env
            if warm.serves(path):
                ended = warm.run(path, environment)
                status = ended.exit if ended.exit is not None else -(ended.signal or 0)
                return Result(status, ended.stdout, ended.stderr.decode())
            return _spawned(path, environment)


def _spawned(path: Path, environment: dict[str, str]) -> Result:
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        status = subprocess.run(
            [path],
            cwd=path.parent,
            env=environment,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            umask=0o077,
            start_new_session=True,
            check=False,
        ).returncode
        stdout.seek(0)
        stderr.seek(0)
        return Result(status, stdout.read(), stderr.read().decode())


def csr_environment(request: bytes) -> dict[str, str]:
    """What the gateway tells a script of the names in a CSR."""
    asked = x509.load_der_x509_csr(request)
    env = {"EST_CSR_SUBJECT": asked.subject.rfc4514_string()}
    try:
        san = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return env
    for number, entry in enumerate(san):
        env[f"EST_CSR_SAN_{number}"] = f"{SAN_KINDS.get(type(entry), 'other')}:{getattr(entry, 'value', '')}"
    return env | {"EST_CSR_EXT_SAN": san.public_bytes().hex()}


def keygen_environment(request: bytes) -> dict[str, str]:
    """What serverkeygen is told; a wish that the gateway refuses sets nothing, and the script has to end."""
    try:
        wish = keygen.wish(parse(armoured(request)))
    except Malformed:
        return {}
    env = {"EST_KEYGEN_PROTECT": wish.protection.value}
    if wish.key_id:
        env |= {"EST_KEYGEN_KEY_ID": wish.key_id.hex(), "EST_KEYGEN_ALGORITHMS": " ".join(wish.algorithms)}
    return env
