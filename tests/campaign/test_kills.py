"""kill -9 at each system call that changes the CA's directory: nothing is lost, and the next script succeeds."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from estgw.est.certs import serial_hex
from tests.campaign.ledger import Ledger
from tests.campaign.size import LARGE, step
from tests.campaign.traced import RENAMES, WRITES, Change, Traced, needs_strace
from tests.kit.cases import some
from tests.kit.csr import csr
from tests.kit.der import armoured
from tests.kit.processes import PATH
from tests.kit.scripts import ENVIRONMENT, ISSUING, HandlerSet, keygen
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.slow

ENROL = "simpleenroll"
TOOLS = ("revoke", "crl", "rotate", "rollover", "issue")


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ca") / "ws"


@contextmanager
def command(
    bench: HandlerSet, script: str, *options: str
) -> Iterator[tuple[list[str | Path], Mapping[str, str], Path]]:
    """A handler of the set, or a script of the CA: command, environment and working directory."""
    if script in TOOLS:
        yield [bench.ca / script, *options], {"PATH": PATH}, bench.ca
        return
    with TemporaryDirectory() as private:
        path = bench.script(script) if "/" not in script else bench.workspace.path / "handlers" / script
        env = bench.workspace.environment(path, Path(private), csr("killed")) | ENVIRONMENT
        yield [path], env, path.parent


def require_next_request(ledger: Ledger, bench: HandlerSet, operation: str = ENROL) -> None:
    """The next request must be served, and nothing may be lost."""
    result = bench.run(operation, csr("next"))
    assert result.status == 0, result
    ledger.hold(keygen(result)[1] if operation == "serverkeygen" else result.certificate)
    ledger.check()
    assert not list((bench.ca / "index-archive").glob("*~")), "no litter"


@needs_strace
@pytest.mark.parametrize(
    ("name", "operation"),
    some([(name, operation) for name in ("openssl", "python") for operation in ISSUING], 3),
)
def test_a_kill_while_issuing_loses_no_certificate(
    bench: HandlerSet, ledger: Ledger, name: str, operation: str
) -> None:
    handlers = HandlerSet(name, bench.workspace)
    traced = Traced(bench.ca)
    pace = 1 if name == "openssl" else step(5)
    for at in itertools.count(1, pace):
        with command(handlers, operation) as (arguments, env, folder):
            killed = traced.kill(at, arguments, env, cwd=folder, stdin=-3, stdout=-3, stderr=-3)
        require_next_request(ledger, bench if killed else handlers, ENROL if killed else operation)
        if not killed:
            break
    assert at > 4, "it was killed several times"
    ledger.check_list()


@needs_strace
@pytest.mark.parametrize("script", some(TOOLS, 3))
def test_a_kill_of_a_script_of_the_ca_loses_no_certificate(
    bench: HandlerSet, ledger: Ledger, tmp_path: Path, script: str
) -> None:
    request = tmp_path / "request.pem"
    request.write_bytes(armoured(csr("by hand")))
    traced = Traced(bench.ca, opens=LARGE)
    if script == "rollover" and not LARGE:
        pytest.skip("takes minutes: make campaign does it, and test_rollover.py at each program that it starts")
    pace = {"revoke": step(9), "crl": step(9), "rotate": step(2), "issue": step(7), "rollover": 13}[script]
    for at in itertools.count(1, pace):
        require_next_request(ledger, bench)
        serial = ledger.held[-1]
        options = {"revoke": [serial], "issue": [str(request)]}.get(script, [])
        with command(bench, script, *options) as (arguments, env, folder):
            killed = traced.kill(at, arguments, env, cwd=folder, stdin=-3, stdout=-3, stderr=-3)
        require_next_request(ledger, bench)
        if script == "revoke" and (ledger.index[serial] == "R" or not killed):
            ledger.revoked.append(serial)
            ledger.check()
        if not killed:
            break
    assert at > 4, "it was killed several times"
    ledger.check_list()
    assert not [path for path in bench.ca.iterdir() if path.name.startswith(".")], "what was left is swept up"


@needs_strace
def test_a_kill_of_a_manual_openssl_ca_is_repaired(bench: HandlerSet, ledger: Ledger, tmp_path: Path) -> None:
    """`openssl ca` without the scripts: index.txt is missing between its renames."""
    request = tmp_path / "request.pem"
    request.write_bytes(armoured(csr("typed")))
    typed: list[str | Path] = ["openssl", "ca", "-config", "openssl.cnf", "-batch", "-notext"]
    typed += ["-extfile", "profiles/client", "-in", request, "-out", tmp_path / "out.pem"]
    traced, missing = Traced(bench.ca), 0
    for at in itertools.count(1):
        killed = traced.kill(at, typed, {"PATH": PATH}, cwd=bench.ca, stdin=-3, stdout=-3, stderr=-3)
        missing += not (bench.ca / "index.txt").exists()
        require_next_request(ledger, bench)
        if not killed:
            break
    assert missing, "a kill has left the directory without index.txt"
    ledger.check_list()


@pytest.mark.parametrize(
    "rest",
    ["V", "V\t271231175455Z\t\t5C3B", "V\t271231175455Z\t\t5C3B\tunknown\t/CN=hal", "\0" * 90],
    ids=["a letter", "three fields", "a subject", "zeros"],
)
def test_an_incomplete_last_row_is_removed(bench: HandlerSet, ledger: Ledger, rest: str) -> None:
    """A power cut can leave a part of a row, whose certificate was never handed out."""
    require_next_request(ledger, bench)  # which repairs what kills have left
    index = bench.ca / "index.txt"
    before = ledger.index
    (bench.ca / "newcerts/5C3B.pem").write_text((bench.ca / "issuer.pem").read_text())  # of another name
    with index.open("a") as file:
        file.write(rest)
    result = bench.run(ENROL, csr("next"))
    assert "cut off a row" in result.err
    ledger.hold(result.certificate)
    # Not the text of index.txt: one run in 250 moves rows to the archive.
    assert ledger.index == {**before, serial_hex(result.certificate): "V"}
    ledger.check()


def test_a_complete_last_row_without_a_line_feed_is_kept(bench: HandlerSet, ledger: Ledger) -> None:
    require_next_request(ledger, bench)
    index = bench.ca / "index.txt"
    index.write_text(index.read_text().rstrip("\n"))
    require_next_request(ledger, bench)


def test_a_missing_register_is_not_restored_from_index_txt_old(bench: HandlerSet, tmp_path: Path) -> None:
    """index.txt.old may be of any age; without index.txt.new it is not the register."""
    twin = bench.copy(tmp_path / "ws")
    (twin.ca / "index.txt").rename(twin.ca / "index.txt.old")
    result = twin.run(ENROL, csr("next"))
    assert (result.status, result.out) == (70, b"")
    assert "index.txt is missing; bring it back from a backup" in result.err
    assert not (twin.ca / "index.txt").exists()


def test_a_shortened_index_txt_new_does_not_replace_the_register(bench: HandlerSet, ledger: Ledger) -> None:
    index = bench.ca / "index.txt"
    whole = index.read_text()
    index.rename(bench.ca / "index.txt.old")
    (bench.ca / "index.txt.new").write_text("".join(whole.splitlines(keepends=True)[:2]))
    require_next_request(ledger, bench)
    assert index.read_text().startswith(whole)


# --- a power cut: the order of write, sync and rename -----------------------------------------------------------------


def assert_in_order(changes: list[Change], root: Path) -> None:
    """No file below `root` is renamed before it is synced, and all changes are synced at the end.

    Temporary directories, whose names begin with a dot, and the scratch directory `books` do not count.
    """
    unsynced: dict[str, str] = {}
    for change in changes:
        files = [file for file in change.files if file.startswith(str(root))]
        counted = [
            file for file in files if not any(part.startswith(".") for part in file[len(str(root)) :].split("/"))
        ]
        if change.name in ("fsync", "fdatasync"):
            for file in files:
                unsynced.pop(file, None)
        elif change.name in RENAMES and counted:
            if len(files) == 2:
                assert files[0] not in unsynced, f"{files} before {files[0]} was synced"
            unsynced[os.path.realpath(os.path.dirname(counted[-1]))] = f"{change}"
        elif change.name in WRITES:
            for file in files:
                if not file.endswith((".lock", "-shm")):
                    unsynced[file] = f"{change}"
    left = {file: change for file, change in unsynced.items() if "/." not in file[len(str(root)) :]}
    assert left == {}


@needs_strace
@pytest.mark.parametrize("script", [*ISSUING, "examples/short-lived"])
def test_a_certificate_is_synced_before_its_row_and_printed_last(bench: HandlerSet, script: str) -> None:
    with command(bench, script) as (arguments, env, folder):
        env = dict(env) | ({"EST_OPERATION": ENROL} if "/" in script else {})
        changes = Traced(bench.ca).changes(arguments, env, cwd=folder, stdin=-3)
    assert_in_order(changes, bench.ca)
    (index,) = {file for change in changes for file in change.files if file == str(bench.ca / "index.txt")}
    filed = [
        number for number, change in enumerate(changes)
        if change.name == "fsync" and change.files[0].startswith(str(bench.ca / "newcerts"))
    ]  # fmt: skip
    entered = [number for number, change in enumerate(changes) if change == Change("write", (index,))]
    synced = [number for number, change in enumerate(changes) if change == Change("fsync", (index,))]
    printed = [number for number, change in enumerate(changes) if change.files[0] == changes[-1].files[0]]
    assert len(filed) == 2, "the file and its directory"
    assert len(entered) == 1
    assert filed[-1] < entered[0] < synced[0] < printed[-1]
    assert changes[-1].files[0].startswith("pipe:"), "printing is the last thing that it does"


@needs_strace
@pytest.mark.parametrize("script", some([*TOOLS, "create-ca"], 3))
def test_a_script_of_the_ca_syncs_files_before_it_renames_them(
    bench: HandlerSet, ledger: Ledger, tmp_path: Path, script: str
) -> None:
    request = tmp_path / "request.pem"
    request.write_bytes(armoured(csr("by hand")))
    require_next_request(ledger, bench)
    root = bench.ca if script != "create-ca" else tmp_path / "new"
    options = {"revoke": [ledger.held[-1]], "issue": [str(request)], "create-ca": ["--dir", str(root)]}.get(script, [])
    if script == "revoke":
        ledger.revoked.append(ledger.held[-1])
    changes = Traced(root).changes([bench.ca / script, *options], {"PATH": PATH}, stdin=-3)
    assert len(changes) > 5
    assert_in_order(changes, root)
    assert ledger.ca == Workspace(bench.workspace.path).ca
    ledger.check_list()
