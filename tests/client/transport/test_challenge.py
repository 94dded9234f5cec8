"""HTTP authentication, with published values and with headers of real servers."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest

from estgw.client.faults import Exit, UsageError
from estgw.client.transport import challenge
from estgw.client.transport.challenge import Authorizer, Credentials
from tests.client import rogue
from tests.client.common import ENROLL, LOGIN, NEW

A3 = json.loads((Path(__file__).parents[2] / "vectors" / "rfc7030-a3-digest.json").read_text())


def fields(header):
    (found,) = challenge.parse([header])
    return found.parameters


def test_basic_answers_a_challenge_once():
    authorizer = Authorizer(Credentials("Aladdin", "open sesame"))
    assert authorizer.header("POST", "/") is None
    assert authorizer.learn(['Basic realm="foo", charset="UTF-8"'])
    assert authorizer.header("POST", "/") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617 2
    assert not authorizer.learn(['Basic realm="foo"'], again=True)


def test_digest_in_the_place_of_refused_basic_is_answered_once():
    """RFC 9110 15.5.2: a challenge that differs from the last one may be answered."""
    authorizer = Authorizer(Credentials("u", "p"))
    digest = ['Digest realm="x", nonce="n", qop="auth"']
    assert authorizer.learn(["Basic realm=x"])
    assert authorizer.learn(digest, again=True)
    assert authorizer.scheme == "Digest MD5"
    assert not authorizer.learn(digest, again=True)
    assert not authorizer.learn(["Basic realm=x"], again=True)


def test_basic_accepts_an_empty_user_and_a_password_in_utf_8():
    authorizer = Authorizer(Credentials("", "pässword:x"))
    authorizer.learn(["Basic realm=x"])
    assert base64.b64decode((authorizer.header("GET", "/") or "")[6:]).decode() == ":pässword:x"


def test_digest_gives_the_responses_of_rfc_7616_3_9_1(monkeypatch):
    """The published responses for both hashes, with the cnonce that the RFC fixes."""
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
    common = 'realm="http-auth@example.org", qop="auth, auth-int", nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"'
    sha = f'Digest {common}, algorithm=SHA-256, opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    md5 = f'Digest {common}, algorithm=MD5, opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    for offered, response in (
        ([md5, sha], "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ([md5], "8ca523f5e9506fed4657c9700eebdbec"),
    ):
        authorizer = Authorizer(Credentials("Mufasa", "Circle of Life"))
        assert authorizer.learn(offered)
        sent = fields(authorizer.header("GET", "/dir/index.html"))
        assert sent["response"] == response
        assert sent["nc"] == "00000001"
        assert fields(authorizer.header("GET", "/dir/index.html"))["nc"] == "00000002"


def test_digest_gives_the_response_of_rfc_7030_a3(monkeypatch):
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: A3["cnonce"])
    authorizer = Authorizer(Credentials(A3["username"], A3["password"]))
    authorizer.learn([f'Digest qop="auth", realm="{A3["realm"]}", nonce="{A3["nonce"]}"'])
    sent = fields(authorizer.header(A3["method"], A3["uri_that_reproduces_the_printed_response"]))
    assert sent["response"] == A3["printed_response"]
    assert "algorithm" not in sent


def test_digest_answers_session_variants_and_challenges_without_qop():
    authorizer = Authorizer(Credentials("u", "p"))
    authorizer.learn(['Digest realm=r, nonce=n, algorithm=SHA-256-sess, qop="auth"'])
    sent = fields(authorizer.header("GET", "/x"))

    def sha(text):
        return hashlib.sha256(text.encode()).hexdigest()

    secret = sha(f"{sha('u:r:p')}:n:{sent['cnonce']}")
    assert sent["response"] == sha(f"{secret}:n:00000001:{sent['cnonce']}:auth:{sha('GET:/x')}")
    authorizer.learn(["Digest realm=r, nonce=n"])
    sent = fields(authorizer.header("GET", "/x"))

    def md5(text):
        return hashlib.md5(text.encode()).hexdigest()

    assert sent["response"] == md5(f"{md5('u:r:p')}:n:{md5('GET:/x')}")
    assert "nc" not in sent


def test_the_strongest_of_several_challenges_is_answered():
    offers = [
        'Basic realm="a", Digest realm="a", nonce="b", qop="auth"',
        'Digest realm=a,nonce=b,algorithm=SHA-256,qop="auth"',
    ]
    authorizer = Authorizer(Credentials("u", "p"))
    assert authorizer.learn(offers)
    assert authorizer.scheme == "Digest SHA-256"
    assert authorizer.learn(offers[:1])
    assert authorizer.scheme == "Digest MD5"
    assert authorizer.learn(["Negotiate YWJj==, Basic realm=x"])
    assert authorizer.scheme == "Basic"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        'Digest realm="a", nonce="b", algorithm=SHA-512-256, qop="auth"',
        'Digest realm="a", nonce="b", qop="auth-int"',
        'Digest realm="a"',
        'Digest nonce="b"',
        'Digest realm="a\n", nonce="b"',
        'Digest realm="never closed, nonce="b"',
        "=,=,=",
        "Negotiate",
    ],
)
def test_a_challenge_that_cannot_be_answered_is_ignored(header):
    authorizer = Authorizer(Credentials("u", "p"))
    assert not authorizer.learn([header])
    assert authorizer.header("GET", "/") is None


def test_a_stale_nonce_is_answered_again():
    authorizer = Authorizer(Credentials("u", "p"))
    assert authorizer.learn(['Digest realm=a, nonce="1", qop="auth"'])
    assert authorizer.learn(['Digest realm=a, nonce="2", qop="auth", stale=TRUE'], again=True)
    assert fields(authorizer.header("GET", "/"))["nonce"] == "2"
    assert not authorizer.learn(['Digest realm=a, nonce="3", qop="auth"'], again=True)


def test_quotes_are_escaped():
    authorizer = Authorizer(Credentials('a"b\\c', "p"))
    authorizer.learn([r'Digest realm="x\"y", nonce="n", qop="auth", opaque="o"'])
    header = authorizer.header("GET", "/") or ""
    assert r'username="a\"b\\c"' in header
    assert r'realm="x\"y"' in header
    assert 'opaque="o"' in header


@pytest.mark.parametrize(("user", "password"), [("a:b", "c"), ("a\n", "b"), ("a", "b\x00")])
def test_credentials_with_control_characters_are_refused(user, password):
    with pytest.raises(UsageError):
        Credentials(user, password)


def test_a_password_is_not_printed():
    assert "secret" not in repr(Credentials("u", "secret"))


CHALLENGE = 'Digest realm="estrealm", qop="auth", algorithm=SHA-256, nonce="{}"'


def digest_server(nonces, holder, enroller):
    """A 401 with the next nonce of the list for each request, and the enroller's own answer after the last one."""
    left = iter(nonces)
    good = enroller()

    def answer(request):
        found = next(left, None)
        if found is None:
            return good(request)
        return rogue.reply(401, content_type=None, WWW_Authenticate=CHALLENGE.format(found))

    return rogue.Server(holder, answer)


