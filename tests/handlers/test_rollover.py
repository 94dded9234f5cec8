"""openssl-ca/rollover: a client with one generation's root accepts all others' certificates by means of /cacerts."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store

from estgw.est import oids
from estgw.est.certs import serial_hex
from tests.kit.ca import pem
from tests.kit.csr import csr
from tests.kit.gateway import enrol, running_gateway
from tests.kit.preloaded import forked_estclient
from tests.kit.processes import PATH, ROOT, run
from tests.kit.reference import lint
from tests.kit.scripts import Cuts
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.slow

GENERATIONS = (1, 2, 3)
PAIRS = list(itertools.product(GENERATIONS, repeat=2))
ACCEPTED = {
    "pkix.subject_key_identifier_method_1_identified",  # a remark: RFC 5280 4.2.1.2 method (1), as wished
    "pkix.invalid_domain_name_syntax",  # "localhost" has one label; a demo has no other name
}


class Rolled:
    """A CA that has changed its key twice, with a device's certificate of each generation."""

    def __init__(self, path: Path) -> None:
        self.workspace = Workspace.create(path, "--name", "gw.lab1")
        self.devices = [self.enrol()]
        for _ in GENERATIONS[1:]:
            self.workspace.do("rollover")
            self.devices.append(self.enrol())
        self.bag = self.workspace.bag

    def enrol(self) -> x509.Certificate:
        return self.workspace.run("openssl/simpleenroll", csr("device", x509.DNSName("device.example.org"))).certificate

    def root(self, generation: int) -> x509.Certificate:
        return self.workspace.load(f"generations/{generation}/cacert.pem")[0]

    def device(self, generation: int) -> x509.Certificate:
        return self.devices[generation - 1]

    def rollover(self, generation: int, role: str, old: int) -> x509.Certificate:
        """One of the certificates that were made for a generation: `new-with-old` or `old-with-new`."""
        return self.workspace.load(f"generations/{generation}/{role}-{old}.pem")[0]


