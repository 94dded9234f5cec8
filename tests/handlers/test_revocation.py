"""openssl-ca/revoke and crl: the contents of a revocation list, its publication and its effect on clients."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pkilint import loader, pkix  # type: ignore[import-untyped]
from pkilint.pkix import crl as crl_lint  # type: ignore[import-untyped]
from pkilint.pkix import extension, name, ocsp

from tests.kit.ca import pem
from tests.kit.csr import csr
from tests.kit.gateway import Gateway, enrol, running_gateway
from tests.kit.processes import PATH, ROOT, run
from tests.kit.reference import lint
from tests.kit.scripts import Cuts, HandlerSet
from tests.kit.workspace import Workspace

ACCEPTED = {"pkix.subject_key_identifier_method_1_identified"}  # a remark: RFC 5280 4.2.1.2 method (1), as wished


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One fresh CA, to be copied."""
    return Workspace.create(tmp_path_factory.mktemp("fresh") / "ws")


@pytest.fixture
def workspace(shared: Workspace, tmp_path: Path) -> Workspace:
    return shared.copy(tmp_path / "work shop $HOME")


def enrolled(workspace: Workspace) -> x509.Certificate:
    return workspace.run("openssl/simpleenroll", csr("device", x509.DNSName("device.example.org"))).certificate


def serial(certificate: x509.Certificate) -> str:
    """The serial number as index.txt has it."""
    digits = f"{certificate.serial_number:X}"
    return digits if len(digits) % 2 == 0 else f"0{digits}"


def state(workspace: Workspace, certificate: x509.Certificate) -> str:
    (found,) = [row[0] for row in workspace.rows if row[3] == serial(certificate)]
    return found


def lists(workspace: Workspace) -> list[x509.CertificateRevocationList]:
    """The lists of crl.pem: one for each key, the current key's list first."""
    blocks = (workspace.ca / "crl.pem").read_bytes().split(b"-----END X509 CRL-----\n")[:-1]
    return [x509.load_pem_x509_crl(block + b"-----END X509 CRL-----\n") for block in blocks]


def published(workspace: Workspace, generation: int) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl((workspace.ca / f"crl-{generation}.der").read_bytes())


def serials(crl: x509.CertificateRevocationList) -> set[int]:
    return {entry.serial_number for entry in crl}


def is_by(crl: x509.CertificateRevocationList, root: x509.Certificate) -> bool:
    return crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]


# --- the list ------------------------------------------------------------------------------------------


def test_the_list_has_the_revoked_certificate_and_no_other(workspace: Workspace) -> None:
    lost, kept = enrolled(workspace), enrolled(workspace)
    said = workspace.do("revoke", serial(lost))
    assert re.fullmatch(r"made .*/openssl-ca/crl\.pem, good until .* GMT\n", said)
    assert [state(workspace, one) for one in (lost, kept)] == ["R", "V"]
    (crl,) = lists(workspace)
    assert serials(crl) == {lost.serial_number}
    assert crl == published(workspace, 1)
    (root,) = workspace.load("cacert.pem")
    assert is_by(crl, root)
    assert crl.issuer == root.subject
    assert crl.next_update_utc is not None
    assert crl.next_update_utc - crl.last_update_utc == timedelta(days=7)
    aki = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert aki.key_identifier == root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    for file in ("crl.pem", "crl-1.der"):
        assert (workspace.ca / file).stat().st_mode & 0o777 == 0o644, "everybody may read it"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("keyCompromise", x509.ReasonFlags.key_compromise),
        ("CACompromise", x509.ReasonFlags.ca_compromise),
        ("cACompromise", x509.ReasonFlags.ca_compromise),
        ("affiliationChanged", x509.ReasonFlags.affiliation_changed),
        ("superseded", x509.ReasonFlags.superseded),
        ("cessationOfOperation", x509.ReasonFlags.cessation_of_operation),
        (None, None),
    ],
)
def test_the_list_has_the_reason_of_a_revocation(
    workspace: Workspace, said: str | None, reason: x509.ReasonFlags | None
) -> None:
    lost = enrolled(workspace)
    workspace.do("revoke", *(["--reason", said] if said else []), serial(lost))
    (crl,) = lists(workspace)
    (entry,) = crl
    found = [extension.value for extension in entry.extensions]
    assert found == ([x509.CRLReason(reason)] if reason else [])
    assert lint_crl(crl) <= ACCEPTED


