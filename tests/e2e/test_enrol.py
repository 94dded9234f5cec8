"""Certificates for real clients: the curl line of the slides, `openssl s_client`, and channel bindings."""

from __future__ import annotations

import base64
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from tests.e2e.conftest import variables
from tests.kit.connection import V12, V13, request
from tests.kit.csr import csr
from tests.kit.der import armoured
from tests.kit.gateway import LOGIN, Gateway, enrol, running_gateway
from tests.kit.keys import KEY, KEY_PEM
from tests.kit.processes import run

CURL_LINE = """curl https://localhost:8443/.well-known/est/simpleEnroll --anyauth -u estuser:estpwd \\
  --cacert openssl-ca/cacert.pem --data-binary @req.pem -H "Content-Type: application/x-est-pkcs10"
"""
"""The command on the slides of 2012."""

VERSIONS = {"TLSv1.2": V12, "TLSv1.3": V13}
both_versions = pytest.mark.parametrize("version", VERSIONS)


class Shell:
    """A directory for commands, with a request and the trust anchor, and without a curl configuration."""

    def __init__(self, path: Path, gateway: Gateway) -> None:
        self.path, self.gateway = path, gateway
        (path / "openssl-ca").mkdir()
        (path / "openssl-ca/cacert.pem").write_bytes(gateway.lab.anchor.read_bytes())
        (path / "req.pem").write_bytes(armoured(csr("device-1")))

    def type(self, line: str, *more: str, status: int = 0) -> tuple[bytes, str]:
        """Run a line in a shell, with only the port changed. Returns standard output and error."""
        command = f'{line.replace(":8443", f":{self.gateway.port}").rstrip()} "$@"'
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.path)}
        done = run("bash", "-c", command, "bash", *more, status=status, cwd=self.path, env=environment)
        return done.stdout, done.stderr.decode()

    def certificate(self, answer: bytes) -> x509.Certificate:
        """Unpack an answer as the printed instructions do, and verify the certificate."""
        (self.path / "answer").write_bytes(answer)
        pipe = "openssl base64 -d -in answer | openssl pkcs7 -inform DER -print_certs -out cert.pem"
        run("bash", "-ec", pipe, cwd=self.path)
        verdict = run("openssl", "verify", "-CAfile", "openssl-ca/cacert.pem", "cert.pem", cwd=self.path)
        assert verdict.stdout == b"cert.pem: OK\n"
        return x509.load_pem_x509_certificate((self.path / "cert.pem").read_bytes())


@pytest.fixture
def shell(gateway: Gateway, tmp_path: Path) -> Shell:
    return Shell(tmp_path, gateway)