@pytest.fixture(scope="module")
def rolled(tmp_path_factory: pytest.TempPathFactory) -> Rolled:
    return Rolled(tmp_path_factory.mktemp("ca") / "work shop $HOME")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One fresh CA, to be copied."""
    return Workspace.create(tmp_path_factory.mktemp("fresh") / "ws")


@pytest.fixture
def workspace(shared: Workspace, tmp_path: Path) -> Workspace:
    return shared.copy(tmp_path / "ws")


def is_root(certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
    except Exception:  # noqa: BLE001  # with any fault, it is not signed by itself
        return False
    return True


def openssl_verify(
    directory: Path, anchor: x509.Certificate, bag: list[x509.Certificate], leaf: x509.Certificate, *options: str
) -> str:
    """Run `openssl verify` with one real anchor; returns its output."""
    for name, content in (("anchor", [anchor]), ("bag", bag), ("leaf", [leaf])):
        (directory / f"{name}.pem").write_bytes(b"".join(map(pem, content)))
    command = ["openssl", "verify", "-x509_strict", *options]
    command += ["-trusted", "anchor.pem", *(["-untrusted", "bag.pem"] if bag else []), "leaf.pem"]
    return run(*command, cwd=directory, status=None).stdout.decode().strip()


def validates(anchor: x509.Certificate, bag: list[x509.Certificate], leaf: x509.Certificate) -> bool:
    """RFC 5280 path validation by another implementation, one that tries every path."""
    verifier = PolicyBuilder().store(Store([anchor])).build_client_verifier()
    return len(verifier.verify(leaf, bag).chain) >= 2


# --- paths for clients ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("anchor", "leaf"), PAIRS)
def test_any_anchor_validates_any_generation_with_the_bag_alone(
    rolled: Rolled, tmp_path: Path, anchor: int, leaf: int
) -> None:
    for bag in (rolled.bag, [one for one in rolled.bag if not is_root(one)]):
        said = openssl_verify(tmp_path, rolled.root(anchor), bag, rolled.device(leaf), "-purpose", "sslclient")
        assert said == "leaf.pem: OK"
    assert validates(rolled.root(anchor), rolled.bag, rolled.device(leaf))


def test_without_the_bag_an_anchor_validates_its_own_generation_only(rolled: Rolled, tmp_path: Path) -> None:
    for anchor, leaf in PAIRS:
        said = openssl_verify(tmp_path, rolled.root(anchor), [], rolled.device(leaf))
        assert ("leaf.pem: OK" in said) == (anchor == leaf)


@pytest.mark.parametrize("anchor", GENERATIONS)
def test_the_gateways_chain_leads_to_every_anchor(rolled: Rolled, tmp_path: Path, anchor: int) -> None:
    server, *links = rolled.workspace.load("server.pem")
    options = ("-purpose", "sslserver", "-verify_hostname", "gw.lab1")
    assert openssl_verify(tmp_path, rolled.root(anchor), links, server, *options) == "leaf.pem: OK"


def test_the_chain_of_the_gateway_is_in_order(rolled: Rolled) -> None:
    """Each certificate certifies the one before it, as TLS 1.2 requires (RFC 5246 7.4.2)."""
    chain = rolled.workspace.load("server.pem")
    for certificate, issuer in itertools.pairwise(chain):
        certificate.verify_directly_issued_by(issuer)
    assert chain[-1] == rolled.root(1)


def test_the_gateway_keeps_its_key_and_its_names(rolled: Rolled) -> None:
    first, *_ = rolled.workspace.load("generations/1/server.pem")
    latest, *_ = rolled.workspace.load("server.pem")
    assert latest.public_key() == first.public_key()
    assert latest.subject == first.subject
    sans = [one.extensions.get_extension_for_class(x509.SubjectAlternativeName) for one in (first, latest)]
    assert sans[0] == sans[1]
    latest.verify_directly_issued_by(rolled.root(3))


# --- contents of certificates ----------------------------------------------------------------------------


def test_the_bag_has_each_certificate_once_and_the_newest_root_first(rolled: Rolled) -> None:
    handed = x509.load_pem_x509_certificates(rolled.workspace.run("openssl/cacerts").out)
    assert handed[0] == rolled.root(3) == rolled.workspace.load("cacert.pem")[0]
    roots = {rolled.root(number) for number in GENERATIONS}
    made = {
        rolled.rollover(new, role, old)
        for old, new in itertools.combinations(GENERATIONS, 2)
        for role in ("new-with-old", "old-with-new")
    }
    assert len(handed) == 9
    assert set(handed) == roots | made
    assert set(rolled.workspace.load("anchors.pem")) == roots


def test_all_certificates_in_the_bag_are_ca_certificates_of_one_name(rolled: Rolled) -> None:
    """The example of RFC 7030 (A.1) is not."""
    names = {name.public_bytes() for one in rolled.bag for name in (one.subject, one.issuer)}
    assert len(names) == 1
    for one in rolled.bag:
        extensions = {oids.name_of(found.oid.dotted_string): found for found in one.extensions}
        assert extensions["basicConstraints"].critical
        assert extensions["basicConstraints"].value == x509.BasicConstraints(ca=True, path_length=None)
        usage = extensions["keyUsage"].value
        assert isinstance(usage, x509.KeyUsage)
        assert usage.key_cert_sign
        assert usage.crl_sign
        assert not usage.digital_signature
        assert set(extensions) == {
            "basicConstraints", "keyUsage", "subjectKeyIdentifier", "authorityKeyIdentifier"
        }  # fmt: skip
    assert len({one.serial_number for one in rolled.bag}) == len(rolled.bag)


def test_key_identifiers_differ_between_generations(rolled: Rolled) -> None:
    ids = {number: identifier(rolled.root(number), x509.SubjectKeyIdentifier) for number in GENERATIONS}
    assert len(set(ids.values())) == 3
    for number in GENERATIONS:
        assert identifier(rolled.root(number), x509.AuthorityKeyIdentifier) == ids[number]
        assert identifier(rolled.device(number), x509.AuthorityKeyIdentifier) == ids[number]
    for old, new in itertools.combinations(GENERATIONS, 2):
        for role, subject, issuer in (("new-with-old", new, old), ("old-with-new", old, new)):
            one = rolled.rollover(new, role, old)
            assert one.public_key() == rolled.root(subject).public_key()
            one.verify_directly_issued_by(rolled.root(issuer))
            assert identifier(one, x509.SubjectKeyIdentifier) == ids[subject]
            assert identifier(one, x509.AuthorityKeyIdentifier) == ids[issuer]


def identifier(
    certificate: x509.Certificate, kind: type[x509.SubjectKeyIdentifier | x509.AuthorityKeyIdentifier]
) -> bytes | None:
    value = certificate.extensions.get_extension_for_class(kind).value
    return value.digest if isinstance(value, x509.SubjectKeyIdentifier) else value.key_identifier


def test_rollover_certificates_have_the_dates_of_rfc_4210(rolled: Rolled) -> None:
    """4.4.1: OldWithNew has the old root's dates. NewWithOld lasts from the new root's start to the old one's end."""
    for old, new in itertools.combinations(GENERATIONS, 2):
        old_root, new_root = rolled.root(old), rolled.root(new)
        old_with_new, new_with_old = (rolled.rollover(new, role, old) for role in ("old-with-new", "new-with-old"))
        assert old_with_new.not_valid_before_utc == old_root.not_valid_before_utc
        assert old_with_new.not_valid_after_utc == old_root.not_valid_after_utc
        assert new_with_old.not_valid_before_utc == new_root.not_valid_before_utc
        assert new_with_old.not_valid_after_utc == old_root.not_valid_after_utc


