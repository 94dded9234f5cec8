"""handlers/python: its CA, its register, ML-DSA and other checks of this set alone.  See also test_both_sets.py."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from estgw.register import schema
from tests.callout.running import running
from tests.kit.csr import csr, san, subject
from tests.kit.der import BIT_STRING, BMP, CN, SEQUENCE, armoured, attribute, dn, oid, tlv
from tests.kit.gateway import Gateway, running_gateway
from tests.kit.keys import KEY, KEY_PEM, key_pem, rsa_key
from tests.kit.processes import ROOT, until
from tests.kit.reference import lint
from tests.kit.scripts import ISSUING, OWN_PYTHON, HandlerSet, keygen
from tests.kit.workspace import FULLCMC, Result, Workspace

HANDLERS = ROOT / "handlers/python"
SCRIPTS = sorted(path.name for path in HANDLERS.iterdir() if path.is_file() and path.read_bytes().startswith(b"#!"))
MODULES = sorted(path.name for path in HANDLERS.glob("*.py"))
RFC9881 = Path(__file__).parent / "rfc9881"

ML_DSA: dict[str, type[Any]] = {
    "ml-dsa-44": mldsa.MLDSA44PrivateKey,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey,
    "ml-dsa-87": mldsa.MLDSA87PrivateKey,
}
SIGNATURES = {
    "ml-dsa-44": SignatureAlgorithmOID.ML_DSA_44,
    "ml-dsa-65": SignatureAlgorithmOID.ML_DSA_65,
    "ml-dsa-87": SignatureAlgorithmOID.ML_DSA_87,
    "p-256": SignatureAlgorithmOID.ECDSA_WITH_SHA256,
    "p-384": SignatureAlgorithmOID.ECDSA_WITH_SHA384,
    "rsa-2048": SignatureAlgorithmOID.RSA_WITH_SHA256,
    "ed25519": SignatureAlgorithmOID.ED25519,
}
kinds = pytest.mark.parametrize("kind", ML_DSA)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> HandlerSet:
    """One CA for the tests that only add to it."""
    return HandlerSet.create("python", tmp_path_factory.mktemp("ca") / "ws")


@pytest.fixture
def bench(shared: HandlerSet, tmp_path: Path) -> HandlerSet:
    """A CA with an empty register, and scripts, for the tests that edit or break something."""
    copy = shared.copy(tmp_path / "ws")
    copy.store.unlink(missing_ok=True)
    return copy


def create_ca(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [HANDLERS / "create-ca", *options]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": OWN_PYTHON}, check=False)


def ml_dsa_csr(key: Any, name: str = "post-quantum") -> bytes:
    return csr(name, x509.DNSName("pq.example.org"), key=key)


def usage(certificate: x509.Certificate) -> set[str]:
    """The key usages that are set."""
    found = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert found.critical
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    names += ("key_cert_sign", "crl_sign")  # type: ignore[assignment]
    return {name for name in names if getattr(found.value, name)}


# The scripts as texts.


def test_every_operation_has_a_script_and_no_other_module_exists() -> None:
    assert {*ISSUING, "cacerts", "csrattrs", "fullcmc", "authorize", "create-ca"} == set(SCRIPTS)
    assert [name for name in MODULES if not name.startswith("cmc_")] == [
        "ca.py",
        "csr.py",
        "policy.py",
        "settings.py",
        "store.py",
    ]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_explains_itself(name: str) -> None:
    text = (HANDLERS / name).read_text()
    tree = ast.parse(text)
    explanation = ast.get_docstring(tree) or ""
    assert text.startswith("#!/usr/bin/env python3\n")
    assert explanation.startswith(f"{name}: ")
    assert os.access(HANDLERS / name, os.X_OK)
    assert text.endswith('\n\nif __name__ == "__main__":\n    sys.exit(main())\n')
    if name != "create-ca":
        assert len(text.splitlines()) <= (70 if name == "fullcmc" else 60), "a policy fits on a screen"
    if name not in ("create-ca", "authorize"):
        assert "Try it alone: estgw run " in explanation


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_not_executable_and_say_so(name: str) -> None:
    assert not os.access(HANDLERS / name, os.X_OK)
    assert "Not a program." in (ast.get_docstring(ast.parse((HANDLERS / name).read_text())) or "")


def test_the_issue_block_is_the_same_in_all_scripts() -> None:
    blocks = [(HANDLERS / name).read_text().partition("    #### Issue:")[2] for name in ISSUING]
    assert all(blocks)
    assert blocks[0] == blocks[1]
    # A key that the CA makes is kept nowhere, so a repeat gets a new one.
    assert "once" not in blocks[2]


# Run by a warm parent.

WARM = """
import json, os, sys
import cryptography.x509
path = sys.argv[1]
environment = json.load(sys.stdin)
sys.path[0] = "/nowhere"
os.environ.clear()
os.environ.update(environment)
os.chdir(os.path.dirname(path))
with open(path, "rb") as file:
    code = compile(file.read(), path, "exec")
