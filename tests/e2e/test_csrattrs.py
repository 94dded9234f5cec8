"""CSR attributes from end to end: the YAML file, the answer, clients that obey it and CSRs that are refused.

Some names begin with the id of a row in tests/rfc_coverage.md.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from estgw.cli import main as command_line
from estgw.est.csr import CHALLENGE_PASSWORD, EST_IDENTITY_LINKING
from estgw.est.csrattrs import CsrAttrs, decode_csrattrs
from tests.est.test_csrattrs import FILES, vector
from tests.kit.connection import V12, V13
from tests.kit.csr import csr
from tests.kit.der import armoured, oid
from tests.kit.gateway import LOGIN, Gateway, running_gateway
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import ROOT, run
from tests.kit.workspace import Workspace

P384, RSA = ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)
SHIPPED = "- key: ec:P-256\n- ecdsa-with-SHA256\n"
INSISTED = """\
- key: ec:P-384
- template:
    subject: [commonName, {organizationName: Example}]
    attributes:
      - extensions: {subjectAltName: [DNS], keyUsage: digitalSignature}
"""
LABELS: dict[str, Any] = {
    "linked": {},
    "strict": {"csr_template": "insisted.yaml", "operations": {"serverkeygen": {"enabled": True}}},
    "free": {"csr_template": None},
    "fitting": {"csr_template": "handlers/openssl/csrattrs.yaml"},
}


@pytest.fixture(scope="module")
def served(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway on its own workspace. Tests rewrite its csrattrs.yaml and restore it."""
    own = lab.copy(tmp_path_factory.mktemp("csrattrs"))
    (own.path / "insisted.yaml").write_text(INSISTED)
    overrides = {"labels": LABELS, "pop": {"rules": [{"label": "linked", "pop": "required"}]}}
    # The first script of a request leaves a mark.
    authorize = own.path / "handlers/openssl/authorize"
    authorize.write_text(authorize.read_text().replace("\n", '\necho . >>"$EST_CA_DIR/asked"\n', 1))
    with running_gateway(own, overrides) as gateway:
        yield gateway


def decisions(gateway: Gateway) -> int:
    """How often authorize has run."""
    return len((gateway.lab.ca / "asked").read_text().splitlines())


@pytest.fixture
def wishes(served: Gateway) -> Iterator[Path]:
    """The YAML file beside the handler, restored afterwards."""
    path = served.lab.path / "handlers/openssl/csrattrs.yaml"
    before = path.read_text()
    yield path
    path.write_text(before)


def asked(gateway: Gateway, label: str = "") -> CsrAttrs:
    answer = gateway.get(f"{label}/csrattrs".lstrip("/"))
    assert answer.status == 200, answer
    assert answer.header("Content-Type") == "application/csrattrs"
    return decode_csrattrs(answer.der)


def estgw(*arguments: str | Path, stdin: bytes = b"", status: int = 0) -> bytes:
    return run(*forked_estgw(), *arguments, stdin=stdin, status=status, cwd=ROOT).stdout


# The YAML file.


def test_q3_the_shipped_yaml_is_answered_in_base64_lines(served):
    answer = served.get("csrattrs")
    assert estgw("csrattrs", "explain", "-", stdin=answer.body).decode() == SHIPPED
    assert answer.body.endswith(b"\n")
    assert max(map(len, answer.body.splitlines())) <= 64


def test_q2_csrattrs_need_no_login(served):
    assert served.get("csrattrs", login=None).status == 200
    assert served.get("csrattrs", login=LOGIN).status == 200


def test_an_edit_of_the_yaml_is_in_the_next_answer(served, wishes):
    before = asked(served)
    served.lab.edit("handlers/openssl/csrattrs.yaml", "\n#- serialNumber\n", "\n- serialNumber\n")
    assert asked(served).items == (*before.items, "2.5.4.5")
    served.lab.edit("handlers/openssl/csrattrs.yaml", "\n- key: ec:P-256\n", "\n- key: rsa:3072\n")
    assert [item.oid for item in asked(served).attributes] == ["1.2.840.113549.1.1.1"]


def test_the_command_encodes_what_the_gateway_sends(served, wishes):
    wishes.write_text(INSISTED)
    assert estgw("csrattrs", "encode", wishes) == served.get("csrattrs").body


@pytest.mark.parametrize("name", FILES)
def test_every_published_answer_can_be_given(served, wishes, tmp_path, name, capsys):
    """`explain` turns each into YAML, from which the gateway makes the same bytes."""
    (tmp_path / "answer").write_bytes(vector(name))
    assert command_line.main(["csrattrs", "explain", str(tmp_path / "answer")]) == 0
    wishes.write_text(capsys.readouterr().out, encoding="utf-8")
    assert served.get("csrattrs").der == vector(name)


