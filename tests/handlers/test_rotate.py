"""openssl-ca/rotate: the register stays complete despite parallel requests and kills, and readers find all of it."""

from __future__ import annotations

import fcntl
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.est import csr as csrs
from estgw.register import lookup
from tests.handlers.test_openssl_handlers import ISSUING, KEYGEN
from tests.handlers.test_revocation import ask, lists, ocsp_lines, own_network, responder, serial, serials
from tests.kit.csr import csr
from tests.kit.processes import PATH, ROOT, run
from tests.kit.scripts import Cuts, keygen
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.slow

__all__ = ["own_network"]

ENROL = "openssl/simpleenroll"
ISSUERS = [*ISSUING, "examples/short-lived"]
LIMIT = 5
Row = list[str]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One fresh CA, to be copied. Its handlers call rotate each time, which moves five rows."""
    workspace = Workspace.create(tmp_path_factory.mktemp("fresh") / "ws")
    workspace.edit("handlers/openssl/issue.sh", "RANDOM % 250", "RANDOM % 1")
    workspace.edit("openssl-ca/rotate", "mapfile -s 999 ", f"mapfile -s {LIMIT - 1} ")
    return workspace


@pytest.fixture
def workspace(shared: Workspace, tmp_path: Path) -> Workspace:
    return shared.copy(tmp_path / "work shop $HOME")


def archives(workspace: Workspace) -> list[list[Row]]:
    """The rows of each archive, oldest first."""
    files = sorted((workspace.ca / "index-archive").glob("*.txt"))
    return [[line.split("\t") for line in file.read_text().splitlines()] for file in files]


def everywhere(workspace: Workspace) -> list[Row]:
    """All rows of all files."""
    return [row for rows in (*archives(workspace), workspace.rows) for row in rows]


def found(workspace: Workspace, *options: str) -> list[Row]:
    return [line.split("\t") for line in workspace.do("find", *options).splitlines()]


def rotate(workspace: Workspace) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": PATH, "EST_CA_DIR": str(workspace.ca)}
    command = [workspace.ca / "rotate"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def rotated(workspace: Workspace) -> None:
    done = rotate(workspace)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def enrol(workspace: Workspace, name: str = "device") -> x509.Certificate:
    return workspace.run(ENROL, csr(name)).certificate


def archived(workspace: Workspace, name: str = "device") -> x509.Certificate:
    """A certificate whose row is in an archive."""
    certificate = enrol(workspace, name)
    while any(row[3] == serial(certificate) for row in workspace.rows):
        enrol(workspace, "another")
    return certificate


def renew(workspace: Workspace, certificate: x509.Certificate, directory: Path) -> tuple[int, str]:
    file = directory / "renewed.pem"
    file.write_bytes(certificate.public_bytes(Encoding.PEM))
    result = workspace.run("openssl/simplereenroll", csr(), EST_RENEW_CERT_FILE=str(file))
    return result.status, result.words if result.status else ""


# --- while requests come in ----------------------------------------------------------------------------


def test_parallel_requests_lose_and_double_no_row(workspace: Workspace) -> None:
    def issue(job: tuple[int, str]) -> x509.Certificate:
        number, script = job
        operation = "simpleenroll" if script.startswith("examples/") else Path(script).name
        result = workspace.run(script, csr(f"device-{number}"), EST_OPERATION=operation)
        assert not result.err or script == KEYGEN
        return keygen(result)[1] if script == KEYGEN else result.certificate

    before = {row[3] for row in workspace.rows}
    with ThreadPoolExecutor(8) as pool:
        issued = list(pool.map(issue, enumerate(ISSUERS * 8)))
    numbers = {serial(certificate) for certificate in issued}
    assert len(numbers) == 32, "no number came twice"
    rows = everywhere(workspace)
    assert len(rows) == 32 + len(before)
    assert {row[3] for row in rows} == numbers | before
    assert {row[5] for row in rows} > {f"/CN=device-{number}" for number in range(32)}
    assert [len(archive) for archive in archives(workspace)] == [LIMIT] * 6
    assert len(workspace.rows) == 33 - 6 * LIMIT
    assert {path.stem for path in (workspace.ca / "newcerts").iterdir()} == numbers | before
    assert found(workspace) == rows
    assert not list((workspace.ca / "index-archive").glob(".*"))


def test_names_of_archives_have_their_order_and_day(workspace: Workspace) -> None:
    days = {f"{datetime.now(UTC):%Y-%m-%d}"}
    for _ in range(2 * LIMIT):
        enrol(workspace)
    days.add(f"{datetime.now(UTC):%Y-%m-%d}")
    names = sorted(path.name for path in (workspace.ca / "index-archive").iterdir())
    assert len(names) == 2
    for number, name in enumerate(names, 1):
        assert name in {f"{number:06}-{day}.txt" for day in days}
        assert (workspace.ca / "index-archive" / name).stat().st_mode & 0o777 == 0o600
    (workspace.ca / "index-archive" / names[0]).unlink()  # an administrator has moved it away; the numbers continue
    for _ in range(LIMIT):
        enrol(workspace)
    assert [path.name[:6] for path in sorted((workspace.ca / "index-archive").iterdir())] == ["000002", "000003"]


def test_the_shipped_scripts_move_a_thousand_rows() -> None:
    """The other tests change these lines, so they must exist."""
    assert '((RANDOM % 250)) || "$rotate" || :' in (ROOT / "handlers/openssl/issue.sh").read_text()
    assert "mapfile -s 999 -n 1" in (ROOT / "openssl-ca/rotate").read_text()


def test_rotate_moves_nothing_below_the_limit(workspace: Workspace) -> None:
    for _ in range(LIMIT - 2):
        enrol(workspace)
    assert len(workspace.rows) == LIMIT - 1
    rotated(workspace)
    assert len(workspace.rows) == LIMIT - 1
    assert not (workspace.ca / "index-archive").exists()


def test_rotate_moves_nothing_where_subjects_are_unique(workspace: Workspace) -> None:
    (workspace.ca / "index.txt.attr").write_text("unique_subject = yes\n")
    for number in range(LIMIT + 2):
        enrol(workspace, f"device-{number}")
    assert workspace.run(ENROL, csr("device-0")).words == "ERROR:There is already a certificate for /CN=device-0"
    assert not (workspace.ca / "index-archive").exists()


def test_a_rotate_that_fails_does_not_fail_the_enrolment(workspace: Workspace) -> None:
    (workspace.ca / "index-archive").write_text("in the way")
    for _ in range(LIMIT - 1):
        enrol(workspace)
    result = workspace.run(ENROL, csr())
    assert result.certificate
    assert "index-archive" in result.err, "the log says why"
    assert len(workspace.rows) == LIMIT + 1


def test_rotate_refuses_malformed_rows(workspace: Workspace) -> None:
    index = workspace.ca / "index.txt"
    index.write_text("V\tnonsense\n" * LIMIT + index.read_text())
    before = index.read_text()
    done = rotate(workspace)
    assert (done.returncode, done.stdout) == (65, "")
    assert "a row has not six fields" in done.stderr
    assert index.read_text() == before
    assert not archives(workspace)


def test_rotate_exits_69_while_the_lock_is_held(workspace: Workspace) -> None:
    workspace.edit("openssl-ca/rotate", "flock -w 30", "flock -w 0")
    with (workspace.ca / "ca.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = rotate(workspace)
    assert (done.returncode, "is busy" in done.stderr) == (69, True)
    rotated(workspace)


def test_create_ca_with_force_removes_the_archives(workspace: Workspace) -> None:
    archived(workspace)
    assert workspace.create_ca("--force").returncode == 0
    assert len(found(workspace)) == 1
    assert not (workspace.ca / "index-archive").exists()


# --- looking up -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filed(shared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[str, x509.Certificate]]:
    """A CA with a few archives, and certificates in them."""
    workspace = shared.copy(tmp_path_factory.mktemp("filed") / "ws")
    return workspace, {name: archived(workspace, name) for name in ("device-1", "Zoë", "a\\b", "device-10", "beef")}


@pytest.mark.parametrize(
    "form", [str, str.lower, "0x{}".format, "00{}".format, lambda text: ":".join(re.findall("..", text))]
)
def test_find_accepts_a_serial_number_in_common_spellings(
    filed: tuple[Workspace, dict[str, x509.Certificate]], form
) -> None:
    workspace, certificates = filed
    wanted = serial(certificates["device-1"])
    assert [row[3] for row in found(workspace, form(wanted))] == [wanted]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("device-1", ["device-1", "device-10"]),
        ("DEVICE-10", ["device-10"]),
        ("/CN=device-1", ["device-1", "device-10"]),
        ("zoë", ["Zoë"]),
        ("Zo", ["Zoë"]),
        ("a\\b", ["a\\b"]),
        ("beef", ["beef"]),
    ],
)
def test_find_finds_a_part_of_a_subject(
    filed: tuple[Workspace, dict[str, x509.Certificate]], text: str, names: list[str]
) -> None:
    workspace, certificates = filed
    assert [row[3] for row in found(workspace, text)] == [serial(certificates[name]) for name in names]


def test_find_does_not_compare_serial_numbers_as_numbers(workspace: Workspace) -> None:
    rows = [["V", "350101000000Z", "", number, "unknown", "/CN=x"] for number in ("12E4", "01D4C0", "120000")]
    with (workspace.ca / "index.txt").open("a") as index:
        index.writelines("\t".join(row) + "\n" for row in rows)
    assert found(workspace, "120000") == [rows[2]]
    assert found(workspace, "12e4") == [rows[0]]


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--help"], 0, ""),
        (["--frobnicate"], 2, "usage: find"),
        (["--dir"], 2, "usage: find"),
        (["nobody"], 1, ""),
        (["ABCDEF"], 1, ""),
        (["x", "--dir", "/nowhere"], 1, "no CA in /nowhere"),
    ],
)
def test_find_exits_1_without_a_match_and_2_on_wrong_options(
    filed: tuple[Workspace, dict[str, x509.Certificate]], options: list[str], status: int, words: str
) -> None:
    done = filed[0].tool("find", *options)
    assert (done.returncode, words in done.stderr) == (status, True)
    assert ("usage: find" in done.stdout) == (options == ["--help"])


def test_the_gateway_looks_up_certificates_in_archives(workspace: Workspace) -> None:
    certificate = archived(workspace, "Zoë 1")
    wanted = csrs.parse(csr("zoë 1"))
    assert lookup.newest_valid(workspace.ca, wanted) == certificate
    workspace.do("revoke", serial(certificate))
    assert lookup.newest_valid(workspace.ca, wanted) is None


def test_an_approved_request_with_an_archived_row_is_not_issued_twice(workspace: Workspace) -> None:
    """The state after a kill of manual-approval after issuing, and after more enrolments."""
    script, env = "examples/manual-approval", {"EST_OPERATION": "simpleenroll", "EST_PENDING_ID": "0a1b2c"}
    assert workspace.run(script, csr("patient"), **env).status == 75
    pending = workspace.ca / "pending"
    approved = (pending / "waiting/0a1b2c").rename(pending / "approved/0a1b2c")
    (approved / "started").touch()
    certificate = archived(workspace, "patient")
    for path in (workspace.ca / "newcerts").glob("*.pem"):
        if path.stem != serial(certificate):
            path.unlink()  # in this test, all have the same key
    assert workspace.run(script, csr("patient"), **env).certificate == certificate


# --- revoking ---------------------------------------------------------------------------------------------


def test_an_archived_certificate_can_be_revoked(workspace: Workspace, tmp_path: Path) -> None:
    lost, kept = archived(workspace), archived(workspace)
    assert renew(workspace, lost, tmp_path)[0] == 0
    before = len(found(workspace))
    workspace.do("revoke", serial(lost), "--reason", "superseded")
    assert renew(workspace, lost, tmp_path) == (77, "your certificate is revoked")
    assert renew(workspace, kept, tmp_path)[0] == 0
    (crl,) = lists(workspace)
    assert serials(crl) == {lost.serial_number}
    (row,) = found(workspace, serial(lost))
    assert (row[0], row[2].endswith(",superseded")) == ("R", True)
    assert len(found(workspace)) == before + 1, "a row for each certificate, the renewed one too"
    assert "has been revoked before" in workspace.do("revoke", serial(lost))

    # Its row stays in the index, however many rows follow.
    for _ in range(2 * LIMIT):
        enrol(workspace)
    assert renew(workspace, lost, tmp_path) == (77, "your certificate is revoked")
    workspace.do("rollover")
    workspace.do("crl")
    assert [serials(crl) for crl in lists(workspace)] == [{lost.serial_number}] * 2


def test_rotate_does_not_move_revoked_rows(workspace: Workspace) -> None:
    for _ in range(LIMIT + 1):
        workspace.do("revoke", serial(enrol(workspace)))
    rows = workspace.rows
    assert [row[0] for row in rows] == ["V"] + ["R"] * (LIMIT + 1)
    rotated(workspace)
    assert workspace.rows == rows
    assert not archives(workspace)


def test_a_revoked_row_moves_after_its_end_and_one_more_list(workspace: Workspace) -> None:
    """RFC 5280 3.3: it must be on one list that was made after the certificate's end."""
    now = datetime.now(UTC)

    def row(number: str, end: str) -> str:
        return f"R\t{end}\t{now - timedelta(days=90):%y%m%d%H%M%SZ}\t{number}\tunknown\t/CN=lost\n"

    ended = {
        "0A": f"{now - timedelta(days=1):%y%m%d%H%M%SZ}",
        "0B": "991231235959Z",  # RFC 5280 4.1.2.5.1: of 1999
        "0C": f"{now - timedelta(days=1):%Y%m%d%H%M%SZ}",
    }
    lives = {"0D": f"{now + timedelta(days=1):%y%m%d%H%M%SZ}", "0E": "20990101000000Z"}
    with (workspace.ca / "index.txt").open("a") as index:
        index.writelines(row(number, end) for number, end in (ended | lives).items())

    def fill() -> None:
        for _ in range(LIMIT):
            enrol(workspace)

    fill()
    assert {line[3] for line in workspace.rows if line[0] == "R"} == {*ended, *lives}, "there was no list yet"
    before = {tuple(line) for line in everywhere(workspace)}
    workspace.do("crl")
    assert {f"{number:02X}" for number in serials(*lists(workspace))} == {*ended, *lives}
    fill()
    assert {line[3] for line in workspace.rows if line[0] == "R"} == {*lives}
    assert {tuple(line) for line in everywhere(workspace)} > before
    workspace.do("crl")
    assert {f"{number:02X}" for number in serials(*lists(workspace))} == {*lives}
    assert "has been revoked before" in workspace.do("revoke", "0A"), "it is still known"