exec(code, {"__name__": "__main__", "__file__": path})
sys.exit(99)
"""


def environment(bench: HandlerSet, request: bytes, private: Path, operation: str = "simpleenroll") -> dict[str, str]:
    """The environment of a run, for tests that start a handler in their own way."""
    reflect = bench.script("reflect")
    reflect.write_text("#!/bin/bash\nexec env -0\n")
    reflect.chmod(0o755)
    shown = bench.run("reflect", request, EST_OPERATION=operation).out.decode().rstrip("\0").split("\0")
    private.mkdir(mode=0o700)
    (private / "csr.pem").write_bytes(armoured(request))
    made = dict(line.split("=", 1) for line in shown) | (FULLCMC if operation == "fullcmc" else {})
    return made | {"EST_CSR_FILE": str(private / "csr.pem")} | dict.fromkeys(("EST_TMPDIR", "HOME"), str(private))


@pytest.mark.parametrize("operation", [*ISSUING, "cacerts", "csrattrs", "fullcmc", "authorize"])
def test_a_warm_parent_can_run_every_script(bench: HandlerSet, tmp_path: Path, operation: str) -> None:
    env = environment(bench, csr("warm"), tmp_path / "private", operation)
    done = subprocess.run(
        [sys.executable, "-c", WARM, bench.script(operation)],
        input=json.dumps(env),
        capture_output=True,
        encoding="latin-1",
        check=False,
    )
    assert done.returncode == 0
    assert not done.stderr or operation == "fullcmc", "nothing on standard input is no message"
    assert bool(done.stdout) == (operation != "authorize")
    assert len(bench.rows) == (operation in ISSUING)


# create-ca.


@pytest.mark.parametrize("kind", SIGNATURES)
def test_create_ca_makes_a_sound_trust_anchor(tmp_path: Path, kind: str) -> None:
    done = create_ca("--key", kind, tmp_path / "new ca")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"made {tmp_path}/new ca/cacert.pem\n", "")
    pem = (tmp_path / "new ca/cacert.pem").read_bytes()
    root = x509.load_pem_x509_certificate(pem)
    root.verify_directly_issued_by(root)
    assert root.signature_algorithm_oid == SIGNATURES[kind]
    assert root.subject.rfc4514_string() == f"CN=estgw demo CA {kind.upper()},O=estgw demo"
    assert usage(root) == {"key_cert_sign", "crl_sign"}
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, True)
    assert root.not_valid_after_utc - root.not_valid_before_utc == timedelta(days=3650)
    key = load_pem_private_key((tmp_path / "new ca/private/cakey.pem").read_bytes(), None)
    assert key.public_key() == root.public_key()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new ca").rglob("*")}
    assert modes == {
        "ca.lock": 0o600, "cacert.pem": 0o644, "certs.sqlite": 0o600, "private": 0o700, "cakey.pem": 0o600
    }  # fmt: skip
    assert lint(pem) <= ACCEPTED


def test_create_ca_replaces_nothing_unless_forced(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    assert create_ca("--key", "ed25519", folder).returncode == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    refused = create_ca("--key", "ed25519", folder)
    assert (refused.returncode, refused.stderr) == (
        1,
        f"create-ca: there is a CA in {folder}; --force replaces it\n",
    )
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / ".create-ca.killed").mkdir()
    (folder / "certs.sqlite-wal").write_text("of the old register")
    forced = create_ca("--key", "p-384", "--name", "anew", "--days", "2", "--force", folder)
    assert forced.returncode == 0, forced.stderr
    root = x509.load_pem_x509_certificate((folder / "cacert.pem").read_bytes())
    assert root.subject.rfc4514_string() == "CN=anew,O=estgw demo"
    assert root.not_valid_after_utc - root.not_valid_before_utc == timedelta(days=2)
    assert set(before) == {path for path in folder.rglob("*") if path.is_file()}


def test_create_ca_leaves_the_demo_ca_alone(bench: HandlerSet) -> None:
    root = bench.root
    refused = create_ca("--force", bench.ca)
    assert refused.returncode == 1
    assert "belongs to openssl ca" in refused.stderr
    assert bench.root == root


def test_create_ca_without_the_library_names_the_remedy(tmp_path: Path) -> None:
    command = [sys.executable, "-S", str(HANDLERS / "create-ca"), str(tmp_path / "ca")]
    done = subprocess.run(command, capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 1
    assert ".venv/bin/python" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ca").exists()


# ML-DSA (RFC 9881).


@pytest.fixture(scope="module")
def pq_cas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The CAs of RFC 9881's appendix, with the published certificates and keys."""
    made = {}
    for kind in ML_DSA:
        made[kind] = tmp_path_factory.mktemp(kind)
        (made[kind] / "private").mkdir()
        (made[kind] / "cacert.pem").write_bytes((RFC9881 / f"{kind}-cert.pem").read_bytes())
        (made[kind] / "private/cakey.pem").write_bytes((RFC9881 / f"{kind}-key.pem").read_bytes())
    return made