def raw_key(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


OUR_KEY = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


# curl.


@pytest.mark.client("curl")
@pytest.mark.parametrize("spelling", ["simpleEnroll", "simpleenroll"])
@pytest.mark.parametrize("tls", ["--tlsv1.2 --tls-max 1.2", "--tlsv1.3"], ids=list(VERSIONS))
def test_the_curl_line_of_the_slides_enrols(shell, spelling, tls):
    answer, _ = shell.type(CURL_LINE.replace("simpleEnroll", spelling), *tls.split())
    certificate = shell.certificate(answer)
    assert certificate.subject.rfc4514_string() == "CN=device-1"
    assert raw_key(certificate) == OUR_KEY
    # --anyauth sends the request twice over one connection: first without credentials.
    first, second = shell.gateway.access[-2:]
    assert [first["status"], second["status"]] == [401, 200]
    assert second["tls"] == ("TLSv1.3" if tls == "--tlsv1.3" else "TLSv1.2")
    assert int(second["serial"], 16) == certificate.serial_number
    assert "serial" not in first


@pytest.mark.client("curl")
def test_curl_shows_the_gateways_words(shell):
    (shell.path / "req.pem").write_bytes(b"nothing, of the kind")
    answer, _ = shell.type(CURL_LINE)
    assert b"not base64: byte 0x" in answer.lower()


@pytest.mark.client("curl")
def test_curl_with_digest_gets_401_where_only_basic_is_offered(shell):
    before = shell.gateway.lab.books()
    answer, _ = shell.type(CURL_LINE.replace("--anyauth", "--digest"), "-w", "%{http_code}")
    assert answer == b"401"
    assert shell.gateway.lab.books() == before
    line = shell.gateway.access[-1]
    # curl sends no body until it knows the nonce. The gateway answers with a challenge, not a 400.
    assert (line["status"], line["operation"]) == (401, "simpleenroll")


@pytest.mark.client("curl")
def test_curl_enrols_a_large_csr_after_100_continue(shell):
    padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.9900.1"), bytes(20_000))
    (shell.path / "req.pem").write_bytes(armoured(csr("large", padding)))
    answer, trace = shell.type(CURL_LINE, "-v", "-H", "Expect: 100-continue")
    assert shell.certificate(answer).subject.rfc4514_string() == "CN=large"
    assert trace.count("HTTP/1.1 100 Continue") == 2
    assert "Re-using existing connection" in trace  # the 401 came after the body and kept the connection
    assert trace.count("SSL connection using") == 1


@pytest.mark.client("curl")
def test_curl_enrols_with_a_chunked_request(shell):
    answer, trace = shell.type(CURL_LINE, "-v", "-H", "Transfer-Encoding: chunked")
    assert "> Transfer-Encoding: chunked" in trace
    shell.certificate(answer)


@pytest.mark.client("curl")
def test_a_draft_path_accepts_curls_default_content_type(shell):
    answer, _ = shell.type(CURL_LINE.partition(" -H ")[0].replace("--anyauth", "--basic"))
    shell.certificate(answer)


@pytest.mark.client("curl")
@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_curl_re_enrols_with_its_certificate(shell, tls):
    answer, _ = shell.type(CURL_LINE)
    first = shell.certificate(answer)
    (shell.path / "key.pem").write_bytes(KEY_PEM)
    line = CURL_LINE.replace("simpleEnroll", "simplereenroll").replace(
        "--anyauth -u estuser:estpwd", "--cert cert.pem --key key.pem"
    )
    second = shell.certificate(shell.type(line, "--tls-max", tls)[0])
    assert second.subject.public_bytes() == first.subject.public_bytes()
    assert second.serial_number != first.serial_number
    logged = shell.gateway.access[-1]
    assert (logged["identity"], logged["tls"]) == ("CN=device-1", f"TLSv{tls}")
    assert "user" not in logged


@pytest.mark.client("curl")
def test_curl_gets_cacerts_without_a_login(shell):
    line = "curl https://localhost:8443/.well-known/est/cacerts --cacert openssl-ca/cacert.pem"
    (shell.path / "answer").write_bytes(shell.type(line)[0])
    pipe = "openssl base64 -d -in answer | openssl pkcs7 -inform DER -print_certs | openssl x509"
    assert run("bash", "-ec", pipe, cwd=shell.path).stdout == shell.gateway.lab.anchor.read_bytes()


# openssl s_client: the protocol by hand.


@pytest.mark.client("openssl")
@pytest.mark.parametrize("tls", ["-tls1_2", "-tls1_3"])
def test_s_client_reenrolls_only_with_a_certificate(gateway, device, tls):
    command = ["openssl", "s_client", "-quiet", tls, "-connect", f"127.0.0.1:{gateway.port}"]
    command += ["-servername", "localhost", "-CAfile", str(gateway.lab.anchor), "-verify_return_error"]
    asked = request("POST", "simplereenroll", armoured(csr()), headers={"Connection": "close"})
    refused = run(*command, stdin=asked).stdout
    assert refused.startswith(b"HTTP/1.1 403 ")
    assert b"A reenroll renews the certificate" in refused or b"needs a TLS client certificate" in refused
    certificate, key = device
    answer = run(*command, "-cert", str(certificate), "-key", str(key), stdin=asked).stdout
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert base64.b64decode(answer.partition(b"\r\n\r\n")[2])[:1] == b"0"


# Bodies.


@pytest.mark.parametrize(
    "encoding",
    {
        "DER": lambda der: der,
        "DER and a line end": lambda der: der + b"\r\n",
        "base64": base64.b64encode,
        "base64 in lines": base64.encodebytes,
        "base64 with CRLF": lambda der: base64.encodebytes(der).replace(b"\n", b"\r\n"),
        "base64 with blanks and tabs": lambda der: b" \t" + base64.encodebytes(der).replace(b"\n", b"\n \t"),
        "PEM": armoured,
        "PEM of old": lambda der: armoured(der, "NEW CERTIFICATE REQUEST"),
        "PEM with text around": lambda der: b"Certificate Request:\n  Data:\n" + armoured(der) + b"bye\n",
        "PEM with CRLF": lambda der: armoured(der).replace(b"\n", b"\r\n"),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_csr_is_accepted_in_every_encoding(gateway, encoding):
    answer = gateway.post("simpleenroll", encoding[1](csr()))
    assert raw_key(answer.certificate) == OUR_KEY


@pytest.mark.parametrize(
    "content_type",
    ["application/pkcs10", "Application/PKCS10", "application/pkcs10; charset=utf-8", "application/x-est-pkcs10"],
)
def test_a_csr_is_accepted_under_every_spelling_of_its_type(gateway, content_type):
    answer = gateway.post("simpleenroll", csr(), headers={"Content-Type": content_type})
    gateway.lab.verify(answer.certificate)


def test_a_request_in_many_chunks_is_accepted(gateway):
    body = base64.b64encode(csr())
    pieces = [body[at : at + 50] for at in range(0, len(body), 50)]
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    headers = {"Transfer-Encoding": "chunked", "Content-Length": None}
    with gateway.connect() as connection:
        head = request("POST", "simpleenroll", b"", headers=headers, login=LOGIN)
        connection.send(head + chunked)
        assert connection.response().status == 200
        assert connection.ask("GET", "cacerts").status == 200


def test_a_stray_line_end_after_the_body_is_ignored(gateway):
    with gateway.connect() as connection:
        connection.send(request("POST", "simpleenroll", csr(), login=LOGIN) + b"\r\n")
        assert connection.response().status == 200
        connection.send(request("GET", "cacerts"))
        assert connection.response().status == 200


def test_the_header_content_transfer_encoding_is_ignored(gateway):
    headers = {"Content-Transfer-Encoding": "quoted-printable"}
    assert gateway.post("simpleenroll", csr(), headers=headers).status == 200


# What is issued.


@both_versions
def test_requested_names_are_issued_but_no_ca_certificate(gateway, version):
    san = [x509.DNSName("device.example"), x509.RFC822Name("d@device.example")]
    name = [x509.NameAttribute(NameOID.COMMON_NAME, "gerät"), x509.NameAttribute(NameOID.SERIAL_NUMBER, "17")]
    wish = x509.BasicConstraints(ca=True, path_length=None)
    der = csr(x509.Name(name), *san, wish)
    certificate = gateway.post("simpleenroll", der, version=VERSIONS[version]).certificate
    gateway.lab.verify(certificate)
    assert certificate.subject.public_bytes() == x509.load_der_x509_csr(der).subject.public_bytes()
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(found) == san
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)])
def test_p384_and_rsa_keys_are_certified(gateway, key):
    gateway.lab.verify(gateway.post("simpleenroll", csr("other", key=key)).certificate)


