"""openssl-ca/create-ca --sub-ca: a root that can be kept offline, and the issuing CA below it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.handlers.test_rollover import is_root, openssl_verify, validates
from tests.kit.ca import pem
from tests.kit.csr import csr
from tests.kit.gateway import Gateway, enrol, running_gateway
from tests.kit.preloaded import forked_estclient
from tests.kit.processes import PATH, ROOT, run
from tests.kit.reference import lint
from tests.kit.scripts import Cuts, HandlerSet
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.slow

ACCEPTED = {
    "pkix.subject_key_identifier_method_1_identified",  # a remark: RFC 5280 4.2.1.2 method (1), as wished
    "pkix.invalid_domain_name_syntax",  # "localhost" has one label; a demo has no other name
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One CA with a root above it, for the tests that only read."""
    return Workspace.create(tmp_path_factory.mktemp("ca") / "work shop $HOME", "--sub-ca")


def enrolled(workspace: Workspace) -> x509.Certificate:
    return workspace.run("openssl/simpleenroll", csr("device", x509.DNSName("device.example.org"))).certificate


def put_away(workspace: Workspace) -> Path:
    """Move the root away, as if to another machine."""
    return Path(shutil.move(workspace.ca / "root", workspace.path / "safe"))


# --- create-ca ------------------------------------------------------------------------------------------------


def test_the_root_certifies_the_issuing_ca(shared: Workspace) -> None:
    (root,), (issuer,) = shared.load("cacert.pem"), shared.load("issuer.pem")
    assert root.subject == root.issuer
    issuer.verify_directly_issued_by(root)
    assert issuer.subject != root.subject
    assert issuer.extensions.get_extension_for_class(x509.BasicConstraints).critical
    limits = [one.extensions.get_extension_for_class(x509.BasicConstraints).value for one in (root, issuer)]
    assert [(limit.ca, limit.path_length) for limit in limits] == [(True, None), (True, 0)]
    usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign and usage.crl_sign and not usage.digital_signature
    assert round((issuer.not_valid_after_utc - issuer.not_valid_before_utc) / timedelta(days=1)) == 5 * 365
    assert root.not_valid_after_utc > issuer.not_valid_after_utc
    assert shared.load("chain.pem") == [issuer]
    assert shared.load("anchors.pem") == [issuer, root]


def test_cacerts_prints_the_whole_chain(shared: Workspace, tmp_path: Path) -> None:
    (root,), (issuer,) = shared.load("cacert.pem"), shared.load("issuer.pem")
    assert x509.load_pem_x509_certificates(shared.run("openssl/cacerts").out) == [root, issuer]
    leaf = enrolled(shared)
    leaf.verify_directly_issued_by(issuer)
    assert openssl_verify(tmp_path, root, shared.bag, leaf, "-purpose", "sslclient") == "leaf.pem: OK"
    assert validates(root, shared.bag, leaf)
    assert openssl_verify(tmp_path, root, [], leaf) != "leaf.pem: OK"


def test_the_server_certificate_has_its_whole_chain(shared: Workspace, tmp_path: Path) -> None:
    (root,), (issuer,) = shared.load("cacert.pem"), shared.load("issuer.pem")
    server, *chain = shared.load("server.pem")
    assert chain == [issuer, root]
    options = ("-purpose", "sslserver", "-verify_hostname", "localhost")
    assert openssl_verify(tmp_path, root, [issuer], server, *options) == "leaf.pem: OK"


def test_root_and_issuing_ca_have_separate_registers(shared: Workspace) -> None:
    assert shared.rows[0][5] == "/CN=localhost"
    (row,) = books(shared, "root")
    assert (row[0], row[5]) == ("V", "/O=estgw demo/CN=estgw demo issuing CA")
    (issuer,) = shared.load("issuer.pem")
    assert int(row[3], 16) == issuer.serial_number
    assert len(list((shared.ca / "root/newcerts").iterdir())) == 1


def books(workspace: Workspace, folder: str) -> list[list[str]]:
    return [line.split("\t") for line in (workspace.ca / folder / "index.txt").read_text().splitlines()]


def test_private_keys_are_readable_by_their_owner_only(shared: Workspace) -> None:
    for folder in (shared.ca, shared.ca / "root"):
        assert (folder / "private").stat().st_mode & 0o777 == 0o700
        assert (folder / "private/cakey.pem").stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o777 == 0o755
    keys = {path.read_bytes() for path in shared.ca.rglob("cakey.pem")}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (["--curve", "P-384"], ec.EllipticCurvePublicKey),
        (["--curve", "Ed25519"], ed25519.Ed25519PublicKey),
    ],
)
def test_a_sub_ca_with_another_kind_of_key_issues(tmp_path: Path, options: list[str], kind: type) -> None:
    workspace = Workspace.create(tmp_path / "ws", "--sub-ca", *options)
    leaf = enrolled(workspace)
    everything = [*workspace.bag, *workspace.load("server.pem")[:1]]
    assert isinstance(workspace.load("issuer.pem")[0].public_key(), kind)
    assert isinstance(workspace.load("cacert.pem")[0].public_key(), kind)
    assert openssl_verify(tmp_path, workspace.load("cacert.pem")[0], workspace.bag, leaf) == "leaf.pem: OK"
    assert set().union(*(lint(pem(one)) for one in everything)) <= ACCEPTED


