from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
import time

import pytest

from estgw.auth import http, users
from estgw.auth.credentials import Credentials
from estgw.auth.digest import Digest, Nonces
from estgw.auth.passwords import Passwords
from estgw.auth.requirements import authenticate
from estgw.auth.users import Users
from estgw.errors import ConfigError, Unauthenticated
from estgw.est.operations import Requires
from tests.auth.test_pop_rules import CLIENT

SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # "secret" in a kind of hash that is fast to verify


def users_with(**stored: str) -> Users:
    return Users({name or "": text for name, text in (stored or {"alice": SHA}).items()})


def is_accepted(of: Users, user: str, password: str) -> bool:
    return asyncio.run(of.verify(user, password))


def basic(text: str | bytes) -> list[str]:
    raw = text.encode() if isinstance(text, str) else text
    return [f"Basic {base64.b64encode(raw).decode()}"]


# Authorization headers.


@pytest.mark.parametrize(
    ("header", "user", "password"),
    [
        (basic("alice:secret"), "alice", "secret"),
        (basic("alice:a:b:c"), "alice", "a:b:c"),
        (basic(":pw"), "", "pw"),
        (["Basic Og=="], "", ""),
        (basic("alice:"), "alice", ""),
        (basic("gerät:straße"), "gerät", "straße"),
        (basic("gerät:straße".encode("latin-1")), "gerät", "straße"),
        (["bAsIc   " + basic("a:b")[0].split()[1] + "  "], "a", "b"),
    ],
)
def test_basic_credentials_are_read(header, user, password):
    assert http.parse(header) == Credentials("Basic", user, password)