@both_versions
@pytest.mark.parametrize("other_key", [False, True], ids=["renew", "rekey"])
def test_reenroll_certifies_the_same_or_another_key(gateway, device, version, other_key):
    key = ec.generate_private_key(ec.SECP256R1()) if other_key else KEY
    options = {"certificate": device, "version": VERSIONS[version], "login": None}
    certificate = gateway.post("simplereenroll", csr(key=key), **options).certificate
    gateway.lab.verify(certificate)
    assert certificate.public_key() == key.public_key()


def test_a_reenrolled_certificate_can_reenroll(gateway, device, tmp_path):
    again = gateway.post("simplereenroll", csr(), certificate=device, login=None).certificate
    (tmp_path / "again.pem").write_bytes(again.public_bytes(Encoding.PEM))
    pair = (tmp_path / "again.pem", device[1])
    assert gateway.post("simplereenroll", csr(), certificate=pair, login=None).status == 200


def test_a_subject_like_a_bash_function_can_enrol_but_not_reenroll(gateway, tmp_path):
    """An old Bash would run a variable with this value as a function."""
    name = "() { :; }; touch /tmp/estgw-shocked"
    certificate, key = enrol(gateway, tmp_path, name)
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    assert loaded.subject == x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    answer = gateway.post("simplereenroll", csr(name), certificate=(certificate, key), login=None)
    assert (answer.status, answer.words) == (400, "The value for SSL_CLIENT_S_DN_CN begins like a shell function.")
    assert not Path("/tmp/estgw-shocked").exists()