def test_a_stale_nonce_is_answered_once_with_the_same_credentials(holder, anchor, estclient, enroller):
    with digest_server(["1", '2", stale="true'], holder, enroller) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *ENROLL, *LOGIN)
    assert ended.status == Exit.DONE, ended.err
    first, second, third = (request.headers.get("Authorization") for request in server.requests)
    assert first is None
    assert (fields(second)["nonce"], fields(third)["nonce"]) == ("1", "2")
    assert {fields(each)["username"] for each in (second, third)} == {"estuser"}
    assert fields(third)["nc"] == "00000001"


def test_a_server_that_calls_every_nonce_stale_is_an_invalid_answer(holder, anchor, estclient, enroller):
    with digest_server([f'{at}", stale="true' for at in range(9)], holder, enroller) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *ENROLL, *LOGIN)
    assert ended.status == Exit.INVALID_ANSWER
    assert "the server calls its own fresh nonce stale (RFC 7616 3.3)" in ended.err
    assert len(server.requests) == 3


def test_a_wrong_password_is_not_sent_twice(holder, anchor, estclient, enroller):
    with digest_server("12", holder, enroller) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *ENROLL, *LOGIN)
    assert ended.status == Exit.REFUSED
    assert "The server does not accept the user name and password of -p: check both." in ended.err
    assert len(server.requests) == 2


def test_a_nonce_that_has_become_stale_is_replaced_once(holder, anchor, estclient, enroller):
    """The password was accepted for /csrattrs, so a later refusal concerns the nonce and is answered once."""
    with digest_server(["1"], holder, enroller) as server:
        good, seen = server.answer, []

        def answer(request):
            if request.method == "POST":
                seen.append(request)
            if len(seen) == 1:
                return rogue.reply(401, content_type=None, WWW_Authenticate=CHALLENGE.format('2", stale="true'))
            return good(request)

        server.answer = answer
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW, *LOGIN)
    assert ended.status == Exit.DONE, ended.err
    assert [fields(each.headers["Authorization"])["nonce"] for each in seen] == ["1", "2"]


def test_basic_that_is_refused_later_is_not_sent_again(holder, anchor, estclient, enroller):
    basic = rogue.reply(401, content_type=None, WWW_Authenticate='Basic realm="estrealm"')

    def attributes(request):
        return ... if "Authorization" in request.headers else basic

    with rogue.Server(holder, enroller(csrattrs=attributes, simpleenroll=basic)) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW, *LOGIN)
    assert ended.status == Exit.REFUSED
    assert "The server does not accept the user name and password of -p: check both." in ended.err
    assert [request.method for request in server.requests] == ["GET", "GET", "POST"]
