"""The bytes of the answers. Without each of these rules, a real client fails."""

from __future__ import annotations

import base64
import email
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from estgw.est import certs
from tests.kit.connection import CERTS_ONLY, V12, V13, request
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, running_gateway

GOOD = csr()

CANONICAL = {
    "Allow", "Connection", "Content-Length", "Content-Transfer-Encoding", "Content-Type", "Date", "Retry-After",
    "Server", "WWW-Authenticate",
}  # fmt: skip

ANSWERS = {
    "cacerts": (request("GET", "cacerts"), 200),
    "enrol": (request("POST", "simpleenroll", GOOD, login=LOGIN), 200),
    "draft": (request("POST", "simpleEnroll", GOOD, login=LOGIN), 200),
    "csrattrs": (request("GET", "csrattrs"), 200),
    "keygen": (request("POST", "keygen/serverkeygen", GOOD, login=LOGIN), 200),
    "no wishes": (request("GET", "no-wishes/csrattrs"), 204),
    "pending": (request("POST", "later/simpleenroll", GOOD, login=LOGIN), 202),
    "bad": (request("POST", "simpleenroll", b"?", login=LOGIN), 400),
    "nobody": (request("POST", "simpleenroll", GOOD), 401),
    "refused": (request("POST", "refused/simpleenroll", GOOD, login=LOGIN), 403),
    "nowhere": (request("GET", "nowhere"), 404),
    "method": (request("GET", "simpleenroll"), 405),
    "type": (request("POST", "simpleenroll", GOOD, headers={"Content-Type": "text/plain"}), 415),
    "crash": (request("POST", "crash/simpleenroll", GOOD, login=LOGIN), 500),
    "cmc": (request("POST", "fullcmc", b"MAA=", login=LOGIN, headers={"Content-Type": "application/pkcs7-mime"}), 400),
    "busy": (request("POST", "busy/simpleenroll", GOOD, login=LOGIN), 503),
}


@pytest.mark.parametrize("version", [V12, V13], ids=["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_is_one_write_with_its_length(bench, name, version):
    """Head and body in one TLS record: a read returns one record at most, so one read has it all."""
    raw, status = ANSWERS[name]
    with bench.connect(version=version) as connection:
        connection.send(raw)
        record = connection.receive()
        head, divider, body = record.partition(b"\r\n\r\n")
        assert divider
        assert re.match(rb"HTTP/1\.1 %d [A-Z]" % status, head), head
        assert len(head) + 4 < 1024
        names = [line.partition(b":")[0].decode() for line in head.split(b"\r\n")[1:]]
        assert len(set(names)) == len(names)
        assert set(names) <= CANONICAL
        assert b"chunked" not in head.lower()
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        if status == 204:
            assert (length, body) == (None, b"")
        else:
            assert length is not None
            assert int(length[1]) == len(body)
        # Nothing follows it: the next bytes belong to the next answer.
        assert connection.ask("GET", "cacerts").status == 200


def test_the_server_header_has_program_and_version(gateway):
    answer = gateway.get("cacerts")
    assert re.fullmatch(r"estgw/\d+\.\d+\.\d+\S*", answer.header("Server") or "")


# Media types and Content-Transfer-Encoding.


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cacerts", "application/pkcs7-mime"),
        ("CACerts", "application/pkcs7-mime"),
        ("csrattrs", "application/csrattrs"),
        ("CSRAttrs", "application/csrattrs"),
        ("extra/crl", "application/x-crl"),
    ],
)
def test_fetched_answers_have_their_media_type(bench, path, expected):
    answer = bench.get(path)
    assert (answer.status, answer.header("Content-Type")) == (200, expected)
    assert answer.header("Content-Transfer-Encoding") == "base64"


@pytest.mark.parametrize(
    ("path", "sent", "expected"),
    [
        ("simpleenroll", "application/pkcs10", CERTS_ONLY),
        ("simpleenroll", "application/x-est-pkcs10", "application/pkcs7-mime"),
        ("simpleEnroll", "application/pkcs10", "application/pkcs7-mime"),
        ("simpleEnroll", None, "application/pkcs7-mime"),
        ("draft/simpleenroll", "application/pkcs10", "application/pkcs7-mime"),
        ("rfc/simpleEnroll", "application/pkcs10", CERTS_ONLY),
    ],
)
def test_issued_answers_have_the_media_type_of_their_profile(bench, path, sent, expected):
    """One space and no quotes. Clients of the drafts compare with the bare type."""
    answer = bench.post(path, GOOD, headers={"Content-Type": sent})
    assert (answer.status, answer.header("Content-Type")) == (200, expected)
    assert answer.header("Content-Transfer-Encoding") == "base64"


