"""Trials: one handler alone, as the gateway would run it."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

from estgw.auth.pop import POP
from estgw.callout.call import Call
from estgw.cli import trial
from estgw.cli.trial import Report, Trial
from estgw.errors import BadRequest, ConfigError, Forbidden
from estgw.est.binding import BindingType
from estgw.gateway.state import State
from tests.kit.ca import root
from tests.kit.csr import CHALLENGE_PASSWORD, challenge, csr
from tests.kit.der import BOOLEAN, SEQUENCE, armoured, attribute, tlv
from tests.kit.keys import rsa_key
from tests.kit.processes import run
from tests.kit.workspace import Workspace


@pytest.fixture(scope="module")
def served(lab: Workspace) -> State:
    return trial.load_state(lab.path / "conf.yaml")


@pytest.fixture(scope="module")
def device(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of the workspace's CA for the key of these tests."""
    folder = tmp_path_factory.mktemp("device")
    (folder / "req.pem").write_bytes(armoured(csr("device-1")))
    ca = lab.ca
    sign = ["openssl", "x509", "-req", "-in", folder / "req.pem", "-CA", ca / "cacert.pem"]
    run(*map(str, sign), "-CAkey", ca / "private/cakey.pem", "-CAcreateserial", "-out", folder / "cert.pem")
    (ca / "cacert.srl").unlink(missing_ok=True)
    return folder / "cert.pem"


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    file = tmp_path / "req.pem"
    file.write_bytes(armoured(csr("device-1")))
    return file


def prepare(served: State, directory: Path, operation: str, **wishes: Any) -> Call:
    folder = directory / "private"
    folder.mkdir(mode=0o700, exist_ok=True)
    return asyncio.run(trial.prepare(served, Trial(operation, **wishes), folder))


def try_out(served: State, directory: Path, operation: str, **wishes: Any) -> Report:
    folder = directory / "private"
    folder.mkdir(mode=0o700, exist_ok=True)
    return asyncio.run(trial.run(served, Trial(operation, **wishes), folder))


def body(report: Report) -> bytes:
    assert isinstance(report.response.body, bytes)
    return report.response.body


# The call.


def test_prepare_without_a_body_makes_a_get_without_files(served, lab, tmp_path):
    call = prepare(served, tmp_path, "cacerts")
    http = call.http
    assert (call.route.operation.name, http.method, http.path) == ("cacerts", "GET", "/.well-known/est/cacerts")
    assert (call.csr, http.body, call.route.label) == (None, b"", None)
    assert (call.client.methods, call.route.ca_dir) == ("", lab.ca)
    assert list((tmp_path / "private").iterdir()) == []


def test_prepare_with_a_csr_has_its_facts_user_and_a_binding(served, tmp_path, request_file):
    call = prepare(served, tmp_path, "simpleenroll", csr_file=request_file, user="ann")
    assert call.csr is not None
    assert (call.csr.subject.rfc4514_string(), call.csr.pop) == ("CN=device-1", POP.ABSENT)
    assert (call.client.user, call.client.methods) == ("ann", "http")
    binding = call.channel.binding
    assert binding is not None
    assert (binding.type, len(binding.value)) == (BindingType.TLS_EXPORTER, 32)
    assert call.http.header("content-type") == "application/pkcs10"
    assert (tmp_path / "private/csr.pem").read_bytes() == call.csr.pkcs10.pem


def test_any_binding_in_the_csr_counts_as_linked(served, tmp_path, request_file):
    request_file.write_bytes(csr("device-1", challenge("whatever")))
    call = prepare(served, tmp_path, "simpleenroll", csr_file=request_file, user="ann")
    assert call.csr is not None
    assert call.csr.pop is POP.LINKED


def test_a_client_certificate_of_our_ca_is_explicit_and_renewable(served, tmp_path, request_file, device):
    call = prepare(served, tmp_path, "simplereenroll", csr_file=request_file, client_certificate=device)
    assert (call.client.verify, call.client.trust.value, call.client.methods) == ("SUCCESS", "explicit", "tls")
    assert call.csr is not None
    assert call.csr.renewed == x509.load_pem_x509_certificate(device.read_bytes())
    assert {path.name for path in (tmp_path / "private").iterdir()} == {"csr.pem", "client.pem", "renew.pem"}


def test_a_strangers_certificate_is_hidden_like_in_a_handshake(served, tmp_path):
    certificate, _ = root("Stranger").issue("device").write(tmp_path, "stranger")
    call = prepare(served, tmp_path, "cacerts", client_certificate=certificate)
    assert (call.client.certificate, call.client.verify) == (None, "NONE")
    assert call.client.tls.verify_error


def test_a_certificate_for_servers_does_not_count_like_in_a_handshake(served, tmp_path):
    certificate = Path(served.config.tls.certificate)
    call = prepare(served, tmp_path, "cacerts", client_certificate=certificate)
    assert (call.client.certificate, call.client.verify) == (None, "NONE")
    assert call.client.tls.verify_error == "unsuitable certificate purpose"


# Refusals, as by the gateway.


