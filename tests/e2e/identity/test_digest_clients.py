"""Digest (RFC 7616) and Basic (RFC 7617) from real clients, and with every fault."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.kit.clients import digest_answer, digest_challenge, digest_file, sha_user
from tests.kit.connection import EST, Connection, Response, basic, request
from tests.kit.csr import csr
from tests.kit.der import VECTORS, armoured
from tests.kit.gateway import Gateway, running_gateway
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import ROOT, run
from tests.kit.scripts import REFLECT, REFLECTING, seen
from tests.kit.workspace import Workspace

ALICE = "alice:secret"
BODY = csr("device-1")
TARGET = f"{EST}/simpleenroll"
PYTHON = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}


@pytest.fixture(scope="module")
def own(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = lab.copy(tmp_path_factory.mktemp("digest"))
    made.script("reflect", REFLECT)
    (made.path / "users.htpasswd").write_text(sha_user("alice", "secret") + sha_user("", "pw"))
    digest_file(made, ALICE, ":pw", 'a"b, c=\\d:secret')
    return made


def settings(own: Workspace, **client_auth: Any) -> dict[str, Any]:
    return {
        "client_auth": {
            "digest": ["SHA-256", "MD5"],
            "digest_users": str(own.path / "users.htdigest"),
            "guess_delay": 0,
            **client_auth,
        },
        "callouts": {"operations": {"simpleenroll": {"handler": str(own.path / "reflect"), **REFLECTING}}},
        "labels": {"iot": {}, "lab": {}},
    }


@pytest.fixture(scope="module")
def gateway(own: Workspace) -> Iterator[Gateway]:
    with running_gateway(own, settings(own)) as running:
        yield running


def post(connection: Connection, header: str | None, path: str = "simpleenroll") -> Response:
    return connection.ask("POST", path, BODY, headers={"Authorization": header})


def challenges(answer: Response) -> list[str]:
    return [value for name, value in answer.headers if name.lower() == "www-authenticate"]


def says_stale(answer: Response) -> bool:
    """Whether a 401 has stale=true, in every Digest challenge and in no other (RFC 7616 3.3)."""
    assert (answer.status, answer.body) == (401, b"")
    found = {("stale=true" in value, value.startswith("Digest ")) for value in challenges(answer)}
    assert found in ({(True, True), (False, False)}, {(False, True), (False, False)})
    return (True, True) in found


# curl.


class Curl:
    """curl with a request of some size."""

    def __init__(self, path: Path, gateway: Gateway) -> None:
        self.path, self.gateway = path, gateway

    def body(self, size: int) -> None:
        """A CSR of about that many bytes of PEM."""
        padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.9900.1"), bytes(size * 3 // 4))
        (self.path / "req.pem").write_bytes(armoured(csr("device-1", padding)))

    def post(self, *options: str, login: str = ALICE) -> tuple[int, str]:
        """Status of the last answer, and the trace."""
        url = f"https://localhost:{self.gateway.port}{TARGET}"
        command = ["curl", "-sv", url, "-u", login, "--cacert", str(self.gateway.lab.anchor), "-o", "answer"]
        command += ["--data-binary", "@req.pem", "-H", "Content-Type: application/pkcs10", "-w", "%{http_code}"]
        done = run(*command, *options, cwd=self.path, env={"HOME": str(self.path), "PATH": "/usr/bin:/bin"})
        return int(done.stdout), done.stderr.decode()

    def seen(self) -> dict[str, str]:
        return dict(
            line.split("=", 1) for line in (self.path / "answer").read_text().splitlines() if re.match(r"\w+=", line)
        )


@pytest.fixture
def curl(tmp_path, gateway) -> Curl:
    made = Curl(tmp_path, gateway)
    made.body(800)
    return made


@pytest.mark.client("curl")
@pytest.mark.parametrize("option", ["--digest", "--anyauth"])
@pytest.mark.parametrize("size", [800, 20_000, 120_000])
@pytest.mark.parametrize("expect", ["", "100-continue"])
def test_curl_logs_in_with_sha_256_on_one_connection(curl, option, size, expect):
    """A second connection would lose the channel binding. curl takes SHA-256, because it comes first."""
    curl.body(size)
    options = ["-H", f"Expect: {expect}"] if expect else []
    status, trace = curl.post(option, *options)
    assert status == 200, trace
    assert len(re.findall("SSL connection using", trace)) == 1
    assert trace.count("< HTTP/1.1 401") == 1
    (sent,) = re.findall("> Authorization: Digest (.*)", trace)
    assert "algorithm=SHA-256" in sent
    assert (curl.seen()["AUTH_TYPE"], curl.seen()["REMOTE_USER"]) == ("Digest", "alice")
    if expect and option == "--anyauth":
        assert trace.count("< HTTP/1.1 100") == 2
    assert re.findall("< WWW-Authenticate: (\\w+)", trace) == ["Digest", "Digest", "Basic"]


@pytest.mark.client("curl")
@pytest.mark.parametrize("option", ["--digest", "--anyauth"])
def test_curl_with_a_wrong_password_gets_401(curl, option):
    status, trace = curl.post(option, login="alice:wrong")
    assert (status, trace.count("< HTTP/1.1 401")) == (401, 2)


@pytest.mark.client("curl")
def test_curl_can_log_in_with_an_empty_user_name(curl):
    status, _ = curl.post("--digest", login=":pw")
    assert (status, curl.seen()["REMOTE_USER"]) == (200, "")


@pytest.mark.client("curl")
def test_curl_can_log_in_with_quotes_in_the_user_name(curl):
    status, trace = curl.post("--digest", login='a"b, c=\\d:secret')
    assert status == 200, trace
    assert curl.seen()["REMOTE_USER"] == 'a"b, c=\\d'


@pytest.mark.client("curl")
@pytest.mark.parametrize("option", ["--digest", "--anyauth"])
def test_a_body_of_3_mb_is_refused_with_413_by_default(curl, option):
    curl.body(3_000_000)
    status, trace = curl.post(option)
    assert status == 413, trace
    assert curl.gateway.process.poll() is None


@pytest.mark.client("curl")
@pytest.mark.parametrize("option", ["--digest", "--anyauth", "--basic"])
def test_a_body_of_3_mb_is_accepted_where_max_body_allows_it(own, tmp_path, option):
    """curl adds Expect above 1 MB. The gateway answers 100, and the connection stays open after the 401."""
    config = settings(own)
    config["server"] = {"max_body": 4 * 1024 * 1024}
    with running_gateway(own, config) as gateway:
        curl = Curl(tmp_path, gateway)
        curl.body(3_000_000)
        status, trace = curl.post(option)
        assert status == 200, trace
        assert len(re.findall("SSL connection using", trace)) == 1
        assert "Expect: 100-continue" in trace
        length = int(curl.seen()["CONTENT_LENGTH"])
        assert length == (curl.path / "req.pem").stat().st_size > 3_000_000
        assert "EST_REQUEST" not in curl.seen()  # too long for a variable; standard input has it


# By hand.


@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
def test_each_digest_nonce_count_is_accepted_once(gateway, algorithm):
    with gateway.connect() as connection:
        given = digest_challenge(post(connection, None), algorithm)
        header = digest_answer(given, ALICE)
        assert seen(post(connection, header))["REMOTE_USER"] == "alice"
        assert post(connection, header).status == 401  # a replay
        assert seen(post(connection, digest_answer(given, ALICE, nc=2)))["AUTH_TYPE"] == "Digest"
        assert post(connection, digest_answer(given, ALICE, nc=2)).status == 401
        assert post(connection, digest_answer(given, ALICE, nc=1)).status == 401
        assert post(connection, digest_answer(given, ALICE, nc=255)).status == 200
    with gateway.connect() as connection:  # a nonce is not bound to its connection: one client re-connects
        assert post(connection, header).status == 401
        assert post(connection, digest_answer(given, ALICE, nc=256)).status == 200


def test_challenges_have_realm_nonce_qop_and_algorithm(gateway):
    with gateway.connect() as connection:
        sha, md5, plain = challenges(post(connection, None))
    assert re.fullmatch('Digest realm="estrealm", nonce="[A-Za-z0-9_=-]+", qop="auth", algorithm=SHA-256', sha)
    assert re.fullmatch('Digest realm="estrealm", nonce="[A-Za-z0-9_=-]+", qop="auth"', md5)
    assert plain == 'Basic realm="estrealm"'


LENIENT: dict[str, dict[str, Any]] = {
    "nothing quoted": {"plain": ("username", "realm", "nonce", "uri", "response", "cnonce", "nc", "qop", "algorithm")},
    "everything quoted": {"plain": ()},
    "MD5 by its name": {"algorithm": "MD5"},
    "md5 in small letters": {"algorithm": "md5"},
    "opaque of its own": {"opaque": "whatever it likes"},
    "an extension": {"x-lesson": "three"},
    "a response in capitals": {"upper": "response"},
}


@pytest.mark.parametrize("how", LENIENT)
def test_digest_headers_in_lenient_forms_are_accepted(gateway, how):
    options = dict(LENIENT[how])
    upper = options.pop("upper", None)
    with gateway.connect() as connection:
        header = digest_answer(digest_challenge(post(connection, None)), ALICE, **options)
        if upper:
            header = re.sub(r'response="(.*?)"', lambda found: f'response="{found[1].upper()}"', header)
        assert post(connection, header).status == 200


def test_a_digest_uri_of_another_request_is_a_bad_request(gateway):
    """RFC 7616 3.4.6. The label may be missing, because one client always leaves it out."""
    with gateway.connect() as connection:
        given = digest_challenge(post(connection, None))
        twin = digest_answer(given, ALICE, TARGET, nc=1)
        assert seen(post(connection, twin, "iot/simpleenroll"))["EST_LABEL"] == "iot"
        whole = digest_answer(given, ALICE, f"{EST}/iot/simpleenroll", nc=2)
        assert post(connection, whole, "iot/simpleenroll").status == 200
        for number, (uri, path) in enumerate(
            [
                (f"{EST}/lab/simpleenroll", "iot/simpleenroll"),
                (f"{EST}/iot/simpleenroll", "simpleenroll"),
                (f"{EST}/simplereenroll", "simpleenroll"),
                (f"{EST}/simpleEnroll", "simpleenroll"),
                (f"{EST}/simpleenroll?x=1", "simpleenroll"),
                (f"{EST}/simpleenroll", "simpleenroll?x=1"),
                ("/", "simpleenroll"),
                ("*", "simpleenroll"),
                (f"{EST}/simpleenroll", "iot/simplereenroll?x=/simpleenroll"),
            ],
            start=3,
        ):
            answer = post(connection, digest_answer(given, ALICE, uri, nc=number), path)
            assert (answer.status, "digest uri" in answer.words) == (400, True), (uri, path)
        query = digest_answer(given, ALICE, f"{EST}/simpleenroll?x=1", nc=99)
        assert post(connection, query, "simpleenroll?x=1").status == 200


WRONG: dict[str, dict[str, Any]] = {
    "an unknown user": {"username": "mallory"},
    "another realm": {"realm": "Estrealm"},
    "another method": {"method": "GET"},
    "MD5-sess": {"algorithm": "MD5-sess"},
    "SHA-512-256": {"algorithm": "SHA-512-256"},
    "SHA-256 by name, MD5 in fact": {"algorithm": "SHA-256"},
    "auth-int": {"qop": "auth-int"},
    "a count of zero": {"nc": 0},
    "no hash": {"response": ""},
    "a short hash": {"response": "0"},
    "a long hash": {"response": "0" * 3000},
    "a hash that is no ASCII": {"response": "é" * 32},
    **{
        f"no {part}": {"drop": [part]}
        for part in ("username", "realm", "nonce", "uri", "response", "cnonce", "nc", "qop")
    },
}


@pytest.mark.parametrize("how", WRONG)
def test_wrong_digest_headers_get_401_and_leave_the_nonce_usable(gateway, how):
    with gateway.connect() as connection:
        given = digest_challenge(post(connection, None))
        answer = post(connection, digest_answer(given, ALICE, **WRONG[how]))
        assert (answer.status, answer.body) == (401, b"")
        assert len(challenges(answer)) == 3
        assert post(connection, digest_answer(given, ALICE)).status == 200  # the nonce is still good


def test_a_nonce_changed_by_one_bit_is_refused(gateway):
    with gateway.connect() as connection:
        given = digest_challenge(post(connection, None))
        for at in range(len(given["nonce"])):
            changed = given["nonce"][:at] + chr(ord(given["nonce"][at]) ^ 1) + given["nonce"][at + 1 :]
            if changed[at] in '",\\':
                continue
            assert post(connection, digest_answer(given | {"nonce": changed}, ALICE)).status == 401, changed
        assert post(connection, digest_answer(given, ALICE)).status == 200


MALFORMED = [
    "Digest",
    "Digest ",
    "Digest =",
    "Digest ,,,,",
    'Digest username="alice',
    "Digest username",
    "Digest " + "a=b," * 900,
    'Digest username="alice", username="bob"',
    "Basic",
    "Basic Og",
    "Basic Og==",
    "Basic !!!!",
    "Basic " + "A" * 4000,
    "Basic " + "A" * 8000,
    "Bearer abc",
    "Negotiate",
    "alice:secret",
    "",
    "\xff\xfe",
    basic("alice"),
    basic("al\0ice:secret"),
    basic("alice:secret\n"),
    basic("alice:secret") + ", " + basic("alice:secret"),
]


@pytest.mark.parametrize("header", MALFORMED, ids=lambda header: header[:24])
def test_malformed_authorization_headers_get_401(gateway, header):
    with gateway.connect() as connection:
        answer = post(connection, header)
        assert (answer.status, answer.body) == (401, b"")
        assert post(connection, basic(ALICE)).status == 200


def test_two_authorization_headers_get_401(gateway):
    for first, second in ((ALICE, ALICE), (ALICE, "alice:wrong"), ("alice:wrong", ALICE)):
        with gateway.connect() as connection:
            whole = request("POST", "simpleenroll", BODY, login=first)
            both = whole.replace(b"\r\n\r\n", f"\r\nAuthorization: {basic(second)}\r\n\r\n".encode(), 1)
            connection.send(both)
            assert connection.response().status == 401


def test_an_empty_user_name_can_log_in(gateway):
    """RFC 7030 3.2.3: a password alone may suffice."""
    with gateway.connect() as connection:
        assert seen(post(connection, basic(":pw")))["REMOTE_USER"] == ""
        assert post(connection, basic(":wrong")).status == 401
        given = digest_challenge(post(connection, None))
        assert seen(post(connection, digest_answer(given, ":pw")))["REMOTE_USER"] == ""


def test_an_empty_post_without_credentials_gets_401_not_400(gateway):
    """`curl --digest` begins with an empty POST. It is a bad request only after the login."""
    with gateway.connect() as connection:
        assert connection.ask("POST", "simpleenroll", b"").status == 401
        assert connection.ask("POST", "simpleenroll", b"", login=ALICE).status == 400


def test_secrets_stay_out_of_the_log(own):
    with running_gateway(own, settings(own)) as gateway:
        with gateway.connect() as connection:
            post(connection, basic("alice:secret-in-basic"))
            header = digest_answer(digest_challenge(post(connection, None)), ALICE)
            post(connection, header)
            post(connection, header.replace("response=", "reply="))
            post(connection, "secret-in-basic")
            post(connection, basic("alice:secret-in-basic")[6:])
        response = re.findall(r'response="(\w+)"', header)[0]
        for secret in ("secret-in-basic", basic("alice:secret-in-basic")[6:], response):
            assert secret not in gateway.log_text
        assert '"user": "alice"' in gateway.log_text


# Age, reload, restart, several gateways.


def test_an_old_nonce_is_stale_with_the_right_password_only(own):
    with running_gateway(own, settings(own, nonce_age=1)) as gateway, gateway.connect() as connection:
        given = digest_challenge(post(connection, None))
        assert post(connection, digest_answer(given, ALICE)).status == 200

        time.sleep(1.2)
        refused = post(connection, digest_answer(given, ALICE, nc=2))
        assert says_stale(refused)
        assert not says_stale(post(connection, digest_answer(given, "alice:wrong", nc=3)))
        assert not says_stale(post(connection, digest_answer(given, "mallory:secret", nc=3)))
        assert post(connection, digest_answer(digest_challenge(refused), ALICE)).status == 200


def test_a_digest_answer_for_one_gateway_is_stale_at_another(own):
    with (
        running_gateway(own, settings(own)) as one,
        running_gateway(own, settings(own)) as two,
        one.connect() as asked,
        two.connect() as served,
    ):
        recorded = digest_answer(digest_challenge(post(asked, None)), ALICE)
        assert says_stale(post(served, recorded))
        assert post(asked, recorded).status == 200
        refused = post(served, recorded)
        assert says_stale(refused)
        assert not says_stale(post(asked, recorded))  # the nonce is good there, and has been used
        assert post(served, digest_answer(digest_challenge(refused), ALICE)).status == 200  # a new nonce is enough
    with running_gateway(own, settings(own)) as again, again.connect() as connection:
        assert says_stale(post(connection, recorded))


def test_right_answers_with_a_stale_nonce_do_not_count_as_guesses(own):
    """Twelve failures would delay the next attempt so much that it gets a 429."""
    with running_gateway(own, settings(own, guess_delay=60)) as gateway, gateway.connect() as connection:
        foreign = {"realm": "estrealm", "nonce": "0123456789abcdef"}
        for _ in range(12):
            assert says_stale(post(connection, digest_answer(foreign, ALICE)))
        assert post(connection, digest_answer(digest_challenge(post(connection, None)), ALICE)).status == 200


def test_wrong_answers_with_a_stale_nonce_count_as_guesses(own):
    """Five failures cost 0.05, 0.1, 0.2 and 0.4 seconds; a right answer with a stale nonce changes nothing."""
    with running_gateway(own, settings(own, guess_delay=2)) as gateway, gateway.connect() as connection:
        foreign = {"realm": "estrealm", "nonce": "0123456789abcdef"}
        began = time.monotonic()
        for _ in range(5):
            answer = post(connection, digest_answer(foreign, "alice:wrong"))
            assert (answer.status, says_stale(answer)) == (401, False)
            assert says_stale(post(connection, digest_answer(foreign, ALICE)))
        assert time.monotonic() - began > 0.75


def test_the_removed_key_nonce_secret_is_refused_with_advice(own):
    (own.path / "nonce.secret").write_text("0123456789abcdef" * 4)
    with running_gateway(own, settings(own)) as gateway:
        old = settings(own, nonce_secret=str(own.path / "nonce.secret"))
        gateway.configure(old)
        (fault,) = gateway.reload()["faults"]
        assert gateway.get("cacerts").status == 200
        for command in ("check", "serve"):
            done = run(*forked_estgw(), command, "-c", gateway.config, status=None, env=PYTHON)
            assert done.returncode != 0
            assert "client_auth.nonce_secret: this key is gone; remove the line" in done.stderr.decode()
    assert "client_auth.nonce_secret: this key is gone; remove the line" in fault


# The files.


def test_a_digest_file_made_by_estgw_passwd_works(own):
    path = own.path / "made.htdigest"
    for login in ("carol:c-secret", "dave:d-secret"):
        user, _, password = login.partition(":")
        run(*forked_estgw(), "passwd", "--digest", path, user, stdin=password.encode() + b"\n", env=PYTHON)
    with running_gateway(own, settings(own, digest_users=str(path))) as gateway, gateway.connect() as connection:
        for algorithm in ("MD5", "SHA-256"):
            given = digest_challenge(post(connection, None), algorithm)
            assert seen(post(connection, digest_answer(given, "carol:c-secret")))["REMOTE_USER"] == "carol"
            given = digest_challenge(post(connection, None), algorithm)
            assert post(connection, digest_answer(given, "carol:d-secret")).status == 401


def test_a_file_of_apaches_htdigest_works_for_md5_only(own):
    """The user of RFC 7030 A.3, in a file as Apache's htdigest writes it: with MD5 only."""
    known = json.loads((VECTORS / "rfc7030-a3-digest.json").read_text())
    path = own.path / "apache.htdigest"
    path.write_text(known["htdigest_line"] + "\n")
    login = f"{known['username']}:{known['password']}"
    with running_gateway(own, settings(own, digest_users=str(path))) as gateway, gateway.connect() as connection:
        assert post(connection, digest_answer(digest_challenge(post(connection, None)), login)).status == 200
        assert post(connection, digest_answer(digest_challenge(post(connection, None), "SHA-256"), login)).status == 401


