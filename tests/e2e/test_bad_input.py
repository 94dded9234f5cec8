"""After any bad input the answer names the fault, nothing is issued, and the next request is served."""

from __future__ import annotations

import base64
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests.kit.ca import CA, Credential, broken_certificate
from tests.kit.connection import PKCS10, request
from tests.kit.csr import csr
from tests.kit.der import CN, T61, armoured, dn
from tests.kit.gateway import LOGIN, Gateway, running_gateway
from tests.kit.keys import KEY, KEY_PEM
from tests.kit.processes import run, until
from tests.kit.workspace import Workspace

GOOD = csr()


@pytest.fixture(autouse=True)
def unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing was issued and nothing written to the CA, and the gateway serves on."""
    names = [name for name in ("gateway", "bench") if name in request.fixturenames]
    gateways: list[Gateway] = [request.getfixturevalue(name) for name in names]
    if "device" in request.fixturenames:
        request.getfixturevalue("device")
    before = [gateway.lab.books() for gateway in gateways]
    yield
    assert [gateway.lab.books() for gateway in gateways] == before
    assert all(gateway.get("cacerts").status == 200 for gateway in gateways)


def test_a_client_certificate_with_unreadable_names_counts_as_none(gateway, tmp_path):
    key = load_pem_private_key((gateway.lab.ca / "private/cakey.pem").read_bytes(), None)
    ca = CA(x509.load_pem_x509_certificate(gateway.lab.anchor.read_bytes()), key)
    der = broken_certificate(ca, dn((CN, T61, b"M\xfcller")))
    files = Credential(x509.load_der_x509_certificate(der), KEY).write(tmp_path, "odd")
    assert gateway.get("cacerts", certificate=files).status == 200
    answer = gateway.post("simplereenroll", GOOD, certificate=files, login=None)
    assert answer.status == 403
    assert "the client's certificates can't be parsed" in answer.words


# Bodies that are not a CSR, and CSRs that are refused: 400.


def broken_signature() -> bytes:
    return GOOD[:-1] + bytes([GOOD[-1] ^ 1])


def another_subject() -> bytes:
    return GOOD.replace(b"device-1", b"device-2")


def by_openssl(digest: str) -> bytes:
    """A CSR that the library here refuses to make."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    command = "openssl req -new -config /dev/null -key /dev/stdin -outform DER -subj /CN=old"
    return run(*command.split(), digest, stdin=key).stdout


