"""handlers/openssl and handlers/examples: the scripts, each run as the gateway runs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from estgw.est.keygen import DECRYPT_KEY_ID
from tests.kit.csr import csr, subject
from tests.kit.der import UTF8, attribute, tlv
from tests.kit.keys import KEY
from tests.kit.processes import ROOT
from tests.kit.reference import lint
from tests.kit.scripts import PROFILES, keygen
from tests.kit.workspace import Workspace, keygen_environment

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
NOT_HANDLERS = {"authorize", "one-time-password", "genp10", "solve"}  # decisions, and what a client or a handler starts
HANDLERS = [
    str(path.relative_to(ROOT / "handlers"))
    for path in SCRIPTS
    if path.parent.name != "openssl-ca" and path.name not in NOT_HANDLERS
]
LIBRARIES = sorted(path for folder in ("handlers", "openssl-ca") for path in (ROOT / folder).rglob("*.sh"))

CMC_RA = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")
NO_REV_AVAIL = x509.ObjectIdentifier("2.5.29.56")


def issue(workspace: Workspace, script: str, request: bytes, **env: str) -> x509.Certificate:
    result = workspace.run(script, request, **env)
    return keygen(result)[1] if script == KEYGEN else result.certificate


def extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> x509.ExtensionType:
    return certificate.extensions.get_extension_for_oid(oid).value


def lives(certificate: x509.Certificate, wanted: timedelta) -> bool:
    """Whether the certificate is valid for that long; a second may pass between script and openssl."""
    return wanted - timedelta(seconds=5) < certificate.not_valid_after_utc - certificate.not_valid_before_utc <= wanted


# --- the scripts as texts ---------------------------------------------------------------------------


def test_every_operation_and_three_examples_have_scripts() -> None:
    assert {*ISSUING, "openssl/cacerts", "openssl/csrattrs", "openssl/fullcmc"} <= set(HANDLERS)
    assert len([name for name in HANDLERS if name.startswith("examples/")]) >= 3


def test_the_linters_are_given_every_script() -> None:
    """`make lint`, which `make test` runs first, takes its files from tests/scripts."""
    listed = subprocess.run([ROOT / "tests/scripts"], capture_output=True, text=True, check=True).stdout.split()
    assert {str(path.relative_to(ROOT)) for path in (*LIBRARIES, *SCRIPTS)} <= set(listed)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_script_is_short_and_strict(path: Path) -> None:
    text = path.read_text()
    assert os.access(path, os.X_OK)
    assert len(text.splitlines()) <= (130 if path.parent.name == "openssl-ca" else 40), (
        "a script can be read at a glance"
    )
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


def test_issuing_scripts_have_only_a_header_a_policy_and_one_call() -> None:
    """An issuing script has a header, the policy below its mark, and one call."""
    for handler in (*ISSUING, "examples/short-lived"):
        lines = (ROOT / "handlers" / handler).read_text().splitlines()
        marks = [
            number for number, line in enumerate(lines) if line.startswith("#### Policy: edit me, then enrol again")
        ]
        assert len(marks) == 1, handler
        above = [line for line in lines[: marks[0]] if line and not line.startswith("#")]
        assert [re.sub(r"[ =].*", "", line) for line in above] == ["set", "[[", "source"], handler
        call = lines.index("", marks[0]) + 1
        wanted = r'issue(_with_key "\$kind")? "\$profile" "\$lifetime" "\$names"'
        assert len(lines) == call + 1 and re.fullmatch(wanted, lines[call]), handler
    assert len((ROOT / "handlers" / ENROL).read_text().splitlines()) <= 22
    everything = [*SCRIPTS, *LIBRARIES]
    found = [path.name for path in everything if re.search(r"^[^#\n']*\bopenssl ca -", path.read_text(), re.MULTILINE)]
    assert sorted(found) == ["lib.sh", "register.sh"]


# --- the contract -------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [name for name in HANDLERS if name.startswith("examples/")])
def test_an_unknown_operation_exits_64_and_changes_nothing(workspace: Workspace, handler: str) -> None:
    before = sorted(workspace.ca.rglob("*"))
    result = workspace.run(handler, csr(), EST_OPERATION="frobnicate", EST_LABEL="x")
    assert (result.status, result.out, result.err) == (64, b"", "")
    assert sorted(workspace.ca.rglob("*")) == before


# --- issuing ------------------------------------------------------------------------------------------


def test_a_name_change_keeps_several_values_in_one_rdn(shared: Workspace) -> None:
    """EST_CHANGE_SUBJECT (RFC 6402 2.8): the gateway sets it only where that is allowed."""
    new = r"/2.5.4.10=Zoë \"$HOME\" \/ \+ \=/2.5.4.3=new\\+2.5.4.5=17"
    certificate = issue(shared, REENROLL, csr("old"), EST_CHANGE_SUBJECT=new)
    assert [{attribute.oid: attribute.value for attribute in rdn} for rdn in certificate.subject.rdns] == [
        {NameOID.ORGANIZATION_NAME: 'Zoë "$HOME" / + ='},
        {NameOID.COMMON_NAME: "new\\", NameOID.SERIAL_NUMBER: "17"},
    ]
    assert certificate.public_key() == KEY.public_key()


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


def test_the_cas_policy_refuses_another_organization(workspace: Workspace) -> None:
    workspace.edit("openssl-ca/openssl.cnf", "= policy_anything ", "= policy_match ")
    ours = subject({NameOID.ORGANIZATION_NAME: "estgw demo"}, "device-1")
    assert workspace.run(ENROL, csr(ours)).status == 0
    assert refused_by(workspace, subject("device-1")) == "The mandatory organizationName field was missing"
    assert refused_by(workspace, subject({NameOID.ORGANIZATION_NAME: "Evil"}, "device-1")) == (
        "The organizationName field is different between\nCA certificate (estgw demo) and the request (Evil)"
    )


def test_the_cas_policy_refuses_a_missing_serial_number(workspace: Workspace) -> None:
    workspace.edit("openssl-ca/openssl.cnf", "= policy_anything ", "= policy_serial ")
    assert workspace.run(ENROL, csr(subject({NameOID.SERIAL_NUMBER: "17"}))).status == 0
    assert refused_by(workspace, subject("x")) == "The serialNumber field needed to be supplied and was missing"


def test_unique_subject_refuses_a_second_certificate(workspace: Workspace) -> None:
    (workspace.ca / "index.txt.attr").write_text("unique_subject = yes\n")
    (workspace.ca / "index.txt").write_text("")
    assert workspace.run(ENROL, csr("twice")).status == 0
    assert refused_by(workspace, subject("twice")) == "ERROR:There is already a certificate for /CN=twice"


def test_unique_subject_issues_one_certificate_for_requests_at_once(workspace: Workspace) -> None:
    (workspace.ca / "index.txt.attr").write_text("unique_subject = yes\n")
    (workspace.ca / "index.txt").write_text("")  # openssl ca refuses an index with a duplicate subject
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: workspace.run(ENROL, csr("wanted")), range(16)))
    assert sorted(result.status for result in results) == [0] + [77] * 15
    assert [row[5] for row in workspace.rows].count("/CN=wanted") == 1


def test_counted_serial_numbers_are_used_once(workspace: Workspace) -> None:
    workspace.edit("openssl-ca/openssl.cnf", "rand_serial      = yes ", "serial = $dir/serial ")
    (workspace.ca / "serial").write_text("1000\n")
    with ThreadPoolExecutor(8) as pool:
        issued = list(pool.map(lambda _: workspace.run(ENROL, csr("device")).certificate, range(16)))
    assert sorted(certificate.serial_number for certificate in issued) == list(range(0x1000, 0x1010))
    assert (workspace.ca / "serial").read_text() == "1010\n"
    assert {row[3] for row in workspace.rows} >= {f"{number:04X}" for number in range(0x1000, 0x1010)}


def test_an_openssl_cnf_that_names_the_register_directly_issues_nothing(workspace: Workspace) -> None:
    """`openssl ca` would rewrite the register without the lock."""
    workspace.edit("openssl-ca/openssl.cnf", "= $ENV::REGISTER_DIR/index.txt #", "= $dir/index.txt #")
    before = (workspace.ca / "index.txt").read_text()
    result = workspace.run(ENROL, csr())
    assert (result.status, result.out) == (70, b"")
    assert "openssl.cnf: it needs the line  database = $ENV::REGISTER_DIR/index.txt" in result.err
    assert (workspace.ca / "index.txt").read_text() == before


def test_an_email_address_of_the_wrong_string_type_is_refused(shared: Workspace) -> None:
    email = x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@example.org", x509.name._ASN1Type.UTF8String)
    words = refused_by(shared, x509.Name([*subject("x"), email]))
    assert words == "emailAddress type needs to be of type IA5STRING"


BREAKAGES: dict[str, Callable[[Path], object]] = {
    "no index": lambda ca: (ca / "index.txt").unlink(),
    "broken index": lambda ca: (ca / "index.txt").write_text("V\tnonsense\n"),
    "no room for the certificate": lambda ca: (ca / "newcerts").rename(ca / "oldcerts"),
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
    name = subject({NameOID.EMAIL_ADDRESS: "a"}, "The x field was missing")  # must not be mistaken for a refusal
    result = workspace.run(script, csr(name))
    assert result.status not in (0, 64, 65, 69, 75, 77)
    assert result.out == b""
    assert result.err
    assert before == (index.is_file() and index.read_text())


# --- serverkeygen ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wish", ["unset", "symmetric", "asymmetric"])
def test_serverkeygen_that_cannot_encrypt_gives_no_key(workspace: Workspace, wish: str) -> None:
    """Without the helper, or without the variables of the gateway, nothing is issued."""
    (workspace.path / "handlers/seal").unlink()
    before = workspace.rows
    # The value is not an OCTET STRING, so the gateway sets no variable for it.
    request = csr("secretive", attribute(DECRYPT_KEY_ID, tlv(UTF8, b"key 17")))
    assert "EST_KEYGEN_PROTECT" not in keygen_environment(request)
    result = workspace.run(KEYGEN, request, **({"EST_KEYGEN_PROTECT": wish} if wish != "unset" else {}))
    assert result.status not in (0, 64, 65, 69, 75, 77)
    assert b"BEGIN" not in result.out
    assert workspace.rows == before


def test_serverkeygen_gives_no_key_with_a_refusal(workspace: Workspace) -> None:
    (workspace.ca / "profiles/client").write_text("keyUsage = nonsense\n")
    for name in (subject({NameOID.ORGANIZATION_NAME: "x"}), subject("x")):
        result = workspace.run(KEYGEN, csr(name))
        assert result.status != 0
        assert b"KEY" not in result.out
        assert "PRIVATE" not in result.err


# --- examples -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["simpleenroll", "simplereenroll"])
def test_short_lived_certificates_live_ten_minutes_without_revocation(shared: Workspace, operation: str) -> None:
    certificate = shared.run("examples/short-lived", csr(), EST_OPERATION=operation).certificate
    assert lives(certificate, timedelta(minutes=10))
    assert abs(certificate.not_valid_before_utc - datetime.now(UTC)) < timedelta(minutes=1)
    assert extension(certificate, NO_REV_AVAIL).public_bytes() == b"\x05\x00"
    assert lint(certificate.public_bytes(Encoding.PEM)) <= ACCEPTED


def test_echo_env_shows_its_variables_and_no_password(shared: Workspace) -> None:
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


def test_manual_approval_in_place_of_simpleenroll_fails_without_a_loop(workspace: Workspace) -> None:
    shutil.copy(workspace.path / "handlers/examples/manual-approval", workspace.path / "handlers" / ENROL)
    assert workspace.run(ENROL, csr()).status == 1


def test_manual_approval_limits_the_number_of_waiting_requests(workspace: Workspace) -> None:
    workspace.edit("handlers/examples/manual-approval", "most=1000", "most=2")
    ends = []
    for identifier in ("aa", "bb", "cc", "aa"):
        env = {"EST_OPERATION": "simpleenroll", "EST_PENDING_ID": identifier}
        ends.append(workspace.run("examples/manual-approval", csr(), **env))
    assert [end.status for end in ends] == [75, 75, 69, 75]
    assert ends[2].words == "too many requests wait for approval"
    assert sorted(path.name for path in (workspace.ca / "pending/waiting").iterdir()) == ["aa", "bb"]


def test_manual_approval_issues_after_approval_and_refuses_with_the_reason(workspace: Workspace) -> None:
    script = "examples/manual-approval"
    pending = workspace.ca / "pending"
    env = {"EST_OPERATION": "simpleenroll", "REMOTE_USER": "zoe", "EST_LABEL": "", "EST_PENDING_ID": "0a1b2c"}
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
    ("user", "trust", "name", "san", "status"),
    [
        ("teacher", "none", "anything", "anything.example", 0),
        ("estuser", "none", "device-17", "", 0),
        ("estuser", "none", "device-17a", "", 77),
        ("estuser", "none", "device-17", "server.example", 77),
        ("estuser", "explicit", "server", "", 77),
        ("", "explicit", "server", "", 0),
        ("", "implicit", "device-17", "", 77),
        ("", "none", "device-17", "", 77),
    ],
)
def test_allow_list_refuses_names_that_a_user_may_not_have(
    shared: Workspace, user: str, trust: str, name: str, san: str, status: int
) -> None:
    env = {"EST_OPERATION": "simpleenroll", "EST_CLIENT_TRUST": trust} | ({"REMOTE_USER": user} if user else {})
    result = shared.run("examples/allow-list", csr(name, *([x509.DNSName(san)] if san else [])), **env)
    refusal = f"not for you: CN={name}" + (f" DNS:{san}" if san else "")
    assert (result.status, result.words) == (status, refusal if status else "")


# --- pkilint --------------------------------------------------------------------------------------------------

# Accepted findings about an end-entity certificate, with the reason.
ACCEPTED = {
    "pkix.subject_key_identifier_method_1_identified",  # a remark: RFC 5280 4.2.1.2 method (1), as wished
}


def test_pkilint_accepts_the_profile_of_the_gateway(workspace: Workspace) -> None:
    """test_both_sets.py checks the other profiles."""
    assert {path.name for path in (ROOT / "openssl-ca/profiles").iterdir()} - {*PROFILES} == {"est-server"}
    workspace.edit("handlers/openssl/settings.sh", "profile=client ", "profile=est-server ")
    pem = workspace.run(ENROL, csr("device-1", x509.DNSName("device-1.example.org"))).out
    assert lint(pem) <= ACCEPTED
