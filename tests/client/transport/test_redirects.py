"""Redirects, and other answers after which the client sends another request (RFC 7030 3.2.1)."""

from __future__ import annotations

import pytest

from estgw.client.faults import Exit
from tests.client import rogue
from tests.client.common import ENROLL, LOGIN, challenge
from tests.kit.ca import root


def test_a_redirect_on_the_same_origin_is_followed(ca, anchor, holder, estclient, enroller):
    def away(request):
        if request.target.startswith("/elsewhere"):
            return ...
        return rogue.reply(307, content_type=None, Location="/elsewhere/simpleenroll")

    with rogue.Server(holder, enroller(simpleenroll=away)) as server:
        assert estclient("enroll", "-u", server.url, "-c", anchor, *ENROLL).status == Exit.DONE
    assert server.handshakes == 1
    assert server.requests[0].body == server.requests[1].body


def test_a_redirect_to_another_origin_needs_allow_redirect(ca, anchor, holder, estclient, enroller):
    with rogue.Server(holder, enroller()) as other:

        def away(_):
            return rogue.reply(307, content_type=None, Location=f"{other.url}/.well-known/est/simpleenroll")

        with rogue.Server(holder, away) as server:
            ended = estclient("enroll", "-u", server.url, "-c", anchor, *ENROLL)
            assert ended.status == Exit.REFUSED
            assert "--allow-redirect" in ended.err
            assert other.handshakes == 0
            assert estclient("enroll", "-u", server.url, "-c", anchor, *ENROLL, "--allow-redirect").status == Exit.DONE
    first, second = server.requests[-1], other.requests[-1]
    assert first.body != second.body  # made again for the new connection
    from estgw.est import csr

    assert csr.parse(second.body).text_attribute(csr.CHALLENGE_PASSWORD) == second.binding


def test_a_redirect_to_an_untrusted_origin_sends_no_request(ca, anchor, holder, estclient):
    stranger = root("Other CA").server("localhost", names=["localhost"])
    with rogue.Server(stranger, challenge) as other:
        location = f"{other.url}/.well-known/est/simpleenroll"
        with rogue.Server(holder, lambda _: rogue.reply(307, content_type=None, Location=location)) as server:
            ended = estclient("enroll", "-u", server.url, "-c", anchor, *LOGIN, *ENROLL, "--allow-redirect")
    assert ended.status == Exit.UNTRUSTED
    assert not other.requests


def test_a_redirect_to_another_origin_gets_no_credentials_unasked(ca, anchor, holder, estclient, enroller):
    """Another origin gets the password only after its own challenge."""
    with rogue.Server(holder, enroller()) as other:

        def away(request):
            if "Authorization" not in request.headers:
                return challenge(request)
            return rogue.reply(308, content_type=None, Location=f"{other.url}/.well-known/est/simpleenroll")

        with rogue.Server(holder, away) as server:
            command = ("enroll", "-u", server.url, "-c", anchor, *LOGIN, *ENROLL, "--allow-redirect")
            assert estclient(*command).status == Exit.DONE
    assert "Authorization" in server.requests[-1].headers
    assert "Authorization" not in other.requests[-1].headers


@pytest.mark.parametrize(
    "location",
    [
        "http://localhost/x",
        "https://user@localhost/",
        "ftp://x",
        "//",
        "https://localhost:99999/",
        "https://[::1/",
        "\t",
    ],
)
def test_a_redirect_without_a_usable_url_is_an_invalid_answer(ask, location):
    ended = ask(rogue.reply(302, content_type=None, Location=location), "cacerts", "--allow-redirect")
    assert ended.status in (Exit.INVALID_ANSWER, Exit.REFUSED)


def test_circular_redirects_are_an_invalid_answer(anchor, holder, estclient):
    with rogue.Server(holder, lambda r: rogue.reply(302, content_type=None, Location=r.target)) as server:
        ended = estclient("cacerts", "-u", server.url, "-c", anchor)
    assert ended.status == Exit.INVALID_ANSWER
    assert "redirects" in ended.err
    assert len(server.requests) == 6


def test_endless_challenges_are_an_invalid_answer(anchor, holder, estclient):
    stale = 'Digest realm="r", nonce="n", qop="auth", stale=true'
    with rogue.Server(holder, lambda _: rogue.reply(401, content_type=None, WWW_Authenticate=stale)) as server:
        ended = estclient("csrattrs", "-u", server.url, "-c", anchor, *LOGIN)
    assert ended.status == Exit.INVALID_ANSWER
    assert len(server.requests) < 20