BODIES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (
        lambda: b"",
        r"The body is empty\. It must hold a PKCS#10, as curl --data-binary @req\.pem sends it\.",
    ),
    "the name of a file": (
        lambda: b"certs/req.pem",
        r'It is the text "certs/req\.pem": to send a file, write curl --data-binary @certs/req\.pem\.',
    ),
    "white space": (lambda: b" \r\n\t", r"The body is empty\."),
    "not base64": (lambda: b"%PDF-1.7 hello", r"Not base64: byte 0x25 at offset 0"),
    "base64 with an underscore": (lambda: base64.b64encode(GOOD)[:40] + b"_" + base64.b64encode(GOOD)[41:],
                               r"Not base64: byte 0x5f at offset 40"),
    "truncated base64": (lambda: base64.b64encode(GOOD)[:-5], r"Truncated base64"),
    "truncated at a quartet": (lambda: base64.b64encode(GOOD)[:-8], r"The CSR is cut off: \d bytes are missing\."),
    "base64 of junk": (lambda: base64.b64encode(b"junk, nothing but junk"),
                       r"Base64 of something that is not a DER SEQUENCE\."),
    "base64 of another SEQUENCE": (lambda: base64.b64encode(bytes.fromhex("300302012a")), r"Not a PKCS#10 CSR: "),
    "base64 twice": (lambda: base64.b64encode(base64.b64encode(GOOD)), r"Base64 of something that is not a DER"),
    "trailing bytes": (lambda: GOOD + b"\0\0\0", r"3 bytes too many after the end of the CSR\."),
    "trailing bytes in base64": (lambda: base64.b64encode(GOOD + b"\0"), r"1 bytes? too many after the end"),
    "truncated DER": (lambda: GOOD[:-10], r"The CSR is cut off: 10 bytes are missing\."),
    "broken signature": (broken_signature, r"The CSR's signature does not fit its key\."),
    "a subject changed afterwards": (another_subject, r"The CSR's signature does not fit its key\."),
    "RSA-1024": (lambda: csr(key=rsa.generate_private_key(65537, 1024)), r"An RSA key of 1024 bits; 2048 is the least"),
    "P-192": (lambda: csr(key=ec.generate_private_key(ec.SECP192R1())), r"An EC key of 192 bits; 224 is the least"),
    "SHA-1": (lambda: by_openssl("-sha1"), r"The CSR is signed with SHA1; use SHA-256\."),
    "MD5": (lambda: by_openssl("-md5"), r"The CSR is signed with MD5"),
    "an empty subject": (lambda: csr(x509.Name([])), r"The CSR's subject is empty\."),
    "a certificate": (lambda: armoured(GOOD, "CERTIFICATE"),
                      r"CERTIFICATE REQUEST is wanted; the body has: CERTIFICATE"),
    "a private key": (lambda: KEY_PEM,
                      r"CERTIFICATE REQUEST is wanted; the body has: PRIVATE KEY"),
    "two requests": (lambda: armoured(GOOD) * 2, r"[Ee]xactly one PEM block CERTIFICATE REQUEST is wanted"),
    "PEM without an end": (lambda: armoured(GOOD)[:-20], r"A PEM block that does not end\."),
    "PEM with junk inside": (lambda: armoured(GOOD).replace(b"M", b"!"), r"PEM block CERTIFICATE REQUEST: not base64"),
}  # fmt: skip


@pytest.mark.parametrize("operation", ["simpleenroll", "simpleEnroll"])
@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_a_400_that_names_the_fault(gateway, name, operation):
    make, words = BODIES[name]
    answer = gateway.post(operation, make())
    assert answer.status == 400
    assert re.search(words, answer.words), answer.words
    line = gateway.access[-1]
    assert (line["status"], line["level"]) == (400, "info")
    assert line["reason"].rstrip(".") in answer.words
    assert "serial" not in line


def test_a_certificate_as_the_body_is_a_400(gateway):
    answer = gateway.post("simpleenroll", gateway.lab.anchor.read_bytes())
    assert (answer.status, "CERTIFICATE REQUEST is wanted" in answer.words) == (400, True)


def test_a_reenroll_with_a_broken_signature_is_a_400(gateway, device):
    answer = gateway.post("simplereenroll", broken_signature(), certificate=device, login=None)
    assert (answer.status, answer.words) == (400, "The CSR's signature does not fit its key.")


# Not authenticated: 401.


