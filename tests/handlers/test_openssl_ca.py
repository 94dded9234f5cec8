"""openssl-ca/: files and refusals of create-ca, and the commands of the README."""

from __future__ import annotations

import ipaddress
import re
import shutil
import stat
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from tests.kit.cases import some
from tests.kit.csr import csr
from tests.kit.processes import PATH, ROOT
from tests.kit.reference import lint
from tests.kit.workspace import Workspace

# Accepted findings of pkilint, with the reason.
ACCEPTED = {
    "pkix.subject_key_identifier_method_1_identified",  # a remark: RFC 5280 4.2.1.2 method (1), as wished
    "pkix.invalid_domain_name_syntax",  # "localhost" has one label; a demo has no other name
}

CMC_RA = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_create_ca_makes_a_sound_trust_anchor(shared: Workspace) -> None:
    root = load(shared.ca / "cacert.pem")
    assert root.subject == root.issuer
    assert root.subject.rfc4514_string() == "CN=estgw demo CA,O=estgw demo"
    assert isinstance(root.public_key(), ec.EllipticCurvePublicKey)
    assert root.not_valid_after_utc - root.not_valid_before_utc == timedelta(days=3650)
    found = {(extension.oid, extension.critical) for extension in root.extensions}
    assert found == {
        (ExtensionOID.BASIC_CONSTRAINTS, True),
        (ExtensionOID.KEY_USAGE, True),
        (ExtensionOID.SUBJECT_KEY_IDENTIFIER, False),
        (ExtensionOID.AUTHORITY_KEY_IDENTIFIER, False),
    }
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, None)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign and usage.crl_sign and not usage.digital_signature


def test_the_server_certificate_is_for_localhost_and_has_cmc_ra(shared: Workspace) -> None:
    server, root = x509.load_pem_x509_certificates((shared.ca / "server.pem").read_bytes())
    assert root == load(shared.ca / "cacert.pem")
    server.verify_directly_issued_by(root)
    san = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in san.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    purposes = server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, CMC_RA}
    lifetime = server.not_valid_after_utc - server.not_valid_before_utc
    assert abs(lifetime - timedelta(days=397)) < timedelta(seconds=5)  # a second may pass between script and openssl
    assert len(shared.rows) == 1, "it has a row in the index like any other"
    for file, certificate in (("serverkey.pem", server), ("cakey.pem", root)):
        key = load_pem_private_key((shared.ca / "private" / file).read_bytes(), None)
        assert key.public_key() == certificate.public_key()


def test_openssl_verifies_the_chain_strictly(shared: Workspace) -> None:
    verify = ["openssl", "verify", "-x509_strict", "-verify_hostname", "localhost"]
    verify += ["-CAfile", str(shared.ca / "cacert.pem")]
    for purpose in ("sslserver", "any"):
        subprocess.run(
            [*verify, "-purpose", purpose, shared.ca / "server.pem"],
            check=True,
            capture_output=True,
        )


def test_private_keys_are_readable_by_their_owner_only(shared: Workspace) -> None:
    private = shared.ca / "private"
    assert mode(private) == 0o700
    assert {path.name: mode(path) for path in private.iterdir()} == {"cakey.pem": 0o600, "serverkey.pem": 0o600}
    assert mode(shared.ca / "cacert.pem") == mode(shared.ca / "server.pem") == 0o644
    assert mode(shared.ca / "newcerts") == 0o700


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (["--curve", "P-384"], ec.EllipticCurvePublicKey),
        (["--curve", "Ed25519"], ed25519.Ed25519PublicKey),
        (["--rsa"], rsa.RSAPublicKey),
    ],
)
def test_a_ca_with_another_kind_of_key_issues(
    shared: Workspace, tmp_path: Path, options: list[str], kind: type
) -> None:
    workspace = Workspace.create(tmp_path / "ws", *options)
    root = load(workspace.ca / "cacert.pem")
    assert isinstance(root.public_key(), kind)
    assert getattr(root.public_key(), "key_size", 3072) in (384, 3072)
    issued = workspace.run("openssl/simpleenroll", csr()).certificate
    issued.verify_directly_issued_by(root)
    for file in ("cacert.pem", "server.pem"):
        pem = (workspace.ca / file).read_bytes()
        assert lint(pem[: pem.index(b"-----END") + 26]) <= ACCEPTED, file


def test_option_name_adds_hosts_and_addresses_to_the_server(tmp_path: Path) -> None:
    names = ["gw.lab1", "192.0.2.7", "fe80::1", "*.example.org"]
    workspace = Workspace.create(tmp_path / "ws", *(word for name in names for word in ("--name", name)))
    san = load(workspace.ca / "server.pem").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.DNSName) == ["localhost", "gw.lab1", "*.example.org"]
    assert [str(ip) for ip in san.get_values_for_type(x509.IPAddress)][2:] == ["192.0.2.7", "fe80::1"]