def test_q4_an_empty_file_is_a_204_and_an_empty_list_a_200(served, wishes):
    wishes.write_text("# nothing today\n")
    answer = served.get("csrattrs")
    assert (answer.status, answer.body, answer.header("Content-Type")) == (204, b"", None)
    assert answer.header("Content-Length") in (None, "0")
    wishes.write_text("[]\n")
    answer = served.get("csrattrs")
    assert (answer.status, answer.body) == (200, b"MAA=\n")


def test_q10_a_fault_is_a_500_and_the_log_says_where(served, wishes):
    wishes.write_text("# mine\n- key: ec:P-256\n- key: ec:P-384\n- serialNumbr\n")
    before = len(served.log)
    answer = served.get("csrattrs")
    assert answer.status == 500
    assert "serialNumbr" not in answer.words
    reason = served.wait_for("request", after=before, status=500)["reason"]
    assert "stdout:3:3: 1: a second key, and RFC 9908 3 has room for one" in reason
    assert "stdout:4:3: 2: 'serialNumbr' is no name known here; do you mean serialNumber?" in reason


def test_an_unquoted_yaml_bool_is_logged_with_advice_to_quote_it(served, wishes):
    wishes.write_text("- friendlyName: NO\n")
    before = len(served.log)
    assert served.get("csrattrs").status == 500
    reason = served.wait_for("request", after=before, status=500)["reason"]
    assert 'stdout:1:17: YAML reads NO as a bool; quote it: "NO"' in reason


def test_csrattrs_may_be_printed_as_der_base64_or_pem(own_lab):
    der = vector("rfc9908-5.4-rsa4096-sha256.b64")
    file = own_lab.path / "answer"
    own_lab.script("handlers/openssl/csrattrs", f"cat {file}")
    with running_gateway(own_lab) as gateway:
        for output in (der, base64.b64encode(der), base64.encodebytes(der), armoured(der, "CSRATTRS")):
            file.write_bytes(output)
            assert gateway.get("csrattrs").der == der


def test_q2_csrattrs_may_differ_by_client(served, wishes, device):
    script = served.lab.path / "handlers/openssl/csrattrs"
    before = script.read_text()
    (wishes.parent / "members.yaml").write_text("- macAddress\n")
    line = "# [[ $EST_CLIENT_TRUST != explicit ]] || wishes=members.yaml"
    served.lab.edit("handlers/openssl/csrattrs", line, line.removeprefix("# "))
    try:
        assert served.get("csrattrs", certificate=device).der == b"\x30\x09" + oid("1.3.6.1.1.1.1.22")
        assert estgw("csrattrs", "explain", "-", stdin=served.get("csrattrs").body).decode() == SHIPPED
    finally:
        script.write_text(before)


# Linking (RFC 7030 3.5, 4.5.2).

TEMPLATE = "- serialNumber\n- template:\n    subject: [commonName]\n    attributes: [friendlyName]\n"


def test_q8_linking_is_announced_where_it_is_required(served):
    assert asked(served, "linked").items == (*asked(served).items, CHALLENGE_PASSWORD)


def test_q12_linking_is_announced_inside_the_template_too(served, wishes):
    """RFC 9908 4: a client that knows templates ignores the bare OID."""
    wishes.write_text(TEMPLATE)
    attrs = asked(served, "linked")
    assert attrs.oids == ("2.5.4.5", CHALLENGE_PASSWORD)
    assert attrs.template is not None
    assert {wish.oid for wish in attrs.template.attributes} == {"1.2.840.113549.1.9.20", CHALLENGE_PASSWORD}
    encoded = [wish.encode() for wish in attrs.template.attributes]
    assert encoded == sorted(encoded), "DER's order"
    plain = asked(served).template
    assert plain is not None
    assert [wish.oid for wish in plain.attributes] == ["1.2.840.113549.1.9.20"]


def test_q8_linking_is_not_announced_twice(served, wishes):
    wishes.write_text("- challengePassword\n- template: {attributes: [challengePassword]}\n")
    assert served.get("linked/csrattrs").der == served.get("csrattrs").der


def test_q8_linking_is_announced_even_without_attributes(served, wishes):
    wishes.write_text("# nothing\n")
    assert asked(served, "linked").items == (CHALLENGE_PASSWORD,)


