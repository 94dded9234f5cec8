"""A bench for scripts: a workspace with a CA in it, CSRs to feed them, and a run as the gateway would do it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import NameOID
from pkilint.loader import load_pem_certificate  # type: ignore[import-untyped]
from pkilint.pkix import certificate, extension, name  # type: ignore[import-untyped]

from estgw.cli.workspace import CA_FILES
from estgw.errors import Malformed
from estgw.est import keygen
from estgw.est.csr import parse

ROOT = Path(__file__).resolve().parents[2]
PATH = "/usr/local/bin:/usr/bin:/bin"

Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

P256 = ec.generate_private_key(ec.SECP256R1())
"""One key for all tests that are not about keys."""

SAN_KINDS: dict[type, str] = {x509.DNSName: "DNS", x509.IPAddress: "IP", x509.RFC822Name: "email"}


def subject(*rdns: str | dict[x509.ObjectIdentifier, str]) -> x509.Name:
    """A name: a text is a common name, a dict is a multi-valued RDN; length limits are not looked at."""
    return x509.Name(
        x509.RelativeDistinguishedName(
            x509.NameAttribute(oid, text, _validate=False)
            for oid, text in ({NameOID.COMMON_NAME: rdn} if isinstance(rdn, str) else rdn).items()
        )
        for rdn in rdns
    )


@dataclass(frozen=True)
class CSR:
    """A request, with what the gateway would tell a script about it."""

    request: x509.CertificateSigningRequest

    @property
    def pem(self) -> bytes:
        return self.request.public_bytes(Encoding.PEM)

    @property
    def subject_der(self) -> bytes:
        """The subject as it is encoded in the request."""
        return element(self.request.tbs_certrequest_bytes, 1)

    @property
    def keygen_environment(self) -> dict[str, str]:
        """What serverkeygen is told; a wish that the gateway refuses sets nothing, and the script has to end."""
        try:
            wish = keygen.wish(parse(self.pem))
        except Malformed:
            return {}
        env = {"EST_KEYGEN_PROTECT": wish.protection.value}
        if wish.key_id:
            env |= {"EST_KEYGEN_KEY_ID": wish.key_id.hex(), "EST_KEYGEN_ALGORITHMS": " ".join(wish.algorithms)}
        return env

    @property
    def environment(self) -> dict[str, str]:
        env = {"EST_CSR_SUBJECT": self.request.subject.rfc4514_string()}
        try:
            san = self.request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return env
        for number, entry in enumerate(san):
            env[f"EST_CSR_SAN_{number}"] = f"{SAN_KINDS.get(type(entry), 'other')}:{getattr(entry, 'value', '')}"
        return env | {"EST_CSR_EXT_SAN": san.public_bytes().hex()}


def csr(
    name: x509.Name | str = "device-1",
    *san: x509.GeneralName,
    key: Key = P256,
    extensions: Iterable[x509.ExtensionType] = (),
    attributes: Iterable[tuple[str, bytes]] = (),
) -> CSR:
    """Make a CSR; extensions are asked for as critical, attributes are octet strings by dotted OID."""
    builder = x509.CertificateSigningRequestBuilder(subject(name) if isinstance(name, str) else name)
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
    for wanted in extensions:
        builder = builder.add_extension(wanted, critical=True)
    for oid, value in attributes:
        builder = builder.add_attribute(x509.ObjectIdentifier(oid), value)
    modern = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return CSR(builder.sign(key, None if modern else hashes.SHA256()))


def element(der: bytes, index: int) -> bytes:
    """The element of that number in a DER sequence, header included."""
    position = _header(der, 0)[0]
    while True:
        start, length = _header(der, position)
        if index == 0:
            return der[position : start + length]
        index, position = index - 1, start + length


def _header(der: bytes, position: int) -> tuple[int, int]:
    """Where the content of the element at that position starts, and how long it is."""
    length = der[position + 1]
    if length < 0x80:
        return position + 2, length
    start = position + 2 + (length & 0x7F)
    return start, int.from_bytes(der[position + 2 : start])


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
    """What `estgw init` lays out: handlers/ beside openssl-ca/."""

    path: Path

    @classmethod
    def create(cls, path: Path, *options: str) -> Workspace:
        """Copy the shipped files and make a CA; the name of the directory is no easy one."""
        shutil.copytree(ROOT / "handlers", path / "handlers", ignore=shutil.ignore_patterns("python"))
        (path / "openssl-ca").mkdir()
        for part in CA_FILES:
            shutil.copy(ROOT / "openssl-ca" / part, path / "openssl-ca")
        shutil.copytree(ROOT / "openssl-ca/profiles", path / "openssl-ca/profiles")
        workspace = cls(path)
        result = workspace.create_ca(*options)
        assert result.returncode == 0, result.stderr
        return workspace

    def copy(self, path: Path) -> Workspace:
        """A twin with the same CA, to be spoilt."""
        shutil.copytree(self.path, path, symlinks=True)
        return Workspace(path)

    @property
    def ca(self) -> Path:
        return self.path / "openssl-ca"

    @property
    def rows(self) -> list[list[str]]:
        """The index: type, end, revocation, serial number, file, subject."""
        return [line.split("\t") for line in (self.ca / "index.txt").read_text().splitlines()]

    def create_ca(self, *options: str, path: str = PATH) -> subprocess.CompletedProcess[str]:
        return self.tool("create-ca", *options, path=path)

    def tool(self, script: str, *options: str, path: str = PATH) -> subprocess.CompletedProcess[str]:
        """Run one of the CA's own scripts, from anywhere."""
        return subprocess.run(
            [self.ca / script, *options], capture_output=True, text=True, env={"PATH": path}, check=False
        )

    def do(self, script: str, *options: str) -> str:
        """The same where it must go well; what it says."""
        done = self.tool(script, *options)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def load(self, file: str) -> list[x509.Certificate]:
        """The certificates of a file in the CA's directory."""
        return x509.load_pem_x509_certificates((self.ca / file).read_bytes())

    @property
    def bag(self) -> list[x509.Certificate]:
        """What /cacerts hands out, in the order of the wire."""
        handed = x509.load_pem_x509_certificates(self.run("openssl/cacerts").out)
        return pkcs7.load_der_pkcs7_certificates(pkcs7.serialize_certificates(handed, Encoding.DER))

    def edit(self, file: str, old: str, new: str) -> None:
        """Change a text that occurs once in a file, as a user would in an editor."""
        path = self.path / file
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new))

    def environment(self, path: Path, private: Path, request: CSR | None) -> dict[str, str]:
        """What the gateway would tell the script at that path; the CSR lies in the private directory afterwards."""
        environment = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "REMOTE_ADDR": "192.0.2.9",
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
            "SSL_CERT_FILE": "/dev/null",
        }
        if request is not None:
            file = private / "csr-of-the-client.pem"
            file.write_bytes(request.pem)
            environment |= request.keygen_environment
            environment |= request.environment | {"EST_CSR_FILE": str(file), "EST_PENDING_ID": "0a1b2c"}
            environment["EST_RENEW_CERT_FILE"] = str(self.ca / "server.pem")  # any certificate of this CA
        return environment

    def run(self, script: str, request: CSR | None = None, **env: str) -> Result:
        """Run handlers/SCRIPT as the contract says: environment from empty, plain files, a new session."""
        path = self.path / "handlers" / script
        with (
            tempfile.TemporaryDirectory() as private,
            tempfile.TemporaryFile() as stdin,
            tempfile.TemporaryFile() as stdout,
            tempfile.TemporaryFile() as stderr,
        ):
            environment = self.environment(path, Path(private), request)
            status = subprocess.run(
                [path],
                cwd=path.parent,
                env=environment | env,
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


def lint(pem: bytes) -> set[str]:
    """What pkilint's RFC 5280 linter has to say about a certificate, in its own codes."""
    validator = certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )
    findings = validator.validate(load_pem_certificate(pem.decode(), "issued").root)
    return {found.finding.code for result in findings for found in result.finding_descriptions}
