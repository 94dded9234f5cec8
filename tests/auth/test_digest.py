from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from estgw.auth import digest, http
from estgw.auth.credentials import DigestResponse
from estgw.auth.digest import Digest, Nonces
from estgw.errors import BadRequest, ConfigError, StaleNonce, Unauthenticated
from tests.kit.der import VECTORS

REALM = "estrealm"
URI = "/.well-known/est/simpleenroll"
HASHES = {("alice", "MD5"): digest.ha1("MD5", "alice", REALM, "secret")} | {
    ("alice", "SHA-256"): digest.ha1("SHA-256", "alice", REALM, "secret"),
    ("", "MD5"): digest.ha1("MD5", "", REALM, "secret"),
}


class Clock:
    """A clock that tests move by hand. The date moves with it, and tests can set the date alone."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.date = 2_000_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.date


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(digest, "time", made)
    return made


@pytest.fixture
def server(clock) -> Digest:
    return Digest(REALM, ["SHA-256", "MD5"], HASHES, Nonces(), 300)


def nonce_of(server: Digest) -> str:
    return server.challenges()[0].split('nonce="')[1].split('"')[0]


def answered(nonce: str, **changes: str) -> DigestResponse:
    """A right answer, unless changed. All changes but `response` and `claims` enter the computation."""
    facts = {"user": "alice", "realm": REALM, "uri": URI, "algorithm": "SHA-256", "nc": "00000001", "cnonce": "c"}
    facts |= changes
    h = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}.get(facts["algorithm"], hashlib.sha256)
    first = h(f"{facts['user']}:{facts['realm']}:{facts.get('password', 'secret')}".encode()).hexdigest()
    second = h(f"{facts.get('method', 'POST')}:{facts['uri']}".encode()).hexdigest()
    text = f"{first}:{nonce}:{facts['nc']}:{facts['cnonce']}:auth:{second}"
    response = facts.get("response", h(text.encode()).hexdigest())
    return DigestResponse(
        facts["user"], facts["realm"], nonce, facts["uri"], facts["algorithm"], facts["nc"], facts["cnonce"], response
    )


# The computation.


def test_the_response_printed_in_rfc_7030_a3_is_recomputed():
    """The printed response belongs to the path of another operation. With that path it verifies."""
    seen: dict[str, Any] = json.loads((VECTORS / "rfc7030-a3-digest.json").read_text())
    user, realm, stored = seen["htdigest_line"].split(":")
    assert digest.ha1("MD5", user, realm, seen["password"]) == stored
    for uri, response in (
        (seen["uri_that_reproduces_the_printed_response"], seen["printed_response"]),
        (seen["printed_uri"], seen["response_recomputed_for_printed_uri"]),
    ):
        given = digest.parse(
            f'username="{user}", realm="{realm}", nonce="{seen["nonce"]}", uri="{uri}", cnonce="{seen["cnonce"]}", '
            f'nc={seen["nc"]}, qop="auth", response="{response}", algorithm="MD5"'
        )
        assert digest._response(given, seen["method"], stored) == response


@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
def test_a_right_answer_is_accepted_with_each_algorithm(server, algorithm):
    assert server.verify(answered(nonce_of(server), algorithm=algorithm), "POST", [URI])


@pytest.mark.parametrize(
    "changes",
    [
        {"password": "Secret"},
        {"user": "bob"},
        {"realm": "other"},
        {"method": "GET"},
        {"algorithm": "SHA-512-256"},
        {"algorithm": "MD5-SESS"},
        {"response": ""},
        {"response": "0" * 64},
        {"nc": "00000000"},
    ],
    ids=str,
)
def test_an_answer_with_one_wrong_part_is_refused(server, changes):
    assert not server.verify(answered(nonce_of(server), **changes), "POST", [URI])


def test_the_empty_user_is_verified_like_any_other(server):
    assert server.verify(answered(nonce_of(server), user="", algorithm="MD5"), "POST", [URI])
    assert not server.verify(answered(nonce_of(server), user="", algorithm="SHA-256"), "POST", [URI])


def test_an_algorithm_that_is_not_offered_is_refused(clock):
    nonces = Nonces()
    server = Digest(REALM, ["SHA-256"], HASHES, nonces, 300)
    assert not server.verify(answered(nonces.make(), algorithm="MD5"), "POST", [URI])
    assert server.verify(answered(nonces.make()), "POST", [URI])


def test_another_uri_is_a_bad_request(server):
    """RFC 7616 3.4.6."""
    nonce = nonce_of(server)
    with pytest.raises(BadRequest):
        server.verify(answered(nonce, uri="/.well-known/est/cacerts"), "POST", [URI])
    assert server.verify(answered(nonce, uri="/twin"), "POST", [URI, "/twin"])


# Challenges.


def test_a_challenge_has_quoted_values_and_omits_md5(server):
    """Real clients read exactly this form. A challenge for MD5 has no algorithm parameter."""
    sha, md5 = server.challenges()
    nonce = nonce_of(server)
    assert len(nonce) == 44
    assert sha.startswith('Digest realm="estrealm", nonce="')
    assert sha.endswith('", qop="auth", algorithm=SHA-256')
    assert md5.endswith('", qop="auth"')


@pytest.mark.parametrize("order", [["SHA-256", "MD5"], ["MD5", "SHA-256"], ["MD5"], ["SHA-256"]], ids=str)
def test_challenges_come_in_the_configured_order(order):
    offered = Digest(REALM, order, HASHES, Nonces(), 300).challenges()
    assert ["SHA-256" if "algorithm=SHA-256" in text else "MD5" for text in offered] == order


def test_stale_is_in_every_challenge_or_in_no_challenge(server):
    assert not any("stale" in text for text in server.challenges())
    assert all(", stale=true" in text for text in server.challenges(stale=True))


# Nonces.


def is_stale(server: Digest, given: DigestResponse) -> bool:
    """Whether the answer is right except for its nonce."""
    try:
        assert not server.verify(given, "POST", [URI])
    except StaleNonce:
        return True
    return False


def test_a_nonce_is_stale_after_its_lifetime(server, clock):
    nonce = nonce_of(server)
    clock.now += 299
    assert server.verify(answered(nonce), "POST", [URI])
    clock.now += 2
    assert is_stale(server, answered(nonce, nc="00000002"))


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_a_fresh_nonce_is_accepted_though_the_date_jumps(server, clock, step):
    before = nonce_of(server)
    clock.date += step
    assert server.verify(answered(before), "POST", [URI])
    assert server.verify(answered(nonce_of(server)), "POST", [URI])


WRONG_BUT_FOR_THE_NONCE = [
    {"password": "Secret"},
    {"user": "bob"},
    {"realm": "other"},
    {"method": "GET"},
    {"algorithm": "SHA-512-256"},
    {"response": ""},
    {"response": "0" * 64},
]


@pytest.mark.parametrize("changes", WRONG_BUT_FOR_THE_NONCE, ids=str)
def test_a_wrong_password_is_refused_and_not_stale_whatever_the_nonce(server, clock, changes):
    """Otherwise a guess with an old nonce would not count as a guess."""
    old, foreign = nonce_of(server), Nonces().make()
    clock.now += 301
    for nonce in (old, foreign, "nonsense", ""):
        assert not is_stale(server, answered(nonce, **changes))
        assert is_stale(server, answered(nonce))


def test_a_stale_nonce_uses_no_count(server, clock):
    assert is_stale(server, answered(Nonces().make()))
    nonce = nonce_of(server)
    assert server.verify(answered(nonce), "POST", [URI])
    assert not is_stale(server, answered(nonce))  # a replay, not a stale nonce


def test_a_nonce_count_is_accepted_once_and_only_if_it_grows(server):
    nonce = nonce_of(server)
    taken = [server.verify(answered(nonce, nc=f"{nc:08x}"), "POST", [URI]) for nc in (1, 1, 2, 2, 1, 9, 3, 10)]
    assert taken == [True, False, True, False, False, True, False, True]


def test_a_wrong_answer_uses_no_count(server):
    nonce = nonce_of(server)
    assert not server.verify(answered(nonce, password="guess"), "POST", [URI])
    assert server.verify(answered(nonce), "POST", [URI])


def test_a_nonce_with_one_flipped_bit_is_stale(server):
    nonce = nonce_of(server)
    raw = bytearray(base64.urlsafe_b64decode(nonce))
    for at in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[at // 8] ^= 1 << at % 8
        text = base64.urlsafe_b64encode(bytes(changed)).decode()
        assert is_stale(server, answered(text))


def test_a_nonce_in_another_spelling_is_stale(server):
    """The base64 decoder is lenient. A second spelling would be a second count."""
    nonce = nonce_of(server)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    loose = alphabet[alphabet.index(nonce[-2]) ^ 1]
    for other in (f"{nonce[:-2]}{loose}=", f"!{nonce}", f"{nonce}=", f"{nonce} ", nonce.rstrip("="), "", "é"):
        assert is_stale(server, answered(other))
    assert server.verify(answered(nonce), "POST", [URI])


def test_a_process_refuses_nonces_of_another_process(clock):
    one, two = Nonces(), Nonces()
    nonce = one.make()
    assert one.is_ours(nonce, 300)
    assert not two.is_ours(nonce, 300)


def test_used_nonces_are_bounded_and_a_forgotten_one_is_refused(clock, monkeypatch):
    monkeypatch.setattr(digest, "REMEMBERED", 10)
    nonces = Nonces()
    made = []
    for _ in range(30):
        clock.now += 0.1
        made.append(nonces.make())
    for nonce in made:
        assert nonces.is_ours(nonce, 300)
        assert nonces.use(nonce, 1)
    assert len(nonces._used) == 10
    assert not any(nonces.is_ours(nonce, 300) and nonces.use(nonce, 1) for nonce in made)


# Reading an answer.

WHOLE = 'username="alice", realm="estrealm", nonce="n", uri="/x", response="ABC", nc=00000001, cnonce="c", qop=auth'


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        WHOLE.replace("nc=00000001", 'nc="00000001"').replace("qop=auth", 'qop="auth"'),
        WHOLE.replace(", ", ","),
        WHOLE.replace("=", " = "),
        WHOLE + ', opaque="the client\'s own"',
        WHOLE + ", algorithm=MD5",
        WHOLE + ', algorithm="md5"',
        WHOLE.replace("username", "Username").replace("qop=auth", "QOP=AUTH"),
        WHOLE + ", extension=whatever,",
        WHOLE.replace('"alice"', "alice"),
    ],
)
def test_harmless_variants_of_an_answer_are_read_alike(text):
    read = digest.parse(text)
    assert (read.username, read.realm, read.nonce, read.uri) == ("alice", "estrealm", "n", "/x")
    assert (read.response, read.nc, read.cnonce, read.algorithm) == ("abc", "00000001", "c", "MD5")


def test_quotes_and_commas_in_a_user_name_are_read():
    assert digest.parse(WHOLE.replace("alice", r"a, \"b\" = c\\d")).username == 'a, "b" = c\\d'


@pytest.mark.parametrize("name", ["username", "realm", "nonce", "uri", "response", "nc", "cnonce", "qop"])
def test_an_answer_without_a_required_part_is_refused(name):
    text = ", ".join(part for part in WHOLE.split(", ") if not part.startswith(name + "="))
    with pytest.raises(Unauthenticated):
        digest.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "=",
        ",,,",
        'username="',
        "username=",
        'username=""' + "," * 3000,
        WHOLE.replace("qop=auth", "qop=auth-int"),
        WHOLE.replace("qop=auth", "qop="),
        WHOLE.replace("nc=00000001", "nc=1"),
        WHOLE.replace("nc=00000001", "nc=0000000g"),
        WHOLE.replace("nc=00000001", "nc=-0000001"),
        WHOLE.replace("alice", "al\x00ice"),
        WHOLE.replace("alice", "al\udce9ce"),
        WHOLE.replace("username=", "username*=UTF-8''"),
    ],
)
def test_a_malformed_answer_is_refused(text):
    with pytest.raises(Unauthenticated):
        digest.parse(text)


def test_a_digest_response_is_not_in_the_repr():
    assert "abc" not in repr(http.parse([f"Digest {WHOLE}"]))


# The file.


def test_set_passwords_replaces_one_user_of_one_realm_for_both_hashes(tmp_path):
    path = tmp_path / "users.htdigest"
    digest.set_passwords(path, REALM, {"alice": "secret"})
    digest.set_passwords(path, "other", {"alice": "elsewhere"})
    digest.set_passwords(path, REALM, {"bob": "b"})
    digest.set_passwords(path, REALM, {"bob": "changed"})
    assert path.stat().st_mode & 0o777 == 0o600
    lines = path.read_text().splitlines()
    assert sorted(len(line.rpartition(":")[2]) for line in lines) == [32] * 3 + [64] * 3
    found = digest.load(path, REALM)
    assert found["alice", "MD5"] == HASHES["alice", "MD5"]
    assert found["alice", "SHA-256"] == HASHES["alice", "SHA-256"]
    assert found["bob", "MD5"] == digest.ha1("MD5", "bob", REALM, "changed")
    assert len(found) == 4


def test_a_line_of_apaches_htdigest_is_read(tmp_path):
    (tmp_path / "file").write_text("# mine\n\nestuser:estrealm:36807FA200741BB0E8FB04FCF08E2DE6\n")
    assert digest.load(tmp_path / "file", REALM) == {("estuser", "MD5"): "36807fa200741bb0e8fb04fcf08e2de6"}


def test_every_fault_of_a_file_is_named(tmp_path):
    path = tmp_path / "file"
    path.write_text(f"a:estrealm:{'0' * 31}\nb:{'0' * 32}\nc:estrealm:{'0' * 32}\nd:estrealm:{'x' * 32}\n")
    with pytest.raises(ConfigError) as refusal:
        digest.load(path, REALM)
    assert [fault.split(":")[1] for fault in refusal.value.faults] == ["1", "2", "4"]
    with pytest.raises(ConfigError, match="estgw passwd --digest"):
        digest.load(tmp_path / "nowhere", REALM)


@pytest.mark.parametrize("user", ["a:b", "a\nb", "a\x7f"])
def test_set_passwords_refuses_a_name_that_the_file_cannot_hold(tmp_path, user):
    with pytest.raises(ValueError, match="no colon"):
        digest.set_passwords(tmp_path / "file", REALM, {user: "secret"})
    assert not (tmp_path / "file").exists()