@pytest.mark.parametrize("accept", ["text/html", "application/pkcs7-mime;q=0", "", None])
def test_accept_is_ignored(gateway, accept):
    assert gateway.get("cacerts", headers={"Accept": accept}).status == 200


def test_an_answer_holds_the_issued_certificate_alone(gateway, device):
    for answer in (gateway.post("simpleenroll", GOOD), gateway.post("simplereenroll", GOOD, certificate=device)):
        assert len(certs.unpack(base64.b64decode(answer.body))) == 1


def test_cacerts_holds_the_anchor(gateway):
    assert gateway.get("cacerts").certificates == [x509.load_pem_x509_certificate(gateway.lab.anchor.read_bytes())]


# Base64 lines.

LINES = re.compile(rb"([A-Za-z0-9+/=]{64}\n)*[A-Za-z0-9+/=]{1,64}\n")
UNBROKEN = re.compile(rb"[A-Za-z0-9+/=]+")


@pytest.mark.parametrize(
    ("headers", "form"),
    [
        ({"User-Agent": "curl/7.88.1", "Accept": "*/*"}, LINES),
        ({"User-Agent": None, "Accept": "*/*"}, LINES),
        ({"User-Agent": "libest", "Accept": None}, LINES),
        ({"User-Agent": "", "Accept": None}, LINES),
        ({"User-Agent": None, "Accept": None}, UNBROKEN),
    ],
)
def test_base64_has_lines_unless_user_agent_and_accept_are_missing(gateway, headers, form):
    for answer in (gateway.get("cacerts", headers=headers), gateway.post("simpleenroll", GOOD, headers=headers)):
        assert form.fullmatch(answer.body), answer.body
        base64.b64decode(answer.body, validate=form is UNBROKEN)


@pytest.mark.parametrize(("label", "form"), [("lines", LINES), ("unbroken", UNBROKEN)])
@pytest.mark.parametrize("agent", ["test", None])
def test_the_base64_lines_setting_overrides_the_client(bench, label, form, agent):
    answer = bench.get(f"{label}/cacerts", headers={"User-Agent": agent, "Accept": agent})
    assert form.fullmatch(answer.body), answer.body


# Empty bodies.


@pytest.mark.parametrize(
    ("path", "status"), [("simpleenroll", 401), ("later/simpleenroll", 202), ("soon/simpleenroll", 202)]
)
def test_an_empty_body_has_content_length_0_and_no_type(bench, path, status):
    answer = bench.post(path, GOOD, login=None if status == 401 else LOGIN)
    assert (answer.status, answer.body) == (status, b"")
    assert answer.header("Content-Length") == "0"
    assert answer.header("Content-Type") is None


def test_csrattrs_that_are_off_are_an_empty_404(own_lab):
    with running_gateway(own_lab, {"callouts": {"operations": {"csrattrs": {"enabled": False}}}}) as gateway:
        answer = gateway.get("csrattrs")
        assert (answer.status, answer.body, answer.header("Content-Length")) == (404, b"", "0")


@pytest.mark.parametrize(("label", "seconds"), [("later", range(60, 121)), ("soon", [7])])
def test_retry_after_is_whole_seconds(bench, label, seconds):
    answer = bench.post(f"{label}/simpleenroll", GOOD)
    assert answer.status == 202
    assert answer.header("Retry-After") in map(str, seconds)


def test_csrattrs_without_attributes_are_a_204(bench):
    answer = bench.get("no-wishes/csrattrs")
    assert answer.status == 204
    assert answer.header("Content-Type") is None
    assert answer.header("Content-Length") is None


def test_a_401_has_one_challenge_with_a_realm_only(gateway):
    answer = gateway.post("simpleenroll", GOOD, login=None)
    assert answer.header("WWW-Authenticate") == 'Basic realm="estrealm"'


# Connections.


def test_a_connection_stays_open_after_each_answer(gateway):
    with gateway.connect() as connection:
        for _ in range(3):
            answer = connection.ask("GET", "cacerts")
            assert answer.header("Connection") is None
            assert connection.ask("POST", "simpleenroll", GOOD, login=LOGIN).status == 200


