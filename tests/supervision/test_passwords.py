"""Digest with several processes: each accepts only its own nonces, and guesses get no faster."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from estgw.auth import digest
from estgw.auth.credentials import DigestResponse
from estgw.client import Credentials, Session, Trust, keys, request
from estgw.client.transport.wire import Exchange
from tests.kit.ca import name
from tests.kit.clients import digest_file
from tests.kit.connection import EST, PKCS10, Response
from tests.kit.csr import csr
from tests.kit.der import armoured
from tests.kit.gateway import LOGIN, Gateway
from tests.kit.processes import run
from tests.kit.workers import one_each, two_workers
from tests.kit.workspace import Workspace

TARGET = f"{EST}/simpleenroll"
GOOD = csr()


@pytest.fixture
def settings(own_lab: Workspace) -> dict[str, Any]:
    digest_file(own_lab, LOGIN)
    return {"client_auth": {"digest": ["MD5", "SHA-256"], "digest_users": str(own_lab.path / "users.htdigest")}}


def challenges(answer: Response) -> list[str]:
    assert answer.status == 401
    return [value for name, value in answer.headers if name.lower() == "www-authenticate"]


def nonce_of(answer: Response) -> str:
    found = re.search('nonce="([^"]+)"', challenges(answer)[0])
    assert found is not None
    return found[1]


def authorization(nonce: str, count: int = 1) -> dict[str, str | None]:
    user, _, password = LOGIN.partition(":")
    given = DigestResponse(user, "estrealm", nonce, TARGET, "SHA-256", f"{count:08x}", "cnonce", "")
    response = digest._response(given, "POST", digest.ha1("SHA-256", user, "estrealm", password))
    return {
        "Authorization": f'Digest username="{user}", realm="estrealm", nonce="{nonce}", uri="{TARGET}", qop=auth, '
        f'algorithm=SHA-256, nc={given.nc}, cnonce="cnonce", response="{response}"'
    }


def is_stale(answer: Response) -> bool:
    return "stale=true" in challenges(answer)[0]


def test_an_answer_is_accepted_by_its_worker_and_stale_at_another(own_lab, settings):
    with two_workers(own_lab, settings) as gateway, ExitStack() as stack:
        here, there = one_each(gateway, stack).values()
        first = here.ask("POST", "simpleenroll", GOOD)
        assert not is_stale(first)
        nonce = nonce_of(first)
        # The other worker never accepts the nonce: not before its use, not after it, and not with the next count.
        assert is_stale(there.ask("POST", "simpleenroll", GOOD, headers=authorization(nonce)))
        assert here.ask("POST", "simpleenroll", GOOD, headers=authorization(nonce)).status == 200
        refused = there.ask("POST", "simpleenroll", GOOD, headers=authorization(nonce))
        assert is_stale(refused)
        assert is_stale(there.ask("POST", "simpleenroll", GOOD, headers=authorization(nonce, 2)))
        assert not is_stale(here.ask("POST", "simpleenroll", GOOD, headers=authorization(nonce)))
        assert here.ask("POST", "simpleenroll", GOOD, headers=authorization(nonce, 2)).status == 200
        assert there.ask("POST", "simpleenroll", GOOD, headers=authorization(nonce_of(refused))).status == 200


def curl(gateway: Gateway, folder: Path, *options: str, login: str = LOGIN) -> list[int]:
    """The statuses of the answers to `curl --digest`."""
    (folder / "req.pem").write_bytes(armoured(GOOD))
    before = len(gateway.access)
    url = f"https://localhost:{gateway.port}{TARGET}"
    command = ["curl", "-s", "--digest", "-u", login, url, "--cacert", str(gateway.lab.anchor), "-o", "/dev/null"]
    command += ["--data-binary", "@req.pem", "-H", f"Content-Type: {PKCS10}", "-w", "%{http_code}", *options]
    status = int(run(*command, cwd=folder).stdout)
    statuses = [line["status"] for line in gateway.access[before:]]
    assert statuses[-1] == status
    return statuses


@pytest.mark.client("curl")
def test_curl_logs_in_at_the_worker_that_has_its_connection(own_lab, settings, tmp_path):
    with two_workers(own_lab, settings) as gateway:
        for _ in range(8):
            assert curl(gateway, tmp_path) == [401, 200]


@pytest.mark.client("curl")
@pytest.mark.exhaustive
def test_curl_logs_in_though_another_worker_challenged_it(own_lab, settings, tmp_path):
    """curl connects again for each request, and the kernel chooses the worker."""
    with two_workers(own_lab, settings) as gateway:
        found = set()
        for _ in range(60):
            statuses = curl(gateway, tmp_path, "-H", "Connection: close")
            assert statuses == [401] * (len(statuses) - 1) + [200]
            found.add(len(statuses))
            if found >= {2, 3}:
                break
        assert found >= {2, 3}


@pytest.mark.client("curl")
@pytest.mark.exhaustive
def test_curl_gives_up_a_wrong_password_at_any_worker(own_lab, settings, tmp_path):
    settings["client_auth"] |= {"guess_delay": 0}
    with two_workers(own_lab, settings) as gateway:
        for _ in range(12):
            assert curl(gateway, tmp_path, "-H", "Connection: close", login="estuser:wrong") == [401, 401]


def test_estclient_logs_in_though_another_worker_challenged_it(own_lab, settings):
    key = keys.generate(keys.parse_spec("ec:P-256"))
    plan = request.plan(request.Wanted(name("CN=device-1")), None)
    trust = Trust(explicit=tuple(x509.load_pem_x509_certificates(own_lab.anchor.read_bytes())))

    def statuses(gateway: Gateway) -> list[int]:
        """The statuses of one enrolment, with a new connection after the first challenge."""
        seen: list[int] = []

        def hang_up(exchange: Exchange) -> None:
            if exchange.answer is not None:
                seen.append(exchange.answer.status)
                if len(seen) == 1:
                    session.close()

        session = Session(gateway.url, trust, credentials=Credentials(*LOGIN.split(":")), observer=hang_up)
        with session:
            session.enroll(lambda binding: request.build(plan, key, binding))
        return seen

    with two_workers(own_lab, settings) as gateway:
        found = set()
        for _ in range(60):
            seen = statuses(gateway)
            assert seen == [401] * (len(seen) - 1) + [200]
            found.add(len(seen))
            if found >= {2, 3}:
                break
        assert found >= {2, 3}


def test_two_workers_are_not_guessed_at_twice_as_fast(own_lab):
    """Each worker doubles the wait of a single process, which is 0.75 seconds for four failures."""
    overrides = {"client_auth": {"guess_delay": 2}}
    with two_workers(own_lab, overrides) as gateway, ExitStack() as stack:
        here, there = one_each(gateway, stack).values()
        began = time.monotonic()
        for _ in range(5):
            assert here.ask("POST", "simpleenroll", GOOD, login="estuser:wrong").status == 401
        assert time.monotonic() - began > 1.4
        assert there.ask("POST", "simpleenroll", GOOD, login=LOGIN).status == 200