def test_the_newest_root_ends_last(rolled: Rolled) -> None:
    """RFC 7030 4.1.3: a client recognizes the newest root by its end."""
    ends = [rolled.root(number).not_valid_after_utc for number in GENERATIONS]
    assert ends == sorted(set(ends))


def test_the_newest_root_ends_last_even_if_the_old_one_lasts_longer(workspace: Workspace) -> None:
    old = change_end(workspace, 1, datetime.now(UTC) + timedelta(days=9999))
    workspace.do("rollover")
    assert workspace.load("cacert.pem")[0].not_valid_after_utc == old.not_valid_after_utc + timedelta(seconds=1)


def change_end(workspace: Workspace, generation: int, end: datetime) -> x509.Certificate:
    """Make a root end at another time."""
    file = workspace.ca / f"generations/{generation}/cacert.pem"
    root = x509.load_pem_x509_certificate(file.read_bytes())
    key = load_pem_private_key((file.parent / "private/cakey.pem").read_bytes(), None)
    builder = x509.CertificateBuilder(root.issuer, root.subject, root.public_key(), root.serial_number)
    builder = builder.not_valid_before(end - timedelta(days=3650)).not_valid_after(end)
    for extension in root.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    changed = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]
    file.write_bytes(pem(changed))
    return changed


def test_pkilint_accepts_the_bag_and_the_server_certificate(rolled: Rolled) -> None:
    for one in (*rolled.bag, *rolled.workspace.load("server.pem")[:1]):
        assert lint(pem(one)) <= ACCEPTED


def test_the_register_has_server_certificates_but_no_ca_certificate(rolled: Rolled) -> None:
    assert [row[5] for row in rolled.workspace.rows] == ["/CN=localhost", "/CN=device"] * 3
    assert not (rolled.workspace.ca / "serial").exists()


def test_private_keys_are_readable_by_their_owner_only(rolled: Rolled) -> None:
    for number in GENERATIONS:
        generation = rolled.workspace.ca / f"generations/{number}"
        assert generation.stat().st_mode & 0o777 == 0o755
        assert (generation / "private").stat().st_mode & 0o777 == 0o700
        assert (generation / "private/cakey.pem").stat().st_mode & 0o777 == 0o600
        assert {path.stat().st_mode & 0o777 for path in generation.glob("*.pem")} == {0o644}