@pytest.mark.parametrize("status", [200, 401, 404])
def test_a_connection_is_closed_on_request(gateway, status):
    """At once and with close_notify. Otherwise a client that waits for the end would wait for ten seconds."""
    method, path, body = {200: ("GET", "cacerts", None), 404: ("GET", "nowhere", None)}.get(
        status, ("POST", "simpleenroll", GOOD)
    )
    with gateway.connect() as connection:
        answer = connection.ask(method, path, body, headers={"Connection": "close"})
        assert (answer.status, answer.header("Connection")) == (status, "close")
        assert connection.tls.recv(1) == b""  # an end without close_notify would raise


@pytest.mark.parametrize("version", [V12, V13], ids=["TLSv1.2", "TLSv1.3"])
def test_a_401_keeps_the_connection_and_its_binding(gateway, version):
    with gateway.connect(version=version, pyopenssl=version == V13) as connection:
        binding = connection.tls_exporter if version == V13 else connection.tls_unique
        linked = csr(challenge=base64.b64encode(binding).decode())
        assert connection.ask("POST", "simpleenroll", linked).status == 401
        assert connection.ask("POST", "simpleenroll", linked, login="estuser:no").status == 401
        assert connection.ask("POST", "simpleenroll", linked, login=LOGIN).status == 200
    assert gateway.access[-1]["pop"] == "linked"


def test_pipelined_requests_are_answered_in_order(bench):
    with bench.connect() as connection:
        connection.send(
            request("POST", "slow/simpleenroll", GOOD, login=LOGIN)
            + request("GET", "nowhere")
            + request("GET", "csrattrs")
        )
        assert [connection.response().status for _ in range(3)] == [200, 404, 200]


def test_after_expect_the_401_comes_after_the_body(gateway):
    """The body is read first. Otherwise the connection could not be used again."""
    with gateway.connect() as connection:
        raw = request("POST", "simpleenroll", GOOD, headers={"Expect": "100-continue"})
        head, body = raw[: -len(GOOD)], raw[-len(GOOD) :]
        connection.send(head)
        assert connection.response().status == 100
        connection.send(body)
        assert connection.response().status == 401
        assert connection.ask("GET", "cacerts").status == 200


def test_a_refusal_instead_of_100_continue_ends_the_connection(gateway):
    with gateway.connect() as connection:
        headers = {"Expect": "100-continue", "Content-Type": "text/plain"}
        raw = request("POST", "simpleenroll", GOOD, headers=headers)
        connection.send(raw[: -len(GOOD)])
        answer = connection.response()
        assert (answer.status, answer.header("Connection")) == (415, "close")


# Server-side key generation (RFC 7030 4.4.2).


def test_keygen_is_two_parts_that_belong_together(bench):
    answer = bench.post("keygen/serverkeygen", GOOD)
    assert answer.status == 200
    media_type = answer.header("Content-Type")
    assert media_type is not None
    assert media_type.startswith("multipart/mixed; boundary=")
    assert answer.header("Content-Transfer-Encoding") is None
    message = email.message_from_bytes(f"Content-Type: {media_type}\r\n\r\n".encode() + answer.body)
    parts = list(message.walk())[1:]
    assert not message.defects
    assert [part["Content-Type"] for part in parts] == ["application/pkcs8", CERTS_ONLY]
    assert [part["Content-Transfer-Encoding"] for part in parts] == ["base64", "base64"]
    key_der, certificate_der = (base64.b64decode(str(part.get_payload())) for part in parts)
    key = serialization.load_der_private_key(key_der, None)
    (certificate,) = pkcs7.load_der_pkcs7_certificates(certificate_der)
    assert key.public_key() == certificate.public_key()
    assert certificate.public_key() != x509.load_der_x509_csr(GOOD).public_key()
    assert certificate.subject == x509.load_der_x509_csr(GOOD).subject
    bench.lab.verify(certificate)


def test_keygen_accepts_a_csr_with_a_broken_signature(bench):
    assert bench.post("keygen/serverkeygen", GOOD[:-1] + bytes([GOOD[-1] ^ 1])).status == 200


def test_keygen_is_off_by_default(gateway):
    answer = gateway.post("serverkeygen", GOOD)
    assert (answer.status, answer.words) == (404, "serverkeygen is not switched on here.")


# Answers as the script wants them.


def test_raw_output_is_sent_unchanged(bench):
    answer = bench.post("raw/simpleenroll", GOOD)
    assert (answer.status, answer.body) == (200, b"wrong on purpose")
    assert answer.header("Content-Type") == "text/x-lesson"
    assert answer.header("Content-Transfer-Encoding") is None


