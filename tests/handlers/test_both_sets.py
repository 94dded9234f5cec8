"""handlers/openssl and handlers/python: two ways to the same answers, held to the same checks."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from estgw.est.keygen import ASYMMETRIC_DECRYPT_KEY_ID, DECRYPT_KEY_ID, SMIME_CAPABILITIES
from tests.kit.csr import csr, san, subject, subject_der
from tests.kit.der import BMP, CN, IA5, OCTETS, PRINTABLE, SEQUENCE, T61, UNIVERSAL, UTF8, attribute, dn, element, tlv
from tests.kit.keys import KEY
from tests.kit.reference import lint
from tests.kit.scripts import ISSUING, HandlerSet, keygen

SETS = ("openssl", "python")
OPERATIONS = ("cacerts", "csrattrs", *ISSUING, "fullcmc")
CMC_RA = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")

issuing = pytest.mark.parametrize("operation", ISSUING)


@pytest.fixture(scope="module", params=SETS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HandlerSet:
    """One CA a set for the tests that only add to it."""
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
    """Whether it is valid for that long; a second may pass between script and openssl."""
    return wanted - timedelta(seconds=5) < certificate.not_valid_after_utc - certificate.not_valid_before_utc <= wanted


# The contract.


@pytest.mark.parametrize("operation", [*OPERATIONS, "authorize"])
def test_every_operation_is_there_and_can_be_run(shared: HandlerSet, operation: str) -> None:
    assert os.access(shared.script(operation), os.X_OK)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_unknown_operation_is_64_and_leaves_no_trace(shared: HandlerSet, operation: str) -> None:
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


def test_openssl_verifies_what_was_issued(shared: HandlerSet, tmp_path: Path) -> None:
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
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_subject_arrives_byte_for_byte(shared: HandlerSet, name: str) -> None:
    text = HOSTILE[name]
    operation = "serverkeygen" if name in ("utf-8", "lines", "long") else "simpleenroll"
    short = text[:64]  # beyond that, cryptography warns
    request = csr(subject({NameOID.ORGANIZATION_NAME: text}, {NameOID.COMMON_NAME: short, NameOID.SURNAME: "x"}))
    before = len(shared.rows)
    certificate = shared.issue(operation, request)
    assert subject_of(certificate) == subject_der(request)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert len(shared.rows) == before + 1
    assert shared.rows[-1].subject.isprintable()


STRINGS = {
    "utf8": (UTF8, "Zoë".encode()),
    "printable": (PRINTABLE, b"upside down"),
    "t61": (T61, b"teletex"),
    "ia5": (IA5, b"a@example.org"),
    "bmp": (BMP, "Zoë".encode("utf-16-be")),
    "universal": (UNIVERSAL, "Zoë".encode("utf-32-be")),  # which `openssl ca` refuses
}


@pytest.mark.parametrize("operation", ["simpleenroll", "serverkeygen"])
def test_string_types_and_order_survive(shared: HandlerSet, operation: str) -> None:
    known = STRINGS.values() if shared.name == "python" else list(STRINGS.values())[:-1]
    rdns = [("2.5.4.11", tag, text) for tag, text in known]  # organizational units
    name = dn((CN, PRINTABLE, b"first"), *rdns, ("1.2.3.4.5", UTF8, b"private"), *reversed(rdns))
    request = csr(name)
    assert subject_of(shared.issue(operation, request)) == name


@issuing
def test_nothing_but_names_comes_from_the_csr(shared: HandlerSet, operation: str) -> None:
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
    if operation == "serverkeygen":  # whose key, and so its identifier, is new each time
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
def test_the_names_are_copied_exactly(shared: HandlerSet, operation: str) -> None:
    request = csr("many names", *NAMES)
    certificate = shared.issue(operation, request)
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.public_bytes() == x509.SubjectAlternativeName(NAMES).public_bytes()


@issuing
def test_the_names_are_left_out_when_the_policy_says_so(bench: HandlerSet, operation: str) -> None:
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
def test_every_kind_of_key(shared: HandlerSet, key: Any) -> None:
    certificate = shared.issue("simpleenroll", csr(key=key))
    assert certificate.public_key() == key.public_key()
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not (usage.key_cert_sign or usage.crl_sign or usage.key_agreement)
    assert lint(certificate.public_bytes(Encoding.PEM)) <= ACCEPTED


def changing(new_subject: bytes | None, *new_names: x509.GeneralName) -> tuple[bytes, dict[str, str]]:
    """A bytes with ChangeSubjectName (RFC 6402 2.8), and the variables with what it wants."""
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
def test_a_client_may_change_its_names(shared: HandlerSet, operation: str) -> None:
    """The gateway sets EST_CHANGE_SUBJECT only where that is allowed."""
    ou = ("2.5.4.10", UTF8, 'Zoë "$HOME" / + ='.encode())
    new = dn(ou, (CN, UTF8, b"new\\"))
    request, env = changing(new, x509.DNSName("new.example.org"))
    env["EST_CHANGE_SUBJECT"] = r"/2.5.4.10=Zoë \"$HOME\" \/ \+ \=/2.5.4.3=new\\"
    certificate = shared.issue(operation, request, **env)
    assert subject_of(certificate) == new
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.DNSName) == ["new.example.org"]
    # Without the variable, the attribute is not looked at.
    plain = shared.issue(operation, request)
    assert plain.subject.rfc4514_string() == "CN=old"


def test_an_absent_part_of_a_name_change_is_an_empty_one(shared: HandlerSet) -> None:
    request, _ = changing(dn((CN, UTF8, b"new")))
    certificate = shared.issue("simplereenroll", request, EST_CHANGE_SUBJECT="/2.5.4.3=new", EST_CSR_EXT_SAN="")
    assert certificate.subject.rfc4514_string() == "CN=new"
    assert ExtensionOID.SUBJECT_ALTERNATIVE_NAME not in extensions(certificate)
    request, env = changing(None, x509.DNSName("new.example.org"))
    assert shared.run("simplereenroll", request, EST_CHANGE_SUBJECT="/", **env).status == 77


def test_twenty_at_a_time(bench: HandlerSet) -> None:
    """The register of the Python set is made by the first of them; none is ahead of the others for long."""
    jobs = list(enumerate((ISSUING * 7)[:20]))
    with ThreadPoolExecutor(20) as pool:
        issued = list(pool.map(lambda job: bench.issue(job[1], csr(f"parallel-{job[0]}")), jobs))
    serials = {certificate.serial_number for certificate in issued}
    assert len(serials) == 20
    rows = [row for row in bench.rows if row.subject.startswith("CN=parallel")]
    assert {row.serial for row in rows} == serials
    assert sorted(row.subject for row in rows) == sorted(f"CN=parallel-{number}" for number in range(20))


@issuing
def test_a_busy_register_is_69(bench: HandlerSet, operation: str) -> None:
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


@pytest.mark.parametrize("operation", ["simpleenroll", "serverkeygen"])
@pytest.mark.parametrize("break_it", BREAKAGES.values(), ids=BREAKAGES.keys())
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


def test_policy_profile_and_lifetime(bench: HandlerSet) -> None:
    switch_on(bench, "simpleenroll", openssl="profile=server", python="profile, lifetime")
    certificate = bench.issue("simpleenroll", csr())
    assert purposes(certificate) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert lives(certificate, timedelta(minutes=10))


@pytest.mark.parametrize("operation", ["simpleenroll", "authorize"])
def test_policy_own_name_only(bench: HandlerSet, operation: str) -> None:
    switch_on(
        bench,
        operation,
        openssl="[[ ! -v REMOTE_USER" if operation == "authorize" else "[[ $EST_CSR_SUBJECT ==",
        python='if "REMOTE_USER" in env' if operation == "authorize" else 'if os.environ["EST_CSR_SUBJECT"]',
    )
    assert bench.run(operation, csr("zoe"), REMOTE_USER="zoe").status == 0
    for name, user in (("zoe", "adam"), ("*", "zoe")):
        result = bench.run(operation, csr(name), REMOTE_USER=user)
        assert (result.status, result.words) == (77, f"you may only be CN={user}")


def test_policy_trusted_clients_only(bench: HandlerSet) -> None:
    switch_on(bench, "simpleenroll", openssl="[[ $EST_CLIENT_TRUST", python='if os.environ["EST_CLIENT_TRUST"]')
    assert bench.run("simpleenroll", csr()).status == 77
    assert bench.run("simpleenroll", csr(), EST_CLIENT_TRUST="explicit").status == 0


@pytest.mark.parametrize("operation", ["simpleenroll", "authorize"])
def test_policy_names(bench: HandlerSet, operation: str) -> None:
    bench.uncomment(operation, "for ")
    assert bench.run(operation, csr()).status == 0
    assert bench.run(operation, csr("a", x509.DNSName("a.example.org"), x509.DNSName("b.example.org"))).status == 0
    for stranger in (x509.DNSName("a.example.net"), x509.RFC822Name("a@a.example.org")):
        result = bench.run(operation, csr("a", x509.DNSName("a.example.org"), stranger))
        assert (result.status, result.words.endswith(f"{stranger.value} is not ours to certify")) == (77, True)


def renewing(bench: HandlerSet, certificate: x509.Certificate, path: Path, **env: str) -> tuple[int, str]:
    """Renew a certificate; exit status, and the words of a refusal."""
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    result = bench.run("simplereenroll", csr(), EST_RENEW_CERT_FILE=str(path), **env)
    return result.status, "" if result.status == 0 else result.words


def test_policy_renewal(bench: HandlerSet, tmp_path: Path) -> None:
    switch_on(bench, "simplereenroll", openssl="[[ $EST_CLIENT_IS_RA", python='if os.environ["EST_CLIENT_IS_RA"]')
    switch_on(bench, "simplereenroll", openssl="[[ $EST_REENROLL", python='if os.environ["EST_REENROLL"]')
    switch_on(bench, "simplereenroll", openssl="openssl x509", python="if renewed.not_valid_after_utc")
    file = tmp_path / "renewed.pem"
    young = bench.issue("simpleenroll", csr())
    too_early = (77, "too early: come back in the last 30 days")
    assert renewing(bench, young, file, EST_REENROLL="rekey") == too_early
    old, new = {"openssl": ("$((90 * 24", "$((29 * 24"), "python": ("days=90", "days=29")}[bench.name]
    bench.edit("simpleenroll", old, new)
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
    (bench.ca / "index.txt").replace(bench.ca / "index.txt.old")  # the moment in which the index is replaced
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
def test_authorize(shared: HandlerSet, env: dict[str, str], status: int) -> None:
    operation = {"EST_OPERATION": "simpleenroll"}
    result = shared.run("authorize", csr(), **operation, **env)
    assert (result.status, bool(result.words), result.err) == (status, status != 0, "")


AUTHORIZE = {
    "list": ("grep -qsixF", "if env.get"),
    "hours": ("printf -v now", "if (now :="),
    "ra": ("((EST_CLIENT_IS_RA))", 'if env["EST_CLIENT_IS_RA"]'),
}


def test_authorize_policies(bench: HandlerSet) -> None:
    bench.uncomment("authorize", AUTHORIZE["list"][bench.name == "python"])
    (bench.script("authorize").parent / "allowed-fingerprints").write_text(f"{'0a' * 32}\n{'0b' * 32}\n")
    assert bench.run("authorize", csr()).words == "your certificate is not listed"
    assert bench.run("authorize", csr(), EST_CLIENT_CERT_SHA256="0c" * 32).status == 77
    listed = {"EST_CLIENT_CERT_SHA256": "0b" * 32}
    assert bench.run("authorize", csr(), **listed).status == 0
    bench.uncomment("authorize", AUTHORIZE["ra"][bench.name == "python"])
    assert bench.run("authorize", csr("zoe"), **listed).words == "only an RA may name others"
    assert bench.run("authorize", csr("zoe"), **listed, SSL_CLIENT_S_DN="CN=zoe").status == 0
    assert bench.run("authorize", csr("zoe"), **listed, EST_CLIENT_IS_RA="1").status == 0
    bench.uncomment("authorize", AUTHORIZE["hours"][bench.name == "python"])
    result = bench.run("authorize", csr("zoe"), **listed, EST_CLIENT_IS_RA="1")
    assert (result.status, result.words) in ((0, ""), (77, "come back in office hours"))


# serverkeygen.


def test_serverkeygen_gives_the_key_of_the_certificate(shared: HandlerSet) -> None:
    request = csr("keyless", x509.DNSName("keyless.example.org"))
    key, certificate = keygen(shared.run("serverkeygen", request))
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == certificate.public_key()
    assert subject_of(certificate) == subject_der(request)


def test_serverkeygen_makes_other_keys(bench: HandlerSet) -> None:
    line = next(line for line in bench.script("serverkeygen").read_text().splitlines() if re.search("RSA|rsa", line))
    if bench.name == "openssl":
        bench.edit("serverkeygen", line, "kind=" + line.partition("# or ")[2].replace("3072", "2048"))
    else:
        bench.edit("serverkeygen", '"p-256"', '"rsa-2048"')
    key, certificate = keygen(bench.run("serverkeygen", csr()))
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.public_key() == certificate.public_key()


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


def test_cacerts(bench: HandlerSet) -> None:
    root = (bench.ca / "cacert.pem").read_bytes()
    assert bench.run("cacerts").out == root
    extra = (bench.ca / "server.pem").read_bytes()
    (bench.ca / "chain.pem").write_bytes(extra)
    assert bench.run("cacerts").out == root + extra


# An outside opinion.

# What pkilint may say about an end-entity certificate, and why it may.
ACCEPTED = {
    "pkix.subject_key_identifier_method_1_identified",  # a remark: RFC 5280 4.2.1.2 method (1), as wished
}


@pytest.mark.parametrize("profile", ["client", "server", "both", "ra", "short-lived"])
def test_pkilint_accepts_every_profile(bench: HandlerSet, profile: str) -> None:
    old = {"openssl": "profile=client ", "python": 'profile = "client"'}[bench.name]
    bench.edit("simpleenroll", old, old.replace("client", profile))
    request = csr("device-1", x509.DNSName("device-1.example.org"))
    assert lint(bench.run("simpleenroll", request).out) <= ACCEPTED


@pytest.mark.parametrize("operation", ["simplereenroll", "serverkeygen"])
def test_pkilint_accepts_every_operation(shared: HandlerSet, operation: str) -> None:
    certificate = shared.issue(operation, csr("device-1", x509.DNSName("device-1.example.org")))
    assert lint(certificate.public_bytes(Encoding.PEM)) <= ACCEPTED
