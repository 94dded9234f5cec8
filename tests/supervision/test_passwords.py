"""Digest and guesses where several processes serve: nothing is replayed next door, and nobody guesses faster."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack

import pytest

from estgw.auth import digest
from estgw.share import Share
from tests.identity.kit import digest_file
from tests.supervision.crew import one_each, two_workers
from tests.support import EST, LOGIN, PKCS10, Lab, Response, armoured, csr, run

TARGET = f"{EST}/simpleenroll"
GOOD = csr()


@pytest.fixture(params=["own secrets", "a shared secret"])
def settings(request: pytest.FixtureRequest, own_lab: Lab) -> dict[str, object]:
    digest_file(own_lab, LOGIN)
    client_auth: dict[str, object] = {"digest": ["SHA-256"], "digest_users": str(own_lab.path / "users.htdigest")}
    if request.param == "a shared secret":
        (own_lab.path / "nonce.secret").write_text("0123456789abcdef" * 4)
        client_auth["nonce_secret"] = "nonce.secret"
    return {"client_auth": client_auth}


def nonce_of(answer: Response) -> str:
    assert answer.status == 401
    values = [value for name, value in answer.headers if name.lower() == "www-authenticate"]
    found = re.search('nonce="([^"]+)"', values[0])
    assert found is not None
    return found[1]


def authorization(nonce: str, count: int = 1) -> dict[str, str | None]:
    user, _, password = LOGIN.partition(":")
    given = digest.DigestResponse(user, "estrealm", nonce, TARGET, "SHA-256", f"{count:08x}", "cnonce", "")
    response = digest._response(given, "POST", digest.ha1("SHA-256", user, "estrealm", password))
    return {
        "Authorization": f'Digest username="{user}", realm="estrealm", nonce="{nonce}", uri="{TARGET}", qop=auth, '
        f'algorithm=SHA-256, nc={given.nc}, cnonce="cnonce", response="{response}"'
    }


def test_a_nonce_is_good_at_the_worker_that_made_it_alone(own_lab, settings):
    with two_workers(own_lab, settings) as gateway, ExitStack() as stack:
        here, there = one_each(gateway, stack).values()
        nonce = nonce_of(here.ask("POST", "simpleenroll", GOOD))
        # Not yet used, used, and used again: the other one takes it never.
        assert there.ask("POST", "simpleenroll", GOOD, headers=authorization(nonce)).status == 401
        assert here.ask("POST", "simpleenroll", GOOD, headers=authorization(nonce)).status == 200
        assert there.ask("POST", "simpleenroll", GOOD, headers=authorization(nonce)).status == 401
        assert there.ask("POST", "simpleenroll", GOOD, headers=authorization(nonce, 2)).status == 401
        assert here.ask("POST", "simpleenroll", GOOD, headers=authorization(nonce)).status == 401
        assert here.ask("POST", "simpleenroll", GOOD, headers=authorization(nonce, 2)).status == 200


@pytest.mark.client("curl")
def test_curl_is_served_by_whoever_has_its_connection(own_lab, settings, tmp_path):
    (tmp_path / "req.pem").write_bytes(armoured(GOOD))
    with two_workers(own_lab, settings) as gateway:
        for _ in range(8):
            url = f"https://localhost:{gateway.port}{TARGET}"
            command = ["curl", "-s", "--digest", "-u", LOGIN, url, "--cacert", str(own_lab.anchor), "-o", "/dev/null"]
            command += ["--data-binary", "@req.pem", "-H", f"Content-Type: {PKCS10}", "-w", "%{http_code}"]
            assert run(*command, cwd=tmp_path).stdout == b"200"
        assert [line["status"] for line in gateway.access] == [401, 200] * 8


def test_the_secret_of_the_same_place_is_the_same_in_every_gateway():
    secret = b"x" * 32
    mine = [Share(place, 2).secret(secret) for place in range(2)]
    assert mine == [Share(place, 2).secret(secret) for place in range(2)]
    assert len({secret, *mine}) == 3
    assert Share().secret(secret) == secret


def test_two_workers_are_not_guessed_at_twice_as_fast(own_lab):
    """Each makes an address wait twice as long as one alone would, which is 0.75 seconds for four failures."""
    overrides = {"client_auth": {"guess_delay": 2}}
    with two_workers(own_lab, overrides) as gateway, ExitStack() as stack:
        here, there = one_each(gateway, stack).values()
        began = time.monotonic()
        for _ in range(5):
            assert here.ask("POST", "simpleenroll", GOOD, login="estuser:wrong").status == 401
        assert time.monotonic() - began > 1.4
        assert there.ask("POST", "simpleenroll", GOOD, login=LOGIN).status == 200
