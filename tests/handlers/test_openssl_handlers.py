"""handlers/openssl and handlers/examples: the scripts, each run as the gateway runs them."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from estgw.est.keygen import DECRYPT_KEY_ID
from tests.kit.csr import csr, subject, subject_der
from tests.kit.der import UTF8, attribute, element, tlv
from tests.kit.keys import KEY
from tests.kit.processes import PATH, ROOT
from tests.kit.reference import lint
from tests.kit.scripts import keygen
from tests.kit.workspace import Workspace, csr_environment, keygen_environment

ENROL = "openssl/simpleenroll"
REENROLL = "openssl/simplereenroll"
KEYGEN = "openssl/serverkeygen"
ISSUING = [ENROL, REENROLL, KEYGEN]

SCRIPTS = sorted(
    path
    for folder in ("handlers", "openssl-ca")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and path.read_bytes().startswith((b"#!/bin/bash", b"#!/bin/sh"))
)
NOT_HANDLERS = {"authorize", "one-time-password", "genp10"}  # decisions, a client's script, what they call
HANDLERS = [
    str(path.relative_to(ROOT / "handlers"))
    for path in SCRIPTS
    if path.parent.name != "openssl-ca" and path.name not in NOT_HANDLERS
]
LIBRARIES = sorted(path for folder in ("handlers", "openssl-ca") for path in (ROOT / folder).rglob("*.sh"))

CMC_RA = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")
NO_REV_AVAIL = x509.ObjectIdentifier("2.5.29.56")

HOSTILE = {
    "utf-8": "Zoë 名前 Ω",
    "emoji": "🦉 owl",
    "slashes": "a/CN=b+O=c,d;e<f>g=h",
    "quotes": "\"double\" 'single' `id`",
    "dollar": "$(id) ${PATH} $ENV::PATH",
    "function": "() { :; }; id",
    "lines": "one\r\ntwo\n\n[default]\nbasicConstraints=CA:TRUE",
    "tab": "a\tb\t",
    "nul": "a\0b",
    "backslash": "\\ \\n \\",
    "spaces": " edge ",
    "comment": "# nothing",
    "section": "@section, DER:3000, ASN1:NULL",
    "armour": "-----END CERTIFICATE REQUEST-----",
    "format": "%s%n%x %(",
    "long": "x" * 200,
    "refusal": "\nThe commonName field needed to be supplied and was missing",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One CA for the tests that only add to it."""
    return Workspace.create(tmp_path_factory.mktemp("ca") / "work shop $HOME")


@pytest.fixture
def workspace(shared: Workspace, tmp_path: Path) -> Workspace:
    """A CA and scripts for the tests that edit or break something."""
    return shared.copy(tmp_path / "ws")


def issue(workspace: Workspace, script: str, request: bytes, **env: str) -> x509.Certificate:
    result = workspace.run(script, request, **env)
    return keygen(result)[1] if script == KEYGEN else result.certificate


def subject_of(certificate: x509.Certificate) -> bytes:
    """The subject as it is encoded in the certificate."""
    return element(certificate.tbs_certificate_bytes, 5)


def extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> x509.ExtensionType:
    return certificate.extensions.get_extension_for_oid(oid).value


def is_ca(certificate: x509.Certificate) -> bool:
    return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def lives(certificate: x509.Certificate, wanted: timedelta) -> bool:
    """Whether it is valid for that long; a second may pass between script and openssl."""
    return wanted - timedelta(seconds=5) < certificate.not_valid_after_utc - certificate.not_valid_before_utc <= wanted


# --- the scripts as texts ---------------------------------------------------------------------------


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found, f"{name} is not installed"
    return found


def test_there_are_scripts() -> None:
    assert {*ISSUING, "openssl/cacerts", "openssl/csrattrs", "openssl/fullcmc"} <= set(HANDLERS)
    assert len([name for name in HANDLERS if name.startswith("examples/")]) >= 3


def test_shellcheck_is_silent() -> None:
    assert subprocess.run([tool("shellcheck"), *LIBRARIES, *SCRIPTS], capture_output=True, check=False).stdout == b""