@pytest.mark.usefixtures("own_network")
def test_ocsp_knows_archived_certificates_from_the_output_of_find(workspace: Workspace) -> None:
    kept, lost = archived(workspace), archived(workspace)
    workspace.do("revoke", serial(lost))
    server, client = ocsp_lines()
    (line,) = re.findall(r"`(cp .* && \./find >all\.txt)`", (ROOT / "openssl-ca/README.md").read_text())
    run("bash", "-c", line, cwd=workspace.ca, env={"PATH": PATH})
    with responder(workspace, server.replace("-index index.txt", "-index all.txt")) as there:
        assert ": good" in ask(workspace, there, client, kept)
        assert ": revoked" in ask(workspace, there, client, lost)


# --- killed -------------------------------------------------------------------------------------------------


def due(shared: Workspace, path: Path) -> tuple[Workspace, list[Row]]:
    """A CA with an archive, five rows to move and revoked ones of both kinds; and its register."""
    workspace = shared.copy(path)
    lost = [archived(workspace), enrol(workspace)]
    for certificate in lost:
        workspace.do("revoke", serial(certificate))
    workspace.edit("handlers/openssl/issue.sh", "RANDOM % 1)", "RANDOM % 1 + 1)")  # only when the test calls it
    while len(workspace.rows) < 2 + LIMIT:
        enrol(workspace)
    assert [len(rows) for rows in archives(workspace)] == [LIMIT]
    return workspace, sorted(found(workspace))


