"""handlers/openssl and handlers/python: both sets must pass the same checks."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from estgw.est.keygen import ASYMMETRIC_DECRYPT_KEY_ID, DECRYPT_KEY_ID, SMIME_CAPABILITIES
from tests.kit.cases import some
from tests.kit.csr import csr, san, subject, subject_der
from tests.kit.der import BMP, CN, IA5, OCTETS, PRINTABLE, SEQUENCE, T61, UNIVERSAL, UTF8, attribute, dn, element, tlv
from tests.kit.keys import KEY
from tests.kit.processes import ROOT
from tests.kit.reference import lint
from tests.kit.scripts import ISSUING, PROFILES, HandlerSet, keygen

SETS = ("openssl", "python")
OPERATIONS = ("cacerts", "csrattrs", *ISSUING, "fullcmc")
CMC_RA = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")

issuing = pytest.mark.parametrize("operation", ISSUING)


@pytest.fixture(scope="module", params=SETS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HandlerSet:
    """One CA for each set, for the tests that only add to it."""
    return HandlerSet.create(request.param, tmp_path_factory.mktemp("ca") / "work shop $HOME ?#%20")


@pytest.fixture
def bench(shared: HandlerSet, tmp_path: Path) -> HandlerSet:
    """A CA and scripts for the tests that edit or break something."""
    return shared.copy(tmp_path / "ws")


def subject_of(certificate: x509.Certificate) -> bytes:
    """The subject as it is encoded in the certificate."""
    return element(certificate.tbs_certificate_bytes, 5)


def extensions(certificate: x509.Certificate) -> dict[x509.ObjectIdentifier, tuple[bool, x509.ExtensionType]]:
    return {found.oid: (found.critical, found.value) for found in certificate.extensions}


def purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def lives(certificate: x509.Certificate, wanted: timedelta) -> bool:
    """Whether the certificate is valid for that long; a second may pass between script and openssl."""
    return wanted - timedelta(seconds=5) < certificate.not_valid_after_utc - certificate.not_valid_before_utc <= wanted


# The contract.


@pytest.mark.parametrize("operation", [*OPERATIONS, "authorize"])
def test_every_operation_has_an_executable_script(shared: HandlerSet, operation: str) -> None:
    assert os.access(shared.script(operation), os.X_OK)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_unknown_operation_exits_64_and_changes_nothing(shared: HandlerSet, operation: str) -> None:
    before = sorted(shared.ca.rglob("*"))
    result = shared.run(operation, csr(), EST_OPERATION="frobnicate", EST_LABEL="x")
    assert (result.status, result.out, result.err) == (64, b"", "")
    assert sorted(shared.ca.rglob("*")) == before


@pytest.mark.parametrize("operation", [*OPERATIONS, "authorize"])
def test_unknown_variables_change_nothing(shared: HandlerSet, operation: str) -> None:
    unknown = {"EST_FROM_THE_FUTURE": "1", "BASH_FUNC_id%%": "() { :; }", "profile": "ra", "names": "x", "key": "x"}
    result = shared.run(operation, csr(), **unknown)
    assert result.status == 0


# Issuing.


@issuing
def test_a_certificate_is_issued_and_registered(shared: HandlerSet, operation: str) -> None:
    request = csr("device-1", x509.DNSName("device-1.example.org"))
    before = shared.rows
    certificate = shared.issue(operation, request)
    certificate.verify_directly_issued_by(shared.root)
    assert [row.serial for row in shared.rows] == [*(row.serial for row in before), certificate.serial_number]
    assert shared.rows[-1].subject == "CN=device-1"
    assert subject_of(certificate) == subject_der(request)
    found = extensions(certificate)
    assert {oid: critical for oid, (critical, _) in found.items()} == {
        ExtensionOID.BASIC_CONSTRAINTS: True,
        ExtensionOID.KEY_USAGE: True,
        ExtensionOID.EXTENDED_KEY_USAGE: False,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME: False,
    }
    assert found[ExtensionOID.BASIC_CONSTRAINTS][1] == x509.BasicConstraints(ca=False, path_length=None)
    root_id = extensions(shared.root)[ExtensionOID.SUBJECT_KEY_IDENTIFIER][1]
    assert isinstance(root_id, x509.SubjectKeyIdentifier)
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(root_id)
    assert found[ExtensionOID.AUTHORITY_KEY_IDENTIFIER][1] == authority
    own_id = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    assert found[ExtensionOID.SUBJECT_KEY_IDENTIFIER][1] == own_id
    assert purposes(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert lives(certificate, timedelta(days=90))
    assert 0 < certificate.serial_number < 1 << 159
    assert (certificate.public_key() == KEY.public_key()) == (operation != "serverkeygen")


def test_openssl_verifies_an_issued_certificate(shared: HandlerSet, tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    file.write_bytes(shared.issue("simpleenroll", csr("zoe")).public_bytes(Encoding.PEM))
    verify = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", str(shared.ca / "cacert.pem")]
    assert subprocess.run([*verify, file], capture_output=True, check=True).stdout == f"{file}: OK\n".encode()


HOSTILE = {
    "utf-8": "Zoë 名前 Ω",
    "emoji": "🦉 owl",
    "slashes": "a/CN=b+O=c,d;e<f>g=h",
    "quotes": "\"double\" 'single' `id`",
    "sql": "'); DROP TABLE certificates; --",
    "dollar": "$(id) ${PATH} $ENV::PATH",
    "function": "() { :; }; id",
    "lines": "one\r\ntwo\n\n[default]\nbasicConstraints=CA:TRUE",
    "tab": "a\tb\t",
    "nul": "a\0b",
    "backslash": "\\ \\n \\",
    "format": "%s%n%x {0} {} %(",
    "long": "x" * 200,
    "bidi": "abc\u202edef\u2028ghi",
    "armour": "-----END CERTIFICATE REQUEST-----",
    "spaces": " edge ",
    "comment": "# nothing",
    "section": "@section, DER:3000, ASN1:NULL",
    "refusal": "\nThe commonName field needed to be supplied and was missing",
}


@pytest.mark.parametrize("operation", ["simpleenroll", pytest.param("serverkeygen", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("name", some(HOSTILE, 3))
def test_a_hostile_subject_is_issued_byte_for_byte(shared: HandlerSet, name: str, operation: str) -> None:
    text = HOSTILE[name]
    short = text[:64]  # beyond that, cryptography warns
    request = csr(subject({NameOID.ORGANIZATION_NAME: text}, {NameOID.COMMON_NAME: short, NameOID.SURNAME: "x"}))
    before = len(shared.rows)
    certificate = shared.issue(operation, request)
    assert subject_of(certificate) == subject_der(request)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert len(shared.rows) == before + 1
    assert shared.rows[-1].subject.isprintable()
    if shared.name == "openssl":
        assert {len(row) for row in shared.workspace.rows} == {6}
        assert shared.workspace.rows[-1][0] == "V"


STRINGS = {
    "utf8": (UTF8, "Zoë".encode()),
    "printable": (PRINTABLE, b"upside down"),
    "t61": (T61, b"teletex"),
    "ia5": (IA5, b"a@example.org"),
    "bmp": (BMP, "Zoë".encode("utf-16-be")),
    "universal": (UNIVERSAL, "Zoë".encode("utf-32-be")),  # which `openssl ca` refuses
}


@pytest.mark.parametrize("operation", ["simpleenroll", "serverkeygen"])
def test_string_types_and_order_of_the_subject_are_kept(shared: HandlerSet, operation: str) -> None:
    known = STRINGS.values() if shared.name == "python" else list(STRINGS.values())[:-1]
    rdns = [("2.5.4.11", tag, text) for tag, text in known]  # organizational units
    others = [("1.2.3.4.5", UTF8, b"private"), ("2.5.4.5", PRINTABLE, b"17")]  # the latter a serialNumber
    others += [("1.2.840.113549.1.9.1", IA5, b"zoe@example.org")]  # emailAddress
    name = dn((CN, PRINTABLE, b"first"), *rdns, *others, *reversed(rdns))
    request = csr(name)
    assert subject_of(shared.issue(operation, request)) == name


@issuing
def test_extensions_of_the_csr_other_than_names_are_ignored(shared: HandlerSet, operation: str) -> None:
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
        x509.NameConstraints([x509.DNSName("example.org")], None),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
    ]
    greedy = extensions(shared.issue(operation, csr("greedy", *wishes, critical=True)))
    modest = extensions(shared.issue(operation, csr("modest")))
    if operation == "serverkeygen":  # its key and so its key identifier are new each time
        assert greedy.pop(ExtensionOID.SUBJECT_KEY_IDENTIFIER) != modest.pop(ExtensionOID.SUBJECT_KEY_IDENTIFIER)
    assert greedy == modest


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


@issuing
def test_alternative_names_are_copied_exactly(shared: HandlerSet, operation: str) -> None:
    request = csr("many names", *NAMES)
    certificate = shared.issue(operation, request)
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.public_bytes() == x509.SubjectAlternativeName(NAMES).public_bytes()
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@issuing
def test_the_policy_can_leave_alternative_names_out(bench: HandlerSet, operation: str) -> None:
    old, new = {"openssl": ("names=${EST_CSR_EXT_SAN-}", "names="), "python": ("request.names", "[]")}[bench.name]
    bench.edit(operation, old, new)
    certificate = bench.issue(operation, csr("many names", *NAMES))
    assert ExtensionOID.SUBJECT_ALTERNATIVE_NAME not in extensions(certificate)


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
def test_keys_of_every_kind_are_certified(shared: HandlerSet, key: Any) -> None:
    certificate = shared.issue("simpleenroll", csr(key=key))
    assert certificate.public_key() == key.public_key()
    assert shared.issue("serverkeygen", csr(key=key)).public_key() != key.public_key()
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not (usage.key_cert_sign or usage.crl_sign or usage.key_agreement)
    assert lint(certificate.public_bytes(Encoding.PEM)) <= ACCEPTED


def changing(new_subject: bytes | None, *new_names: x509.GeneralName) -> tuple[bytes, dict[str, str]]:
    """A CSR with ChangeSubjectName (RFC 6402 2.8), and the variables for its new names."""
    parts = [] if new_subject is None else [new_subject]
    env = {}
    if new_names:
        names = x509.SubjectAlternativeName(new_names).public_bytes()
        parts += [b"\xa1" + names[1:]]  # [1] IMPLICIT
        env["EST_CSR_EXT_SAN"] = names.hex()
    wish = attribute("1.3.6.1.5.5.7.7.36", tlv(SEQUENCE, *parts))
    der = csr("old", wish, san(x509.DNSName("old.example.org")))
    return der, env


@issuing
def test_est_change_subject_replaces_the_names(shared: HandlerSet, operation: str) -> None:
    """The gateway sets EST_CHANGE_SUBJECT only where that is allowed."""
    ou = ("2.5.4.10", UTF8, 'Zoë "$HOME" / + ='.encode())
    new = dn(ou, (CN, UTF8, b"new\\"))
    request, env = changing(new, x509.DNSName("new.example.org"))
    env["EST_CHANGE_SUBJECT"] = r"/2.5.4.10=Zoë \"$HOME\" \/ \+ \=/2.5.4.3=new\\"
    certificate = shared.issue(operation, request, **env)
    assert subject_of(certificate) == new
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.DNSName) == ["new.example.org"]
    # Without the variable, the attribute is ignored.
    plain = shared.issue(operation, request)
    assert plain.subject.rfc4514_string() == "CN=old"


def test_a_part_that_a_name_change_leaves_out_becomes_empty(shared: HandlerSet) -> None:
    request, _ = changing(dn((CN, UTF8, b"new")))
    certificate = shared.issue("simplereenroll", request, EST_CHANGE_SUBJECT="/2.5.4.3=new", EST_CSR_EXT_SAN="")
    assert certificate.subject.rfc4514_string() == "CN=new"
    assert ExtensionOID.SUBJECT_ALTERNATIVE_NAME not in extensions(certificate)
    request, env = changing(None, x509.DNSName("new.example.org"))
    assert shared.run("simplereenroll", request, EST_CHANGE_SUBJECT="/", **env).status == 77


def test_twenty_requests_at_once_lose_no_row(bench: HandlerSet) -> None:
    """The first request of the Python set creates the register, with the others close behind."""
    jobs = list(enumerate((ISSUING * 7)[:20]))
    with ThreadPoolExecutor(20) as pool:
        issued = list(pool.map(lambda job: bench.issue(job[1], csr(f"parallel-{job[0]}")), jobs))
    serials = {certificate.serial_number for certificate in issued}
    assert len(serials) == 20
    rows = [row for row in bench.rows if row.subject.startswith("CN=parallel")]
    assert {row.serial for row in rows} == serials
    assert sorted(row.subject for row in rows) == sorted(f"CN=parallel-{number}" for number in range(20))
    if bench.name == "openssl":
        files = {path.stem for path in (bench.ca / "newcerts").iterdir()}
        assert files == {row[3] for row in bench.workspace.rows}


@issuing
def test_a_busy_register_exits_69(bench: HandlerSet, operation: str) -> None:
    bench.issue(operation, csr())
    before = bench.rows
    with bench.locked():
        result = bench.run(operation, csr(), EST_TIMEOUT="1")
    assert (result.status, result.out) == (69, b"")
    assert bench.rows == before
    assert bench.run(operation, csr()).status == 0


# Refusing.


@issuing
def test_a_subject_without_a_common_name_is_refused(shared: HandlerSet, operation: str) -> None:
    before = shared.rows
    result = shared.run(operation, csr(subject({NameOID.ORGANIZATION_NAME: "x"}), x509.DNSName("a.example.org")))
    assert result.status == 77
    assert "commonName" in result.words
    assert shared.rows == before


def another_key(ca: Path) -> None:
    shutil.copy(ca / "private/serverkey.pem", ca / "private/cakey.pem")


def no_register(ca: Path) -> None:
    for name in ("index.txt", "certs.sqlite"):
        (ca / name).unlink(missing_ok=True)
        (ca / name).mkdir()


def broken_register(ca: Path) -> None:
    for old in ca.glob("certs.sqlite-*"):
        old.unlink()
    for name in ("index.txt", "certs.sqlite"):
        (ca / name).write_text("V\tnonsense\n" * 1000)


BREAKAGES: dict[str, Callable[[Path], object]] = {
    "no CA": shutil.rmtree,
    "no key": lambda ca: (ca / "private/cakey.pem").unlink(),
    "another key": another_key,
    "broken certificate": lambda ca: (ca / "cacert.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n"),
    "no room for the register": no_register,
    "broken register": broken_register,
}


@issuing
@pytest.mark.parametrize("break_it", some(BREAKAGES.values(), 2), ids=BREAKAGES.keys())
def test_a_broken_ca_issues_nothing_and_tells_the_client_nothing(
    bench: HandlerSet, operation: str, break_it: Callable[[Path], object]
) -> None:
    break_it(bench.ca)
    result = bench.run(operation, csr())
    assert result.status not in (0, 64, 65, 69, 75, 77)
    assert result.out == b""
    assert result.err
    assert "PRIVATE" not in result.err


# Policies.


def switch_on(bench: HandlerSet, operation: str, **starts: str) -> None:
    bench.uncomment(operation, starts[bench.name])


def settings(bench: HandlerSet) -> str:
    return {"openssl": "settings.sh", "python": "settings.py"}[bench.name]


def set_lifetime(bench: HandlerSet, text: str) -> None:
    """Put another lifetime into settings.sh or settings.py, as an editor would."""
    path = bench.script(settings(bench))
    old = {"openssl": "lifetime=90d", "python": 'lifetime = "90d"'}[bench.name]
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, old.replace("90d", text)))


@issuing
def test_profile_and_lifetime_apply_to_every_operation(bench: HandlerSet, operation: str) -> None:
    switch_on(bench, settings(bench), openssl="profile=server", python="profile, lifetime")
    certificate = bench.issue(operation, csr())
    assert purposes(certificate) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert lives(certificate, timedelta(minutes=10))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("1h", timedelta(hours=1)), ("90s", timedelta(seconds=90)), ("600", timedelta(minutes=10))],
)
def test_a_lifetime_is_a_number_with_its_unit(bench: HandlerSet, text: str, wanted: timedelta) -> None:
    set_lifetime(bench, text)
    assert lives(bench.issue("simplereenroll", csr()), wanted)


@issuing
@pytest.mark.parametrize("text", some(["0", "-1d", "ninety", "40000d"], 3))
def test_a_malformed_lifetime_issues_nothing_and_the_log_says_why(bench: HandlerSet, operation: str, text: str) -> None:
    before = bench.rows
    set_lifetime(bench, text)
    result = bench.run(operation, csr())
    assert (result.status, result.out, bench.rows) == (78, b"", before)
    assert f"'{text}' is no length of time: write a number with s, m, h or d behind it" in result.err


def live_until(ca: Path, end: datetime) -> None:
    """Give the CA's certificate another end; its key and its name stay."""
    root = x509.load_pem_x509_certificate((ca / "cacert.pem").read_bytes())
    key = load_pem_private_key((ca / "private/cakey.pem").read_bytes(), None)
    builder = x509.CertificateBuilder().subject_name(root.subject).issuer_name(root.subject)
    builder = builder.public_key(root.public_key()).serial_number(root.serial_number)
    builder = builder.not_valid_before(root.not_valid_before_utc - timedelta(days=2)).not_valid_after(end)
    for extension in root.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)  # type: ignore[arg-type]
    for name in ("cacert.pem", "issuer.pem"):
        (ca / name).write_bytes(pem)