def test_basic_is_refused_where_only_digest_is_configured(own):
    """A password that a client sends nonetheless is not checked."""
    with running_gateway(own, settings(own, users=None, digest=["MD5"])) as gateway, gateway.connect() as connection:
        refused = post(connection, basic(ALICE))
        assert refused.status == 401
        assert [value.split()[0] for value in challenges(refused)] == ["Digest"]
        assert post(connection, digest_answer(digest_challenge(refused), ALICE)).status == 200


def test_basic_alone_is_the_default(own):
    plain = settings(own, digest=None, digest_users=None)
    with running_gateway(own, plain) as gateway, gateway.connect() as connection:
        refused = post(connection, None)
        assert challenges(refused) == ['Basic realm="estrealm"']
        made_up = {"realm": "estrealm", "nonce": "0123456789abcdef"}
        assert post(connection, digest_answer(made_up, ALICE)).status == 401


def test_nonces_and_used_counts_survive_a_reload(own):
    """curl asks only once, so an answer to a challenge from before the reload must stay valid."""
    with running_gateway(own, settings(own)) as gateway, gateway.connect() as connection:
        given = digest_challenge(post(connection, None))
        header = digest_answer(given, ALICE)
        assert post(connection, header).status == 200
        assert gateway.reload()["event"] == "reloaded"
        assert not says_stale(post(connection, header))
        assert post(connection, digest_answer(given, ALICE, nc=2)).status == 200
