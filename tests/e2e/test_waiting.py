"""Manual approval (RFC 7030 4.2.3): 202 until it is given, one certificate afterwards, also after kills.

handlers/examples/manual-approval behind a real gateway, with decisions by `estgw pending`.  E21 to E24 are rows of
tests/rfc_coverage.md.  In the end the tests count rows of the CA's index.
"""

from __future__ import annotations

import base64
import contextlib
import email
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key, pkcs7

from estgw.cli import main
from estgw.est import certs
from tests.kit.connection import V12, Response
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, Gateway, running_gateway
from tests.kit.preloaded import forked_estclient, forked_estgw
from tests.kit.processes import ROOT, run, until
from tests.kit.workspace import Workspace

# One command of the script, and when the script is killed: before the command runs, or after it.
MOMENTS = {
    "before-started": ("touch", "*/started", "before"),
    "before-the-issuer": ("bash", "", "before"),
    "when-issued": ("bash", "", "after"),
    "while-issuing": ("bash", "", "during"),
    "before-it-is-kept": ("openssl", "x509 -in */answer", "before"),
    "when-it-is-kept": ("sync", "*/certificate.pem *", "after"),
    "before-the-move": ("mv", "* issued", "before"),
    "after-the-move": ("mv", "* issued", "after"),
    "before-the-answer": ("cat", "*/answer", "before"),
}

KILLER = r"""
once=$EST_CA_DIR/killed-$EST_LABEL
if [[ $EST_LABEL && ${0##*/} == "$KILL_AT" && $* == $KILL_WITH && ! -e $once && -e $EST_CA_DIR/deadly ]]; then
    >"$once"
    case $KILL_WHEN in
        before) kill -9 $PPID ;;
        after) {real} "$@" ; kill -9 $PPID ;;
    esac
    exit
fi
exec {real} "$@"
"""

# This script replaces the issuer; the real one is beside it.
ISSUER = r"""
once=$EST_CA_DIR/killed-$EST_LABEL
[[ ! -e $EST_CA_DIR/slow ]] || sleep 1
if [[ ${KILL_AT-} == bash && ! -e $once && -e $EST_CA_DIR/deadly ]]; then
    >"$once"
    case $KILL_WHEN in
        before) kill -9 $PPID ;;
        after) ./real-$EST_OPERATION >"$EST_TMPDIR/lost"; kill -9 $PPID ;;
        during) ./real-$EST_OPERATION & sleep 0.05; kill -9 $PPID ;;
    esac
    exit
fi
exec ./real-$EST_OPERATION
"""


def furnish(lab: Workspace) -> dict[str, Any]:
    """Prepare a workspace in which scripts can be killed at every moment; returns its configuration."""
    for name in ("touch", "mv", "cat", "openssl", "sync"):
        lab.script(f"bin/{name}", KILLER.replace("{real}", f"/usr/bin/{name}"))
    for operation in ("simpleenroll", "serverkeygen"):
        real = lab.path / "handlers/openssl" / operation
        real.rename(real.with_name(f"real-{operation}"))
        lab.script(f"handlers/openssl/{operation}", ISSUER)
    waiting = {"handler": str(lab.path / "handlers/examples/manual-approval")}
    labels = {
        name: {
            "operations": {
                operation: {
                    **waiting,
                    "enabled": True,
                    "handler_env": {"KILL_AT": at, "KILL_WITH": pattern, "KILL_WHEN": moment},
                }
                for operation in ("simpleenroll", "serverkeygen")
            }
        }
        for name, (at, pattern, moment) in MOMENTS.items()
    }
    return {
        "callouts": {
            "retry_after": 1,
            "path": f"{lab.path / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "operations": {"simpleenroll": waiting, "serverkeygen": {**waiting, "enabled": True}},
        },
        "labels": {**labels, "patient": {}},
    }