@issuing
def test_a_lifetime_past_the_cas_end_is_cut_and_the_log_says_so(bench: HandlerSet, operation: str) -> None:
    bench.issue(operation, csr())
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=5)
    live_until(bench.ca, end)
    result = bench.run(operation, csr())
    certificate = keygen(result)[1] if operation == "serverkeygen" else result.certificate
    assert certificate.not_valid_after_utc == end
    assert f"lifetime 90d is cut: the certificate ends with the CA's own, at {end:%Y-%m-%d %H:%M:%S} UTC" in result.err
    set_lifetime(bench, "4d")
    assert "is cut" not in bench.run(operation, csr()).err


def test_a_ca_that_has_ended_issues_nothing_and_the_log_says_why(bench: HandlerSet) -> None:
    end = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    live_until(bench.ca, end)
    before = bench.rows
    result = bench.run("simpleenroll", csr())
    assert result.status not in (0, 64, 65, 69, 75, 77)
    assert (result.out, bench.rows) == (b"", before)
    assert f"the CA's certificate ended at {end:%Y-%m-%d %H:%M:%S} UTC: nothing can be issued" in result.err


def test_an_unknown_profile_issues_nothing_and_the_log_names_the_known(bench: HandlerSet) -> None:
    path = bench.script(settings(bench))
    path.write_text(path.read_text().replace("client", "clinet", 1))
    result = bench.run("simpleenroll", csr())
    assert result.status not in (0, 64, 65, 69, 75, 77)
    assert result.out == b""
    assert re.search(r"no profile clinet in .*; there are: both client .*server short-lived", result.err)


