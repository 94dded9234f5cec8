"""The password file, its hashes, and the time that a verdict takes. `test_passwords` has the rest."""

from __future__ import annotations

import asyncio
import threading

import pytest

from estgw.auth import users
from estgw.auth.users import Users
from estgw.errors import ConfigError

SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # "secret"


def verify(stored: Users, user: str, password: str) -> bool:
    return asyncio.run(stored.verify(user, password))


@pytest.mark.parametrize("scheme", ["bcrypt", "sha512_crypt", "sha256_crypt", "apr_md5_crypt", "ldap_sha1"])
def test_every_supported_hash_verifies_its_password(tmp_path, scheme):
    rounds = {"bcrypt": {"rounds": 4}, "sha512_crypt": {"rounds": 1000}, "sha256_crypt": {"rounds": 1000}}
    text = users._CONTEXT.handler(scheme).using(**rounds.get(scheme, {})).hash("secret")
    path = tmp_path / "users"
    path.write_text(f"ann:{text}\n")
    stored = users.load(path)
    assert verify(stored, "ann", "secret")
    assert not verify(stored, "ann", "Secret")
    assert not verify(stored, "ann", "")


@pytest.mark.parametrize(
    "stored",
    [
        "secret",
        "",
        "rl.3StKT.4T8M",  # DES crypt
        "$1$abc$def",
        "{PLAIN}secret",
        "$2y$10$short",
        "$2y$10$",
        "$6$rounds=99999999999$a$b",
        "$5$",
        "$5$seventeenXletters",
        "$apr1$abc",
    ],
)
def test_an_unsupported_or_malformed_hash_is_a_fault_with_its_column(tmp_path, stored):
    path = tmp_path / "users"
    path.write_text(f"# staff\nann:{stored}\n")
    with pytest.raises(ConfigError) as refusal:
        users.load(path)
    assert refusal.value.faults == [f"{path}:2:5: not a hash that is accepted (bcrypt is best)"]


def test_comments_empty_lines_and_trailing_white_space_are_ignored(tmp_path):
    path = tmp_path / "users"
    path.write_text(f"# staff\n\n   \nann:{SHA}  \r\n")
    assert verify(users.load(path), "ann", "secret")


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file or directory"), (b"ann:\xff\n", "can't decode byte 0xff")]
)
def test_an_unreadable_file_is_reported_with_the_command_to_make_it(tmp_path, content, words):
    path = tmp_path / "users"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as refusal:
        users.load(path)
    assert refusal.value.faults[0].endswith(f"; make it with: estgw passwd {path} NAME")


class Spy:
    """Stands in for the library and records its calls and their threads."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.threads: set[int] = set()

    def verify(self, password: str, stored: str) -> bool:
        self.asked.append((password, stored))
        self.threads.add(threading.get_ident())
        return password == "secret"


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    made = Spy()
    monkeypatch.setattr(users, "_CONTEXT", made)
    return made


def test_an_unknown_user_costs_one_hash_of_the_usual_kind(spy):
    stored = Users({"ann": "hash of ann", "bob": "hash of bob"})
    assert not verify(stored, "nobody", "secret")
    assert spy.asked == [("secret", "hash of ann")]


def test_a_password_beyond_72_bytes_is_refused_at_the_cost_of_a_hash(spy):
    stored = Users({"ann": "hash of ann"})
    assert not verify(stored, "ann", "x" * 73)
    assert not verify(stored, "ann", "ä" * 37)
    assert spy.asked == [("", "hash of ann")] * 2


def test_hashes_are_computed_outside_the_event_loop_thread(spy):
    verify(Users({"ann": "hash"}), "ann", "secret")
    assert threading.get_ident() not in spy.threads


def test_remember_0_verifies_every_time(spy):
    stored = Users({"ann": "hash"}, remember=0)
    assert [verify(stored, "ann", "secret") for _ in range(3)] == [True] * 3
    assert len(spy.asked) == 3


def test_a_remembered_success_is_forgotten_after_its_time(spy, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("estgw.auth.users.time.monotonic", lambda: now[0])
    stored = Users({"ann": "hash"}, remember=60)
    for moment in (0, 44, 61, 62):
        now[0] = 1000.0 + moment
        assert verify(stored, "ann", "secret")
    assert len(spy.asked) == 2


def test_a_remembered_success_counts_only_for_that_user_and_password(spy):
    stored = Users({"ann": "hash", "ann\0secret": "hash"})
    assert verify(stored, "ann", "secret")
    assert not verify(stored, "bob", "secret")
    assert not verify(stored, "ann", "other")
    assert len(spy.asked) == 3


def test_an_error_of_the_hash_library_refuses_the_password(monkeypatch):
    class Broken:
        def verify(self, *_: str) -> bool:
            raise ValueError("malformed")

    monkeypatch.setattr(users, "_CONTEXT", Broken())
    assert not verify(Users({"ann": "hash"}), "ann", "secret")