def test_shfmt_changes_nothing() -> None:
    command: list[str | Path] = [tool("shfmt"), "-i", "4", "-ci", "-d", *LIBRARIES, *SCRIPTS]
    result = subprocess.run(command, capture_output=True, check=False)
    assert (result.stdout, result.returncode) == (b"", 0)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_script_is_short_and_strict(path: Path) -> None:
    text = path.read_text()
    assert os.access(path, os.X_OK)
    assert len(text.splitlines()) <= (105 if path.parent.name == "openssl-ca" else 40), "a script fits on a screen"
    assert "\nset -euo pipefail\n" in text
    assert "/dev/stderr" not in text, "stderr is a plain file: opening it again truncates it"


@pytest.mark.parametrize("handler", HANDLERS)
def test_every_handler_explains_itself(handler: str) -> None:
    lines = (ROOT / "handlers" / handler).read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    assert lines[1].startswith(f"# {handler.partition('/')[2]}: ")
    header = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    assert any(line.startswith("# Try it alone: estgw ") for line in header)
    assert max(map(len, lines)) <= 120


def test_the_mechanics_of_issuing_stand_in_one_place() -> None:
    for handler in (*ISSUING, "examples/short-lived"):
        lines = (ROOT / "handlers" / handler).read_text().splitlines()
        assert lines[-1].startswith('issue "$profile" "$lifetime" "$names"'), handler
    everything = [*SCRIPTS, *LIBRARIES]
    found = [path.name for path in everything if re.search(r"^[^#\n']*\bopenssl ca -", path.read_text(), re.MULTILINE)]
    assert sorted(found) == ["lib.sh", "register.sh"]


# --- the contract -------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", HANDLERS)
def test_an_unknown_operation_is_64_and_leaves_no_trace(workspace: Workspace, handler: str) -> None:
    before = sorted(workspace.ca.rglob("*"))
    result = workspace.run(handler, csr(), EST_OPERATION="frobnicate", EST_LABEL="x")
    assert (result.status, result.out, result.err) == (64, b"", "")
    assert sorted(workspace.ca.rglob("*")) == before


@pytest.mark.parametrize("handler", [name for name in HANDLERS if name.startswith("openssl/") and "cmc" not in name])
def test_unknown_variables_change_nothing(shared: Workspace, handler: str) -> None:
    unknown = {"EST_FROM_THE_FUTURE": "1", "BASH_FUNC_id%%": "() { :; }", "profile": "ra", "names": "x", "key": "x"}
    result = shared.run(handler, csr(), **unknown)
    assert result.status == 0
    assert not result.err or handler == KEYGEN


# --- issuing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ISSUING)
def test_a_certificate_is_issued_and_registered(shared: Workspace, script: str) -> None:
    request = csr("device-1", x509.DNSName("device-1.example.org"))
    before = len(shared.rows)
    certificate = issue(shared, script, request)
    root = x509.load_pem_x509_certificate((shared.ca / "cacert.pem").read_bytes())
    certificate.verify_directly_issued_by(root)
    serial = f"{certificate.serial_number:040X}"
    assert len(shared.rows) == before + 1
    assert shared.rows[-1][0] == "V"
    assert shared.rows[-1][3].zfill(40) == serial
    assert subject_of(certificate) == subject_der(request)
    assert {(found.oid, found.critical) for found in certificate.extensions} == {
        (ExtensionOID.BASIC_CONSTRAINTS, True),
        (ExtensionOID.KEY_USAGE, True),
        (ExtensionOID.EXTENDED_KEY_USAGE, False),
        (ExtensionOID.SUBJECT_KEY_IDENTIFIER, False),
        (ExtensionOID.AUTHORITY_KEY_IDENTIFIER, False),
        (ExtensionOID.SUBJECT_ALTERNATIVE_NAME, False),
    }
    assert purposes(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert lives(certificate, timedelta(days=90))
    assert (certificate.public_key() == KEY.public_key()) == (script != KEYGEN)


@pytest.mark.parametrize("script", [ENROL, KEYGEN])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_subject_arrives_byte_for_byte(shared: Workspace, script: str, text: str) -> None:
    short = text[:64]  # beyond that, cryptography warns
    request = csr(subject({NameOID.ORGANIZATION_NAME: text}, {NameOID.COMMON_NAME: short, NameOID.SURNAME: "x"}))
    before = len(shared.rows)
    certificate = issue(shared, script, request)
    assert subject_of(certificate) == subject_der(request)
    assert not is_ca(certificate)
    assert len(shared.rows) == before + 1
    assert {len(row) for row in shared.rows} == {6}


@pytest.mark.parametrize("script", [ENROL, KEYGEN])
def test_string_types_and_order_survive(shared: Workspace, script: str) -> None:
    types = x509.name._ASN1Type
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "upside down", types.PrintableString),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Zoë", types.BMPString),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Zoë", types.UTF8String),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, "17", types.PrintableString),
            x509.NameAttribute(NameOID.EMAIL_ADDRESS, "zoe@example.org", types.IA5String),
            x509.NameAttribute(x509.ObjectIdentifier("1.2.3.4.5"), "private", types.UTF8String),
        ]
    )
    request = csr(name)
    assert subject_of(issue(shared, script, request)) == subject_der(request)