@kinds
def test_an_ml_dsa_csr_gets_a_certificate_of_an_ec_ca(shared: HandlerSet, kind: str) -> None:
    key = load_pem_private_key((RFC9881 / f"{kind}-key.pem").read_bytes(), None)
    published = x509.load_pem_x509_certificate((RFC9881 / f"{kind}-cert.pem").read_bytes())
    request = ml_dsa_csr(key)
    assert x509.load_der_x509_csr(request).is_signature_valid
    certificate = shared.issue("simpleenroll", request)
    certificate.verify_directly_issued_by(shared.root)
    spki = published.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert spki in certificate.tbs_certificate_bytes
    assert usage(certificate) == {"digital_signature"}
    identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier == x509.SubjectKeyIdentifier.from_public_key(published.public_key())
    assert lint(certificate.public_bytes(Encoding.PEM)) <= ACCEPTED


@kinds
@pytest.mark.parametrize("of_client", ["ec", "the same"])
def test_an_ml_dsa_ca_certifies_keys_of_any_kind(
    shared: HandlerSet, pq_cas: dict[str, Path], kind: str, of_client: str
) -> None:
    root = x509.load_pem_x509_certificate((pq_cas[kind] / "cacert.pem").read_bytes())
    request = csr("classic", x509.DNSName("a.example.org"))
    if of_client != "ec":
        request = ml_dsa_csr(ML_DSA[kind].generate())
    certificate = shared.issue("simpleenroll", request, EST_CA_DIR=str(pq_cas[kind]))
    certificate.verify_directly_issued_by(root)
    assert certificate.signature_algorithm_oid == SIGNATURES[kind]
    assert certificate.signature_algorithm_parameters is None, "absent: RFC 9881 2"
    root.public_key().verify(certificate.signature, certificate.tbs_certificate_bytes)  # type: ignore[union-attr,call-arg]
    authority = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert authority.key_identifier == own.key_identifier
    assert certificate.public_key() == x509.load_der_x509_csr(request).public_key()
    assert usage(certificate) == {"digital_signature"}
    assert lint(certificate.public_bytes(Encoding.PEM)) <= ACCEPTED


@kinds
def test_serverkeygen_makes_ml_dsa_keys(bench: HandlerSet, pq_cas: dict[str, Path], kind: str) -> None:
    bench.edit("serverkeygen", '"p-256"', f'"{kind}"')
    result = bench.run("serverkeygen", csr("keyless"), EST_CA_DIR=str(pq_cas[kind]))
    key: Any
    key, certificate = keygen(result)
    assert isinstance(key, ML_DSA[kind])
    assert key.public_key() == certificate.public_key()
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert len(der) == 54, "the 32 octets of the seed: RFC 9881 6 recommends that form"


@pytest.mark.parametrize("kind", ["p-521", "ed25519", "rsa-2048"])
def test_serverkeygen_makes_keys_of_other_kinds(bench: HandlerSet, kind: str) -> None:
    bench.edit("serverkeygen", '"p-256"', f'"{kind}"')
    key, certificate = keygen(bench.run("serverkeygen", csr("keyless")))
    assert key.public_key() == certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey)
    wanted = {"digital_signature"} | ({"key_encipherment"} if kind.startswith("rsa") else set())
    assert usage(certificate) == wanted
    assert lint(certificate.public_bytes(Encoding.PEM)) <= ACCEPTED


def test_a_key_that_is_to_be_protected_is_not_given_in_the_clear(bench: HandlerSet) -> None:
    env = {"EST_KEYGEN_PROTECT": "symmetric", "EST_KEYGEN_KEY_ID": "00ff", "EST_KEYGEN_ALGORITHMS": "id-aes128-wrap"}
    result = bench.run("serverkeygen", csr("keyless"), **env)
    assert (result.status, b"BEGIN" in result.out, bench.rows) == (65, False, [])
    (bench.ca / "keygen-keys").write_text(f"0x00ff {bytes(16).hex()}\n")
    (bench.ca / "keygen-keys").chmod(0o600)
    result = bench.run("serverkeygen", csr("keyless"), **env)
    assert (result.status, b"PRIVATE" in result.out, len(bench.rows)) == (0, False, 1)
    assert result.out.startswith(b"-----BEGIN CMS-----\n")
    keygen(bench.run("serverkeygen", csr("keyless"), EST_KEYGEN_PROTECT="none"))