def test_pkilint_accepts_both_cas_the_server_and_a_client(shared: Workspace) -> None:
    for one in (*shared.bag, shared.load("server.pem")[0], enrolled(shared)):
        assert lint(pem(one)) <= ACCEPTED


def test_force_replaces_a_sub_ca_by_a_root_and_back(workspace: Workspace) -> None:
    assert workspace.create_ca("--force").returncode == 0
    assert not (workspace.ca / "root").exists()
    assert workspace.load("issuer.pem") == workspace.load("cacert.pem") == workspace.bag
    assert workspace.create_ca("--force", "--sub-ca").returncode == 0
    assert len(workspace.bag) == 2


def test_create_ca_killed_half_way_leaves_no_sub_ca(workspace: Workspace, tmp_path: Path) -> None:
    cuts = Cuts.prepare(workspace, tmp_path / "cuts")
    fresh = tmp_path / "fresh"
    for at in (9, 15, 21):
        cuts.kill("create-ca", "--sub-ca", "--dir", str(fresh), at=at)
        assert not {path.name for path in fresh.iterdir()} & {"cacert.pem", "private", "root", "index.txt"}
    workspace.do("create-ca", "--sub-ca", "--dir", str(fresh))
    assert not list(fresh.glob(".create-ca.*"))


# --- handlers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["openssl", "python"])
def test_both_handler_sets_issue_below_the_root(workspace: Workspace, tmp_path: Path, name: str) -> None:
    """The scripts are unchanged, and the root is away."""
    bench = HandlerSet(name, workspace)
    put_away(workspace)
    (root,), (issuer,) = workspace.load("cacert.pem"), workspace.load("issuer.pem")
    handed = x509.load_pem_x509_certificates(bench.run("cacerts").out)
    assert set(handed) == {root, issuer}
    for operation in ("simpleenroll", "simplereenroll"):
        leaf = bench.issue(operation, csr("device", x509.DNSName("device.example.org")))
        leaf.verify_directly_issued_by(issuer)
        assert openssl_verify(tmp_path, root, handed, leaf) == "leaf.pem: OK"


# --- new keys -------------------------------------------------------------------------------------------------------


def test_rollover_of_the_issuing_ca_keeps_old_certificates_valid(workspace: Workspace, tmp_path: Path) -> None:
    (root,) = workspace.load("cacert.pem")
    issuers, leaves = workspace.load("issuer.pem"), [enrolled(workspace)]
    for _ in range(2):
        workspace.do("rollover")
        issuers += workspace.load("issuer.pem")
        leaves.append(enrolled(workspace))
    assert workspace.load("cacert.pem") == [root]
    assert len({pem(one) for one in issuers}) == 3
    assert not any(one.public_key() == other.public_key() for one, other in itertools.combinations(issuers, 2))
    assert {one.subject for one in issuers} == {issuers[0].subject}
    assert set(workspace.bag) == {root, *issuers}
    assert set(workspace.load("anchors.pem")) == {root, *issuers}
    for issuer, leaf in zip(issuers, leaves, strict=True):
        issuer.verify_directly_issued_by(root)
        leaf.verify_directly_issued_by(issuer)
        assert openssl_verify(tmp_path, root, workspace.bag, leaf) == "leaf.pem: OK"
        assert lint(pem(issuer)) <= ACCEPTED
    assert workspace.load("server.pem")[1:] == [issuers[2], root]
    assert len(books(workspace, "root")) == 3


def test_rollover_of_the_root_keeps_old_certificates_valid(workspace: Workspace, tmp_path: Path) -> None:
    """Then for the issuing CA under it. A client with one root accepts certificates below the other."""
    roots, leaves = workspace.load("cacert.pem"), [enrolled(workspace)]
    workspace.do("rollover", "--dir", str(workspace.ca / "root"))
    assert workspace.load("cacert.pem") == roots, "nobody has been told yet"
    workspace.do("rollover")
    roots += workspace.load("cacert.pem")
    leaves.append(enrolled(workspace))
    assert len(workspace.bag) == 6, "two roots, two that connect them, two issuing CAs"
    for anchor, leaf in itertools.product(roots, leaves):
        for bag in (workspace.bag, [one for one in workspace.bag if not is_root(one)]):
            assert openssl_verify(tmp_path, anchor, bag, leaf) == "leaf.pem: OK"
        assert validates(anchor, workspace.bag, leaf)
    server, *chain = workspace.load("server.pem")
    for anchor in roots:
        assert openssl_verify(tmp_path, anchor, chain, server, "-purpose", "sslserver") == "leaf.pem: OK"
    assert all(lint(pem(one)) <= ACCEPTED for one in workspace.bag)