@pytest.mark.parametrize(
    "headers",
    [
        [""],
        ["Basic"],
        ["Basic "],
        ["Basic !!!!"],
        ["Basic YWxpY2U6c2VjcmV0 YWxpY2U6c2VjcmV0"],
        ["Basic YWxpY2U6c2VjcmV"],
        ["Basic \udce9"],
        basic("no colon"),
        basic("alice:sec\0ret"),
        basic("al\nice:secret"),
        basic("a:" + "x" * 4096),
        basic("a:b") + basic("a:b"),
        ["Bearer YWxpY2U6c2VjcmV0"],
        ["Digest"],
        ["YWxpY2U6c2VjcmV0"],
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_unreadable_header_is_a_401_without_the_secret(headers):
    with pytest.raises(Unauthenticated) as refusal:
        http.parse(headers)
    assert "secret" not in str(refusal.value)
    assert "YWxpY2U6" not in str(refusal.value)


def test_no_header_gives_no_credentials():
    assert http.parse([]) is None


def test_the_password_is_not_in_the_repr():
    assert "secret" not in repr(http.parse(basic("alice:secret")))


# What an operation requires.


@pytest.mark.parametrize("requires", list(Requires))
def test_an_unreadable_header_never_satisfies_a_requirement(requires):
    async def never(_: object) -> bool:
        raise AssertionError("nothing to verify")

    asked = authenticate(CLIENT, ["Basic !!!!"], requires, never)
    if requires is Requires.NONE:
        assert asyncio.run(asked).claimed is None
    else:
        with pytest.raises(Unauthenticated):
            asyncio.run(asked)


# The password file.


def test_the_empty_user_needs_an_entry_and_its_password():
    stored = Users({"": SHA})
    assert is_accepted(stored, "", "secret")
    assert not is_accepted(stored, "", "")
    assert not is_accepted(users_with(), "", "")


def test_unknown_users_and_long_wrong_passwords_are_refused():
    stored = users_with()
    assert is_accepted(stored, "alice", "secret")
    assert not is_accepted(stored, "bob", "secret")
    assert not is_accepted(stored, "alice", "secret" * 100)
    assert not is_accepted(Users({}), "alice", "secret")


def test_a_success_is_remembered_and_a_failure_is_verified_again(monkeypatch):
    stored = users_with()
    asked = []
    verify = stored._verify

    def noted(user: str, password: str) -> bool:
        asked.append(password)
        return verify(user, password)

    monkeypatch.setattr(stored, "_verify", noted)
    for password in ("secret", "secret", "wrong", "wrong", "secret"):
        is_accepted(stored, "alice", password)
    assert asked == ["secret", "wrong", "wrong"]


def test_remembered_successes_are_bounded(monkeypatch):
    monkeypatch.setattr(users, "REMEMBERED", 3)
    stored = Users({str(number): SHA for number in range(10)})
    assert all(is_accepted(stored, str(number), "secret") for number in range(10))
    assert len(stored._verified) == 3


def counted(of: Users, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the passwords that are hashed from now on. Each verification takes a while."""
    hashed: list[str] = []
    verify = of._verify

    def slow(user: str, password: str) -> bool:
        hashed.append(password)
        time.sleep(0.05)
        return verify(user, password)

    monkeypatch.setattr(of, "_verify", slow)
    return hashed


def test_requests_at_once_share_one_verification(monkeypatch):
    stored = users_with()
    hashed = counted(stored, monkeypatch)

    async def at_once() -> list[bool]:
        tries = ["secret"] * 8 + ["wrong"] * 8
        return await asyncio.gather(*(stored.verify("alice", password) for password in tries))

    assert asyncio.run(at_once()) == [True] * 8 + [False] * 8
    assert sorted(hashed) == ["secret", "wrong"]


def test_a_client_that_goes_away_does_not_end_the_verification_of_others(monkeypatch):
    stored = users_with()
    hashed = counted(stored, monkeypatch)

    async def first_goes_away() -> bool:
        first = asyncio.create_task(stored.verify("alice", "secret"))
        second = asyncio.create_task(stored.verify("alice", "secret"))
        await asyncio.sleep(0.01)
        first.cancel()
        return await second

    assert asyncio.run(first_goes_away())
    assert hashed == ["secret"]


def test_a_remembered_password_is_verified_again_before_it_is_forgotten(monkeypatch):
    stored = Users({"alice": SHA}, remember=1000)
    hashed = counted(stored, monkeypatch)

    async def late() -> None:
        await stored.verify("alice", "secret")
        (digest,) = stored._verified
        assert stored.remembers("alice", "secret")
        assert hashed == ["secret"]
        soon = stored._verified[digest] = time.monotonic() + 1000 * users.REFRESH - 1
        assert all([stored.remembers("alice", "secret"), stored.remembers("alice", "secret")])
        await asyncio.gather(*stored._checks.values())
        assert stored._verified[digest] > soon

    asyncio.run(late())
    assert hashed == ["secret", "secret"]


def test_a_missing_thread_fails_all_waiting_requests_but_not_the_next(monkeypatch):
    stored = users_with()

    async def no_thread(*_: object) -> bool:
        raise RuntimeError("can't start new thread")

    async def at_once() -> list[bool | BaseException]:
        tries = (stored.verify("alice", "secret") for _ in range(2))
        return await asyncio.gather(*tries, return_exceptions=True)

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "to_thread", no_thread)
        assert [str(fault) for fault in asyncio.run(at_once())] == ["can't start new thread"] * 2
    assert is_accepted(stored, "alice", "secret")


def test_passwd_writes_what_a_gateway_reads(tmp_path):
    path = tmp_path / "users.htpasswd"
    for user, password in (("alice", "old"), ("bob", "b"), ("alice", "new"), ("", "nobody's")):
        users.set_password(path, user, password)
    stored = users.load(path)
    assert is_accepted(stored, "alice", "new")
    assert not is_accepted(stored, "alice", "old")
    assert is_accepted(stored, "", "nobody's")
    assert path.read_text().count("\n") == 3


def test_each_faulty_line_of_the_password_file_is_reported(tmp_path):
    path = tmp_path / "file"
    path.write_text(f"alice:{SHA}\nbob\nalice:{SHA}\ncarol:plain\n")
    with pytest.raises(ConfigError) as refusal:
        users.load(path)
    assert [fault.split(":")[1] for fault in refusal.value.faults] == ["2", "3", "4"]


# Challenges.


def digest_server() -> Digest:
    return Digest("r", ["SHA-256", "MD5"], {}, Nonces(), 300)


def test_challenges_are_offered_for_each_configured_scheme():
    words = [text.split(",")[0] for text in Passwords("r", users_with(), digest_server()).challenges()]
    assert words == ['Digest realm="r"', 'Digest realm="r"', 'Basic realm="r"']
    assert Passwords("r", users_with(), None).challenges() == ['Basic realm="r"']
    assert len(Passwords("r", None, digest_server()).challenges()) == 2
    assert Passwords("r", None, None).challenges() == []
    assert Passwords("r", None, digest_server()).challenges(basic_only=True) == ['Basic realm="r"']


def test_a_scheme_that_is_not_offered_is_not_verified():
    claimed = Credentials("Basic", "alice", "secret")
    assert asyncio.run(Passwords("r", users_with(), None).verify(claimed, "POST", ["/"]))
    assert not asyncio.run(Passwords("r", None, digest_server()).verify(claimed, "POST", ["/"]))


# The command.


@pytest.mark.parametrize("options", [[], ["--digest"]])
def test_estgw_passwd_writes_the_file_and_prints_no_password(tmp_path, options):
    path = tmp_path / "file"
    command = [sys.executable, "-m", "estgw", "passwd", *options, str(path), "alice"]
    done = subprocess.run(command, input="secret\n", capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout + done.stderr + path.read_text()
    assert len(path.read_text().splitlines()) == (2 if options else 1)