@pytest.mark.parametrize(
    ("operation", "wishes", "words"),
    [
        ("nonsense", {}, "nonsense: not served; there are: cacerts, csrattrs"),
        ("serverkeygen", {}, "serverkeygen: not served"),
        ("cacerts", {"label": "iot"}, "iot: no such label; there are: python"),
        ("fullcmc", {"label": "python"}, "fullcmc: not served under the label python; there are: cacerts, csrattrs"),
        ("simpleenroll", {}, "simpleenroll takes a request: --csr FILE"),
        ("simpleenroll", {"csr_file": Path("/no/such")}, "/no/such: No such file or directory"),
        ("cacerts", {"client_certificate": Path("/no/such")}, "/no/such: No such file or directory"),
        ("cacerts", {"client_certificate": Path("/dev/null")}, "/dev/null: no certificate in it"),
    ],
)
def test_prepare_refuses_unknown_operations_labels_and_files(served, tmp_path, operation, wishes, words):
    with pytest.raises(ConfigError) as refusal:
        prepare(served, tmp_path, operation, **wishes)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"", "The body is empty"),
        (b"junk!", "Not base64"),
        (csr(tlv(SEQUENCE)), "subject is empty"),
        (csr(key=rsa_key(1024)), "An RSA key of 1024 bits"),
        (csr("device-1").replace(b"device-1", b"device-0"), "signature does not fit"),
    ],
)
def test_a_bad_csr_is_a_400_before_the_script_runs(served, tmp_path, request_file, request_, words):
    request_file.write_bytes(request_)
    with pytest.raises(BadRequest, match=words):
        prepare(served, tmp_path, "simpleenroll", csr_file=request_file, user="ann")
    report = try_out(served, tmp_path, "simpleenroll", csr_file=request_file, user="ann")
    assert report.response.status == 400
    assert words in body(report).decode()


def test_a_reenroll_needs_a_certificate_with_the_csrs_subject(served, tmp_path, request_file, device):
    with pytest.raises(Forbidden, match="needs a TLS client certificate"):
        prepare(served, tmp_path, "simplereenroll", csr_file=request_file)
    request_file.write_bytes(csr("device-2"))
    with pytest.raises(Forbidden, match="the CSR's subject is CN=device-2, the certificate's is CN=device-1"):
        prepare(served, tmp_path, "simplereenroll", csr_file=request_file, client_certificate=device)


def test_a_challenge_password_that_is_no_text_is_a_bad_request(served, tmp_path, request_file):
    request_file.write_bytes(csr("device-1", attribute(CHALLENGE_PASSWORD, tlv(BOOLEAN, b"\xff"))))
    with pytest.raises(BadRequest, match=r"challengePassword has ASN\.1 tag 0x01"):
        prepare(served, tmp_path, "simpleenroll", csr_file=request_file, user="ann")


# Running it.


@pytest.fixture
def scripted(own_lab: Workspace) -> Callable[[str], State]:
    """A workspace whose script cacerts has this text."""

    def make(text: str) -> State:
        own_lab.script("handlers/openssl/cacerts", text)
        own_lab.script("handlers/openssl/fullcmc", text)
        own_lab.edit("conf.yaml", "fullcmc: {enabled: false}", "fullcmc: {enabled: true}")
        return trial.load_state(own_lab.path / "conf.yaml")

    return make


def test_the_shipped_cacerts_answers_with_the_root(served, lab, tmp_path):
    report = try_out(served, tmp_path, "cacerts")
    assert (report.response.status, report.reason, report.stderr) == (200, None, [])
    assert report.response.headers["Content-Type"] == "application/pkcs7-mime"
    found = pkcs7.load_der_pkcs7_certificates(base64.b64decode(body(report)))
    assert found == [x509.load_pem_x509_certificate(lab.anchor.read_bytes())]


def test_the_shipped_simpleenroll_issues_a_certificate(own_lab, tmp_path, request_file):
    served = trial.load_state(own_lab.path / "conf.yaml")
    report = try_out(served, tmp_path, "simpleenroll", csr_file=request_file, user="estuser")
    assert (report.response.status, report.reason) == (200, None), report.stderr
    assert report.response.headers["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"


@pytest.mark.parametrize(
    ("text", "status", "reason", "stderr"),
    [
        ("echo no; echo why >&2; exit 77", 403, "cacerts said 77 (NOPERM): no", ["why"]),
        ("exit 1", 500, "cacerts exited with 1, which is a fault of the script; to refuse, exit 77.", []),
        ("kill -9 $$", 500, "cacerts: ended by signal 9 (SIGKILL)", []),
        (
            "echo junk",
            500,
            (
                'cacerts: base64 of something that is not a DER SEQUENCE. It printed "junk". stdout is the answer; '
                "messages go to stderr."
            ),
            [],
        ),
        ("exit 0", 500, "cacerts: printed nothing", []),
        (r"printf 'Status: 404\n\nno'", 404, "cacerts said 0 (OK): no", []),
    ],
)
def test_the_report_has_status_reason_and_stderr(scripted, tmp_path, text, status, reason, stderr):
    report = try_out(scripted(text), tmp_path, "cacerts")
    assert (report.response.status, report.stderr) == (status, stderr)
    assert report.reason == reason


def test_a_handler_that_cannot_start_is_a_500_with_advice(scripted, own_lab, tmp_path):
    served = scripted("exit 0")
    (own_lab.path / "handlers/openssl/cacerts").chmod(0o644)
    report = try_out(served, tmp_path, "cacerts")
    assert report.response.status == 500
    assert report.reason is not None
    assert "(Permission denied)" in report.reason
    assert "chmod +x" in report.reason


def test_a_handler_gets_the_decoded_body_on_stdin(scripted, tmp_path):
    file = tmp_path / "request"
    file.write_bytes(b"\x30\x00")
    report = try_out(scripted("od -An -tx1; exit 77"), tmp_path, "fullcmc", csr_file=file, user="ann")
    assert body(report) == b"30 00\n"


def test_a_trial_leaves_no_descriptor_open(served, tmp_path):
    try_out(served, tmp_path, "cacerts")
    before = set(os.listdir("/proc/self/fd"))
    try_out(served, tmp_path, "cacerts")
    assert set(os.listdir("/proc/self/fd")) == before