def test_an_unknown_kind_of_key_issues_nothing_and_the_log_lists_the_known(bench: HandlerSet) -> None:
    before, path = bench.rows, bench.script("serverkeygen")
    path.write_text(path.read_text().replace("p-256", "p-255", 1))
    result = bench.run("serverkeygen", csr())
    assert (result.status, result.out, bench.rows) == (78, b"", before)
    assert "no kind of key: p-255; there are: p-256 p-384 p-521 rsa-2048" in result.err


@pytest.mark.parametrize("operation", ["simpleenroll", "authorize"])
def test_policy_refuses_all_but_the_users_name(bench: HandlerSet, operation: str) -> None:
    switch_on(
        bench,
        operation,
        openssl="[[ ! -v REMOTE_USER" if operation == "authorize" else "only_user_name",
        python='if "REMOTE_USER" in env' if operation == "authorize" else "if not policy.only_user_name",
    )
    assert bench.run(operation, csr("zoe"), REMOTE_USER="zoe").status == 0
    for request, user in ((csr("zoe"), "adam"), (csr("*"), "zoe"), (csr("zoe", x509.DNSName("evil.example")), "zoe")):
        result = bench.run(operation, request, REMOTE_USER=user)
        assert (result.status, result.words) == (77, f"you may only be CN={user} and nothing else")
    without = bench.run(operation, csr("zoe"))
    if operation == "authorize":  # a client with a certificate is not affected
        assert without.status == 0
    else:
        assert (without.status, without.words) == (77, "you may only be CN= and nothing else")