@pytest.mark.parametrize(
    "form", [str.lower, "0x{}".format, "00{}".format, lambda text: ":".join(re.findall("..", text))]
)
def test_revoke_accepts_a_serial_number_in_common_spellings(workspace: Workspace, form) -> None:
    lost = enrolled(workspace)
    workspace.do("revoke", form(serial(lost)))
    assert state(workspace, lost) == "R"


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--help"], 0, ""),
        ([], 2, "usage: revoke"),
        (["--frobnicate"], 2, "usage: revoke"),
        (["a device"], 2, "usage: revoke"),
        (["../private/cakey"], 2, "usage: revoke"),
        (["01", "--reason"], 2, "usage: revoke"),
        (["01", "--reason", "boredom"], 1, "not a reason: boredom"),
        (
            ["01", "--reason", "certificateHold"],
            1,
            "not a reason",
        ),  # a hold can be lifted, but no script here does that
        (["01"], 1, "no certificate 01 in"),
        (["01", "--dir", "/nowhere"], 1, "no CA in /nowhere"),
        (["/etc/hostname"], 1, "certificate"),
        (["/nowhere/cert.pem"], 2, "usage: revoke"),
    ],
)
def test_help_and_wrong_options_revoke_nothing(
    workspace: Workspace, options: list[str], status: int, words: str
) -> None:
    done = workspace.tool("revoke", *options)
    assert (done.returncode, words in done.stderr) == (status, True)
    assert ("usage: revoke" in done.stdout) == (status == 0)
    assert [row[0] for row in workspace.rows] == ["V"]
    assert not (workspace.ca / "crl.pem").exists()


def test_a_second_revocation_changes_nothing(workspace: Workspace) -> None:
    lost = enrolled(workspace)
    workspace.do("revoke", serial(lost), "--reason", "superseded")
    before = workspace.rows
    assert "has been revoked before" in workspace.do("revoke", serial(lost), "--reason", "keyCompromise")
    assert workspace.rows == before
    assert serials(*lists(workspace)) == {lost.serial_number}


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_revoke_accepts_a_file_in_pem_or_der(workspace: Workspace, tmp_path: Path, encoding: Encoding) -> None:
    lost = enrolled(workspace)
    (tmp_path / "a file").write_bytes(lost.public_bytes(encoding))
    (workspace.ca / f"newcerts/{serial(lost)}.pem").unlink()
    script = workspace.ca / "revoke"
    run(script, "a file", "--reason", "Unspecified", cwd=tmp_path, env={"PATH": PATH})
    assert state(workspace, lost) == "R"
    (entry,) = lists(workspace)[0]
    assert (entry.serial_number, len(entry.extensions)) == (lost.serial_number, 0)
    assert "has been revoked before" in run(script, "a file", cwd=tmp_path, env={"PATH": PATH}).stdout.decode()
    assert "has been revoked before" in workspace.do("revoke", serial(lost)), "it needs no copy for that"


def test_revoke_accepts_a_file_signed_with_a_former_key(workspace: Workspace, tmp_path: Path) -> None:
    lost = enrolled(workspace)
    workspace.do("rollover")
    (tmp_path / "lost.pem").write_bytes(pem(lost))
    workspace.do("revoke", str(tmp_path / "lost.pem"))
    assert [serials(crl) for crl in lists(workspace)] == [{lost.serial_number}] * 2


