"""Scripts that decide about passwords and permissions, and the delay of guesses."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography import x509

from tests.kit.clients import People, digest_answer, digest_challenge, digest_file
from tests.kit.connection import V12, Response
from tests.kit.csr import csr, san
from tests.kit.gateway import LOGIN, Gateway, running_gateway
from tests.kit.scripts import REFLECTING, seen
from tests.kit.workspace import Workspace

BODY = csr("device-1")
ISSUING = ("simpleenroll", "simplereenroll", "serverkeygen")

# How a decision can end, and the statuses that the client then gets (contract, "Exit status").
ENDS = {
    "77": ("echo 'not today'; exit 77", 401, 403),
    "65": ("echo 'no serial number'; exit 65", 500, 400),
    "69": ("echo 'the directory sleeps'; exit 69", 503, 503),
    "75": ("echo 'wait'; exit 75", 503, 202),
    "64": ("exit 64", 500, 500),
    "1": ("exit 1", 500, 500),
    "2": ("exit 2", 500, 500),
    "127": ("no-such-program", 500, 500),
    "signal": ("kill -SEGV $$", 500, 500),
    "hang": ("sleep 60", 504, 504),
    "flood": ("head -c 9000000 /dev/zero", 500, 500),
    "lie": ("printf 'Status: 200\\n\\n'; exit 1", 500, 500),
}
WORDS = {"65": "no serial number", "69": "the directory sleeps", "77": "not today"}


@pytest.fixture(scope="module")
def gateway(own: Workspace, people: People) -> Iterator[Gateway]:
    """Each label is named after its decision script."""
    reflect = {"handler": str(own.path / "reflect"), **REFLECTING}
    shipped = str(own.path / "handlers/examples/one-time-password")
    labels: dict[str, Any] = {"open": {"authorize": None, "operations": {"simpleenroll": reflect}}}
    for name, (script, _, _) in ENDS.items():
        path = str(own.script(f"ends/{name}", script))
        marker = str(own.script(f"ends/handler-{name}", f"touch {own.path}/ran-{name}"))
        handlers = {operation: {"handler": marker, **REFLECTING} for operation in ISSUING}
        labels[f"may-{name}"] = {"authorize": path, "operations": handlers}
        labels[f"is-{name}"] = {"authenticate": path, "operations": handlers}
    environment = own.script("ends/environment", 'env -0 >"$EST_TMPDIR/seen"')
    shown = own.script("ends/shown", 'tr "\\0\\n" "\\n~" <"$EST_TMPDIR/seen"')
    enrolling = {"simpleenroll": {"handler": str(shown), **REFLECTING}}
    labels["environment"] = {"authorize": str(environment), "operations": enrolling}
    labels["claims"] = {"authorize": None, "authenticate": str(environment), "operations": enrolling}
    labels["once"] = {"authenticate": shipped, "operations": {"simpleenroll": {**reflect, "requires": "http"}}}
    labels["file-again"] = {"authenticate": shipped, "operations": {"simpleenroll": {"authenticate": None, **reflect}}}
    labels["seen"] = {"operations": {"simpleenroll": dict(reflect)}}
    config = {
        "client_auth": {
            **people.config,
            "digest": ["MD5"],
            "digest_users": str(digest_file(own, "estuser:estpwd")),
        },
        "callouts": {"decision_timeout": 1.0, "max_stdout": 100_000},
        "labels": labels,
    }
    with running_gateway(own, config) as running:
        yield running


def shown(answer: Response) -> dict[str, str]:
    """The variables that a script wrote down, one per line."""
    return dict(line.split("=", 1) for line in answer.body.decode().splitlines())


# authenticate: is this password right?


def one_time(own: Workspace, login: str) -> None:
    user, _, password = login.partition(":")
    line = f"{user} {hashlib.sha256(password.encode()).hexdigest()}\n"
    with (own.path / "handlers/examples/one-time-passwords").open("a") as file:
        file.write(line)


def challenges(answer: Response) -> list[str]:
    return [value for name, value in answer.headers if name.lower() == "www-authenticate"]


@pytest.mark.parametrize("login", ["ann:first", "ann:with space", "bob:$(id) `id` \\ ' \"", "gerät:straße", "eve:"])
def test_a_one_time_password_works_once(gateway, own, login):
    """RFC 7030 6: a password for the first certificate, and the certificate from then on."""
    one_time(own, login)
    one_time(own, "other:" + login)
    with gateway.connect() as connection:
        assert challenges(connection.ask("POST", "once/simpleenroll", BODY)) == ['Basic realm="estrealm"']
        facts = seen(connection.ask("POST", "once/simpleenroll", BODY, login=login))
        assert (facts["REMOTE_USER"], facts["AUTH_TYPE"]) == (login.partition(":")[0], "Basic")
        assert not {"EST_USERNAME", "EST_PASSWORD"} & facts.keys()
        again = connection.ask("POST", "once/simpleenroll", BODY, login=login)
        assert (again.status, challenges(again)) == (401, ['Basic realm="estrealm"'])
        assert connection.ask("POST", "once/simpleenroll", BODY, login="other:" + login).status == 200
    secret = login.partition(":")[2]
    assert len(secret) < 5 or secret not in gateway.log_text


@pytest.mark.parametrize(
    "login", ["ann:wrong", "nobody:first", ":", ":first", "ann:", "estuser:estpwd", "ann first:x", ".*:.*", "-e:x"]
)
def test_a_wrong_one_time_password_is_refused_with_401(gateway, own, login):
    one_time(own, "ann:right")
    answer = gateway.post("once/simpleenroll", BODY, login=login)
    assert (answer.status, answer.body, challenges(answer)) == (401, b"", ['Basic realm="estrealm"'])
    assert gateway.post("once/simpleenroll", BODY, login="ann:right").status == 200


def test_a_one_time_password_used_8_times_at_once_works_once(gateway, own):
    one_time(own, "crowd:secret")
    with ThreadPoolExecutor(8) as crowd:
        ask: Callable[[int], int] = lambda _: gateway.post("once/simpleenroll", BODY, login="crowd:secret").status  # noqa: E731
        found = sorted(crowd.map(ask, range(8)))
    assert found == [200] + [401] * 7


def test_digest_is_refused_where_authenticate_needs_the_password(gateway, own):
    one_time(own, "estuser:estpwd")
    header = digest_answer({"realm": "estrealm", "nonce": "x"}, "estuser:estpwd")
    answer = gateway.ask("POST", "once/simpleenroll", BODY, headers={"Authorization": header})
    assert (answer.status, challenges(answer)) == (401, ['Basic realm="estrealm"'])
    assert gateway.post("once/simpleenroll", BODY).status == 200


@pytest.mark.parametrize("end", ENDS)
def test_only_exit_status_0_of_authenticate_accepts_a_password(gateway, own, people, end):
    status = ENDS[end][1]
    for certificate in (None, people.pairs["ours"]):
        answer = gateway.post(f"is-{end}/simpleenroll", BODY, certificate=certificate)
        assert answer.status == status
        assert bool(challenges(answer)) is (status == 401)
        assert (answer.header("Retry-After") is not None) is (status == 503)
        if status in (500, 504) and end not in WORDS:
            assert gateway.access[-1]["request_id"] in answer.words
    assert not (own.path / f"ran-{end}").exists()
    # Without credentials the script does not run.
    assert gateway.post(f"is-{end}/simpleenroll", BODY, login=None).status == 401
    certified = gateway.post(f"is-{end}/simpleenroll", BODY, login=None, certificate=people.pairs["ours"])
    assert certified.status == 200
    (own.path / f"ran-{end}").unlink()


def test_authenticate_gets_the_claimed_credentials_and_nothing_verified(gateway):
    """A verified variable would look as if the password had been checked already."""
    answer = gateway.post("claims/simpleenroll", BODY, login="al ice:s e:c'r\"et $(id)")
    facts = shown(answer)
    assert (facts["EST_USERNAME"], facts["EST_PASSWORD"]) == ("al ice", "s e:c'r\"et $(id)")
    assert (facts["EST_AUTH_SCHEME"], facts["EST_LABEL"]) == ("Basic", "claims")
    assert facts["EST_OPERATION"] == "simpleenroll"
    assert not {"REMOTE_USER", "AUTH_TYPE", "EST_CSR_SUBJECT", "EST_POP"} & facts.keys()
    assert facts["EST_AUTH_METHODS"] == ""
    assert "s e:c" not in gateway.log_text


@pytest.mark.parametrize(
    ("login", "status"), [("() { :;}; id:x", 400), ("x:() { :;}; id", 400), ("a\nb:c", 401), ("a:\0", 401)]
)
def test_credentials_that_would_harm_a_script_are_refused(gateway, login, status):
    assert gateway.post("claims/simpleenroll", BODY, login=login).status == status


def test_an_operation_may_use_the_users_file_despite_authenticate(gateway):
    assert seen(gateway.post("file-again/simpleenroll", BODY))["REMOTE_USER"] == "estuser"
    assert gateway.post("file-again/simpleenroll", BODY, login="estuser:wrong").status == 401


# authorize: may this client do this?


@pytest.mark.parametrize("end", ENDS)
def test_only_exit_status_0_of_authorize_permits_a_request(gateway, own, end):
    status = ENDS[end][2]
    before = gateway.lab.books()
    for operation in ("simpleenroll", "serverkeygen"):
        answer = gateway.post(f"may-{end}/{operation}", BODY)
        assert answer.status == status
        assert (answer.header("Retry-After") is not None) is (status in (202, 503))
        if status == 202:
            assert answer.body == b""
        elif end in WORDS:
            assert answer.words == WORDS[end]
        else:
            assert gateway.access[-1]["request_id"] in answer.words
    assert not (own.path / f"ran-{end}").exists()
    assert gateway.lab.books() == before


def test_authorize_null_permits_every_request(gateway):
    assert seen(gateway.post("open/simpleenroll", BODY))["EST_LABEL"] == "open"


def test_authorize_gets_all_the_variables_of_the_handler(gateway, people):
    """Only the timeout differs."""
    body = csr("device-1", san(x509.DNSName("a.example")))
    with gateway.connect(certificate=people.pairs["our RA"], version=V12) as connection:
        told = shown(connection.ask("POST", "environment/simpleenroll", body, login=LOGIN))
        handled = seen(connection.ask("POST", "seen/simpleenroll", body, login=LOGIN))
    bash = {"PWD", "SHLVL", "_", "OLDPWD"}
    assert told.keys() - bash == handled.keys() - bash
    expected = {
        "REMOTE_USER": "estuser",
        "AUTH_TYPE": "Basic",
        "EST_AUTH_METHODS": "tls+http",
        "EST_CLIENT_TRUST": "explicit",
        "EST_CLIENT_IS_RA": "1",
        "EST_CSR_SUBJECT": "CN=device-1",
        "EST_CSR_SAN_0": "DNS:a.example",
        "EST_POP": "absent",
        "EST_TLS_BINDING": "tls-unique",
        "SSL_CLIENT_S_DN": "CN=device-1",
        "EST_TIMEOUT": "1",
    }
    assert {name: told[name] for name in expected} == expected


# Guessing is slowed.


def test_guesses_delay_only_their_own_address_and_user(own):
    """The delay grows for one address and user; the passwords of other users and addresses are taken at once."""
    with (
        running_gateway(own, {"client_auth": {"guess_delay": 1}}) as gateway,
        gateway.connect(source="127.0.0.2") as connection,
    ):

        def tried(login: str, status: int) -> float:
            started = time.monotonic()
            assert connection.ask("POST", "simpleenroll", b"", login=login).status == status
            return time.monotonic() - started

        times = [tried("estuser:no", 401) for _ in range(6)]
        # 0, then 50 ms doubled each time.
        assert times[5] > 0.75 > times[0]
        assert times[5] > times[3] > times[1]
        guess = threading.Thread(target=tried, args=("estuser:no", 401))
        guess.start()
        started = time.monotonic()
        assert gateway.post("cacerts", b"").status == 405
        assert gateway.post("simpleenroll", b"").status == 400  # the password was right, the empty CSR is not
        # Another user of the guesser's address does not wait either, although the guess is still under way.
        with gateway.connect(source="127.0.0.2") as neighbour:
            assert neighbour.ask("POST", "simpleenroll", b"", login="alice:secret").status == 400
        other = time.monotonic() - started
        guess.join()
        assert other < 0.9
        # A right password of one user does not reset the delay of another user,
        tried("alice:secret", 400)
        assert tried("estuser:no", 401) > 0.9
        # but the right password of the guessed user does.
        tried(LOGIN, 400)
        assert tried("estuser:no", 401) < 0.9
    print("delays of one guesser:", [round(seconds, 2) for seconds in times], "another client:", round(other, 2))


def test_digest_guesses_are_delayed_as_well(own):
    """Another user's right password does not reset the delay, in either scheme."""
    digest = {"digest": ["MD5"], "digest_users": str(digest_file(own, "estuser:estpwd", "alice:secret"))}
    with (
        running_gateway(own, {"client_auth": {**digest, "guess_delay": 0.5}}) as gateway,
        gateway.connect() as connection,
    ):
        given = digest_challenge(connection.ask("POST", "simpleenroll", b""))

        def tried(login: str, number: int, status: int) -> float:
            headers = {"Authorization": digest_answer(given, login, nc=number)}
            started = time.monotonic()
            assert connection.ask("POST", "simpleenroll", b"", headers=headers).status == status
            return time.monotonic() - started

        for number in range(1, 6):
            tried("estuser:no", number, 401)
        assert tried("alice:secret", 6, 400) < 0.45  # another user of the same address does not wait
        assert tried("estuser:no", 7, 401) > 0.45
        assert connection.ask("POST", "simpleenroll", b"", login="alice:secret").status == 400
        assert tried("estuser:no", 8, 401) > 0.45