NOT_NAMES = {
    "https://gw.example.org/": "leave out what stands before and after the host",
    "gw.example.org:8443": "leave out the port",
    "[::1]": "leave out the brackets",
    "fe80::1%eth0": "an IPv6 address has eight groups of up to four hex digits",
    "1:2:3": "an IPv6 address has eight groups of up to four hex digits",
    "1::2::3": "an IPv6 address has eight groups of up to four hex digits",
    "1:2:3:4:5:6:7:8:9": "an IPv6 address has eight groups of up to four hex digits",
    ":::": "an IPv6 address has eight groups of up to four hex digits",
    "10": "an IPv4 address has four numbers from 0 to 255",
    "10.0.0.256": "an IPv4 address has four numbers from 0 to 255",
    "10.0.0.01": "with no 0 in front",
    "bücher.example": "in its ASCII form, xn--...",
    "two words": "a host name has letters, digits, hyphens and dots",
    "a_b.example": "a host name has letters, digits, hyphens and dots",
    "$(id).example": "a host name has letters, digits, hyphens and dots",
    "*": "a star stands alone, before the first dot",
    "a*.example": "a star stands alone, before the first dot",
    "a.*.example": "a star stands alone, before the first dot",
    ".example": "no part between dots is empty",
    "example.": "no part between dots is empty",
    "a..example": "no part between dots is empty",
    "-a.example": "or has a hyphen at an end",
    "a.example-": "or has a hyphen at an end",
    "a" * 64 + ".example": "a part between dots has 63 characters at most",
    "a." * 124 + "example": "a host name has 253 characters at most",
    "x\n.example": "a host name has letters, digits, hyphens and dots",
}
IS_NAME = """
set -euo pipefail
source "$1"
names=
for name in "${@:2}"; do (add_name "$name" && echo "$names") 2>&1 || :; done
"""


def add_names(*names: str) -> list[str]:
    command = ["bash", "-c", IS_NAME, "create-ca", str(ROOT / "openssl-ca/lib.sh"), *names]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": PATH}, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_name_that_no_certificate_can_hold_is_refused_with_the_reason() -> None:
    for said, (name, words) in zip(add_names(*NOT_NAMES), NOT_NAMES.items(), strict=True):
        assert said.startswith("create-ca: not a host name or IP address: "), name
        assert words in said, name


def test_a_name_of_any_kind_is_accepted_once() -> None:
    good = ["gw", "gw.Example.org", "*.example.org", "a-b.xn--bcher-kva.example", "a" * 63 + ".example"]
    addresses = ["0.0.0.0", "255.255.255.255", "::", "::1", "fe80::1", "1::", "1:2:3:4:5:6:7:8", "2001:DB8::ffff:0:1"]
    assert add_names(*good, *addresses) == [*(f",DNS:{name}" for name in good), *(f",IP:{name}" for name in addresses)]
    assert [str(ipaddress.ip_address(address)) for address in addresses]


# create-ca --server-only.


def sans(path: Path) -> list[str]:
    found = load(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(entry.value) for entry in found]


def test_server_only_makes_a_key_and_a_certificate_by_the_existing_ca(workspace: Workspace) -> None:
    before = {name: (workspace.ca / name).read_bytes() for name in ("cacert.pem", "server.pem", "private/cakey.pem")}
    old_key = (workspace.ca / "private/serverkey.pem").read_bytes()
    said = workspace.do(
        "create-ca", "--server-only", "--name", "gw.example", "--name", "192.0.2.7", "--name", "gw.example"
    )
    assert "server.pem, with a new key, for DNS:localhost," in said
    assert "reload the gateway" in said
    assert sans(workspace.ca / "server.pem") == ["localhost", "127.0.0.1", "::1", "gw.example", "192.0.2.7"]
    assert [(workspace.ca / name).read_bytes() == text for name, text in before.items()] == [True, False, True]
    key = (workspace.ca / "private/serverkey.pem").read_bytes()
    assert key != old_key
    assert mode(workspace.ca / "private/serverkey.pem") == 0o600
    assert mode(workspace.ca / "server.pem") == 0o644
    server = load(workspace.ca / "server.pem")
    assert load_pem_private_key(key, None).public_key() == server.public_key()
    server.verify_directly_issued_by(load(workspace.ca / "cacert.pem"))
    assert [row[0] for row in workspace.rows] == ["V", "V"]
    assert int(workspace.rows[1][3], 16) == server.serial_number
    assert (workspace.ca / f"newcerts/{workspace.rows[1][3]}.pem").exists()
    assert not (workspace.ca / "server.new").exists()
    assert not list(workspace.ca.glob(".create-ca.*"))
    assert workspace.run("openssl/simpleenroll", csr()).status == 0