def test_policy_refuses_clients_without_a_certificate_of_ours(bench: HandlerSet) -> None:
    switch_on(bench, "simpleenroll", openssl="[[ $EST_CLIENT_TRUST", python='if os.environ["EST_CLIENT_TRUST"]')
    result = bench.run("simpleenroll", csr())
    assert (result.status, result.words) == (77, "come back with a certificate of ours")
    assert bench.run("simpleenroll", csr(), EST_CLIENT_TRUST="explicit").status == 0


@pytest.mark.parametrize("operation", ["simpleenroll", "authorize"])
def test_policy_refuses_hosts_of_others_in_cn_and_san(bench: HandlerSet, operation: str) -> None:
    switch_on(bench, operation, openssl="allowed_suffix", python="if not policy.allowed_suffix")
    ours = x509.DNSName("a.example.org")
    assert bench.run(operation, csr("a.example.org")).status == 0
    assert bench.run(operation, csr("a.example.org", ours, x509.DNSName("b.example.org"))).status == 0
    for request, fault in (
        (csr("evil.example.net"), "CN=evil.example.net"),
        (csr("evil.example.net", ours), "CN=evil.example.net"),
        (csr("a.example.org", ours, x509.DNSName("a.example.net")), "DNS:a.example.net"),
        (csr("a.example.org", x509.RFC822Name("a@a.example.org")), "email:a@a.example.org"),
        (csr(subject({NameOID.ORGANIZATION_NAME: "x"})), "it names no host" if operation == "authorize" else None),
    ):
        result = bench.run(operation, request)
        if fault or bench.name == "openssl":
            assert (result.status, result.words) == (77, f"not ours to certify: {fault or 'it names no host'}")
        else:  # the Python set requires a commonName by itself
            assert (result.status, result.words) == (77, "the subject needs a commonName")