# Odd keys and names.


def test_a_compressed_point_is_certified_as_the_same_key(shared: HandlerSet) -> None:
    point = KEY.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    algorithm = tlv(SEQUENCE, oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7"))
    spki = tlv(SEQUENCE, algorithm, tlv(BIT_STRING, b"\0", point))
    request = csr("compressed", key=KEY, spki=spki)
    assert shared.issue("simpleenroll", request).public_key() == KEY.public_key()


def test_a_key_for_rsassa_pss_alone_is_refused(shared: HandlerSet) -> None:
    """The certificate would not have the restriction."""
    key = rsa_key(2048)
    inner = key.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    algorithm = tlv(SEQUENCE, oid("1.2.840.113549.1.1.10"))
    spki = tlv(SEQUENCE, algorithm, tlv(BIT_STRING, b"\0", inner))
    request = csr("pss", key=key, spki=spki)
    before = shared.rows
    result = shared.run("simpleenroll", request)
    assert (result.status, result.words) == (65, "keys for RSASSA-PSS alone are not certified here")
    assert shared.rows == before


WITHOUT_COMMON_NAME = "if not request.has_common_name:"


def test_an_empty_subject_makes_the_alternative_names_critical(bench: HandlerSet) -> None:
    bench.edit("simpleenroll", WITHOUT_COMMON_NAME, "if False:")
    certificate = bench.issue("simpleenroll", csr(subject(), x509.DNSName("a.example.org")))
    assert certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    assert lint(certificate.public_bytes(Encoding.PEM)) <= ACCEPTED
    result = bench.run("simpleenroll", csr(subject()))
    assert (result.status, len(bench.rows)) == (65, 1)


# The CA.


def authority(
    name: str, key: Any, issuer: tuple[x509.Certificate, Any] | None = None, *, ends: datetime | None = None
) -> x509.Certificate:
    """A CA's certificate, by itself or by another."""
    own = subject(name)
    now = datetime.now(UTC).replace(microsecond=0)
    ends = ends or now + timedelta(days=9)
    builder = x509.CertificateBuilder().subject_name(own).issuer_name(issuer[0].subject if issuer else own)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=9)).not_valid_after(ends)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256())


def install(ca: Path, key: Any, *cacert: x509.Certificate, chain: x509.Certificate | None = None) -> None:
    """Put a CA's key and certificates into a directory."""
    (ca / "private/cakey.pem").write_bytes(key_pem(key))
    (ca / "cacert.pem").write_bytes(b"".join(certificate.public_bytes(Encoding.PEM) for certificate in cacert))
    if chain:
        (ca / "chain.pem").write_bytes(chain.public_bytes(Encoding.PEM))


OTHER = ec.generate_private_key(ec.SECP384R1())


def test_the_issuer_is_the_certificate_of_the_ca_key(bench: HandlerSet) -> None:
    """cacert.pem may be the root above the issuing CA; after a rollover there are several certificates."""
    root = authority("root", KEY)
    below = authority("below", OTHER, (root, KEY))
    install(bench.ca, OTHER, root, chain=below)
    bench.edit("settings.py", 'lifetime = "90d"', 'lifetime = "5d"')
    certificate = bench.issue("simpleenroll", csr())
    certificate.verify_directly_issued_by(below)
    assert certificate.signature_algorithm_oid == SignatureAlgorithmOID.ECDSA_WITH_SHA384
    keyid = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert keyid == x509.SubjectKeyIdentifier.from_public_key(OTHER.public_key()).digest, "below has no identifier"
    install(bench.ca, OTHER, root, below)
    bench.issue("simpleenroll", csr()).verify_directly_issued_by(below)


def test_a_ca_whose_key_is_encrypted_is_reported(bench: HandlerSet) -> None:
    secret = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    (bench.ca / "private/cakey.pem").write_bytes(secret)
    result = bench.run("simpleenroll", csr())
    assert (result.status, result.out) == (os.EX_CONFIG, b"")
    assert "Traceback" not in result.err


# The register.


