"""A full disk: a script says so and issues nothing, the register does not change, and later requests succeed."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography import x509

from tests.campaign.disks import Disk, needs_disk, small_disk
from tests.campaign.ledger import Ledger
from tests.campaign.size import step
from tests.campaign.traced import needs_strace
from tests.kit.cases import some
from tests.kit.csr import csr
from tests.kit.der import armoured
from tests.kit.scripts import ENVIRONMENT, ISSUING, HandlerSet, keygen

pytestmark = [needs_disk, pytest.mark.slow]

Squeeze = Callable[[Disk, int], AbstractContextManager[None]]
ROOM: dict[str, Squeeze] = {"pages": Disk.with_free_pages, "inodes": Disk.with_free_inodes}
LEFT = range(5)
"""Numbers of pages or inodes that are left: from none to as many as an issuance needs."""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with small_disk(tmp_path_factory.mktemp("small") / "disk") as disk:
        yield disk


@pytest.fixture(scope="module")
def where(disk: Disk) -> Path:
    """The workspace is on that disk."""
    return disk.path / "ws"


@pytest.mark.parametrize(("name", "squeeze"), some(itertools.product(["openssl", "python"], ROOM.values()), 3))
def test_a_full_disk_hands_out_no_unregistered_certificate(
    disk: Disk, bench: HandlerSet, ledger: Ledger, name: str, squeeze: Squeeze
) -> None:
    handlers = HandlerSet(name, bench.workspace)
    refused = 0
    for left, operation in itertools.product(LEFT, ISSUING):
        with squeeze(disk, left):
            result = handlers.run(operation, csr(f"device-{left}"))
        if result.status == 0:
            ledger.hold(keygen(result)[1] if operation == "serverkeygen" else result.certificate)
        else:
            refused += 1
            assert result.status in (70, 74)
            assert result.out == b""
            assert result.err, "the log says what is full"
        ledger.check()
    assert refused, "the disk was never full"
    ledger.hold(handlers.issue("simpleenroll", csr("afterwards")))
    ledger.check_list()


@pytest.mark.parametrize(
    ("script", "squeeze"),
    some(itertools.product(["revoke", "crl", "rollover", "rotate", "issue"], ROOM.values()), 3),
)
def test_a_script_of_the_ca_on_a_full_disk_changes_all_or_nothing(
    disk: Disk, bench: HandlerSet, ledger: Ledger, tmp_path: Path, script: str, squeeze: Squeeze
) -> None:
    victim = ledger.hold(bench.issue("simpleenroll", csr("victim")))
    serial = ledger.held[-1]
    request = tmp_path / "request.pem"
    request.write_bytes(armoured(csr("by hand")))
    options = {"revoke": [serial], "issue": [str(request)]}.get(script, [])
    failed = 0
    for left in itertools.count(step=step({"rollover": 13, "rotate": 1}.get(script, 4))):
        before = (ledger.ca / "cacert.pem").read_bytes()
        with squeeze(disk, left):
            done = ledger.tool(script, *options)
        if script == "revoke" and ledger.index[serial] == "R" and serial not in ledger.revoked:
            ledger.revoked.append(serial)  # even if the list was not written
        ledger.check()
        if done.returncode == 0:
            break
        failed += 1
        assert done.stderr, "it says what is full"
        assert (ledger.ca / "cacert.pem").read_bytes() == before
    assert failed
    assert script != "revoke" or serial in ledger.revoked
    ledger.hold(bench.issue("simpleenroll", csr("afterwards"))).verify_directly_issued_by(
        x509.load_pem_x509_certificate((ledger.ca / "issuer.pem").read_bytes())
    )
    assert victim
    ledger.check_list()


@pytest.mark.parametrize("squeeze", ROOM.values(), ids=ROOM)
def test_create_ca_on_a_full_disk_makes_a_whole_ca_or_none(disk: Disk, bench: HandlerSet, squeeze: Squeeze) -> None:
    failed = 0
    for left in itertools.count(step=step(16)):
        new = disk.path / f"new-{left}"
        with squeeze(disk, left):
            done = bench.workspace.tool("create-ca", "--dir", str(new))
        if done.returncode == 0:
            break
        failed += 1
        assert done.stderr, "it says what is full"
        assert not (new / "cacert.pem").exists()
        shutil.rmtree(new, ignore_errors=True)
    assert failed
    assert bench.run("simpleenroll", csr(), EST_CA_DIR=str(new)).certificate
    bench.workspace.do("crl", "--dir", str(new))
    shutil.rmtree(new)


@needs_strace
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EIO"])
@pytest.mark.parametrize(
    ("name", "file", "call"),
    [
        ("openssl", "newcerts", "fsync"),
        ("openssl", "index.txt", "write"),
        ("openssl", "index.txt", "fsync"),
        ("python", "certs.sqlite-wal", "pwrite64"),
        ("python", "certs.sqlite-wal", "fdatasync"),
    ],
)
def test_a_disk_error_leaves_no_row_and_prints_no_certificate(
    bench: HandlerSet, ledger: Ledger, name: str, file: str, call: str, error: str
) -> None:
    """For example quotas, and disks that report an error only at fsync."""
    handlers = HandlerSet(name, bench.workspace)
    before = ledger.index
    script = handlers.script("simpleenroll")
    path = bench.ca.resolve() / file
    with TemporaryDirectory() as private:
        env = bench.workspace.environment(script, Path(private), csr("unlucky")) | ENVIRONMENT
        traced: list[str | Path] = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-P", path]
        command = [*traced, "-e", f"trace={call}", "-e", f"inject={call}:error={error}", script]
        done = subprocess.run(command, cwd=script.parent, env=env, capture_output=True, check=False)
    assert done.returncode in (70, 74), done
    assert done.stdout == b""
    assert done.stderr
    assert ledger.index == before
    ledger.hold(handlers.issue("simpleenroll", csr("afterwards")))
    ledger.check()