@pytest.mark.parametrize("script", ISSUING)
def test_nothing_but_names_comes_from_the_csr(shared: Workspace, script: str) -> None:
    no = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"], False
    )
    wishes: list[x509.ExtensionType] = [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, decipher_only=False, **no),
        x509.ExtendedKeyUsage([CMC_RA, ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
        x509.CRLDistributionPoints(
            [x509.DistributionPoint([x509.UniformResourceIdentifier("http://evil.example")], None, None, None)]
        ),
        x509.SubjectKeyIdentifier(b"chosen"),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
    ]
    certificate = issue(shared, script, csr("greedy", *wishes, critical=True))
    plain = issue(shared, script, csr("modest"))
    assert [found.oid for found in certificate.extensions] == [found.oid for found in plain.extensions]
    for oid in (ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE):
        assert extension(certificate, oid) == extension(plain, oid)
    assert extension(certificate, ExtensionOID.SUBJECT_KEY_IDENTIFIER) != x509.SubjectKeyIdentifier(b"chosen")


NAMES = [
    x509.DNSName("b.example.org"),
    x509.DNSName("a.example.org,DNS:evil.example\nbasicConstraints=CA:TRUE"),
    x509.DNSName("b.example.org"),
    x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
    x509.RFC822Name("$ENV::PATH@example.org"),
    x509.UniformResourceIdentifier("urn:dev:mac:0024befffe804ff1"),
    x509.DirectoryName(subject("Zoë", {NameOID.COMMON_NAME: "a", NameOID.ORGANIZATION_NAME: "b"})),
    x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4")),
    x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4"), bytes.fromhex("300606012a04010a")),
]


@pytest.mark.parametrize("script", ISSUING)
def test_the_names_are_copied_exactly(shared: Workspace, script: str) -> None:
    request = csr("many names", *NAMES)
    certificate = issue(shared, script, request)
    san = extension(certificate, ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    assert san.public_bytes().hex() == csr_environment(request)["EST_CSR_EXT_SAN"]
    assert not is_ca(certificate)


@pytest.mark.parametrize("script", ISSUING)
def test_the_names_are_left_out_when_the_policy_says_so(workspace: Workspace, script: str) -> None:
    workspace.edit(f"handlers/{script}", "names=${EST_CSR_EXT_SAN-}", "names=")
    certificate = issue(workspace, script, csr("many names", *NAMES))
    assert ExtensionOID.SUBJECT_ALTERNATIVE_NAME not in {found.oid for found in certificate.extensions}


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
        ed448.Ed448PrivateKey.generate(),
    ],
    ids=["rsa", "p384", "p521", "ed25519", "ed448"],
)
def test_every_kind_of_key(shared: Workspace, key: Any) -> None:
    assert issue(shared, ENROL, csr(key=key)).public_key() == key.public_key()
    assert issue(shared, KEYGEN, csr(key=key)).public_key() != key.public_key()


def test_a_client_may_change_its_subject(shared: Workspace) -> None:
    """EST_CHANGE_SUBJECT (RFC 6402 2.8): the gateway sets it only where that is allowed."""
    new = r"/2.5.4.10=Zoë \"$HOME\" \/ \+ \=/2.5.4.3=new\\+2.5.4.5=17"
    certificate = issue(shared, REENROLL, csr("old"), EST_CHANGE_SUBJECT=new)
    assert [{attribute.oid: attribute.value for attribute in rdn} for rdn in certificate.subject.rdns] == [
        {NameOID.ORGANIZATION_NAME: 'Zoë "$HOME" / + ='},
        {NameOID.COMMON_NAME: "new\\", NameOID.SERIAL_NUMBER: "17"},
    ]
    assert certificate.public_key() == KEY.public_key()
    assert shared.run(REENROLL, csr("old"), EST_CHANGE_SUBJECT="/").status == 77