def renewing(bench: HandlerSet, certificate: x509.Certificate, path: Path, **env: str) -> tuple[int, str]:
    """Renew a certificate. Returns the exit status and the words of a refusal."""
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    result = bench.run("simplereenroll", csr(), EST_RENEW_CERT_FILE=str(path), **env)
    return result.status, "" if result.status == 0 else result.words


def test_policies_of_renewal_refuse_early_and_unchanged_keys(bench: HandlerSet, tmp_path: Path) -> None:
    switch_on(bench, "simplereenroll", openssl="[[ $EST_CLIENT_IS_RA", python='if os.environ["EST_CLIENT_IS_RA"]')
    switch_on(bench, "simplereenroll", openssl="[[ $EST_REENROLL", python='if os.environ["EST_REENROLL"]')
    switch_on(bench, "simplereenroll", openssl="ends_within", python="if not policy.ends_within")
    file = tmp_path / "renewed.pem"
    young = bench.issue("simpleenroll", csr())
    too_early = (77, "too early: come back in the last 30 days")
    assert renewing(bench, young, file, EST_REENROLL="rekey") == too_early
    set_lifetime(bench, "29d")
    due = bench.issue("simpleenroll", csr())
    assert renewing(bench, due, file, EST_REENROLL="renew") == (77, "make a new key first")
    assert renewing(bench, due, file, EST_REENROLL="rekey") == (0, "")
    ra = bench.issue("simplereenroll", csr(), EST_REENROLL="rekey", EST_CLIENT_IS_RA="1", EST_RENEW_CERT_FILE=str(file))
    assert CMC_RA in purposes(ra)