def assert_whole(workspace: Workspace, register: list[Row]) -> None:
    """No row is lost. A row in two files counts once, and the next run repairs this, even after more enrolments."""
    assert sorted(found(workspace)) == register
    register = sorted([*register, *found(workspace, serial(enrol(workspace)))])
    for _ in range(2):
        rotated(workspace)
        assert sorted(found(workspace)) == register
        plain = [row[3] for row in everywhere(workspace) if row[0] == "V"]
        assert len(plain) == len(set(plain))


@pytest.mark.exhaustive
def test_a_power_cut_during_rotate_loses_no_row(shared: Workspace, tmp_path: Path) -> None:
    workspace, register = due(shared, tmp_path / "ws")
    seen = []
    for twin in Cuts.prepare(workspace, tmp_path / "cuts").twins("rotate"):
        seen.append((len(archives(twin)), len(twin.rows)))
        assert_whole(twin, register)
    assert sorted(set(seen), key=seen.index) == [(1, 2 + LIMIT), (2, 2 + LIMIT), (2, 2)]
    assert_whole(workspace, register)


@pytest.mark.exhaustive
def test_rotate_repairs_the_register_after_repeated_kills(shared: Workspace, tmp_path: Path) -> None:
    """Five more rows are added before each kill."""
    workspace, register = due(shared, tmp_path / "ws")
    cuts = Cuts.prepare(workspace, tmp_path / "cuts")
    assert sum(1 for _ in cuts.twins("rotate")) == cuts.calls
    for at in range(1, cuts.calls):
        for _ in range(LIMIT):
            register += found(workspace, serial(enrol(workspace)))
        cuts.kill("rotate", at=at)
        assert sorted(found(workspace)) == sorted(register)
    assert_whole(workspace, sorted(register))
    assert len(workspace.rows) < 2 + LIMIT + 2


def test_a_row_revoked_while_in_two_files_stays_revoked(shared: Workspace, tmp_path: Path) -> None:
    workspace, register = due(shared, tmp_path / "ws")
    rows = workspace.rows
    rotated(workspace)
    with (workspace.ca / "index.txt").open("w") as index:  # as if rotate had been killed before its last step
        index.writelines("\t".join(row) + "\n" for row in rows)
    assert sorted(found(workspace)) == register
    (lost,) = rows[-1:]
    workspace.do("revoke", lost[3])
    rotated(workspace)
    assert [row[3] for row in workspace.rows if row[0] == "R"][-1] == lost[3]
    assert [row[0] for row in found(workspace, lost[3])] == ["R"]
    assert len(found(workspace)) == len(register)