# --- other keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "options", "kind", "size"),
    [
        pytest.param([], ["--rsa"], rsa.RSAPublicKey, 3072, marks=pytest.mark.exhaustive),
        ([], ["--curve", "P-384"], ec.EllipticCurvePublicKey, 384),
        (["--curve", "P-521"], [], ec.EllipticCurvePublicKey, 521),
        pytest.param(["--curve", "Ed25519"], [], ed25519.Ed25519PublicKey, 0, marks=pytest.mark.exhaustive),
        (["--curve", "Ed25519"], ["--curve", "P-256"], ec.EllipticCurvePublicKey, 256),
    ],
)
def test_the_new_key_has_the_requested_kind_or_the_old_keys_kind(
    tmp_path: Path, before: list[str], options: list[str], kind: type, size: int
) -> None:
    workspace = Workspace.create(tmp_path / "ws", *before)
    (old,) = workspace.load("cacert.pem")
    first = workspace.run("openssl/simpleenroll", csr()).certificate
    workspace.do("rollover", *options)
    (new,) = workspace.load("cacert.pem")
    assert isinstance(new.public_key(), kind)
    assert getattr(new.public_key(), "key_size", 0) == size
    second = workspace.run("openssl/simpleenroll", csr()).certificate
    helpers = [one for one in workspace.bag if not is_root(one)]
    for anchor, leaf in itertools.product((old, new), (first, second)):
        assert openssl_verify(tmp_path, anchor, helpers, leaf) == "leaf.pem: OK"
    for one in workspace.bag:
        assert lint(pem(one)) <= ACCEPTED


# --- unchanged files, and refusals -----------------------------------------------------------------------------


def test_rollover_ignores_a_policy_that_the_ca_itself_would_fail(workspace: Workspace) -> None:
    workspace.edit("openssl-ca/openssl.cnf", "= policy_anything ", "= policy_serial ")
    workspace.do("rollover")


def test_rollover_keeps_a_certificate_added_to_the_bag(rolled: Rolled, workspace: Workspace) -> None:
    with (workspace.ca / "chain.pem").open("ab") as chain:
        chain.write(pem(rolled.root(1)))
    workspace.do("rollover")
    assert rolled.root(1) in workspace.bag


def test_rollover_keeps_a_server_certificate_of_another_ca(rolled: Rolled, workspace: Workspace) -> None:
    theirs = (rolled.workspace.ca / "server.pem").read_bytes()
    (workspace.ca / "server.pem").write_bytes(theirs)
    workspace.do("rollover")
    assert (workspace.ca / "server.pem").read_bytes() == theirs
    assert len(workspace.rows) == 1


def test_rollover_leaves_expired_generations_out(workspace: Workspace) -> None:
    workspace.do("rollover")
    ended = change_end(workspace, 1, datetime.now(UTC) - timedelta(days=1))
    (workspace.ca / "chain.pem").write_bytes(pem(ended))
    workspace.do("rollover")
    assert len(workspace.bag) == 4, "two roots, and two that connect them"
    assert ended not in workspace.bag


def test_rollover_refuses_an_expired_root(workspace: Workspace) -> None:
    change_end(workspace, 1, datetime.now(UTC) - timedelta(days=1))
    done = workspace.tool("rollover")
    assert done.returncode == 1
    assert "has expired" in done.stderr