def test_twenty_at_a_time(shared: Workspace) -> None:
    """Without the lock, `openssl ca` loses rows and gives serial numbers twice."""
    before = len(shared.rows)
    scripts = (ISSUING * 7)[:20]
    with ThreadPoolExecutor(20) as pool:
        issued = list(pool.map(lambda job: issue(shared, job[1], csr(f"device-{job[0]}")), enumerate(scripts)))
    serials = {f"{certificate.serial_number:X}" for certificate in issued}
    assert len(serials) == 20
    new = shared.rows[before:]
    assert {row[3].lstrip("0") for row in new} == serials
    assert {row[5] for row in new} == {f"/CN=device-{number}" for number in range(20)}
    files = {path.stem for path in (shared.ca / "newcerts").iterdir()}
    assert files == {row[3] for row in shared.rows}


@pytest.mark.parametrize("script", [*ISSUING, "examples/short-lived"])
def test_a_busy_ca_is_69(shared: Workspace, script: str) -> None:
    before = shared.rows
    with (shared.ca / "ca.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        operation = "simpleenroll" if script.startswith("examples/") else Path(script).name
        result = shared.run(script, csr(), EST_TIMEOUT="1", EST_OPERATION=operation)
    assert (result.status, result.out) == (69, b"")
    assert shared.rows == before


# --- refusing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ISSUING)
def test_the_words_of_the_ca_policy_reach_the_client(shared: Workspace, script: str) -> None:
    before = shared.rows
    result = shared.run(script, csr(subject({NameOID.ORGANIZATION_NAME: "no common name"})))
    assert result.status == 77
    assert result.words == "The commonName field needed to be supplied and was missing"
    assert "Using configuration from" in result.err
    assert shared.rows == before


def refused_by(workspace: Workspace, name: x509.Name) -> str:
    before = workspace.rows
    result = workspace.run(ENROL, csr(name))
    assert result.status == 77
    assert workspace.rows == before
    return result.words


def test_policy_match(workspace: Workspace) -> None:
    workspace.edit("openssl-ca/openssl.cnf", "= policy_anything ", "= policy_match ")
    ours = subject({NameOID.ORGANIZATION_NAME: "estgw demo"}, "device-1")
    assert workspace.run(ENROL, csr(ours)).status == 0
    assert refused_by(workspace, subject("device-1")) == "The mandatory organizationName field was missing"
    assert refused_by(workspace, subject({NameOID.ORGANIZATION_NAME: "Evil"}, "device-1")) == (
        "The organizationName field is different between\nCA certificate (estgw demo) and the request (Evil)"
    )


def test_policy_serial(workspace: Workspace) -> None:
    workspace.edit("openssl-ca/openssl.cnf", "= policy_anything ", "= policy_serial ")
    assert workspace.run(ENROL, csr(subject({NameOID.SERIAL_NUMBER: "17"}))).status == 0
    assert refused_by(workspace, subject("x")) == "The serialNumber field needed to be supplied and was missing"


def test_one_certificate_a_subject(workspace: Workspace) -> None:
    (workspace.ca / "index.txt.attr").write_text("unique_subject = yes\n")
    (workspace.ca / "index.txt").write_text("")
    assert workspace.run(ENROL, csr("twice")).status == 0
    assert refused_by(workspace, subject("twice")) == "ERROR:There is already a certificate for /CN=twice"


def test_one_certificate_a_subject_whoever_comes_at_once(workspace: Workspace) -> None:
    (workspace.ca / "index.txt.attr").write_text("unique_subject = yes\n")
    (workspace.ca / "index.txt").write_text("")  # openssl ca refuses one in which a subject stands twice already
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: workspace.run(ENROL, csr("wanted")), range(16)))
    assert sorted(result.status for result in results) == [0] + [77] * 15
    assert [row[5] for row in workspace.rows].count("/CN=wanted") == 1


def test_counted_serial_numbers_are_given_once(workspace: Workspace) -> None:
    workspace.edit("openssl-ca/openssl.cnf", "rand_serial      = yes ", "serial = $dir/serial ")
    (workspace.ca / "serial").write_text("1000\n")
    with ThreadPoolExecutor(8) as pool:
        issued = list(pool.map(lambda _: workspace.run(ENROL, csr("device")).certificate, range(16)))
    assert sorted(certificate.serial_number for certificate in issued) == list(range(0x1000, 0x1010))
    assert (workspace.ca / "serial").read_text() == "1010\n"
    assert {row[3] for row in workspace.rows} >= {f"{number:04X}" for number in range(0x1000, 0x1010)}