@pytest.mark.parametrize(
    "header",
    {
        "nothing": None,
        "a wrong password": b"estuser:wrong",
        "an unknown user": b"nobody:estpwd",
        "an empty password": b"estuser:",
        "an empty user": b":estpwd",
        "both empty": b":",
        "no colon": b"estuser",
        "a control character": b"est\x00user:estpwd",
        "the password and more": b"estuser:estpwd1",
        "another case": b"EstUser:estpwd",
        "a very long password": b"estuser:" + b"x" * 2000,
        "not base64": "Basic estuser:estpwd",
        "nothing after the scheme": "Basic",
        "an unknown scheme": "Bearer abc",
        "not Latin-1": "Basic \udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    }.items(),
    ids=lambda item: item[0],
)
def test_wrong_credentials_get_401_with_a_challenge(gateway, header):
    value = f"Basic {base64.b64encode(header[1]).decode()}" if isinstance(header[1], bytes) else header[1]
    answer = gateway.post("simpleenroll", GOOD, login=None, headers={"Authorization": value})
    assert (answer.status, answer.body) == (401, b"")
    assert answer.header("WWW-Authenticate") == 'Basic realm="estrealm"'


def test_two_authorization_headers_get_401(gateway):
    with gateway.connect() as connection:
        right = request("POST", "simpleenroll", GOOD, login=LOGIN)
        twice = right.replace(b"Content-Type", b"Authorization: Basic bm86bm8=\r\nContent-Type")
        connection.send(twice)
        assert connection.response().status == 401


def test_wrong_credentials_are_refused_despite_a_good_certificate(gateway, device):
    answer = gateway.post("simpleenroll", GOOD, certificate=device, login="estuser:wrong")
    assert answer.status == 401


def test_wrong_credentials_do_not_prevent_cacerts(gateway):
    assert gateway.get("cacerts", login="estuser:wrong").status == 200


def test_an_unknown_user_and_a_wrong_password_look_the_same(gateway):
    """The same bytes, the same words in the log, and about the same time, which the hash takes."""
    times: dict[str, list[float]] = {"nobody:guess": [], "estuser:guess": []}
    answers = set()
    reasons = set()
    with gateway.connect() as connection:
        for round_ in range(7):
            for login, spent in times.items():
                started = time.perf_counter()
                answer = connection.ask("POST", "simpleenroll", GOOD, login=f"{login}{round_}")
                spent.append(time.perf_counter() - started)
                answers.add((re.sub(rb"Date: [^\r]*", b"", answer.head), answer.body))
                reasons.add(gateway.access[-1]["reason"])
    assert len(answers) == len(reasons) == 1
    stranger, known = (statistics.median(spent) for spent in times.values())
    assert 0.5 < stranger / known < 2
    assert stranger > 0.02


# Forbidden: 403.


def test_reenroll_refuses_a_client_without_a_certificate(gateway):
    answer = gateway.post("simplereenroll", GOOD)
    assert answer.status == 403
    assert "certificate" in answer.words


@pytest.mark.parametrize("other", ["device-2", "DEVICE-1x", "device-1 "[:-1] + "0"])
def test_reenroll_refuses_another_subject(gateway, device, other):
    answer = gateway.post("simplereenroll", csr(other), certificate=device, login=None)
    assert answer.status == 403
    assert answer.words == (
        "A reenroll keeps subject and subject alternative name: "
        f"the CSR's subject is CN={other}, the certificate's is CN=device-1."
    )


def test_reenroll_refuses_an_additional_alternative_name(gateway, device):
    answer = gateway.post("simplereenroll", csr("device-1", x509.DNSName("a.example")), certificate=device, login=None)
    assert answer.status == 403
    assert "the CSR adds DNS:a.example" in answer.words


def test_reenroll_refuses_a_self_signed_certificate_and_says_why(gateway, tmp_path):
    """The connection is accepted, and the answer says why the certificate does not count."""
    script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -out c -subj /CN=device-1"
    run("bash", "-ec", script, cwd=tmp_path)
    pair = (tmp_path / "c", tmp_path / "k")
    assert gateway.get("cacerts", certificate=pair).status == 200
    answer = gateway.post("simplereenroll", GOOD, certificate=pair)
    assert answer.status == 403
    assert "self-signed certificate" in answer.words
    assert gateway.access[-1]["client_certificate"] == "self-signed certificate"


# Path, method and type: 404, 405, 415.


@pytest.mark.parametrize(
    ("path", "words"),
    {
        "/.well-known/est/simpleenrol": "No such EST operation here.",
        "/.well-known/est/nolabel/simpleenroll": "No such CA label here.",
        "/.well-known/est/simpleenroll/more": "No such EST operation here.",
        "/.well-known/est/a/b/simpleenroll": "Too many path segments: /.well-known/est[/label]/operation is the form.",
        "/.well-known/est/simpleenroll/": "The path ends in a slash; operations do not.",
        "/.well-known/est": "No operation in the path: /.well-known/est/cacerts would be one.",
        "/.well-known/est/": "No operation in the path: /.well-known/est/cacerts would be one.",
        "/.well-known/est//simpleenroll": "No such CA label here.",
        "/.well-known/est/../est/cacerts": "Too many path segments: /.well-known/est[/label]/operation is the form.",
        "/.well-known/est/serverkeygen": "serverkeygen is not switched on here.",
        "/.well-known/estx/simpleenroll": "EST lives under /.well-known/est/ here.",
        "/": "EST lives under /.well-known/est/ here.",
    }.items(),
)
def test_an_unknown_path_is_a_404_that_says_why(gateway, path, words):
    answer = gateway.post(path, GOOD)
    assert (answer.status, answer.words) == (404, words)


@pytest.mark.parametrize("path", ["%00", "simpleenroll%0d%0aX:y", "a%2fsimpleenroll", "%ff%fe", "%1b[31mred"])
def test_a_malformed_path_is_a_400(gateway, path):
    answer = gateway.post(f"/.well-known/est/{path}", GOOD)
    assert answer.status == 400
    assert answer.words.startswith("The path ")


@pytest.mark.parametrize(
    ("method", "operation", "allow"),
    [
        ("GET", "simpleenroll", "POST"),
        ("PUT", "simpleenroll", "POST"),
        ("DELETE", "simplereenroll", "POST"),
        ("OPTIONS", "simpleenroll", "POST"),
        ("POST", "cacerts", "GET"),
        ("POST", "csrattrs", "GET"),
        ("HEAD", "simpleenroll", "POST"),
    ],
)
def test_a_wrong_method_is_a_405_that_names_the_right_one(gateway, method, operation, allow):
    with gateway.connect() as connection:
        answer = connection.ask(method, operation, GOOD if method in ("POST", "PUT") else None)
    assert answer.status == 405
    assert answer.header("Allow") == allow
    if method != "HEAD":
        assert answer.words == f"{operation} is a {allow}."


@pytest.mark.parametrize(
    "content_type",
    ["application/pkcs10x", "application/x-pkcs10", "text/plain", "application/x-www-form-urlencoded", None],
)
def test_a_wrong_content_type_is_a_415_that_names_the_right_one(gateway, content_type):
    answer = gateway.post("simpleenroll", GOOD, headers={"Content-Type": content_type})
    assert answer.status == 415
    told = f"not {content_type}" if content_type else "and none was given"
    assert answer.words == f"simpleenroll takes {PKCS10}, {told}."


# Too much: 413, and not HTTP: 400.


def test_an_announced_large_body_is_a_413_before_it_is_sent(gateway):
    with gateway.connect() as connection:
        connection.send(request("POST", "simpleenroll", None, login=LOGIN, headers={
            "Content-Type": PKCS10, "Content-Length": str(256 * 1024 + 1)}))  # fmt: skip
        answer = connection.response()
    assert (answer.status, answer.words) == (413, "The body is larger than 262144 bytes.")
    assert answer.header("Connection") == "close"


def test_a_chunked_body_is_a_413_as_soon_as_it_is_too_large(gateway):
    headers = {"Transfer-Encoding": "chunked", "Content-Type": PKCS10}
    with gateway.connect() as connection:
        connection.send(request("POST", "simpleenroll", None, login=LOGIN, headers=headers))
        connection.send((b"10000\r\n" + bytes(65536) + b"\r\n") * 5)  # and no end
        assert connection.response().status == 413


def test_a_body_of_the_largest_size_is_read(gateway):
    answer = gateway.post("simpleenroll", b" " * (256 * 1024))
    assert answer.status == 400
    assert answer.words.startswith("The body is empty.")


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST /.well-known/est/simpleenroll HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    "raw",
    {
        "two lengths": head("Content-Length: 4", "Content-Length: 5") + b"MIIB",
        "a length and chunks": head("Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        "a negative length": head("Content-Length: -1"),
        "a length in words": head("Content-Length: four") + b"MIIB",
        "obsolete folding": head("X-Folded: a", " b", "Content-Length: 0"),
        "NUL in a header": head("X-Nul: a\0b", "Content-Length: 0"),
        "NUL in a name": head("X\0Nul: ab", "Content-Length: 0"),
        "a blank before the colon": head("X-Blank : a", "Content-Length: 0"),
        "no colon": head("nothing at all", "Content-Length: 0"),
        "not HTTP": b"EHLO localhost\r\n\r\n",
        "an endless line": b"GET /" + b"a" * 10000 + b" HTTP/1.1\r\n\r\n",
        "an endless header": head("X-Long: " + "a" * 10000),
        "a bad chunk": head("Transfer-Encoding: chunked", "Content-Type: application/pkcs10")
        + b"zz\r\nabc\r\n0\r\n\r\n",
        "an unknown coding": head("Transfer-Encoding: gzip", "Content-Type: application/pkcs10") + b"abc",
    }.items(),
    ids=lambda item: item[0],
)
def test_malformed_http_is_a_400(gateway, raw):
    with gateway.connect() as connection:
        connection.send(raw[1])
        answer = connection.response()
    assert answer.status == 400, answer
    assert answer.words.startswith(("This is not a well-formed HTTP request: ", "The body's framing is broken."))


@pytest.mark.parametrize("version", [" HTTP/2.0", " HTTP/0.9", ""])
def test_another_http_version_is_a_400(gateway, version):
    with gateway.connect() as connection:
        connection.send(f"GET /.well-known/est/cacerts{version}\r\n\r\n".encode())
        answer = connection.response()
    assert (answer.status, answer.words) == (400, "The HTTP version is not 1.1.")


def test_http_1_0_is_served_and_closed(gateway):
    with gateway.connect() as connection:
        connection.send(b"GET /.well-known/est/cacerts HTTP/1.0\r\n\r\n")
        assert connection.response().status == 200
        assert connection.rest() == b""


def test_a_bad_request_closes_the_connection(gateway):
    """The gateway no longer knows where the next request begins."""
    with gateway.connect() as connection:
        connection.send(head("Content-Length: 4", "Content-Length: 5") + b"MIIB" + request("GET", "cacerts"))
        assert connection.response().status == 400
        assert connection.rest() == b""


def test_a_query_like_a_bash_function_is_served(gateway):
    """The query stays percent-encoded, so Bash cannot read it as a function."""
    assert gateway.get("cacerts?()%20{%20:;};").status == 200
    assert gateway.get("cacerts?a\x7fb").status == 400


# Scripts that misbehave: the client gets the request id, the log has the rest.

FAILURES = {
    "crash": (500, r"crash exited with 1, which is a fault of the script"),
    "signal": (500, r"signal: ended by signal 11"),
    "junk": (500, r"junk: not base64"),
    "silent": (500, r"silent: printed nothing"),
    "broken-head": (500, r"broken-head: not a header line: b'no colon here'"),
    "endless-head": (500, r"endless-head: .*empty line"),
    "two": (500, r"two: \d certificates, where the answer holds the issued one alone"),
    "key": (500, r"key: the output holds a private key, which this operation never sends"),
    "flood": (500, r"flood: flooded its stdout, killed"),
    "flood-stderr": (500, r"flood-stderr: flooded its stderr, killed"),
    "hang": (504, r"hang: over its 0\.5 s, killed"),
}


@pytest.mark.parametrize("label", FAILURES)
def test_a_misbehaving_script_is_a_500_or_504_and_logged(bench, label):
    status, words = FAILURES[label]
    started = time.monotonic()
    answer = bench.post(f"{label}/simpleenroll", GOOD)
    assert answer.status == status
    assert time.monotonic() - started < 5
    line = bench.access[-1]
    assert (line["status"], line["label"]) == (status, label)
    assert re.search(words, line["reason"]), line
    # The client can quote the id, but does not see the reason.
    assert line["request_id"] in answer.words
    assert label not in answer.words
    assert "PRIVATE KEY" not in bench.log_text


def test_stderr_of_a_crashed_script_is_in_the_log(bench):
    bench.post("crash/simpleenroll", GOOD)
    said = [line for line in bench.lines_of(bench.access[-1]["request_id"]) if line["event"] == "handler stderr"]
    assert [(line["handler"], line["line"], line["level"]) for line in said] == [
        ("crash", "line 3: no such thing", "warning")
    ]


def test_a_script_that_ignores_sigterm_is_killed(bench):
    answer = bench.post("stubborn/simpleenroll", GOOD)
    assert answer.status == 504
    assert not alive(int((bench.lab.path / "stubborn.pid").read_text()))


def test_a_scripts_background_child_delays_nothing_and_is_ended(bench):
    started = time.monotonic()
    assert bench.post("child/simpleenroll", GOOD).status == 200
    assert time.monotonic() - started < 5
    child = int((bench.lab.path / "child.pid").read_text())
    until(lambda: not alive(child))


def alive(process: int) -> bool:
    """A zombie does not count: its parent has not collected it yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_script_need_not_read_its_input(bench):
    assert bench.post("no-input/simpleenroll", GOOD).status == 200


@pytest.mark.parametrize(
    ("label", "status", "words"),
    [
        ("bad-request", 400, "the serial number is missing"),
        ("refused", 403, "not on the list"),
        ("busy", 503, "the CA sleeps"),
        ("unknown", 501, "This operation is not offered here."),
        ("conflict", 409, "twice"),
    ],
)
def test_a_scripts_verdict_and_words_reach_the_client(bench, label, status, words):
    answer = bench.post(f"{label}/simpleenroll", GOOD)
    assert (answer.status, answer.words) == (status, words)
    assert answer.retries_after(60) == (status == 503)
    assert answer.header("Set-Cookie") is None
    assert answer.header("X-Why") == ("twice" if status == 409 else None)


# A script that goes away and comes back.


@pytest.fixture(scope="module")
def fragile(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(lab.copy(tmp_path_factory.mktemp("fragile"))) as running:
        yield running


def remove(script: Path) -> Callable[[], object]:
    kept = script.rename(script.with_name("away"))
    return lambda: kept.rename(script)


def forbid(script: Path) -> Callable[[], object]:
    script.chmod(0o644)
    return lambda: script.chmod(0o755)


def behead(script: Path) -> Callable[[], object]:
    text = script.read_text()
    script.write_text(text.replace("#!/bin/bash", "#!/no/such/interpreter"))
    return lambda: script.write_text(text)


@pytest.mark.parametrize("harm", [remove, forbid, behead])
def test_a_script_that_cannot_be_started_is_a_500_until_repaired(fragile, harm):
    before = fragile.lab.books()
    repair = harm(fragile.lab.path / "handlers/openssl/simpleenroll")
    answer = fragile.post("simpleenroll", GOOD)
    assert answer.status == 500
    line = fragile.access[-1]
    assert line["request_id"] in answer.words
    assert re.search(r"could not start .*simpleenroll: .*(No such file|Permission denied)", line["reason"])
    assert fragile.lab.books() == before
    repair()
    fragile.lab.verify(fragile.post("simpleenroll", GOOD).certificate)


def test_a_broken_ca_is_a_500_not_a_400(own_lab):
    own_lab.ca.joinpath("private/cakey.pem").unlink()
    with running_gateway(own_lab) as gateway:
        answer = gateway.post("simpleenroll", GOOD)
        assert answer.status == 500
        request_id = gateway.access[-1]["request_id"]
        assert request_id in answer.words
        assert any("cakey.pem" in line.get("line", "") for line in gateway.lines_of(request_id))


def test_scripts_leave_no_child_and_no_descriptor(bench):
    """No child and no descriptor remain, even after the misbehaving scripts above."""
    process = bench.process.pid
    until(lambda: not scripts(process))
    descriptors = len(os.listdir(f"/proc/{process}/fd"))
    for label in ("crash", "silent", "child", "signal", "refused"):
        bench.post(f"{label}/simpleenroll", GOOD)
    until(lambda: len(os.listdir(f"/proc/{process}/fd")) <= descriptors)
    assert not scripts(process)


def scripts(process: int) -> list[int]:
    """The running scripts: children of the gateway and of its warm interpreter, which itself stays."""
    found = []
    for child in children(process):
        warm = b"forkserver" in Path(f"/proc/{child}/cmdline").read_bytes()
        found += children(child) if warm else [child]
    return found


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