def test_server_only_keeps_the_kind_of_the_key_unless_told(workspace: Workspace) -> None:
    workspace.do("create-ca", "--server-only", "--curve", "P-384")
    workspace.do("create-ca", "--server-only")
    key = load(workspace.ca / "server.pem").public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp384r1"


def test_server_only_keeps_the_chain_after_a_rollover(workspace: Workspace) -> None:
    workspace.do("rollover")
    before = workspace.load("server.pem")
    workspace.do("create-ca", "--server-only", "--name", "gw.example")
    chain = workspace.load("server.pem")
    chain[0].verify_directly_issued_by(load(workspace.ca / "issuer.pem"))
    assert chain[1:] == before[1:]
    assert chain[0] != before[0]
    workspace.do("rollover")
    assert "gw.example" in sans(workspace.ca / "server.pem")


@pytest.mark.parametrize("program", some(["mv", "openssl", "sync"], 3))
def test_server_only_killed_anywhere_leaves_a_matching_key(workspace: Workspace, tmp_path: Path, program: str) -> None:
    for call in range(1, 30):
        path = fatal(tmp_path / f"bin{call}", program, call)
        ended = workspace.create_ca("--server-only", "--name", f"gw{call}", path=path).returncode
        workspace.do("crl")  # takes the lock as the next script
        key = load_pem_private_key((workspace.ca / "private/serverkey.pem").read_bytes(), None).public_key()
        assert key == load(workspace.ca / "server.pem").public_key(), (program, call)
        assert not (workspace.ca / "server.new").exists()
        if ended == 0:
            assert call > 2
            return
    pytest.fail("it never came to its end")


def test_server_only_needs_the_key_of_the_ca(workspace: Workspace) -> None:
    (workspace.ca / "current/private/cakey.pem").rename(workspace.ca / "elsewhere")
    result = workspace.create_ca("--server-only")
    assert (result.returncode, len(workspace.rows)) == (1, 1)
    assert "the CA's key is not in" in result.stderr


def test_an_existing_ca_stays_unless_forced(workspace: Workspace) -> None:
    before = load(workspace.ca / "cacert.pem")
    result = workspace.create_ca()
    assert result.returncode == 1
    assert "--force replaces it" in result.stderr
    assert load(workspace.ca / "cacert.pem") == before

    (workspace.ca / "crl.pem").write_text("of the old CA")
    assert workspace.create_ca("--force").returncode == 0
    assert load(workspace.ca / "cacert.pem") != before
    assert len(workspace.rows) == len(list((workspace.ca / "newcerts").iterdir())) == 1
    assert not (workspace.ca / "crl.pem").exists()


def test_a_key_without_its_certificate_is_not_overwritten(workspace: Workspace) -> None:
    (workspace.ca / "cacert.pem").unlink()
    assert workspace.create_ca().returncode == 1


def test_dir_makes_a_second_ca_that_can_be_edited(workspace: Workspace, tmp_path: Path) -> None:
    other = tmp_path / "another one"
    assert workspace.create_ca("--dir", str(other)).returncode == 0
    assert load(other / "cacert.pem") != load(workspace.ca / "cacert.pem")
    assert (other / "openssl.cnf").read_bytes() == (workspace.ca / "openssl.cnf").read_bytes()
    issued = workspace.run("openssl/simpleenroll", csr(), EST_CA_DIR=str(other)).certificate
    issued.verify_directly_issued_by(load(other / "cacert.pem"))
    assert len(workspace.rows) == 1


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--help"], 0, ""),
        (["--frobnicate"], 2, "usage: create-ca"),
        (["--curve"], 1, "--curve wants a value"),
        (["--curve", "P-0"], 1, "Error generating EC key"),
        (["--name", "a,DNS:b"], 1, "not a host name or IP address: 'a,DNS:b'"),
        (["--name", "x\nbasicConstraints=CA:TRUE"], 1, "not a host name or IP address"),
        (["--name", "192.0.2.999"], 1, "an IPv4 address has four numbers from 0 to 255"),
        (["--server-only"], 1, "no CA in"),
        (["--server-only", "--force"], 1, "--server-only keeps the CA as it is; leave out --force, --sub-ca and --hsm"),
        (
            ["--sub-ca", "--hsm", "pkcs11:"],
            1,
            "--hsm: the URI must begin with pkcs11: and have module-path and pin-source",
        ),
        (["--server-only", "--sub-ca"], 1, "--server-only keeps the CA as it is"),
    ],
)
def test_help_and_wrong_options_make_no_ca(tmp_path: Path, options: list[str], status: int, words: str) -> None:
    script = ROOT / "openssl-ca/create-ca"
    where = tmp_path / "ca"
    result = subprocess.run(
        [script, "--dir", where, *options], capture_output=True, text=True, env={"PATH": PATH}, check=False
    )
    assert result.returncode == status
    assert words in result.stderr
    assert ("usage: create-ca" in result.stdout) == (status == 0)
    assert_nothing_that_looks_like_a_ca(where)