def test_a_row_has_the_certificate_and_its_request(bench: HandlerSet) -> None:
    name = subject({NameOID.ORGANIZATION_NAME: "a\x1b[31m"}, "zoe")
    request = csr(name, x509.DNSName("a.example.org"), x509.RFC822Name("zoe@example.org"))
    env = {"EST_LABEL": "iot", "EST_PENDING_ID": "0a" * 32, "EST_REQUEST_ID": "beef"}
    certificate = bench.issue("simpleenroll", request, **env)
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(spki)
    with contextlib.closing(sqlite3.connect(bench.store)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        db.row_factory = sqlite3.Row
        (row,) = [dict(found) for found in db.execute("SELECT * FROM certificates")]
    issued_at = datetime.fromisoformat(row.pop("issued_at"))
    assert len(row.pop("request_key")) == 64
    assert abs(issued_at - datetime.now(UTC)) < timedelta(seconds=20)
    assert row == {
        "serial": f"{certificate.serial_number:040X}".removeprefix("00"),
        "status": "valid",
        "revoked_at": None,
        "reason": None,
        "subject": "CN=zoe,O=a\\1B[31m",
        "san": "DNS:a.example.org, email:zoe@example.org",
        "spki_sha256": digest.finalize().hex(),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "profile": "client",
        "operation": "simpleenroll",
        "label": "iot",
        "request_id": "beef",
        "pending_id": "0a" * 32,
        "der": certificate.public_bytes(Encoding.DER),
        "subject_key": schema.subject_key(certificate.subject),
    }


def test_ten_requests_at_once_can_create_the_register(bench: HandlerSet) -> None:
    """SQLite refuses two processes that switch to the write-ahead log at the same time, despite any timeout."""
    with ThreadPoolExecutor(10) as pool:
        issued = list(pool.map(lambda number: bench.issue("simpleenroll", csr(f"device-{number}")), range(10)))
    assert {row.serial for row in bench.rows} == {certificate.serial_number for certificate in issued}
    assert sorted(path.name for path in bench.ca.glob("*certs.sqlite*")) == ["certs.sqlite"]


def start(bench: HandlerSet, env: dict[str, str], stdout: Any, before: Callable[[], object] | None = None) -> Any:
    return subprocess.Popen(
        [bench.script("simpleenroll")],
        cwd=HANDLERS,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        preexec_fn=before,
    )


def test_the_row_is_committed_before_the_certificate_is_printed(bench: HandlerSet, tmp_path: Path) -> None:
    """The script blocks while it prints and is killed there: the row is committed, and the reader got nothing."""
    env = environment(bench, csr("slow reader"), tmp_path / "private")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filler = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filler += os.write(writer, b"." * 4096)
    os.set_blocking(writer, True)
    with start(bench, env, writer) as process:
        until(lambda: bench.rows)
        time.sleep(0.05)
        assert process.poll() is None, "it is waiting for the reader"
        process.kill()
        process.communicate()
    os.close(writer)
    with open(reader, "rb") as file:
        assert file.read() == b"." * filler
    assert [row.subject for row in bench.rows] == ["CN=slow reader"]


def test_a_full_output_is_a_failure_but_keeps_the_row(bench: HandlerSet, tmp_path: Path) -> None:
    env = environment(bench, csr("nobody listens"), tmp_path / "private")
    with open("/dev/full", "wb") as full, start(bench, env, full) as process:
        process.communicate()
    assert process.returncode not in (0, 64, 65, 69, 75, 77)
    assert len(bench.rows) == 1


def test_a_killed_script_never_printed_an_unregistered_certificate(bench: HandlerSet, tmp_path: Path) -> None:
    env = environment(bench, csr("unlucky"), tmp_path / "private")
    bench.issue("simpleenroll", csr("measured"))
    outputs = []
    for step in range(8):
        with (tmp_path / f"out-{step}").open("w+b") as out, start(bench, env, out) as process:
            time.sleep(0.03 + 0.012 * step)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            out.seek(0)
            outputs.append(out.read())
    registered = {row.serial for row in bench.rows}
    for output in outputs:
        if b"-----END CERTIFICATE-----" in output:
            assert x509.load_pem_x509_certificate(output).serial_number in registered
    with contextlib.closing(sqlite3.connect(bench.store)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    bench.issue("simpleenroll", csr("lucky"))


def no_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@pytest.mark.parametrize("exists", [True, False])
def test_without_room_for_the_row_nothing_is_printed(bench: HandlerSet, tmp_path: Path, exists: bool) -> None:
    if exists:
        bench.issue("simpleenroll", csr("first"))
    before = bench.rows
    env = environment(bench, csr("too late"), tmp_path / "private")
    with start(bench, env, subprocess.PIPE, no_room) as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (os.EX_IOERR, b"")
    assert b"certs.sqlite" in err
    assert b"Traceback" not in err
    assert bench.rows == before
    assert not list(bench.ca.glob(".certs.sqlite*"))


def test_a_reader_does_not_delay_a_writer(bench: HandlerSet) -> None:
    bench.issue("simpleenroll", csr("first"))
    with contextlib.closing(sqlite3.connect(bench.store, isolation_level=None)) as db:
        db.execute("BEGIN")
        assert len(db.execute("SELECT * FROM certificates").fetchall()) == 1
        bench.issue("simpleenroll", csr("second"), EST_TIMEOUT="2")
        assert len(db.execute("SELECT * FROM certificates").fetchall()) == 1, "its view has not moved"
    assert len(bench.rows) == 2


def test_simpleenroll_waits_for_a_locked_register(bench: HandlerSet) -> None:
    bench.issue("simpleenroll", csr("first"))
    with ThreadPoolExecutor(1) as pool:
        with bench.locked():
            waiting = pool.submit(bench.issue, "simpleenroll", csr("second"))
            time.sleep(0.5)
            assert not waiting.done()
        waiting.result()
    assert len(bench.rows) == 2


def test_a_pool_worker_keeps_the_register_open_until_it_is_replaced(bench: HandlerSet, tmp_path: Path) -> None:
    env = environment(bench, csr("zoe"), tmp_path / "private") | {"EST_TIMEOUT": "1"}
    log = bench.ca / "certs.sqlite-wal"  # exists while a process has the register open
    with running(size=1) as machine:

        def enrol() -> int | None:
            env["EST_PENDING_ID"] = os.urandom(8).hex()  # another request each time
            exit_status = machine.run("pool", bench.script("simpleenroll"), env=env).exit
            assert isinstance(exit_status, int)
            return exit_status

        def taken_away() -> None:
            for file in bench.ca.glob("certs.sqlite*"):
                file.unlink()

        assert (enrol(), enrol()) == (0, 0)
        assert log.exists()
        with contextlib.closing(sqlite3.connect(bench.store)) as db, db:
            assert len(bench.rows) == 2, "what is committed is there for everybody"
            db.execute("DELETE FROM certificates")
        with bench.locked():
            assert enrol() == os.EX_UNAVAILABLE
        taken_away()
        assert (enrol(), enrol(), len(bench.rows)) == (0, 0, 2)
        taken_away()
        bench.store.write_bytes(b"no register at all\n" * 100)
        assert (enrol(), enrol()) == (os.EX_IOERR, os.EX_IOERR)
        taken_away()
        assert (enrol(), len(bench.rows)) == (0, 1)
    assert len(bench.rows) == 1, "whoever opens it next tidies up after a worker that was killed"
    assert not log.exists()


def test_a_pool_worker_reads_keys_and_scripts_again_when_they_are_others(bench: HandlerSet, tmp_path: Path) -> None:
    env = environment(bench, csr("zoe"), tmp_path / "private")
    with running(size=1) as machine:

        def enrol(status: int = 0) -> x509.Certificate | None:
            outcome = machine.run("pool", bench.script("simpleenroll"), env=env)
            assert outcome.exit == status, outcome.stderr
            return x509.load_pem_x509_certificate(outcome.stdout) if not status else None

        first = enrol()
        assert enrol() == first, "a repeat"
        (bench.script("simpleenroll").parent / "allowed").write_text("zoe\n")
        second = enrol()
        assert second != first, "another file beside the script is another policy"
        assert create_ca("--name", "Next", tmp_path / "next").returncode == 0
        for name in ("cacert.pem", "private/cakey.pem"):
            (bench.ca / name).write_bytes((tmp_path / "next" / name).read_bytes())
        env["EST_PENDING_ID"] = "another"
        third = enrol()
        assert third is not None
        assert third.issuer.rfc4514_string() == "CN=Next,O=estgw demo"
        (bench.ca / "private/cakey.pem").unlink()
        env["EST_PENDING_ID"] = "a third"
        enrol(os.EX_CONFIG)


def renewing(bench: HandlerSet, certificate: x509.Certificate, path: Path) -> Result:
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return bench.run("simplereenroll", csr("zoe"), EST_RENEW_CERT_FILE=str(path))


def test_a_certificate_that_is_revoked_in_the_register_is_not_renewed(bench: HandlerSet, tmp_path: Path) -> None:
    certificate = bench.issue("simpleenroll", csr("zoe"))
    assert renewing(bench, certificate, tmp_path / "old.pem").status == 0
    with contextlib.closing(sqlite3.connect(bench.store)) as db, db:
        serial = f"{certificate.serial_number:X}"
        change = "UPDATE certificates SET status = 'revoked', reason = 'keyCompromise' WHERE ltrim(serial, '0') = ?"
        assert db.execute(change, [serial]).rowcount == 1
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("UPDATE certificates SET status = 'somewhat'")
    result = renewing(bench, certificate, tmp_path / "old.pem")
    assert (result.status, result.words) == (77, "your certificate is revoked")


def test_policy_renews_only_the_newest_certificate(bench: HandlerSet, tmp_path: Path) -> None:
    bench.uncomment("simplereenroll", "if (newest :=")
    stranger = renewing(bench, bench.root, tmp_path / "old.pem")
    assert stranger.status == 0, "nothing of that name in the register: openssl ca may have issued it"
    first = stranger.certificate
    second = renewing(bench, first, tmp_path / "old.pem")
    assert second.status == 0
    again = renewing(bench, first, tmp_path / "old.pem")
    assert (again.status, again.words) == (77, "you have a newer certificate: renew that one")
    assert renewing(bench, second.certificate, tmp_path / "old.pem").status == 0


def test_a_repeat_of_a_recent_request_gets_the_same_certificate(bench: HandlerSet) -> None:
    first = bench.issue("simpleenroll", csr("zoe"), EST_PENDING_ID="0a")
    assert bench.issue("simpleenroll", csr("zoe"), EST_PENDING_ID="0a") == first
    assert bench.issue("simpleenroll", csr("zoe"), EST_PENDING_ID="0b") != first
    assert len(bench.rows) == 2
    with contextlib.closing(sqlite3.connect(bench.store)) as db, db:
        db.execute("UPDATE certificates SET issued_at = '2020-01-01T00:00:00+00:00'")
    assert bench.issue("simpleenroll", csr("zoe"), EST_PENDING_ID="0a") != first


def test_a_repeat_after_an_edit_of_the_policy_gets_another_certificate(bench: HandlerSet) -> None:
    """The lifetime, the names, or any script of the directory."""

    def ask() -> x509.Certificate:
        return bench.issue("simpleenroll", csr("zoe", x509.DNSName("zoe.example")), EST_PENDING_ID="0a")

    first = ask()
    bench.edit("settings.py", 'lifetime = "90d"', 'lifetime = "9d"')
    second = ask()
    assert second.not_valid_after_utc - second.not_valid_before_utc == timedelta(9)
    assert second != first
    bench.edit("simpleenroll", "names = request.names", "names = []")
    third = ask()
    assert third not in (first, second)
    bench.edit("ca.py", "ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])]", "ExtendedKeyUsage([CMC_RA])]")
    assert ask() not in (first, second, third)
    assert ask() == ask()


def test_a_revoked_certificate_is_not_handed_out_again(bench: HandlerSet) -> None:
    first = bench.issue("simpleenroll", csr("zoe"), EST_PENDING_ID="0a")
    with contextlib.closing(sqlite3.connect(bench.store)) as db, db:
        db.execute("UPDATE certificates SET status = 'revoked'")
    assert bench.issue("simpleenroll", csr("zoe"), EST_PENDING_ID="0a") != first


# pkilint.

# Accepted findings, with the reason.
ACCEPTED = {
    "pkix.subject_key_identifier_method_1_identified",  # a remark: RFC 5280 4.2.1.2 method (1), as wished
}


# Through the gateway.


@pytest.fixture(scope="module")
def served(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The demo with two more labels: the demo's CA and an ML-DSA CA, both by handlers/python."""
    own = lab.copy(tmp_path_factory.mktemp("python-lab") / "lab")
    for file in own.ca.glob("certs.sqlite*"):  # from the enrolments of other tests
        file.unlink()
    done = create_ca("--key", "ml-dsa-65", own.path / "pq-ca")
    assert done.returncode == 0, done.stderr
    label = {
        "handlers": "handlers/python",
        "authorize": "handlers/python/authorize",
        "change_subject_name": True,
        "operations": {"serverkeygen": {"enabled": True}},
    }
    overrides = {
        "labels": {"python": label, "pq": label | {"ca_dir": "pq-ca"}},
        "client_auth": {"explicit": ["openssl-ca/cacert.pem", "pq-ca/cacert.pem"]},
    }
    with running_gateway(own, overrides) as gateway:
        yield gateway


def test_every_operation_works_through_the_gateway(served: Gateway, tmp_path: Path) -> None:
    lab = served.lab
    (root,) = served.get("python/cacerts").certificates
    assert root == x509.load_pem_x509_certificate(lab.anchor.read_bytes())
    assert served.get("python/csrattrs").der.hex().startswith("3021")
    name = x509.DNSName("device-1.example.org")
    (certificate,) = served.post("python/simpleenroll", csr("device-1", name)).certificates
    lab.verify(certificate)
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(KEY_PEM)
    files = (tmp_path / "cert.pem", tmp_path / "key.pem")
    renewed = served.post("python/simplereenroll", csr("device-1", name), login=None, certificate=files)
    lab.verify(renewed.certificate)
    other = served.post("python/simplereenroll", csr("device-2", name), login=None, certificate=files)
    assert other.status == 403
    new = dn((CN, BMP, "Zoë".encode("utf-16-be")))
    change = attribute("1.3.6.1.5.5.7.7.36", tlv(SEQUENCE, new))  # RFC 6402 2.8: no names, so none at all
    body = csr("device-1", san(name), change, key=KEY)
    changed = served.post("python/simplereenroll", body, login=None, certificate=files).certificate
    assert new in changed.tbs_certificate_bytes
    assert b"device-1" not in changed.tbs_certificate_bytes
    keys = served.post("python/serverkeygen", csr("keyless"))
    assert keys.status == 200
    assert re.findall(rb"Content-Type: ([^\r;]+)", keys.body) == [b"application/pkcs8", b"application/pkcs7-mime"]
    cmc = {"Content-Type": "application/pkcs7-mime; smime-type=CMC-request"}
    assert served.post("python/fullcmc", b"MAA=", headers=cmc).status == 400
    assert served.post("python/simpleenroll", csr("nobody"), login=None).status == 401
    with contextlib.closing(sqlite3.connect(lab.ca / "certs.sqlite")) as db:
        rows = db.execute("SELECT operation, label, subject, san FROM certificates ORDER BY rowid").fetchall()
    assert rows == [
        ("simpleenroll", "python", "CN=device-1", "DNS:device-1.example.org"),
        ("simplereenroll", "python", "CN=device-1", "DNS:device-1.example.org"),
        ("simplereenroll", "python", "CN=Zoë", ""),
        ("serverkeygen", "python", "CN=keyless", ""),
    ]


def test_refusals_reach_the_client_and_faults_the_log(served: Gateway) -> None:
    no_name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "x")])
    answer = served.post("python/simpleenroll", csr(no_name))
    assert (answer.status, answer.words) == (403, "the subject needs a commonName")
    anchor = served.lab.path / "pq-ca/cacert.pem"
    aside = anchor.rename(anchor.with_suffix(".aside"))
    try:
        answer = served.post("pq/simpleenroll", csr("device-1"))
    finally:
        aside.rename(anchor)
    assert answer.status == 500
    assert "pq-ca" not in answer.words
    served.wait_for("handler stderr", handler="simpleenroll", level="warning")
    assert "it has no certificate for the key in private/cakey.pem" in served.log_text