def test_rollover_works_after_a_former_key_was_destroyed(workspace: Workspace, tmp_path: Path) -> None:
    """It can't certify the new root any more, but the key in between can."""
    (first,) = workspace.load("cacert.pem")
    old = workspace.run("openssl/simpleenroll", csr("device", x509.DNSName("a.example"))).certificate
    workspace.do("rollover")
    (workspace.ca / "generations/1/private/cakey.pem").unlink()
    workspace.do("rollover")
    new = workspace.run("openssl/simpleenroll", csr("device", x509.DNSName("a.example"))).certificate
    (latest,) = workspace.load("cacert.pem")
    assert validates(first, workspace.bag, new)
    assert validates(latest, workspace.bag, old)


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--help"], 0, ""),
        (["--frobnicate"], 2, "usage: rollover"),
        (["--curve"], 2, "usage: rollover"),
        (["--dir"], 2, "usage: rollover"),
        (["--curve", "P-0"], 1, "Error generating EC key"),
        (["--dir", "/nowhere"], 1, "no CA in /nowhere"),
        (["--dir", "/"], 1, "cp -a"),
    ],
)
def test_help_and_wrong_options_change_nothing(
    workspace: Workspace, options: list[str], status: int, words: str
) -> None:
    done = workspace.tool("rollover", *options)
    assert done.returncode == status
    assert words in done.stderr
    assert ("usage: rollover" in done.stdout) == (status == 0)
    assert workspace.load("anchors.pem") == workspace.load("cacert.pem")


def test_rollover_refuses_without_the_current_key(workspace: Workspace) -> None:
    (workspace.ca / "generations/1/private/cakey.pem").unlink()
    done = workspace.tool("rollover")
    assert (done.returncode, "bring it back" in done.stderr) == (1, True)


# --- atomic ----------------------------------------------------------------------------------------------------


def test_a_power_cut_during_rollover_leaves_the_old_or_the_new_ca(workspace: Workspace, tmp_path: Path) -> None:
    workspace.do("crl")
    cuts = Cuts.prepare(workspace, tmp_path / "cuts")
    seen: list[int] = []
    for number, twin in enumerate(cuts.twins("rollover")):
        stepped = seen and generation(twin) != seen[-1]
        seen.append(generation(twin))
        assert_sound(twin, issues=stepped or number % 12 == 0)
    assert len(seen) > 60
    assert seen == sorted(seen)
    assert set(seen) == {1, 2}
    assert_sound(workspace)


def test_rollover_can_be_repeated_after_a_kill(workspace: Workspace, tmp_path: Path) -> None:
    workspace.do("crl")
    cuts = Cuts.prepare(workspace, tmp_path / "cuts")
    for at in (20, 45):
        cuts.kill("rollover", at=at)
        assert generation(workspace) == 1
        assert list(workspace.ca.glob(".rollover.*"))
    workspace.do("rollover")
    assert generation(workspace) == 2
    assert_sound(workspace)
    assert not list(workspace.ca.glob(".*")), "it has swept up"


def generation(workspace: Workspace) -> int:
    return int(Path(os.readlink(workspace.ca / "current")).name)


def assert_sound(workspace: Workspace, *, issues: bool = True) -> None:
    """One complete generation: key and certificates fit, it issues, and the server's certificate is its own."""
    (root,) = workspace.load("cacert.pem")
    key = load_pem_private_key((workspace.ca / "private/cakey.pem").read_bytes(), None)
    assert key.public_key() == root.public_key()
    assert root in workspace.load("anchors.pem")
    assert workspace.load("anchors.pem")[0] == root
    workspace.load("server.pem")[0].verify_directly_issued_by(root)
    crl = x509.load_pem_x509_crl((workspace.ca / "crl.pem").read_bytes())
    assert crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]
    number = generation(workspace)
    assert len(workspace.bag) == number * number, "each root, and two for each pair"
    assert [row[5] for row in workspace.rows][:1] == ["/CN=localhost"]
    if not issues:
        return
    issued = workspace.run("openssl/simpleenroll", csr()).certificate
    issued.verify_directly_issued_by(root)


def test_rollover_waits_for_the_lock_of_the_handlers(workspace: Workspace) -> None:
    """rollover takes the handlers' lock, so no certificate is issued with files of two generations."""
    with subprocess.Popen(["flock", workspace.ca / "ca.lock", "sleep", "0.5"]):
        run("sleep", "0.1")
        workspace.do("rollover")
    assert generation(workspace) == 2