def test_revoke_refuses_a_file_of_another_ca(workspace: Workspace, tmp_path: Path) -> None:
    """One of our certificates may have the same serial number."""
    other = Workspace.create(tmp_path / "other")
    (file,) = (other.ca / "newcerts").iterdir()
    done = workspace.tool("revoke", str(file))
    assert (done.returncode, "not a certificate of the CA in" in done.stderr) == (1, True)
    assert [row[0] for row in workspace.rows] == ["V"]
    assert not (workspace.ca / "crl.pem").exists()


def test_revoke_adds_a_certificate_that_the_register_lacks(workspace: Workspace) -> None:
    """For example a certificate of handlers/python, which has its own register."""
    lost = enrolled(workspace)
    index = workspace.ca / "index.txt"
    index.write_text("".join(line for line in index.read_text().splitlines(True) if serial(lost) not in line))
    workspace.do("revoke", serial(lost))
    assert state(workspace, lost) == "R"
    assert serials(*lists(workspace)) == {lost.serial_number}


def test_the_numbers_of_lists_rise(workspace: Workspace) -> None:
    numbers = []
    for _ in range(3):
        workspace.do("crl")
        numbers.append(lists(workspace)[0].extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("options", [["--curve", "Ed25519"], ["--curve", "P-384"]])
def test_a_ca_with_another_kind_of_key_signs_lists(tmp_path: Path, options: list[str]) -> None:
    workspace = Workspace.create(tmp_path / "ws", *options)
    lost = enrolled(workspace)
    workspace.do("revoke", serial(lost), "--reason", "keyCompromise")
    (crl,) = lists(workspace)
    assert is_by(crl, *workspace.load("cacert.pem"))
    assert serials(crl) == {lost.serial_number}
    assert lint_crl(crl) <= ACCEPTED


@pytest.mark.parametrize("options", [["--frobnicate"], ["--dir"], ["one", "two"]])
def test_crl_refuses_wrong_options(workspace: Workspace, options: list[str]) -> None:
    done = workspace.tool("crl", *options)
    assert (done.returncode, "usage: crl" in done.stderr) == (2, True)


def lint_crl(crl: x509.CertificateRevocationList) -> set[str]:
    """The codes of pkilint's findings about a list."""
    validator = crl_lint.create_pkix_crl_validator_container(
        [
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            crl_lint.create_issuer_validator_container([]),
            crl_lint.create_validity_validator_container([]),
            crl_lint.create_extensions_validator_container([]),
        ],
    )
    loaded = loader.load_der_crl(crl.public_bytes(Encoding.DER), "made")
    return {found.finding.code for result in validator.validate(loaded.root) for found in result.finding_descriptions}


# --- the other set's register --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> HandlerSet:
    return HandlerSet.create("python", tmp_path_factory.mktemp("both") / "ws")


@pytest.mark.client("sqlite3")
def test_a_certificate_of_the_python_set_is_revoked_in_both_registers(both: HandlerSet, tmp_path: Path) -> None:
    bench = both.copy(tmp_path / "work shop $HOME")
    lost, kept = (bench.issue("simpleenroll", csr(name)) for name in ("lost", "kept"))
    bench.workspace.do("revoke", serial(lost), "--reason", "keyCompromise")
    assert state(bench.workspace, lost) == "R"
    assert serials(*lists(bench.workspace)) == {lost.serial_number}
    first, second = bench.query("serial, status, reason, revoked_at")
    assert first[:3] == (serial(lost), "revoked", "keyCompromise")
    assert datetime.now(UTC) - datetime.fromisoformat(first[3]) < timedelta(minutes=1)
    assert second[:2] == (serial(kept), "valid")

    # A second time, and for a number that is in neither register.
    assert "has been revoked before" in bench.workspace.do("revoke", serial(lost))
    assert bench.query("serial, status, reason, revoked_at")[0] == first
    done = bench.workspace.tool("revoke", "AB12")
    assert (done.returncode, "no certificate AB12 in" in done.stderr) == (1, True)


def test_without_sqlite3_revoke_needs_the_certificates_file(both: HandlerSet, tmp_path: Path) -> None:
    bench = both.copy(tmp_path / "ws")
    lost = bench.issue("simpleenroll", csr("lost"))
    (tmp_path / "bin").mkdir()
    for directory in PATH.split(":"):
        for program in Path(directory).iterdir():
            if program.name != "sqlite3" and not (tmp_path / "bin" / program.name).is_symlink():
                (tmp_path / "bin" / program.name).symlink_to(program)
    done = bench.workspace.tool("revoke", serial(lost), path=str(tmp_path / "bin"))
    assert (done.returncode, "name the certificate's file instead" in done.stderr) == (1, True)
    (tmp_path / "lost.pem").write_bytes(pem(lost))
    done = bench.workspace.tool("revoke", str(tmp_path / "lost.pem"), path=str(tmp_path / "bin"))
    assert (done.returncode, done.stderr, "certs.sqlite is not marked" in done.stdout) == (0, "", True)
    assert serials(*lists(bench.workspace)) == {lost.serial_number}
    (tmp_path / "renewed.pem").write_bytes(pem(lost))
    renewal = bench.run("simplereenroll", csr("lost"), EST_RENEW_CERT_FILE=str(tmp_path / "renewed.pem"))
    assert (renewal.status, renewal.words) == (77, "your certificate is revoked")


# --- several keys ------------------------------------------------------------------------------------------


def test_each_key_signs_a_list_of_all_revoked_certificates(workspace: Workspace) -> None:
    """Clients look for a list by the name and the key of the issuer. The name is the same for all keys."""
    old = enrolled(workspace)
    workspace.do("revoke", serial(old))
    workspace.do("rollover")
    new = enrolled(workspace)
    for expected in ({old.serial_number}, {old.serial_number, new.serial_number}):
        crls = lists(workspace)
        assert all(
            is_by(crl, workspace.load(f"generations/{n}/cacert.pem")[0]) for crl, n in zip(crls, (2, 1), strict=True)
        )
        assert [serials(crl) for crl in crls] == [expected, expected]
        assert crls == [published(workspace, 2), published(workspace, 1)]
        assert all(lint_crl(crl) <= ACCEPTED for crl in crls)
        workspace.do("revoke", serial(new))


def test_a_rollover_makes_no_list_where_there_was_none(workspace: Workspace) -> None:
    workspace.do("rollover")
    assert not list(workspace.ca.glob("crl*.der"))
    assert not (workspace.ca / "crl.pem").exists()


def test_a_destroyed_key_signs_no_list(workspace: Workspace) -> None:
    workspace.do("rollover")
    (workspace.ca / "generations/1/private/cakey.pem").unlink()
    workspace.do("crl")
    assert [is_by(crl, *workspace.load("cacert.pem")) for crl in lists(workspace)] == [True]
    (workspace.ca / "generations/2/private/cakey.pem").unlink()
    done = workspace.tool("crl")
    assert (done.returncode, "no key in" in done.stderr) == (1, True)
    assert lists(workspace), "the old one stays"


# --- atomic ----------------------------------------------------------------------------------------------------


def test_a_power_cut_during_revoke_leaves_a_sound_register_and_list(shared: Workspace, tmp_path: Path) -> None:
    workspace = shared.copy(tmp_path / "ws")
    lost = enrolled(workspace)
    workspace.do("crl")
    seen = []
    for twin in Cuts.prepare(workspace, tmp_path / "cuts").twins("revoke", serial(lost)):
        (crl,) = lists(twin)
        seen.append((state(twin, lost), serials(crl) != set()))
        assert len(twin.rows) == 2
        assert is_by(crl, *twin.load("cacert.pem"))
    assert sorted(set(seen), key=seen.index) == [("V", False), ("R", False), ("R", True)]


def test_revoke_can_be_repeated_after_a_kill(shared: Workspace, tmp_path: Path) -> None:
    workspace = shared.copy(tmp_path / "ws")
    lost = enrolled(workspace)
    cuts = Cuts.prepare(workspace, tmp_path / "cuts")
    for at in range(3, 16, 4):
        cuts.kill("revoke", serial(lost), at=at)
        enrolled(workspace)
    workspace.do("revoke", serial(lost))
    assert serials(*lists(workspace)) == {lost.serial_number}
    assert not list(workspace.ca.glob(".*"))


# --- publication ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def plain_http(directory: Path) -> Iterator[str]:
    """Serve a directory on loopback; yields its URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def switch_on(workspace: Workspace, url: str) -> None:
    """Uncomment the line, as the README says, with the address of a server."""
    workspace.edit(
        "openssl-ca/profiles/client",
        "# crlDistributionPoints = URI:http://ca.example.org",
        f"crlDistributionPoints = URI:{url}",
    )


def verify(workspace: Workspace, certificate: x509.Certificate) -> str:
    """`openssl verify`, which fetches the list from the address in the certificate."""
    command = ["openssl", "verify", "-crl_check", "-crl_download", "-CAfile", str(workspace.ca / "anchors.pem")]
    done = run(*command, stdin=pem(certificate), status=None)
    return (done.stdout + done.stderr).decode()


def test_certificates_name_the_url_of_their_list(workspace: Workspace) -> None:
    with plain_http(workspace.ca) as url:
        switch_on(workspace, url)
        old, lost = enrolled(workspace), enrolled(workspace)
        assert points(old) == f"{url}/crl-1.der"
        assert lint(pem(old)) <= ACCEPTED
        workspace.do("revoke", serial(lost))
        assert verify(workspace, old) == "stdin: OK\n"
        assert "certificate revoked" in verify(workspace, lost)
        workspace.do("rollover")
        new = enrolled(workspace)
        assert points(new) == f"{url}/crl-2.der"
        assert [verify(workspace, one) for one in (old, new)] == ["stdin: OK\n"] * 2
        assert "certificate revoked" in verify(workspace, lost)
        workspace.do("revoke", serial(new))
        assert "certificate revoked" in verify(workspace, new)


def points(certificate: x509.Certificate) -> str:
    (point,) = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name is not None
    (found,) = point.full_name
    assert isinstance(found, x509.UniformResourceIdentifier)
    return found.value


def test_the_profiles_name_the_list_of_the_current_key(workspace: Workspace) -> None:
    profile = workspace.ca / "profiles/client"
    profile.chmod(0o640)
    before = profile.read_text()
    after = before.replace("crl-1.der", "crl-2.der", 1)
    assert "# crlDistributionPoints = URI:http://ca.example.org/crl-2.der" in after
    workspace.do("rollover")
    assert (profile.read_text(), profile.stat().st_mode & 0o777) == (after, 0o640)
    profile.write_text(before)  # as if rollover had been killed just before
    workspace.do("crl")
    assert profile.read_text() == after
    assert workspace.create_ca("--force").returncode == 0
    assert profile.read_text() == before
    assert not list(workspace.ca.glob("crl-*.der"))
    assert not (workspace.ca / "crl.pem").is_symlink()


# --- OCSP ----------------------------------------------------------------------------------------------


def ocsp_lines() -> tuple[str, str]:
    """The README's commands for server and client."""
    readme = (ROOT / "openssl-ca/README.md").read_text()
    (block,) = re.findall(r"^```bash\n(openssl ocsp .*?)^```", readme, re.MULTILINE | re.DOTALL)
    server, client = block.splitlines()
    assert "-port 2560 " in server
    assert "http://127.0.0.1:2560 " in client
    return server, client


# `openssl ocsp -port` listens on every interface, so it gets its own network, which has only loopback.
ALONE = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--net")
THERE = ("nsenter", "--net") if os.geteuid() == 0 else ("nsenter", "--user", "--preserve-credentials", "--net")


@pytest.fixture
def own_network() -> None:
    probe = ["bash", "-c", "ip link set lo up"]
    if not shutil.which(ALONE[0]) or subprocess.run([*ALONE, *probe], capture_output=True, check=False).returncode:
        pytest.skip("a network namespace can't be made here (unshare, ip)")


@contextlib.contextmanager
def responder(workspace: Workspace, command: str) -> Iterator[tuple[str, ...]]:
    """Run the server's command; yields a prefix that runs another command in the server's network."""
    with subprocess.Popen(
        [*ALONE, "bash", "-c", f"ip link set lo up && exec {command}"],
        cwd=workspace.ca,
        env={"PATH": f"{PATH}:/usr/sbin:/sbin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith("ACCEPT ") and said.rstrip().split()[1].endswith(":2560"), said
            yield (*THERE, "--target", str(process.pid))
        finally:
            process.kill()


def ask(workspace: Workspace, there: tuple[str, ...], line: str, certificate: x509.Certificate, *options: str) -> str:
    command = f"serial={serial(certificate)}; {' '.join([line, *options])}"
    done = run(*there, "bash", "-euc", command, cwd=workspace.ca, env={"PATH": PATH})
    return (done.stdout + done.stderr).decode()


@pytest.mark.usefixtures("own_network")
def test_the_readmes_ocsp_responder_reports_a_revocation(workspace: Workspace) -> None:
    lost, kept = enrolled(workspace), enrolled(workspace)
    server, client = ocsp_lines()
    with responder(workspace, server) as there:
        assert f"{serial(lost)}.pem: good" in ask(workspace, there, client, lost)
        time.sleep(1.05)  # it notices a new register by its time in whole seconds
        workspace.do("revoke", serial(lost), "--reason", "keyCompromise")
        for _ in range(20):  # it reads the register only after some answers, as the README says
            said = ask(workspace, there, client, lost)
            if ": revoked" in said:
                break
            time.sleep(0.1)
        assert "Response verify OK" in said
        assert f"{serial(lost)}.pem: revoked" in said
        assert "Reason: keyCompromise" in said
        response = workspace.path / "response.der"
        assert f"{serial(kept)}.pem: good" in ask(
            workspace, there, client, kept, "-no_nonce", "-respout", '"$PWD/../response.der"'
        )
        assert lint_ocsp(response.read_bytes()) <= ACCEPTED


@pytest.mark.usefixtures("own_network")
def test_the_readmes_ocsp_responder_works_for_a_former_key(workspace: Workspace) -> None:
    old = enrolled(workspace)
    workspace.do("rollover")
    server, client = (line.replace("issuer.pem", "generations/1/issuer.pem") for line in ocsp_lines())
    server = server.replace("private/cakey.pem", "generations/1/private/cakey.pem")
    assert "generations/1/issuer.pem" in (readme := (ROOT / "openssl-ca/README.md").read_text())
    assert "generations/1/private/cakey.pem" in readme
    with responder(workspace, server) as there:
        said = ask(workspace, there, client.replace("-CAfile cacert.pem", "-CAfile anchors.pem"), old)
    assert ": good" in said
    assert "Response verify OK" in said


def lint_ocsp(der: bytes) -> set[str]:
    validator = ocsp.create_pkix_ocsp_response_validator_container(
        [
            ocsp.create_response_decoder(),
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [],
    )
    loaded = loader.RFC6960OCSPResponseDocumentLoader().load_der_document(der, "answer")
    return {found.finding.code for result in validator.validate(loaded.root) for found in result.finding_descriptions}


# --- with a gateway --------------------------------------------------------------------------------------

ENFORCED = {"client_auth": {"crls": ["openssl-ca/crl.pem"]}}
"""The README's addition to conf.yaml."""


def renew(gateway: Gateway, pair: tuple[Path, Path]) -> tuple[int, str]:
    """The status of a renewal, and the words of a refusal."""
    answer = gateway.post("simplereenroll", csr(), login=None, certificate=pair)
    return answer.status, "" if answer.status == 200 else answer.words


def client(gateway: Gateway, directory: Path) -> tuple[tuple[Path, Path], str]:
    """Certificate and key of a new client, and its serial number."""
    directory.mkdir()
    pair = enrol(gateway, directory)
    return pair, serial(x509.load_pem_x509_certificate(pair[0].read_bytes()))


def test_a_revoked_client_is_refused_after_the_next_reload(own_lab: Workspace, tmp_path: Path) -> None:
    workspace = Workspace(own_lab.path)
    workspace.do("crl")
    with running_gateway(own_lab, ENFORCED) as gateway:
        (lost, number), (kept, _) = (client(gateway, tmp_path / name) for name in ("lost", "kept"))
        assert renew(gateway, lost)[0] == 200
        workspace.do("revoke", number)
        assert renew(gateway, lost) == (403, "your certificate is revoked"), "the handler has a look at the register"
        assert gateway.reload()["event"] == "reloaded"
        status, words = renew(gateway, lost)
        assert (status, "not accepted: certificate revoked" in words) == (403, True)
        assert renew(gateway, kept)[0] == 200

        # A rollover: clients of both keys are checked against the lists of both.
        workspace.do("rollover")
        assert gateway.reload()["event"] == "reloaded"
        (later, number), (new, _) = (client(gateway, tmp_path / name) for name in ("later", "new"))
        workspace.do("revoke", number)
        assert gateway.reload()["event"] == "reloaded"
        assert [renew(gateway, pair)[0] for pair in (lost, kept, later, new)] == [403, 200, 403, 200]
        assert "certificate revoked" in renew(gateway, later)[1]

        # A list by one key does not cover the other key's certificates.
        first, _, _ = (workspace.ca / "crl.pem").read_text().partition("-----END X509 CRL-----\n")
        (workspace.ca / "crl.pem").write_text(f"{first}-----END X509 CRL-----\n")
        assert gateway.reload()["event"] == "reloaded"
        status, words = renew(gateway, kept)
        assert (status, "unable to get certificate CRL" in words) == (403, True)
        assert renew(gateway, new)[0] == 200


def test_an_expired_list_refuses_every_client_and_says_why(own_lab: Workspace, tmp_path: Path) -> None:
    workspace = Workspace(own_lab.path)
    with running_gateway(own_lab) as gateway:
        kept, _ = client(gateway, tmp_path / "kept")
    workspace.do("crl")
    past = [f"{datetime.now(UTC) - timedelta(days=days):%Y%m%d%H%M%SZ}" for days in (9, 2)]
    command = ["openssl", "ca", "-config", "openssl.cnf", "-gencrl", "-out", "crl.pem"]
    run(*command, "-crl_lastupdate", past[0], "-crl_nextupdate", past[1], cwd=workspace.ca, env={"PATH": PATH})
    with running_gateway(own_lab, ENFORCED) as gateway:
        status, words = renew(gateway, kept)
        assert (status, "CRL has expired" in words) == (403, True)
        workspace.do("crl")
        assert gateway.reload()["event"] == "reloaded"
        assert renew(gateway, kept)[0] == 200
    assert '"CRL has expired"' in (ROOT / "openssl-ca/README.md").read_text()


def test_a_reload_without_the_list_fails(own_lab: Workspace) -> None:
    """Deleting the list must not let revoked clients in."""
    workspace = Workspace(own_lab.path)
    workspace.do("crl")
    with running_gateway(own_lab, ENFORCED) as gateway:
        shutil.move(workspace.ca / "generations/1/crl.pem", workspace.ca / "elsewhere")
        assert gateway.reload()["event"] != "reloaded"