def test_fullcmc_can_be_switched_off(own_lab):
    own_lab.script("handlers/openssl/fullcmc", "exit 64")
    with running_gateway(own_lab) as gateway:
        answer = gateway.post("fullcmc", b"MAA=", headers={"Content-Type": "application/pkcs7-mime"})
        assert (answer.status, answer.words) == (501, "This operation is not offered here.")
        gateway.configure({"callouts": {"operations": {"fullcmc": {"enabled": False}}}})
        gateway.reload()
        assert gateway.post("fullcmc", b"MAA=", headers={"Content-Type": "application/pkcs7-mime"}).status == 404


def test_an_operation_from_the_configuration_is_served(bench):
    assert x509.load_der_x509_certificate(bench.get("extra/crl").der)
    assert bench.get("crl").status == 404


# A Full PKI Response is the body, even if it refuses or postpones (RFC 7030 4.3.2).

CMC = {"Content-Type": "application/pkcs7-mime; smime-type=CMC-request"}
MESSAGE = 'openssl crl2pkcs7 -nocrl -certfile "$EST_CA_DIR/cacert.pem" -outform DER'


@pytest.mark.parametrize(
    ("head", "status", "headers"),
    [
        ("Status: 400", 400, {}),
        ("Status: 403\\nX-Why: badIdentity", 403, {"X-Why": "badIdentity"}),
        ("Status: 500", 500, {}),
        ("Status: 202", 202, {}),
        ("Status: 202\\nRetry-After: 7", 202, {"Retry-After": "7"}),
    ],
)
def test_a_full_pki_response_is_sent_with_any_status(own_lab, head, status, headers):
    own_lab.script("handlers/openssl/fullcmc", f"printf '{head}\\n\\n'; {MESSAGE}")
    with running_gateway(own_lab) as gateway:
        answer = gateway.post("fullcmc", b"MAA=", headers=CMC)
        assert (answer.status, answer.header("Content-Transfer-Encoding")) == (status, "base64")
        assert answer.header("Content-Type") == "application/pkcs7-mime; smime-type=CMC-response"
        assert {name: answer.header(name) for name in headers} == headers
        assert len(certs.unpack(base64.b64decode(answer.body))) == 1
        assert gateway.access[-1]["status"] == status


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("printf 'Status: 403\\n\\nnot on a Monday\\n'", 403, "not on a Monday"),
        ("echo 'no such secret'; exit 77", 403, "no such secret"),
        (f"printf 'Status: 401\\n\\n'; {MESSAGE}", 401, ""),
        ("printf 'Status: 202\\n\\nlater'", 202, ""),
        ("exit 64", 501, "This operation is not offered here."),
    ],
)
def test_fullcmc_without_a_message_answers_with_a_sentence(own_lab, text, status, words):
    own_lab.script("handlers/openssl/fullcmc", text)
    with running_gateway(own_lab) as gateway:
        answer = gateway.post("fullcmc", b"MAA=", headers=CMC)
        assert (answer.status, answer.body.decode().strip()) == (status, words)


def test_fullcmc_handler_gets_the_rules_for_the_requests_inside(own_lab):
    names = "POP_LINK|AUTHORIZE|CSR_T|MAY|NAME_B"
    own_lab.script("handlers/openssl/fullcmc", f"env | grep -E '^EST_({names})' | sort; exit 77")
    template = own_lab.path / "template.yaml"
    template.write_text("- key: ec:P-256\n")
    settings = {
        "pop": {"rules": [{"operation": "simpleenroll", "pop": "required"}, {"operation": "fullcmc", "pop": "waived"}]},
        "callouts": {"csr_template": "template.yaml", "change_subject_name": True},
    }
    with running_gateway(own_lab, settings) as gateway:
        assert gateway.post("fullcmc", b"MAA=", headers=CMC).words.splitlines() == [
            f"EST_AUTHORIZE={own_lab.path}/handlers/openssl/authorize",
            f"EST_CSR_TEMPLATE={template}",
            "EST_MAY_CHANGE_SUBJECT=1",
            "EST_NAME_BOUNDS=rfc5280 4096 16384",
            "EST_POP_LINKING=required",
        ]


def test_authorize_does_not_run_for_the_full_cmc_message(own_lab):
    """The handler runs `authorize` for each request inside the message."""
    own_lab.script("handlers/openssl/authorize", "exit 77")
    own_lab.script("handlers/openssl/fullcmc", MESSAGE)
    with running_gateway(own_lab) as gateway:
        assert gateway.post("fullcmc", b"MAA=", headers=CMC).status == 200
        assert gateway.post("simpleenroll", GOOD).status == 403