def test_a_certificate_that_openssl_ca_revoked_is_not_renewed(bench: HandlerSet, tmp_path: Path) -> None:
    """Both sets can issue from one directory, and `openssl ca` can revoke what it never issued."""
    certificate = bench.issue("simpleenroll", csr())
    file = tmp_path / "renewed.pem"
    assert renewing(bench, certificate, file) == (0, "")
    revoke = ["openssl", "ca", "-config", "openssl.cnf", "-revoke"]
    subprocess.run([*revoke, file], cwd=bench.ca, env={"PATH": os.environ["PATH"]}, capture_output=True, check=True)
    refusal = (77, "your certificate is revoked")
    assert renewing(bench, certificate, file) == refusal
    (bench.ca / "index.txt").replace(bench.ca / "index.txt.old")  # as while `openssl ca` replaces the index
    assert renewing(bench, certificate, file) == refusal


@pytest.mark.parametrize(
    ("env", "status"),
    [
        ({"EST_AUTH_METHODS": "http"}, 0),
        ({"EST_AUTH_METHODS": "tls+http", "EST_CLIENT_TRUST": "explicit"}, 0),
        ({"EST_AUTH_METHODS": ""}, 77),
        ({"EST_OTP": "90503846"}, 77),
    ],
)
def test_authorize_refuses_unauthenticated_clients_and_otps(
    shared: HandlerSet, env: dict[str, str], status: int
) -> None:
    operation = {"EST_OPERATION": "simpleenroll"}
    result = shared.run("authorize", csr(), **operation, **env)
    assert (result.status, bool(result.words), result.err) == (status, status != 0, "")