def test_a_configuration_that_names_the_register_itself_issues_nothing(workspace: Workspace) -> None:
    """`openssl ca` would write it anew, without the lock."""
    workspace.edit("openssl-ca/openssl.cnf", "= $ENV::REGISTER_DIR/index.txt #", "= $dir/index.txt #")
    before = (workspace.ca / "index.txt").read_text()
    result = workspace.run(ENROL, csr())
    assert (result.status, result.out) == (70, b"")
    assert "openssl.cnf: it needs the line  database = $ENV::REGISTER_DIR/index.txt" in result.err
    assert (workspace.ca / "index.txt").read_text() == before


def test_wrong_string_types_are_refused(shared: Workspace) -> None:
    email = x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@example.org", x509.name._ASN1Type.UTF8String)
    words = refused_by(shared, x509.Name([*subject("x"), email]))
    assert words == "emailAddress type needs to be of type IA5STRING"


def replace_key(ca: Path) -> None:
    shutil.copy(ca / "private/serverkey.pem", ca / "private/cakey.pem")


def index_as_directory(ca: Path) -> None:
    (ca / "index.txt").unlink()
    (ca / "index.txt").mkdir()


BREAKAGES: dict[str, Callable[[Path], object]] = {
    "no CA": shutil.rmtree,
    "no key": lambda ca: (ca / "private/cakey.pem").unlink(),
    "another key": replace_key,
    "no index": lambda ca: (ca / "index.txt").unlink(),
    "broken index": lambda ca: (ca / "index.txt").write_text("V\tnonsense\n"),
    "an index that is no file": index_as_directory,
    "no room for the certificate": lambda ca: (ca / "newcerts").rename(ca / "oldcerts"),
    "no profile": lambda ca: (ca / "profiles/client").unlink(),
    "broken profile": lambda ca: (ca / "profiles/client").write_text("keyUsage = nonsense\n"),
}


@pytest.mark.parametrize("script", ISSUING)
@pytest.mark.parametrize("break_it", BREAKAGES.values(), ids=BREAKAGES.keys())
def test_a_broken_ca_issues_nothing_and_tells_the_client_nothing(
    workspace: Workspace, script: str, break_it: Callable[[Path], object]
) -> None:
    break_it(workspace.ca)
    index = workspace.ca / "index.txt"
    before = index.is_file() and index.read_text()
    name = subject({NameOID.EMAIL_ADDRESS: "a"}, "The x field was missing")  # not to be taken for a refusal
    result = workspace.run(script, csr(name))
    assert result.status not in (0, 64, 65, 69, 75, 77)
    assert result.out == b""
    assert result.err
    assert before == (index.is_file() and index.read_text())


# --- policy blocks ------------------------------------------------------------------------------------


def uncomment(workspace: Workspace, script: str, start: str) -> None:
    """Take the `# ` off a commented policy, and off the lines that continue it."""
    path = workspace.path / "handlers" / script
    lines = path.read_text().splitlines()
    number = next(number for number, line in enumerate(lines) if line.startswith(f"# {start}"))
    while True:
        lines[number] = lines[number].removeprefix("# ")
        number += 1
        if not re.match(r"# (    |done)", lines[number]):
            break
    path.write_text("\n".join(lines) + "\n")


def test_policy_profile_and_lifetime(workspace: Workspace) -> None:
    uncomment(workspace, ENROL, "profile=server")
    certificate = issue(workspace, ENROL, csr())
    assert purposes(certificate) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert lives(certificate, timedelta(minutes=10))


def test_policy_own_name_only(workspace: Workspace) -> None:
    uncomment(workspace, ENROL, "[[ $EST_CSR_SUBJECT ==")
    assert workspace.run(ENROL, csr("zoe"), REMOTE_USER="zoe").status == 0
    for name, env in (("zoe", {"REMOTE_USER": "adam"}), ("zoe", {}), ("*", {"REMOTE_USER": "zoe"})):
        result = workspace.run(ENROL, csr(name), **env)
        assert (result.status, result.words) == (77, f"you may only be CN={env.get('REMOTE_USER', '')}")


def test_policy_trusted_clients_only(workspace: Workspace) -> None:
    uncomment(workspace, ENROL, "[[ $EST_CLIENT_TRUST")
    assert workspace.run(ENROL, csr()).status == 77
    assert workspace.run(ENROL, csr(), EST_CLIENT_TRUST="explicit").status == 0