def test_cacerts_prints_a_bag_of_one_generation(workspace: Workspace, tmp_path: Path) -> None:
    """Also if a rollover happens while cacerts reads the files."""
    before = workspace.run("openssl/cacerts").out
    stub = tmp_path / "cat"
    stub.write_text(f'#!/bin/bash\n/bin/cat "$@"\nPATH={PATH} "{workspace.ca}/rollover" >"{tmp_path}/said"\n')
    stub.chmod(0o755)
    assert workspace.run("openssl/cacerts", PATH=f"{tmp_path}:{PATH}").out == before
    assert generation(workspace) == 3, "two files were read, and each time it changed"
    assert len(workspace.bag) == 9


# --- with a gateway -----------------------------------------------------------------------------------------------


def estclient(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return run(*forked_estclient(), *arguments, env=environment)


def test_clients_of_all_generations_are_served_after_two_rollovers(own_lab: Workspace, tmp_path: Path) -> None:
    old_anchor = tmp_path / "old.pem"
    shutil.copy(own_lab.anchor, old_anchor)
    workspace = Workspace(own_lab.path)
    with running_gateway(own_lab) as gateway:
        (tmp_path / "1").mkdir()
        devices = [enrol(gateway, tmp_path / "1")]
        for number in (2, 3):
            workspace.do("rollover")
            assert gateway.reload()["event"] == "reloaded"
            (tmp_path / str(number)).mkdir()
            devices.append(enrol(gateway, tmp_path / str(number)))
        # Clients with any anchor and a certificate of any generation are served.
        for device, anchor in itertools.product(devices, (old_anchor, own_lab.anchor)):
            renewed = gateway.post("simplereenroll", csr(), login=None, certificate=device, anchor=anchor)
            renewed.certificate.verify_directly_issued_by(workspace.load("cacert.pem")[0])
        bag = gateway.get("cacerts", anchor=old_anchor).certificates
        assert bag == workspace.bag
        newest = x509.load_pem_x509_certificate(devices[2][0].read_bytes())
        old_root = x509.load_pem_x509_certificate(old_anchor.read_bytes())
        assert openssl_verify(tmp_path, old_root, bag, newest) == "leaf.pem: OK"

        words = estclient("cacerts", "-u", gateway.url, "-c", old_anchor).stderr.decode()
        (line,) = [line for line in words.splitlines() if "newest" in line]
        (root,) = workspace.load("cacert.pem")
        assert line.startswith("NewWithNew, the newest root: ")
        assert f"serial {serial_hex(root)}," in line
        said = json.loads(estclient("cacerts", "-u", gateway.url, "-c", old_anchor, "--json").stdout)
        assert said["status"] == "done"
        assert all(entry["fault"] is None for entry in said["certificates"])
        assert [entry["role"] for entry in said["certificates"] if entry["newest"]] == ["NewWithNew"]
        roles = sorted(entry["role"] for entry in said["certificates"])
        assert roles == ["NewWithNew"] + ["NewWithOld"] * 3 + ["OldWithNew"] * 3 + ["OldWithOld"] * 2


@pytest.mark.client("pki")
def test_strongswan_with_the_old_anchor_gets_all_roots(own_lab: Workspace, tmp_path: Path) -> None:
    old_anchor = tmp_path / "old.pem"
    shutil.copy(own_lab.anchor, old_anchor)
    Workspace(own_lab.path).do("rollover")
    with running_gateway(own_lab) as gateway:
        command = ["pki", "--estca", "--url", gateway.url, "--cacert", str(old_anchor)]
        run(*command, "--caout", str(tmp_path / "ca.pem"), "--outform", "pem")
    written = [x509.load_pem_x509_certificate(path.read_bytes()) for path in tmp_path.glob("ca*.pem")]
    assert {one.public_bytes(Encoding.DER) for one in written} >= {
        root.public_bytes(Encoding.DER) for root in Workspace(own_lab.path).load("anchors.pem")
    }