def test_rollover_needs_the_root(workspace: Workspace) -> None:
    safe = put_away(workspace)
    done = workspace.tool("rollover")
    assert (done.returncode, "bring it back" in done.stderr) == (1, True)
    shutil.move(safe, workspace.ca / "root")
    workspace.do("rollover")
    assert len(workspace.bag) == 3


@pytest.mark.exhaustive
def test_a_power_cut_during_rollover_leaves_the_old_or_the_new_issuer(workspace: Workspace, tmp_path: Path) -> None:
    (root,), (before,) = workspace.load("cacert.pem"), workspace.load("issuer.pem")
    seen = []
    for twin in Cuts.prepare(workspace, tmp_path / "cuts").twins("rollover"):
        (issuer,) = twin.load("issuer.pem")
        seen.append(issuer != before)
        twin.load("server.pem")[0].verify_directly_issued_by(issuer)
        assert {*twin.load("cacert.pem"), *twin.load("chain.pem")} == {root, before, issuer}
        assert len(books(twin, "root")) in (1, 2)
    assert seen == sorted(seen)
    assert set(seen) == {False, True}


# --- with a gateway ----------------------------------------------------------------------------------------------


@pytest.fixture
def sub_lab(own_lab: Workspace) -> Workspace:
    Workspace(own_lab.path).do("create-ca", "--force", "--sub-ca")
    return own_lab


def renew(gateway: Gateway, pair: tuple[Path, Path], anchor: Path) -> tuple[int, str]:
    answer = gateway.post("simplereenroll", csr(), login=None, certificate=pair, anchor=anchor)
    return answer.status, "" if answer.status == 200 else answer.words


def test_a_sub_ca_works_with_a_gateway_through_rollover_and_revocation(sub_lab: Workspace, tmp_path: Path) -> None:
    workspace = Workspace(sub_lab.path)
    workspace.do("crl")
    first = tmp_path / "first.pem"
    shutil.copy(sub_lab.anchor, first)
    (issuer,) = workspace.load("issuer.pem")
    with running_gateway(sub_lab, {"client_auth": {"crls": ["openssl-ca/crl.pem"]}}) as gateway:
        pairs = []
        for name in ("old", "new"):
            (tmp_path / name).mkdir()
            pairs.append(enrol(gateway, tmp_path / name))
            assert renew(gateway, pairs[-1], first) == (200, "")
            if name == "old":
                workspace.do("rollover", "--dir", str(workspace.ca / "root"))
                workspace.do("rollover")
                assert gateway.reload()["event"] == "reloaded"
        for pair, anchor in itertools.product(pairs, (first, sub_lab.anchor)):
            assert renew(gateway, pair, anchor) == (200, "")

        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [*forked_estclient(), "cacerts", "-u", gateway.url, "-c", str(first), "--json"]
        said = json.loads(run(*command, env=environment).stdout)
        assert [one["role"] for one in said["certificates"] if one["newest"]] == ["NewWithNew"]
        assert len(said["certificates"]) == 6
        assert all(one["fault"] is None for one in said["certificates"])

        # The root revokes an issuing CA and so all certificates that it has issued.
        workspace.do("revoke", f"{issuer.serial_number:X}", "--dir", str(workspace.ca / "root"))
        workspace.do("rollover")
        assert issuer not in (*workspace.bag, *workspace.load("anchors.pem"))
        assert gateway.reload()["event"] == "reloaded"
        status, words = renew(gateway, pairs[0], first)
        assert (status, "unable to get local issuer certificate" in words) == (403, True)
        assert renew(gateway, pairs[1], first) == (200, "")


def test_the_commands_of_the_readme_work(workspace: Workspace) -> None:
    """They are indented there, because they need a sub-CA."""
    readme = (workspace.ca / "README.md").read_text()
    section = readme.partition("## A root that can be kept offline")[2].partition("\n## ")[0]
    lines = [line.strip() for line in section.splitlines() if line.startswith("    ./")]
    assert len(lines) == 3
    serial = workspace.load("issuer.pem")[0].serial_number
    script = "\n".join(lines).replace("SERIAL", f"{serial:X}")
    command = ["bash", "-euo", "pipefail", "-c", script]
    subprocess.run(command, cwd=workspace.ca, env={"PATH": PATH}, check=True, capture_output=True)
    assert [row[0] for row in books(workspace, "root")] == ["R", "V", "V", "V"]