def test_policy_names(workspace: Workspace) -> None:
    uncomment(workspace, ENROL, "for san in")
    assert workspace.run(ENROL, csr()).status == 0
    assert workspace.run(ENROL, csr("a", x509.DNSName("a.example.org"), x509.DNSName("b.example.org"))).status == 0
    for stranger in (x509.DNSName("a.example.com"), x509.RFC822Name("a@example.org")):
        result = workspace.run(ENROL, csr("a", x509.DNSName("a.example.org"), stranger))
        assert (result.status, result.words.endswith(f"{stranger.value} is not ours to certify")) == (77, True)


def test_policy_reenroll(workspace: Workspace, tmp_path: Path) -> None:
    uncomment(workspace, REENROLL, "[[ $EST_CLIENT_IS_RA")
    uncomment(workspace, REENROLL, "[[ $EST_REENROLL")
    uncomment(workspace, REENROLL, "openssl x509")
    renewed = tmp_path / "renewed.pem"
    env = {"EST_RENEW_CERT_FILE": str(renewed), "EST_CLIENT_IS_RA": "1"}

    renewed.write_bytes(workspace.run(ENROL, csr()).out)
    result = workspace.run(REENROLL, csr(), EST_REENROLL="rekey", **env)
    assert (result.status, result.words) == (77, "too early: come back in the last 30 days")

    workspace.edit(f"handlers/{ENROL}", "lifetime=$((90 * 24", "lifetime=$((29 * 24")
    renewed.write_bytes(workspace.run(ENROL, csr()).out)
    result = workspace.run(REENROLL, csr(), EST_REENROLL="renew", **env)
    assert (result.status, result.words) == (77, "make a new key first")
    assert CMC_RA in purposes(issue(workspace, REENROLL, csr(), EST_REENROLL="rekey", **env))


def test_a_revoked_certificate_is_not_renewed(workspace: Workspace, tmp_path: Path) -> None:
    renewed = tmp_path / "renewed.pem"
    renewed.write_bytes(workspace.run(ENROL, csr()).out)
    assert workspace.run(REENROLL, csr(), EST_RENEW_CERT_FILE=str(renewed)).status == 0
    subprocess.run(
        ["openssl", "ca", "-config", "openssl.cnf", "-revoke", renewed],
        cwd=workspace.ca,
        env={"PATH": PATH},
        capture_output=True,
        check=True,
    )
    refusal = (77, "your certificate is revoked")
    result = workspace.run(REENROLL, csr(), EST_RENEW_CERT_FILE=str(renewed))
    assert (result.status, result.words) == refusal
    # The moment in which another handler replaces the index:
    (workspace.ca / "index.txt").replace(workspace.ca / "index.txt.old")
    result = workspace.run(REENROLL, csr(), EST_RENEW_CERT_FILE=str(renewed))
    assert (result.status, result.words) == refusal


# --- serverkeygen ---------------------------------------------------------------------------------------


def test_serverkeygen_gives_the_key_of_the_certificate(shared: Workspace) -> None:
    request = csr("keyless", x509.DNSName("keyless.example.org"))
    key, certificate = keygen(shared.run(KEYGEN, request))
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == certificate.public_key()
    assert key.public_key() != KEY.public_key()
    assert subject_of(certificate) == subject_der(request)


def test_serverkeygen_rsa(workspace: Workspace) -> None:
    path = workspace.path / "handlers" / KEYGEN
    line = next(line for line in path.read_text().splitlines() if line.startswith("kind=("))
    workspace.edit(f"handlers/{KEYGEN}", line, "kind=" + line.partition("# or ")[2].replace("3072", "2048"))
    key, certificate = keygen(workspace.run(KEYGEN, csr()))
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.public_key() == certificate.public_key()


def test_serverkeygen_ignores_the_signature_of_the_csr(shared: Workspace) -> None:
    request = csr("unsigned")
    der = bytearray(request)
    der[-1] ^= 1
    broken = bytes(der)
    assert not x509.load_der_x509_csr(broken).is_signature_valid
    assert subject_of(keygen(shared.run(KEYGEN, broken))[1]) == subject_der(request)