def test_twelve_enrolments_at_once_get_twelve_certificates(own_lab):
    with running_gateway(own_lab) as gateway, ThreadPoolExecutor(12) as crowd:
        before = len((own_lab.ca / "index.txt").read_text().splitlines())
        answers = list(crowd.map(lambda number: gateway.post("simpleenroll", csr(f"d{number}")), range(12)))
        issued = [answer.certificate for answer in answers]
        rows = (own_lab.ca / "index.txt").read_text().splitlines()[before:]
        assert len({certificate.serial_number for certificate in issued}) == 12
        assert sorted(int(row.split("\t")[3], 16) for row in rows) == sorted(c.serial_number for c in issued)


# Channel bindings (RFC 7030 3.5).


def text(binding: bytes) -> str:
    return base64.b64encode(binding).decode()


def test_tls_unique_links_the_csr_to_the_connection(gateway):
    with gateway.connect(version=V12) as connection:
        assert len(connection.tls_unique) == 12
        answer = connection.ask("POST", "simpleenroll", csr(challenge=text(connection.tls_unique)), login=LOGIN)
    assert answer.status == 200
    assert gateway.access[-1]["pop"] == "linked"


def test_tls_unique_links_a_reenroll(gateway, device):
    with gateway.connect(version=V12, certificate=device) as connection:
        answer = connection.ask("POST", "simplereenroll", csr(challenge=text(connection.tls_unique)))
    assert answer.status == 200
    assert gateway.access[-1]["pop"] == "linked"


@pytest.mark.parametrize(
    "spoil",
    {
        "made up": lambda right, other: "bm90IHlvdXJz",
        "another connection's": lambda right, other: other,
        "junk appended": lambda right, other: right + "A",
        "itself twice": lambda right, other: right + right,
        "cut short": lambda right, other: right[:-1],
        "its beginning": lambda right, other: right[:4],
        "empty": lambda right, other: "",
        "in hex": lambda right, other: base64.b64decode(right).hex(),
        "another case": lambda right, other: right.swapcase(),
    }.items(),
    ids=lambda item: item[0],
)
def test_any_value_but_the_connections_tls_unique_is_a_400(gateway, spoil):
    before = gateway.lab.books()
    with gateway.connect(version=V12) as other, gateway.connect(version=V12) as connection:
        challenge = spoil[1](text(connection.tls_unique), text(other.tls_unique))
        answer = connection.ask("POST", "simpleenroll", csr(challenge=challenge), login=LOGIN)
    assert answer.status == 400
    assert re.search("challengePassword is not .* this TLS connection's tls-unique value", answer.words)
    assert gateway.lab.books() == before


def test_a_binding_may_end_with_a_line_end(gateway):
    with gateway.connect(version=V12) as connection:
        der = csr(challenge=text(connection.tls_unique) + "\n")
        assert connection.ask("POST", "simpleenroll", der, login=LOGIN).status == 200


def test_the_exporter_links_on_tls_13(gateway):
    with gateway.connect(version=V13, pyopenssl=True) as connection:
        der = csr(challenge=text(connection.tls_exporter))
        answer = connection.ask("POST", "simpleenroll", der, login=LOGIN)
    assert answer.status == 200
    assert gateway.access[-1]["pop"] == "linked"


@pytest.mark.parametrize("wrong", ["finished", "other"])
def test_finished_or_a_foreign_exporter_is_a_400_on_tls_13(gateway, wrong):
    with gateway.connect(version=V13, pyopenssl=True) as other:
        foreign = text(other.tls_exporter)
    with gateway.connect(version=V13) as connection:
        challenge = text(connection.tls_unique) if wrong == "finished" else foreign
        answer = connection.ask("POST", "simpleenroll", csr(challenge=challenge), login=LOGIN)
    assert answer.status == 400
    assert "tls-exporter" in answer.words


@both_versions
def test_the_script_gets_the_clients_binding(bench, version):
    pin = VERSIONS[version]
    with bench.connect(version=pin, pyopenssl=pin == V13) as connection:
        binding = text(connection.tls_exporter if pin == V13 else connection.tls_unique)
        absent = variables(connection.ask("POST", "reflect/simpleenroll", csr(), login=LOGIN).words)
        linked = variables(connection.ask("POST", "reflect/simpleenroll", csr(challenge=binding), login=LOGIN).words)
    kind = "tls-exporter" if pin == V13 else "tls-unique"
    for seen in (absent, linked):
        assert (seen["TLS_UNIQUE_SR"], seen["EST_TLS_BINDING"]) == (binding, kind)
        assert seen["SSL_PROTOCOL"] == version
    assert (absent["EST_POP"], linked["EST_POP"]) == ("absent", "linked")