def assert_nothing_that_looks_like_a_ca(where: Path) -> None:
    left = {path.name for path in where.glob("*")}
    assert not left & {"cacert.pem", "server.pem", "private", "index.txt", "newcerts"}, left


def fatal(directory: Path, program: str, call: int) -> str:
    """A PATH in which the Nth call of a program kills its caller, as a power cut would."""
    directory.mkdir()
    stub = directory / program
    real = shutil.which(program, path=PATH)
    stub.write_text(
        f'#!/bin/bash\necho >>"$0.calls"\n(($(wc -l <"$0.calls") < {call})) || kill -KILL $PPID $$\nexec {real} "$@"\n'
    )
    stub.chmod(0o755)
    return f"{directory}:{PATH}"


KILLED = (-9, 137)
"""Exit statuses if the script itself or its subshell was killed."""


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
def test_create_ca_killed_half_way_leaves_the_old_ca_or_none(workspace: Workspace, tmp_path: Path, call: int) -> None:
    path = fatal(tmp_path / "bin", "openssl", call)
    before = (workspace.ca / "cacert.pem").read_bytes()
    assert workspace.create_ca("--force", path=path).returncode in KILLED
    assert (workspace.ca / "cacert.pem").read_bytes() == before, "the old one is untouched"
    assert workspace.run("openssl/simpleenroll", csr()).status == 0

    (tmp_path / "bin/openssl.calls").unlink()
    fresh = tmp_path / "fresh"
    assert workspace.create_ca("--dir", str(fresh), path=path).returncode in KILLED
    assert_nothing_that_looks_like_a_ca(fresh)
    assert workspace.create_ca("--dir", str(fresh)).returncode == 0
    assert not list(fresh.glob(".create-ca.*")), "the next run sweeps up"


def test_create_ca_killed_while_moving_files_leaves_no_anchor(workspace: Workspace, tmp_path: Path) -> None:
    assert workspace.create_ca("--force", path=fatal(tmp_path / "bin", "mv", 2)).returncode == -9
    assert not (workspace.ca / "cacert.pem").exists()
    assert workspace.create_ca("--force").returncode == 0


def test_pkilint_accepts_root_and_server(shared: Workspace) -> None:
    assert lint((shared.ca / "cacert.pem").read_bytes()) <= ACCEPTED - {"pkix.invalid_domain_name_syntax"}
    server = (shared.ca / "server.pem").read_bytes().split(b"-----END CERTIFICATE-----\n")[0]
    assert lint(server + b"-----END CERTIFICATE-----\n") <= ACCEPTED


def test_the_commands_of_the_readme_work(workspace: Workspace, tmp_path: Path) -> None:
    """All commands of the README, in their order, in one shell."""
    readme = (workspace.ca / "README.md").read_text()
    lines = re.findall(r"^```sh\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert len(lines) == 6
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        cwd=workspace.ca,
        env={"PATH": PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    states = [row[0] for row in workspace.rows]
    assert states == ["V", "R", "V", "V"], "create-ca's server, a new and revoked one, rollover's, an RA"
    crl = x509.load_pem_x509_crl((workspace.ca / "crl.pem").read_bytes())
    assert [entry.serial_number for entry in crl] == [int(workspace.rows[1][3], 16)]
    assert crl.is_signature_valid(load(workspace.ca / "cacert.pem").public_key())  # type: ignore[arg-type]
    server = load(workspace.ca / "server.pem")
    san = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "gw.example.org" in san.get_values_for_type(x509.DNSName)
    purposes = load(workspace.ca / "ra.pem").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert CMC_RA in purposes
    assert lint((workspace.ca / "ra.pem").read_bytes()) <= ACCEPTED


def test_the_readme_names_every_profile() -> None:
    readme = (ROOT / "openssl-ca/README.md").read_text()
    for profile in (ROOT / "openssl-ca/profiles").iterdir():
        assert f"`{profile.name}`" in readme