@pytest.mark.parametrize("wish", ["unset", "symmetric", "asymmetric"])
def test_serverkeygen_without_what_encrypts_gives_no_clear_key(workspace: Workspace, wish: str) -> None:
    """No helper, or another gateway that sets no such variable: whatever is missing, nothing is issued."""
    (workspace.path / "handlers/seal").unlink()
    before = workspace.rows
    # No OCTET STRING, so nothing is set for it.
    request = csr("secretive", attribute(DECRYPT_KEY_ID, tlv(UTF8, b"key 17")))
    assert "EST_KEYGEN_PROTECT" not in keygen_environment(request)
    result = workspace.run(KEYGEN, request, **({"EST_KEYGEN_PROTECT": wish} if wish != "unset" else {}))
    assert result.status not in (0, 64, 65, 69, 75, 77)
    assert b"BEGIN" not in result.out
    assert workspace.rows == before


def test_serverkeygen_leaves_no_key_behind(workspace: Workspace) -> None:
    key, _ = keygen(workspace.run(KEYGEN, csr()))
    secret = key.private_numbers().private_value.to_bytes(32)
    pem = workspace.run(KEYGEN, csr()).out.splitlines()[1]
    for path in workspace.path.rglob("*"):
        assert not path.is_file() or (secret not in path.read_bytes() and pem not in path.read_bytes())


def test_serverkeygen_gives_no_key_with_a_refusal(workspace: Workspace) -> None:
    (workspace.ca / "profiles/client").write_text("keyUsage = nonsense\n")
    for name in (subject({NameOID.ORGANIZATION_NAME: "x"}), subject("x")):
        result = workspace.run(KEYGEN, csr(name))
        assert result.status != 0
        assert b"KEY" not in result.out
        assert "PRIVATE" not in result.err


# --- the operations that issue nothing --------------------------------------------------------------------


def test_cacerts(workspace: Workspace) -> None:
    root = (workspace.ca / "cacert.pem").read_bytes()
    assert workspace.run("openssl/cacerts").out == root
    extra = (workspace.ca / "server.pem").read_bytes()
    (workspace.ca / "chain.pem").write_bytes(extra)
    assert workspace.run("openssl/cacerts").out == root + extra


def test_csrattrs_prints_the_file_beside_it(workspace: Workspace) -> None:
    beside = workspace.path / "handlers/openssl/csrattrs.yaml"
    printed = workspace.run("openssl/csrattrs")
    assert (printed.status, printed.out, printed.err) == (0, beside.read_bytes(), "")
    beside.write_text("- challengePassword\n")
    assert workspace.run("openssl/csrattrs").out == b"- challengePassword\n"


def test_csrattrs_for_some(workspace: Workspace) -> None:
    for name, env in (("members", {"EST_CLIENT_TRUST": "explicit"}), ("printers", {"REMOTE_USER": "printer-1"})):
        uncomment(workspace, "openssl/csrattrs", f"[[ ${'EST_CLIENT_TRUST' if name == 'members' else '{REMOTE_USER'}")
        (workspace.path / f"handlers/openssl/{name}.yaml").write_text(f"# for {name}\n")
        assert workspace.run("openssl/csrattrs", None, **env).out == f"# for {name}\n".encode()
        assert workspace.run("openssl/csrattrs").out.startswith(b"# What this CA")


def test_csrattrs_without_its_file_is_a_failure(workspace: Workspace) -> None:
    (workspace.path / "handlers/openssl/csrattrs.yaml").unlink()
    failed = workspace.run("openssl/csrattrs")
    assert (failed.status, failed.out) == (1, b"")
    assert "csrattrs.yaml: No such file" in failed.err


# --- examples -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["simpleenroll", "simplereenroll"])
def test_short_lived(shared: Workspace, operation: str) -> None:
    certificate = shared.run("examples/short-lived", csr(), EST_OPERATION=operation).certificate
    assert lives(certificate, timedelta(minutes=10))
    assert abs(certificate.not_valid_before_utc - datetime.now(UTC)) < timedelta(minutes=1)
    assert extension(certificate, NO_REV_AVAIL).public_bytes() == b"\x05\x00"
    assert lint(certificate.public_bytes(Encoding.PEM)) <= ACCEPTED