def test_policies_of_authorize_refuse_unlisted_and_others_names(bench: HandlerSet) -> None:
    switch_on(bench, "authorize", openssl="is_listed", python="if not policy.is_listed")
    (bench.script("authorize").parent / "allowed-fingerprints").write_text(f"{'0a' * 32}\n{'0b' * 32}\n")
    assert bench.run("authorize", csr()).words == "your certificate is not listed"
    assert bench.run("authorize", csr(), EST_CLIENT_CERT_SHA256="0c" * 32).status == 77
    listed = {"EST_CLIENT_CERT_SHA256": "0b" * 32}
    assert bench.run("authorize", csr(), **listed).status == 0
    switch_on(bench, "authorize", openssl="[[ $EST_CLIENT_IS_RA", python='if env["EST_CLIENT_IS_RA"]')
    assert bench.run("authorize", csr("zoe"), **listed).words == "only an RA may name others: CN=zoe"
    own = {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_S_DN": "CN=zoe"}
    assert bench.run("authorize", csr("zoe"), **listed, **own).status == 0
    assert bench.run("authorize", csr("zoe"), **listed, EST_CLIENT_IS_RA="1").status == 0
    switch_on(bench, "authorize", openssl="office_hours", python="if not policy.office_hours")
    result = bench.run("authorize", csr("zoe"), **listed, EST_CLIENT_IS_RA="1")
    assert (result.status, result.words) in ((0, ""), (77, "come back in office hours"))


def test_policy_of_users_per_label_refuses_others_but_lets_renew(bench: HandlerSet) -> None:
    switch_on(bench, "authorize", openssl="[[ $EST_OPERATION == simplereenroll", python='if env["EST_OPERATION"] !=')
    readme = (bench.workspace.path / "handlers/README.md").read_text()
    shown = re.search(r"<!-- label-users -->\n```\n(.*?)```", readme, re.DOTALL)
    assert shown is not None
    (bench.script("authorize").parent / "label-users").write_text(shown[1])

    def asked(operation: str, **env: str) -> tuple[int, str]:
        result = bench.run("authorize", csr(), EST_OPERATION=operation, **env)
        return result.status, result.words

    for label, user in (("p1", "p1"), ("p1", "teacher"), ("p2", "p2")):
        assert asked("simpleenroll", EST_LABEL=label, REMOTE_USER=user) == (0, "")
    refused = (77, "this label is not for p7")
    assert asked("simpleenroll", EST_LABEL="p1", REMOTE_USER="p7") == refused
    assert asked("simpleenroll", REMOTE_USER="p7") == refused
    assert asked("simplereenroll", EST_LABEL="p1", REMOTE_USER="p7") == refused, "with a password"
    assert asked("simpleenroll", EST_LABEL="p1") == (77, "this label is not for a client without a password")
    assert asked("simplereenroll", EST_LABEL="p1") == (0, ""), "with a certificate"


# serverkeygen.


def test_serverkeygen_gives_the_key_of_the_certificate(shared: HandlerSet) -> None:
    request = csr("keyless", x509.DNSName("keyless.example.org"))
    key, certificate = keygen(shared.run("serverkeygen", request))
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == certificate.public_key()
    assert subject_of(certificate) == subject_der(request)


@pytest.mark.parametrize("kind", ["p-384", "p-521", "rsa-2048", "ed25519"])
def test_serverkeygen_makes_other_kinds_of_key(bench: HandlerSet, kind: str) -> None:
    path = bench.script("serverkeygen")
    path.write_text(path.read_text().replace("p-256", kind, 1))
    key, certificate = keygen(bench.run("serverkeygen", csr()))
    assert key.public_key() == certificate.public_key()
    match key:
        case rsa.RSAPrivateKey():
            found = f"rsa-{key.key_size}"
        case ec.EllipticCurvePrivateKey():
            found = f"p-{key.key_size}"
        case _:
            found = "ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else "another"
    assert found == kind


def test_serverkeygen_ignores_the_signature_of_the_csr(shared: HandlerSet) -> None:
    request = csr("unsigned")
    der = bytearray(request)
    der[-1] ^= 1
    broken = bytes(der)
    assert not x509.load_der_x509_csr(broken).is_signature_valid
    assert subject_of(keygen(shared.run("serverkeygen", broken))[1]) == subject_der(request)


@pytest.mark.parametrize("oid", [DECRYPT_KEY_ID, ASYMMETRIC_DECRYPT_KEY_ID])
def test_serverkeygen_never_falls_back_to_a_clear_key(shared: HandlerSet, oid: str) -> None:
    before = shared.rows
    wishes = [attribute(oid, tlv(OCTETS, b"key 17")), attribute("1.2.3", b"", b"\5\0")]
    incomplete = csr("secretive", *wishes)
    wishes.append(attribute(SMIME_CAPABILITIES, bytes.fromhex("300d300b0609608648016503040105")))  # id-aes128-wrap
    result = shared.run("serverkeygen", csr("secretive", *wishes))
    assert shared.run("serverkeygen", incomplete).status == 1, "which no gateway lets through"
    assert result.status == 65
    assert "encrypt" in result.words
    assert b"BEGIN" not in result.out
    assert shared.rows == before


def test_serverkeygen_leaves_no_key_behind(bench: HandlerSet) -> None:
    key, _ = keygen(bench.run("serverkeygen", csr()))
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    secret = key.private_numbers().private_value.to_bytes(32)
    pem = bench.run("serverkeygen", csr()).out.splitlines()[1]
    for path in bench.workspace.path.rglob("*"):
        assert not path.is_file() or (secret not in path.read_bytes() and pem not in path.read_bytes())


def test_serverkeygen_gives_no_key_with_a_failure(bench: HandlerSet) -> None:
    bench.issue("serverkeygen", csr())
    with bench.locked():
        result = bench.run("serverkeygen", csr(), EST_TIMEOUT="1")
    assert result.status == 69
    assert b"KEY" not in result.out
    assert "PRIVATE" not in result.err


# The operations that issue nothing.


def test_cacerts_prints_the_root_and_the_chain(bench: HandlerSet) -> None:
    root = (bench.ca / "cacert.pem").read_bytes()
    assert bench.run("cacerts").out == root
    extra = (bench.ca / "server.pem").read_bytes()
    (bench.ca / "chain.pem").write_bytes(extra)
    assert bench.run("cacerts").out == root + extra


def test_csrattrs_prints_the_same_yaml_in_both_sets(bench: HandlerSet) -> None:
    """Both print the file of the Bash set, which the gateway encodes."""
    file = bench.workspace.path / "handlers/openssl/csrattrs.yaml"
    assert file.read_bytes() == (ROOT / "handlers/openssl/csrattrs.yaml").read_bytes()
    printed = bench.run("csrattrs")
    assert (printed.status, printed.out, printed.err) == (0, file.read_bytes(), "")
    file.write_text("- challengePassword\n")
    assert bench.run("csrattrs").out == b"- challengePassword\n"


def test_csrattrs_prints_other_files_for_some_clients(bench: HandlerSet) -> None:
    switch_on(bench, "csrattrs", openssl="[[ $EST_CLIENT_TRUST", python='if os.environ["EST_CLIENT_TRUST"]')
    switch_on(bench, "csrattrs", openssl="[[ ${REMOTE_USER", python='if os.environ.get("REMOTE_USER"')
    for name, env in (("members", {"EST_CLIENT_TRUST": "explicit"}), ("printers", {"REMOTE_USER": "printer-1"})):
        bench.script(f"{name}.yaml").write_text(f"# for {name}\n")
        assert bench.run("csrattrs", None, **env).out == f"# for {name}\n".encode()
    assert bench.run("csrattrs").out.startswith(b"# What this CA")


def test_csrattrs_without_its_file_is_a_failure(bench: HandlerSet) -> None:
    (bench.workspace.path / "handlers/openssl/csrattrs.yaml").unlink()
    failed = bench.run("csrattrs")
    assert (failed.status, failed.out) == (1, b"")
    assert re.search(r"No such file.*csrattrs\.yaml|csrattrs\.yaml: No such file", failed.err)


# pkilint.

# Accepted findings about an end-entity certificate, with the reason.
ACCEPTED = {
    "pkix.subject_key_identifier_method_1_identified",  # a remark: RFC 5280 4.2.1.2 method (1), as wished
}


@pytest.mark.parametrize("profile", PROFILES)
def test_pkilint_accepts_every_profile(bench: HandlerSet, profile: str) -> None:
    old = {"openssl": "profile=client ", "python": 'profile = "client"'}[bench.name]
    bench.edit(settings(bench), old, old.replace("client", profile))
    request = csr("device-1", x509.DNSName("device-1.example.org"))
    assert lint(bench.run("simpleenroll", request).out) <= ACCEPTED


@pytest.mark.parametrize("operation", ["simplereenroll", "serverkeygen"])
def test_pkilint_accepts_every_operation(shared: HandlerSet, operation: str) -> None:
    certificate = shared.issue(operation, csr("device-1", x509.DNSName("device-1.example.org")))
    assert lint(certificate.public_bytes(Encoding.PEM)) <= ACCEPTED