def test_an_ml_dsa_client_enrols_and_renews_with_its_certificate(served: Gateway, tmp_path: Path) -> None:
    key = mldsa.MLDSA65PrivateKey.generate()
    (root,) = served.get("pq/cacerts").certificates
    assert isinstance(root.public_key(), mldsa.MLDSA65PublicKey)
    request = ml_dsa_csr(key)
    (certificate,) = served.post("pq/simpleenroll", request).certificates
    certificate.verify_directly_issued_by(root)
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(key_pem(key))
    files = (tmp_path / "cert.pem", tmp_path / "key.pem")
    renewed = served.post("pq/simplereenroll", request, login=None, certificate=files, pyopenssl=True)
    assert renewed.certificate.public_key() == key.public_key()
    assert renewed.certificate.extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE)
    assert served.access[-1]["status"] == 200


# The README.


@pytest.mark.client("sqlite3")
def test_the_commands_of_the_readme_work(bench: HandlerSet) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (HANDLERS / "README.md").read_text(), re.DOTALL)
    workspace = bench.workspace.path
    (workspace / ".venv").symlink_to(sys.prefix)
    certificate = bench.issue("simpleenroll", csr("zoe", x509.DNSName("a.example.org")))

    def paste(text: str, folder: Path) -> str:
        command = ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert paste(blocks[0], workspace) == f"made {workspace}/pq-ca/cacert.pem\n"
    assert "|valid|CN=zoe|DNS:a.example.org|" in paste(blocks[1], bench.ca)
    paste("".join(blocks[2:]), bench.ca)
    assert "|revoked|CN=zoe|" in paste(blocks[1], bench.ca)
    (revoked,) = [row for row in bench.workspace.rows if row[0] == "R"]
    assert int(revoked[3], 16) == certificate.serial_number
    assert load_pem_private_key((workspace / "pq-ca/private/cakey.pem").read_bytes(), None)