def test_echo_env(shared: Workspace) -> None:
    secret = {"EST_PASSWORD": "estpwd", "EST_CSR_SUBJECT": "CN=a\nb", "LONG": "x" * 100}
    result = shared.run("examples/echo-env", csr(), EST_OPERATION="serverkeygen", **secret)
    assert result.status == 77
    lines = result.words.splitlines()
    assert "EST_OPERATION=serverkeygen" in lines
    assert "EST_PASSWORD=(6 characters)" in lines
    assert "EST_CSR_SUBJECT=CN=a b" in lines
    assert "LONG=" + "x" * 60 in lines
    assert not any(line.startswith(("PWD=", "SHLVL=")) for line in lines), "not from the gateway"
    assert "LONG=" + "x" * 100 in result.err
    assert "estpwd" not in result.words + result.err


def test_manual_approval_does_not_hand_over_to_itself(workspace: Workspace) -> None:
    shutil.copy(workspace.path / "handlers/examples/manual-approval", workspace.path / "handlers" / ENROL)
    assert workspace.run(ENROL, csr()).status == 1


def test_so_many_may_wait_and_no_more(workspace: Workspace) -> None:
    workspace.edit("handlers/examples/manual-approval", "most=1000", "most=2")
    ends = []
    for identifier in ("aa", "bb", "cc", "aa"):
        env = {"EST_OPERATION": "simpleenroll", "EST_PENDING_ID": identifier}
        ends.append(workspace.run("examples/manual-approval", csr(), **env))
    assert [end.status for end in ends] == [75, 75, 69, 75]
    assert ends[2].words == "too many requests wait for approval"
    assert sorted(path.name for path in (workspace.ca / "pending/waiting").iterdir()) == ["aa", "bb"]


def test_manual_approval(workspace: Workspace) -> None:
    script = "examples/manual-approval"
    pending = workspace.ca / "pending"
    env = {"EST_OPERATION": "simpleenroll", "REMOTE_USER": "zoe", "EST_LABEL": ""}
    for _ in range(2):
        result = workspace.run(script, csr("patient"), **env)
        assert (result.status, result.out, result.err) == (75, b"", "")
    facts = (pending / "waiting/0a1b2c/request").read_text().splitlines()
    assert {"EST_OPERATION=simpleenroll", "EST_CSR_SUBJECT=CN=patient", "REMOTE_USER=zoe", "EST_LABEL="} <= set(facts)
    assert (pending / "waiting/0a1b2c/csr.pem").read_bytes().startswith(b"-----BEGIN CERTIFICATE REQUEST-----")
    (pending / "waiting/0a1b2c").rename(pending / "approved/0a1b2c")
    certificate = workspace.run(script, csr("patient"), **env).certificate
    assert workspace.run(script, csr("patient"), **env).certificate == certificate
    (pending / "issued/0a1b2c").rename(pending / "refused/0a1b2c")
    (pending / "refused/0a1b2c/reason").write_text("ask your teacher\n")
    result = workspace.run(script, csr("patient"), **env)
    assert (result.status, result.words) == (77, "ask your teacher")


@pytest.mark.parametrize(
    ("user", "trust", "name", "status"),
    [
        ("teacher", "none", "anything", 0),
        ("estuser", "none", "device-17", 0),
        ("estuser", "none", "device-17a", 77),
        ("estuser", "explicit", "server", 77),
        ("", "explicit", "server", 0),
        ("", "implicit", "device-17", 77),
        ("", "none", "device-17", 77),
    ],
)
def test_allow_list(shared: Workspace, user: str, trust: str, name: str, status: int) -> None:
    env = {"EST_OPERATION": "simpleenroll", "EST_CLIENT_TRUST": trust} | ({"REMOTE_USER": user} if user else {})
    result = shared.run("examples/allow-list", csr(name), **env)
    assert (result.status, result.words) == (status, f"not for you: CN={name}" if status else "")


# --- an outside opinion ---------------------------------------------------------------------------------------

# What pkilint may say about an end-entity certificate, and why it may.
ACCEPTED = {
    "pkix.subject_key_identifier_method_1_identified",  # a remark: RFC 5280 4.2.1.2 method (1), as wished
}


@pytest.mark.parametrize("profile", sorted(path.name for path in (ROOT / "openssl-ca/profiles").iterdir()))
def test_pkilint_accepts_every_profile(workspace: Workspace, profile: str) -> None:
    for script in ISSUING:
        path = workspace.path / "handlers" / script
        path.write_text(path.read_text().replace("profile=client ", f"profile={profile} "))
        request = csr("device-1", x509.DNSName("device-1.example.org"))
        pem = workspace.run(script, request).out
        assert lint(pem[pem.index(b"-----BEGIN CERT") :]) <= ACCEPTED