def test_q8_linking_can_be_announced_as_est_identity_linking(own_lab):
    (own_lab.path / "handlers/openssl/csrattrs.yaml").write_text(TEMPLATE)
    pop = {"default": "required", "attribute": "estIdentityLinking"}
    with running_gateway(own_lab, {"pop": pop}) as gateway:
        attrs = asked(gateway)
    assert EST_IDENTITY_LINKING in attrs.oids
    assert CHALLENGE_PASSWORD not in attrs.oids
    assert attrs.template is not None
    assert EST_IDENTITY_LINKING in {wish.oid for wish in attrs.template.attributes}


# Our own client obeys.


def enroll(gateway: Gateway, directory: Path, *arguments: str, label: str = "", status: int = 0) -> str:
    """Run `estclient enroll`; returns its output."""
    url = f"https://localhost:{gateway.port}" + (f"/.well-known/est/{label}" if label else "")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "estgw.client",
        "enroll",
        "-u",
        url,
        "-c",
        gateway.lab.anchor,
        "-p",
        LOGIN,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = run(*command, "-o", directory / "new.pem", *arguments, status=status, cwd=directory, env=environment)
    return (done.stdout + done.stderr).decode()


def new_pair(directory: Path) -> tuple[x509.Certificate, Any]:
    key = serialization.load_pem_private_key((directory / "new.key").read_bytes(), None)
    return x509.load_pem_x509_certificate((directory / "new.pem").read_bytes()), key


def test_q12_estclient_obeys_a_template(served, wishes, tmp_path):
    wishes.write_text(
        "- key: rsa:2048\n"  # for clients that know no templates
        "- sha256\n"
        "- template:\n"
        "    subject: [commonName, {organizationName: Example}]\n"
        "    key: ec:P-384\n"
        "    attributes:\n"
        "      - extensions: {subjectAltName: [DNS], keyUsage: [critical, digitalSignature]}\n"
    )
    enroll(served, tmp_path, "--new-key", "auto", "--subject", "CN=device-9", "--dns", "nine.example")
    certificate, key = new_pair(tmp_path)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp384r1"
    assert key.public_key() == certificate.public_key()
    assert sorted(part.value for part in certificate.subject) == ["Example", "device-9"]
    (san,) = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san == x509.DNSName("nine.example")


def test_q12_estclient_obeys_linking_in_a_template(served, wishes, tmp_path):
    wishes.write_text(TEMPLATE)
    enroll(served, tmp_path, "--new-key", "auto", "--subject", "CN=device-9", "--require-pop", label="linked")
    assert served.access[-1]["pop"] == "linked"
    assert new_pair(tmp_path)[0].subject.rfc4514_string() == "CN=device-9"


def test_q11_estclient_obeys_the_classic_form(served, wishes, tmp_path):
    wishes.write_text("- key: rsa:3072\n- sha256\n")
    enroll(served, tmp_path, "--new-key", "auto", "--subject", "CN=device-9")
    assert new_pair(tmp_path)[1].key_size == 3072


def test_estclient_meets_a_required_template_that_is_announced(served, wishes, tmp_path):
    """A client that obeys the file is served. A client that does not gets the list of what its CSR lacks."""
    wishes.write_text(INSISTED.replace("    subject", "    key: ec:P-384\n    subject"))
    names = ("--subject", "CN=device-9", "--dns", "nine.example")
    said = enroll(served, tmp_path, "--new-key", "ec:P-256", "--no-csrattrs", *names, label="strict", status=4)
    assert "The CSR lacks what is insisted on here: organizationName=Example in the subject; a key ec:P-384" in said
    assert not (tmp_path / "new.pem").exists()
    enroll(served, tmp_path, "--new-key", "auto", *names, label="strict")
    assert new_pair(tmp_path)[0].subject.rfc4514_string() == "O=Example,CN=device-9"


# Templates that a label requires.

USAGE = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
NAME = x509.Name.from_rfc4514_string("O=Example,CN=device-1")
GOOD = csr(NAME, x509.DNSName("one.example"), USAGE, key=P384)
LACKS = (
    "The CSR lacks what is insisted on here: organizationName=Example in the subject; "
    "a key ec:P-384 (it has ec:P-256); subjectAltName; keyUsage."
)


def test_q7_a_csr_is_refused_with_the_list_of_what_it_lacks(served):
    books = served.lab.books()
    answer = served.post("strict/simpleenroll", armoured(csr("device-1")))
    assert (answer.status, answer.words) == (400, LACKS)
    assert served.lab.books() == books
    assert LACKS.rstrip(".").removeprefix("The") in served.access[-1]["reason"]


def test_q7_a_csr_that_lacks_nothing_is_served(served):
    issued = served.post("strict/simpleenroll", armoured(GOOD)).certificate
    assert issued.public_key() == P384.public_key()


