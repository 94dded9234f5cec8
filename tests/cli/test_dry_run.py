"""`estgw run`: dry runs, which leave nothing behind, the notes of real runs, and decision scripts alone."""

from __future__ import annotations

import io
import itertools
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509

from estgw.cli import main as command_line
from estgw.cmc.messages import PKIData
from estgw.cmc.requests import PKCS10Request
from estgw.est import zeroing
from tests.cmc_service import office as cmc
from tests.kit.csr import csr, san
from tests.kit.der import armoured
from tests.kit.keys import KEY
from tests.kit.processes import run
from tests.kit.restore import logging_as_before
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.slow

BOUNDARY = "--estgw-serverkeygen"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    with logging_as_before():
        yield


@pytest.fixture(scope="module")
def issuing(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which both sets serve all issuing operations, with a certificate to renew."""
    own = lab.copy(tmp_path_factory.mktemp("issuing") / "lab")
    for operation in ("serverkeygen", "fullcmc"):
        own.edit("conf.yaml", f"{operation}: {{enabled: false}}", f"{operation}: {{enabled: true}}")
    (own.path / "req.pem").write_bytes(armoured(csr("device-1", san(x509.DNSName("one.example")), key=KEY)))
    (own.path / "new.pem").write_bytes(armoured(csr("device-2", key=KEY)))
    key = cmc.new_key()
    asked = PKCS10Request(7, csr("device-7", key=key))
    (own.path / "request.p7").write_bytes(cmc.message(PKIData(tuple(cmc.fresh()), (asked,)), cmc.Person(key)))
    sign = ["openssl", "x509", "-req", "-in", own.path / "req.pem", "-CA", own.ca / "cacert.pem", "-set_serial", "77"]
    sign += ["-CAkey", own.ca / "private/cakey.pem", "-copy_extensions", "copy", "-out", own.path / "old.pem"]
    run(*map(str, sign))
    (own.path / "tmp").mkdir()
    return own


@pytest.fixture
def here(issuing: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(issuing.path)
    monkeypatch.setattr(tempfile, "tempdir", str(issuing.path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(issuing.path / "tmp"))
    return issuing


REQUESTS = {
    "simpleenroll": ["--csr", "req.pem", "--user", "estuser"],
    "simplereenroll": ["--csr", "req.pem", "--client-cert", "old.pem"],
    "serverkeygen": ["--csr", "req.pem", "--user", "estuser"],
    "fullcmc": ["--csr", "request.p7", "--user", "estuser"],
}
LABELS: dict[str, list[str]] = {"openssl": [], "python": ["--label", "python"]}


def main(capsysbinary: Any, *arguments: str) -> tuple[int, str, bytes, str]:
    """Exit status, head, body and stderr."""
    status = command_line.main(list(arguments))
    printed = capsysbinary.readouterr()
    head, _, body = printed.out.partition(b"\n\n")
    return status, head.decode(), body, printed.err.decode()


def certificates(body: bytes) -> list[x509.Certificate]:
    """The certificates in a response."""
    if BOUNDARY.encode() in body:
        return [each for part in re.split(rb"\r\n\r\n|--estgw", body) for each in zeroing.certificates(part)]
    return zeroing.certificates(body)


@pytest.mark.parametrize(("operation", "label"), [*itertools.product(REQUESTS, LABELS)])
def test_a_dry_run_changes_no_ca_and_shows_no_usable_certificate(here, capsysbinary, operation, label):
    before = here.books()
    status, head, body, err = main(capsysbinary, "run", operation, *REQUESTS[operation], *LABELS[label], "--dry-run")
    assert (status, head.splitlines()[0]) == (0, "HTTP/1.1 200 OK"), err
    assert here.books() == before
    assert list((here.path / "tmp").iterdir()) == [], "the copy of the CA is removed"
    assert f"note: the scripts get a copy of {here.ca}, which is removed\n" in err
    notes = re.findall(r"note: nothing was issued; this certificate has a signature of zeros: serial (\w+), (.*)", err)
    ((serial, subject),) = notes
    assert subject == ("subject CN=device-7" if operation == "fullcmc" else "subject CN=device-1")
    made = {f"{each.serial_number:X}".zfill(len(serial)): each for each in certificates(body)}
    assert zeroing.is_zeroed(made[serial])
    accepted = [each for each in made.values() if each.subject.rfc4514_string().startswith("CN=device")]
    assert all(map(zeroing.is_zeroed, accepted))


@pytest.mark.parametrize("label", LABELS)
def test_a_real_run_names_the_issued_certificate_and_its_ca(own_lab, issuing, monkeypatch, capsysbinary, label):
    monkeypatch.chdir(own_lab.path)
    arguments = ["--csr", str(issuing.path / "req.pem"), "--user", "estuser", *LABELS[label]]
    status, _, body, err = main(capsysbinary, "run", "simpleenroll", *arguments)
    (issued,) = certificates(body)
    own_lab.verify(issued)
    assert status == 0
    assert f"note: the scripts write to {own_lab.ca}\n" in err
    (serial,) = re.findall(
        r"note: a certificate was issued for real: serial (\w+), subject CN=device-1, by the CA", err
    )
    assert int(serial, 16) == issued.serial_number
    assert err.rstrip().endswith(f"by the CA in {own_lab.ca}")


def test_a_dry_run_of_a_failing_script_changes_no_ca(own_lab, issuing, monkeypatch, capsysbinary):
    monkeypatch.chdir(own_lab.path)
    own_lab.script("handlers/openssl/simpleenroll", 'touch "$EST_CA_DIR/index.txt.attr" "$EST_CA_DIR/mark"; exit 1')
    before = own_lab.books()
    arguments = ["--csr", str(issuing.path / "req.pem"), "--user", "estuser", "--dry-run"]
    status, head, _, err = main(capsysbinary, "run", "simpleenroll", *arguments)
    assert (status, head.splitlines()[0]) == (1, "HTTP/1.1 500 Internal Server Error")
    assert own_lab.books() == before
    assert "nothing was issued; this" not in err


def test_stderr_of_a_dry_run_has_no_certificate(own_lab, issuing, monkeypatch, capsysbinary):
    """A script under `set -x` prints the certificate to stderr, too."""
    monkeypatch.chdir(own_lab.path)
    path = own_lab.path / "handlers/openssl/simpleenroll"
    path.write_text(path.read_text().replace("set -euo pipefail", "set -xeuo pipefail"))
    arguments = ["--csr", str(issuing.path / "req.pem"), "--user", "estuser", "--dry-run"]
    status, _, _, err = main(capsysbinary, "run", "simpleenroll", *arguments)
    assert status == 0
    assert "stderr: + " in err
    assert "(a certificate, left out)" in err
    assert "BEGIN CERTIFICATE-----" not in err


def test_a_socket_in_the_ca_is_named_and_left_out(own_lab, monkeypatch, capsysbinary):
    monkeypatch.chdir(own_lab.ca)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("hsm")
        status, _, _, err = main(capsysbinary, "run", "cacerts", "-c", str(own_lab.path / "conf.yaml"), "--dry-run")
    assert status == 0
    assert err.splitlines()[0] == f"note: {own_lab.ca}/hsm: a socket, no file; left out of the copy"


def test_a_dry_run_of_csrattrs_prints_the_same_as_a_real_one(here, capsysbinary):
    real, dry = (main(capsysbinary, "run", "csrattrs", *options) for options in ([], ["--dry-run"]))
    assert real[:3] == dry[:3]


# Decision scripts alone.

DECISIONS = [
    ("exit 0", 0, "authorize says yes"),
    ("echo 'not on a Sunday'; exit 77", 1, "no; the client gets 403: not on a Sunday"),
    ("echo 'the wrong colour'; exit 65", 1, "no; the client gets 400: the wrong colour"),
    ("exit 75", 1, "authorize says not yet; the client gets 202 and comes back"),
]


@pytest.mark.parametrize(("text", "status", "verdict"), DECISIONS)
def test_run_authorize_prints_the_verdict_and_runs_no_handler(
    own_lab, issuing, monkeypatch, capsysbinary, text, status, verdict
):
    monkeypatch.chdir(own_lab.path)
    own_lab.script("handlers/openssl/authorize", f'echo "about $EST_OPERATION" >&2; {text}')
    before = own_lab.books()
    arguments = ["--csr", str(issuing.path / "req.pem"), "--user", "estuser"]
    ended, said, _, err = main(capsysbinary, "run", "authorize", *arguments)
    assert (ended, said.rstrip()) == (status, verdict)
    assert "stderr: about simpleenroll\n" in err
    assert own_lab.books() == before, "no handler was run"


def test_run_authorize_with_about_decides_about_that_operation(own_lab, issuing, monkeypatch, capsysbinary):
    monkeypatch.chdir(own_lab.path)
    own_lab.script("handlers/openssl/authorize", 'echo "$EST_OPERATION of $EST_CLIENT_TRUST"; exit 77')
    arguments = ["--about", "simplereenroll", "--csr", str(issuing.path / "req.pem")]
    arguments += ["--client-cert", str(issuing.path / "old.pem")]
    _, said, _, _ = main(capsysbinary, "run", "authorize", *arguments)
    assert said.rstrip() == "no; the client gets 403: simplereenroll of explicit"


def test_run_authorize_does_not_run_for_a_malformed_csr(own_lab, monkeypatch, capsysbinary):
    monkeypatch.chdir(own_lab.path)
    own_lab.script("handlers/openssl/authorize", "echo was-asked >&2; exit 0")
    ended, said, _, err = main(capsysbinary, "run", "authorize", "--csr", "conf.yaml", "--user", "estuser")
    assert (ended, said.startswith("no; the client gets 400: ")) == (1, True)
    assert "was-asked" not in err


@pytest.mark.parametrize(
    ("password", "status", "verdict"),
    [("secret", 0, "authenticate says yes"), ("wrong", 1, "no; the client gets 401")],
)
def test_run_authenticate_prints_the_verdict_on_a_password(
    own_lab, monkeypatch, capsysbinary, password, status, verdict
):
    monkeypatch.chdir(own_lab.path)
    own_lab.script("check", "[[ $EST_USERNAME == ann && $EST_PASSWORD == secret ]] || exit 77")
    own_lab.edit(
        "conf.yaml", "  authorize: handlers/openssl/authorize   #", "  authenticate: check\n  authorize: null #"
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{password}\n"))
    ended, said, _, _ = main(capsysbinary, "run", "authenticate", "--user", "ann")
    assert (ended, said.rstrip()) == (status, verdict)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["authenticate", "--user", "ann"], "authenticate: no such script is configured for simpleenroll"),
        (["authenticate"], "authenticate: --user NAME is missing"),
        (["authorize", "--about", "cacerts"], "authorize: no such script is configured for cacerts"),
        (["authorize", "--label", "nolabel"], "nolabel: no such label; there are: python"),
        (["nonsense"], "nonsense: not served; there are: cacerts, csrattrs"),
        (
            ["nonsense", "--label", "python"],
            "nonsense: not served under the label python; there are: cacerts, csrattrs",
        ),
        (["simpleenroll", "--user", "x", "--csr", "none.pem"], "none.pem: No such file or directory"),
    ],
)
def test_run_says_why_it_cannot_run_a_script(here, monkeypatch, capsysbinary, arguments, words):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    status, head, _, err = main(capsysbinary, "run", *arguments)
    assert (status, head) == (1, "")
    assert f"estgw: {words}" in err


def test_run_prefers_an_operation_that_is_named_authorize(own_lab, monkeypatch, capsysbinary):
    monkeypatch.chdir(own_lab.path)
    own_lab.script("handlers/openssl/authorize", "echo an operation")
    operation = "authorize: {method: GET, response_type: text/plain, body: raw, requires: none}"
    own_lab.edit(
        "conf.yaml", "    serverkeygen: {enabled: false}", f"    {operation}\n    serverkeygen: {{enabled: false}}"
    )
    _, _, body, _ = main(capsysbinary, "run", "authorize")
    assert body == b"an operation\n"


def test_scripts_are_told_of_a_dry_run_and_of_no_other(own_lab, issuing, monkeypatch, capsysbinary):
    monkeypatch.chdir(own_lab.path)
    own_lab.script("handlers/openssl/simpleenroll", 'echo "replay=${EST_REPLAY-}" >&2; exit 77')
    arguments = ["--csr", str(issuing.path / "req.pem"), "--user", "estuser"]
    _, _, _, dry = main(capsysbinary, "run", "simpleenroll", *arguments, "--dry-run")
    _, _, _, real = main(capsysbinary, "run", "simpleenroll", *arguments)
    assert ("stderr: replay=1\n" in dry, "stderr: replay=\n" in real) == (True, True)


def test_a_refusal_in_a_run_has_a_hint(here, capsysbinary):
    status, _, _, err = main(capsysbinary, "run", "simpleenroll", "--csr", "req.pem")
    assert status == 1
    assert (
        "log: no credentials, and no client certificate\nnext: The client sent neither password nor certificate" in err
    )