@pytest.fixture(scope="module")
def server(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    own = lab.copy(tmp_path_factory.mktemp("waiting"))
    with running_gateway(own, furnish(own)) as running:
        yield running


def pending(server: Gateway, *arguments: str) -> None:
    """Run `estgw pending ...`, as the approver types it."""
    assert main.main(["pending", *arguments, "-c", str(server.config)]) == 0


def where(lab: Workspace, name: str) -> list[Path]:
    """The directories of the request for that subject."""
    found = lab.ca.glob("pending/*/*/request")
    return [path.parent for path in found if f"EST_CSR_SUBJECT=CN={name}\n" in path.read_text()]


def state(lab: Workspace, name: str) -> str:
    (entry,) = where(lab, name)
    return entry.parent.name


def decide(server: Gateway, name: str, *decision: str) -> None:
    (entry,) = where(server.lab, name)
    pending(server, decision[0], entry.name[:20], *decision[1:])


def rows(lab: Workspace, name: str) -> list[str]:
    """The serial numbers that the CA has issued for that subject."""
    lines = (lab.ca / "index.txt").read_text().splitlines()
    return [line.split("\t")[3] for line in lines if line.endswith(f"/CN={name}")]


def ask(server: Gateway, name: str, label: str = "", **options: Any) -> Response:
    """The request, signed again, on a new connection."""
    return server.post(f"{label}/simpleenroll".lstrip("/"), csr(name), **options)


def patiently(attempt: Callable[[], Response]) -> Response:
    """Repeat while the server says to come back; a client would sleep longer."""

    def done() -> Response | None:
        answer = attempt()
        if answer.status == 202:
            time.sleep(0.1)
        return answer if answer.status != 202 else None

    return until(done)


# Approval without interruptions.


def test_e21_e22_e23_an_approved_request_gets_one_certificate(server):
    """202 with whole seconds until the approval, then the same certificate, however often it is fetched."""
    for _ in range(2):
        answer = ask(server, "yes")
        assert (answer.status, answer.body) == (202, b"")
        assert answer.header("Retry-After") in ("1", "2")
    assert state(server.lab, "yes") == "waiting"
    assert rows(server.lab, "yes") == []
    decide(server, "yes", "approve")
    assert rows(server.lab, "yes") == [], "it is issued when the client comes back"
    first = ask(server, "yes").certificate
    server.lab.verify(first)
    again = ask(server, "yes").certificate
    assert again == first
    assert rows(server.lab, "yes") == [certs.serial_hex(first)]


def test_e23_a_repeat_on_another_connection_is_the_same_request(server):
    """The binding and so the bytes of the CSR are new each time, but it is the same request."""
    bodies = set()

    def linked() -> Response:
        with server.connect(version=V12) as connection:
            body = csr("linked", challenge=base64.b64encode(connection.tls_unique))
            bodies.add(body)
            answer: Response = connection.ask("POST", "simpleenroll", body, login=LOGIN)
            return answer

    assert linked().status == 202
    decide(server, "linked", "approve")
    assert linked().certificate == linked().certificate
    assert len(bodies) == 3
    assert server.access[-1]["pop"] == "linked"


def test_a_refused_request_gets_403_until_it_is_approved(server):
    assert ask(server, "no").status == 202
    decide(server, "no", "refuse", "--reason", "ask your teacher")
    for _ in range(2):
        answer = ask(server, "no")
        assert (answer.status, answer.words) == (403, "ask your teacher")
    decide(server, "no", "approve")
    assert ask(server, "no").status == 200


def test_another_key_name_label_or_client_is_another_request(server, tmp_path):
    assert ask(server, "one").status == 202
    decide(server, "one", "approve")
    other_key = csr("one", key=ec.generate_private_key(ec.SECP256R1()))
    assert server.post("simpleenroll", other_key).status == 202
    assert ask(server, "one", "patient").status == 202
    assert server.post("simpleenroll", csr("one", x509.DNSName("one.example"))).status == 202
    assert server.post("serverkeygen", csr("one")).status == 202
    assert ask(server, "one").status == 200
    assert len(rows(server.lab, "one")) == 1


def test_a_request_that_the_issuer_refuses_stays_approved(server):
    """The CA's own policy requires a common name. It may be changed before the client comes back."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "no common name")])
    assert server.post("simpleenroll", csr(name)).status == 202
    entry = next(
        path for path in server.lab.ca.glob("pending/waiting/*") if "no common" in (path / "request").read_text()
    )
    pending(server, "approve", entry.name)
    for _ in range(2):
        answer = server.post("simpleenroll", csr(name))
        assert (answer.status, answer.words) == (403, "The commonName field needed to be supplied and was missing")
    assert not (server.lab.ca / "pending/approved" / entry.name / "started").exists()


def test_ten_repeats_at_once_get_one_certificate(server):
    assert ask(server, "crowd").status == 202
    decide(server, "crowd", "approve")
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: patiently(lambda: ask(server, "crowd")), range(10)))
    assert len({answer.certificate for answer in answers}) == 1
    assert len(rows(server.lab, "crowd")) == 1


def test_ten_first_requests_at_once_are_one_pending_request(server):
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: ask(server, "first"), range(10)))
    assert {answer.status for answer in answers} == {202}
    assert state(server.lab, "first") == "waiting"


def test_a_pending_request_expires_unless_repeated(server):
    assert ask(server, "forgotten").status == 202
    assert ask(server, "remembered").status == 202
    for name in ("forgotten", "remembered"):
        (entry,) = where(server.lab, name)
        os.utime(entry, (time.time() - 32 * 86400,) * 2)
    assert ask(server, "remembered").status == 202
    assert ask(server, "newcomer").status == 202
    assert where(server.lab, "forgotten") == []
    assert state(server.lab, "remembered") == "waiting"


# Keys that the server makes and does not store.


def key_and_certificate(answer: Response) -> tuple[Any, x509.Certificate]:
    message = email.message_from_bytes(f"Content-Type: {answer.header('Content-Type')}\r\n\r\n".encode() + answer.body)
    key, bag = (base64.b64decode(str(part.get_payload())) for part in list(message.walk())[1:])
    (certificate,) = pkcs7.load_der_pkcs7_certificates(bag)
    return load_der_private_key(key, None), certificate


def test_serverkeygen_waits_too_and_sends_its_key_once(server):
    """A second approval makes a second key. The first is in no file, so it can't be sent again."""
    assert server.post("serverkeygen", csr("keyless")).status == 202
    decide(server, "keyless", "approve")
    key, certificate = key_and_certificate(server.post("serverkeygen", csr("keyless")))
    assert key.public_key() == certificate.public_key()
    secret = key.private_numbers().private_value.to_bytes(32)
    for path in server.lab.ca.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert secret not in content
        assert b"PRIVATE" not in content or path.parent.name == "private"
    assert server.post("serverkeygen", csr("keyless")).status == 202
    assert state(server.lab, "keyless") == "waiting"
    assert len(rows(server.lab, "keyless")) == 1
    decide(server, "keyless", "approve")
    assert key_and_certificate(server.post("serverkeygen", csr("keyless")))[0].public_key() != key.public_key()


# Kills.


@pytest.fixture
def deadly(server: Gateway) -> Iterator[None]:
    (server.lab.ca / "deadly").touch()
    yield
    (server.lab.ca / "deadly").unlink()


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_script_killed_after_approval_leaves_one_certificate(server, deadly, moment):
    """kill -9 ends the script and its children. The register has one certificate, and the client gets it."""
    assert ask(server, moment, moment).status == 202
    decide(server, moment, "approve")
    answer = ask(server, moment, moment)
    assert answer.status == 500, answer
    assert (server.lab.ca / f"killed-{moment}").exists()
    answer = patiently(lambda: ask(server, moment, moment))
    assert rows(server.lab, moment) == [certs.serial_hex(answer.certificate)]
    assert ask(server, moment, moment).certificate == answer.certificate
    assert state(server.lab, moment) == "issued"


@pytest.mark.parametrize("moment", ["before-the-issuer", "when-issued", "before-it-is-kept", "before-the-move"])
def test_a_killed_serverkeygen_needs_a_new_approval(server, deadly, moment):
    name = f"key-{moment}"
    once = server.lab.ca / f"killed-{moment}"
    once.unlink(missing_ok=True)
    assert server.post(f"{moment}/serverkeygen", csr(name)).status == 202
    decide(server, name, "approve")
    assert server.post(f"{moment}/serverkeygen", csr(name)).status == 500
    issued = rows(server.lab, name)
    assert server.post(f"{moment}/serverkeygen", csr(name)).status == 202
    assert rows(server.lab, name) == issued, "nothing is issued twice on one yes"
    assert state(server.lab, name) == "waiting"
    decide(server, name, "approve")
    key, certificate = key_and_certificate(server.post(f"{moment}/serverkeygen", csr(name)))
    assert key.public_key() == certificate.public_key()


def test_a_pending_request_survives_restarts_of_the_gateway(server, tmp_path):
    with another_gateway(server, tmp_path) as first:
        assert ask(first, "restart").status == 202
    decide(server, "restart", "approve")
    with another_gateway(server, tmp_path) as second:
        certificate = ask(second, "restart").certificate
        assert ask(second, "restart").certificate == certificate
    assert ask(server, "restart").certificate == certificate
    assert len(rows(server.lab, "restart")) == 1


def test_a_gateway_killed_while_issuing_leaves_one_certificate(server, tmp_path):
    """The script has its own session and finishes. A client that repeats waits, then gets this certificate."""
    (server.lab.ca / "slow").touch()
    with another_gateway(server, tmp_path) as doomed:
        assert ask(doomed, "orphan").status == 202
        decide(doomed, "orphan", "approve")
        thread = threading.Thread(target=quietly, args=[doomed])
        thread.start()
        until(lambda: list(where(server.lab, "orphan")[0].glob("started")))
        doomed.process.kill()
        thread.join()
    assert ask(server, "orphan").status == 202, "it is being issued"
    (server.lab.ca / "slow").unlink()
    certificate = patiently(lambda: ask(server, "orphan")).certificate
    assert ask(server, "orphan").certificate == certificate
    assert rows(server.lab, "orphan") == [certs.serial_hex(certificate)]


def quietly(doomed: Gateway) -> None:
    """A request that gets no answer."""
    with contextlib.suppress(AssertionError, OSError):
        ask(doomed, "orphan")


@contextlib.contextmanager
def another_gateway(server: Gateway, directory: Path) -> Iterator[Gateway]:
    """A second process with the same configuration and CA, ended by SIGKILL."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(directory)}
    command = [*forked_estgw(), "serve", "-c", str(server.config)]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    with process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            yield Gateway(server.lab, server.config, directory / "log", process, url)
        finally:
            process.kill()


# Real clients, which honour Retry-After (E24).


def approve_soon(server: Gateway, name: str) -> threading.Thread:
    """A thread that approves the request as soon as it is there."""

    def work() -> None:
        until(lambda: where(server.lab, name))
        decide(server, name, "approve")

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.client("pki")
def test_strongswan_waits_for_the_approval(server, tmp_path):
    (tmp_path / "request.der").write_bytes(csr("patient-moon"))
    approver = approve_soon(server, "patient-moon")
    options = ("--in", tmp_path / "request.der", "--userpass", LOGIN, "--interval", "1", "--maxpolltime", "15")
    url = ("--url", f"https://localhost:{server.port}", "--cacert", server.lab.anchor)
    out = run("pki", "--est", *url, *options, "--outform", "pem").stdout
    approver.join()
    certificate = x509.load_pem_x509_certificate(out)
    assert rows(server.lab, "patient-moon") == [certs.serial_hex(certificate)]


@pytest.mark.parametrize("operation", ["enroll", "serverkeygen"])
def test_estclient_waits_for_the_approval(server, tmp_path, operation):
    """It builds a CSR for each connection, so the binding is another one after the wait."""
    name = f"sun-{operation}"
    approver = approve_soon(server, name)
    command: list[str | Path] = [*forked_estclient(), operation, "-u", server.url, "-p", LOGIN]
    command += ["-c", server.lab.anchor, "--subject", f"CN={name}", "-o", tmp_path / "new.pem", "--wait", "15"]
    run(*command, *(["--new-key"] if operation == "enroll" else []))
    approver.join()
    certificate = x509.load_pem_x509_certificate((tmp_path / "new.pem").read_bytes())
    assert load_pem_private_key((tmp_path / "new.key").read_bytes(), None).public_key() == certificate.public_key()
    assert rows(server.lab, name) == [certs.serial_hex(certificate)]
    statuses = [line["status"] for line in server.access if line.get("subject") == f"CN={name}"]
    assert (statuses[0], statuses[-1]) == (202, 200)