@pytest.mark.parametrize("version", [V12, V13])
def test_q7_a_csr_is_refused_before_a_script_runs(served, version):
    """The 400 is the gateway's: neither authorize nor the handler has run."""
    assert served.post("free/simpleenroll", armoured(csr("device-1")), version=version).status == 200
    before = decisions(served)
    assert served.post("strict/simpleenroll", armoured(csr("device-1", key=RSA)), version=version).status == 400
    assert decisions(served) == before


def test_a_client_without_a_login_does_not_learn_the_template(served):
    assert served.post("strict/simpleenroll", armoured(csr("device-1")), login=None).status == 401


def test_csr_template_null_requires_nothing(served):
    assert served.post("free/simpleenroll", armoured(csr("device-1"))).status == 200
    assert served.post("simpleenroll", armoured(csr("device-1"))).status == 200


def test_the_shipped_csrattrs_can_be_required(served):
    assert served.post("fitting/simpleenroll", armoured(csr("device-1"))).status == 200
    answer = served.post("fitting/simpleenroll", armoured(csr("device-1", key=RSA)))
    assert answer.words == (
        "The CSR lacks what is insisted on here: a key ec:P-256 (it has rsa:2048); "
        "a signature with ecdsa-with-SHA256 (it has sha256WithRSAEncryption)."
    )


def test_a_renewal_must_meet_the_template_too(served, device):
    answer = served.post("strict/simplereenroll", armoured(csr("device-1")), login=None, certificate=device)
    assert (answer.status, answer.words) == (400, LACKS)


def test_serverkeygens_csr_need_not_have_the_key(served):
    """RFC 7030 4.4.1: key and signature of that CSR are ignored; the names count."""
    lacks = LACKS.replace("a key ec:P-384 (it has ec:P-256); ", "")
    answer = served.post("strict/serverkeygen", armoured(csr("device-1")))
    assert (answer.status, answer.words) == (400, lacks)
    own = csr(NAME, x509.DNSName("one.example"), USAGE)
    assert served.post("strict/serverkeygen", armoured(own)).status == 200


def test_a_csr_template_of_callouts_applies_to_all_labels(own_lab):
    (own_lab.path / "insisted.yaml").write_text("- serialNumber\n")
    with running_gateway(own_lab, {"callouts": {"csr_template": "insisted.yaml"}, "labels": {"x": {}}}) as gateway:
        for path in ("simpleenroll", "x/simpleenroll"):
            answer = gateway.post(path, armoured(csr("device-1")))
            assert answer.words == "The CSR lacks what is insisted on here: serialNumber."
        name = x509.Name.from_rfc4514_string("2.5.4.5=A-1,CN=device-1")
        assert gateway.post("simpleenroll", armoured(csr(name))).status == 200

        # An edit takes effect at the next reload; a faulty one changes nothing.
        (own_lab.path / "insisted.yaml").write_text("- serialNumbr\n")
        refused = gateway.reload()
        assert "insisted.yaml:1:3: 0: 'serialNumbr' is no name known here" in json.dumps(refused)
        assert gateway.post("simpleenroll", armoured(csr(name))).status == 200
        (own_lab.path / "insisted.yaml").write_text("- macAddress\n")
        gateway.reload()
        assert gateway.post("simpleenroll", armoured(csr(name))).words.endswith(": macAddress.")


def test_estgw_check_reports_a_fault_in_a_template(own_lab):
    (own_lab.path / "insisted.yaml").write_text("- key: ec:P-1\n- 2.10\n")
    own_lab.edit("conf.yaml", "  # csr_template: null", "  csr_template: insisted.yaml")
    done = run(*forked_estgw(), "check", "-c", own_lab.path / "conf.yaml", status=1, cwd=ROOT)
    assert done.stderr.decode() == (
        f'estgw: {own_lab.path}/insisted.yaml:2:3: YAML reads 2.10 as a float; quote it: "2.10"'
        " (the default label, label python)\n"
    )


def test_estgw_run_refuses_a_csr_with_the_same_words(own_lab):
    (own_lab.path / "insisted.yaml").write_text(INSISTED)
    own_lab.edit("conf.yaml", "  # csr_template: null", "  csr_template: insisted.yaml")
    with tempfile.NamedTemporaryFile() as file:
        file.write(armoured(csr("device-1")))
        file.flush()
        command = [*forked_estgw(), "run", "simpleenroll", "-c", own_lab.path / "conf.yaml"]
        done = run(*command, "--csr", file.name, "--user", "estuser", status=1, cwd=ROOT)
    assert LACKS in done.stdout.decode()
