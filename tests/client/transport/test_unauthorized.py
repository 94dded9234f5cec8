"""401, and the sentence that names the missing credentials (RFC 7030 3.2.3, 3.3.2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from estgw.client import keys, request
from estgw.client.faults import Exit
from tests.client import rogue
from tests.client.common import ENROLL, LOGIN
from tests.kit.ca import common_name

BASIC = rogue.reply(401, content_type=None, WWW_Authenticate='Basic realm="estrealm"')
BEARER = rogue.reply(401, content_type=None, WWW_Authenticate='Bearer realm="estrealm"')
BARE = rogue.reply(401, b"Proof of Possession Mismatch.", "text/plain")
UNLINKED = (
    "The CSR is not linked to the connection (RFC 7030 3.5), and some servers answer that with 401 too: "
    "leave out --no-pop, and make the CSR with -R or --new-key in place of --csr."
)


@pytest.fixture
def refused(ca, holder, anchor, estclient):
    """Run a command against a server that answers 401; returns its stderr. `me.pem` is a certificate."""
    Path("me.pem").write_bytes(ca.issue("me").both)

    def run(answer, *command):
        with rogue.Server(holder, answer if callable(answer) else lambda _: answer) as server:
            ended = estclient(*command, "-u", server.url, "-c", anchor)
        assert ended.status == Exit.REFUSED
        return ended.err

    return run


CERT = ("--cert", "me.pem")


@pytest.mark.parametrize("answer", [BASIC, BARE])
def test_a_401_despite_a_certificate_suggests_a_password_too(refused, answer):
    for command in (("enroll", *ENROLL), ("reenroll", "--no-csrattrs"), ("cacerts",)):
        said = refused(answer, *command, *CERT)
        assert "The certificate of --cert is not enough: give a user name and password as well, -p USER." in said
        assert "--cert FILE" not in said


def test_a_challenge_suggests_a_password_or_a_certificate(refused):
    said = refused(BASIC, "enroll", *ENROLL)
    assert (
        "estclient enroll: the server says 401 Whatever\n"
        "The request had no credentials, and the server offers Basic: give a user name and password, -p USER, "
        "or a certificate, --cert FILE --key FILE.\n"
    ) in said
    assert "not linked" not in said


def test_a_401_without_a_challenge_suggests_a_certificate(refused):
    for command in (("enroll", *ENROLL), ("enroll", *ENROLL, *LOGIN)):
        said = refused(BARE, *command)
        assert "the server says 401 Whatever: Proof of Possession Mismatch.\n" in said
        assert "a certificate" in said
        assert "--cert FILE --key FILE." in said
    assert (
        "The request had no credentials, and the server asks for no password (no WWW-Authenticate): "
        "it may want a certificate, --cert FILE --key FILE."
    ) in refused(BARE, "cacerts")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "or give a certificate: --cert FILE --key FILE."),
        (CERT, "and --cert is not enough."),
    ],
)
def test_a_challenge_of_an_unsupported_scheme_is_named(refused, options, words):
    said = refused(BEARER, "enroll", *ENROLL, *LOGIN, *options)
    assert f"The server wants Bearer, and -p can answer Basic and Digest only; {words}" in said


def test_a_challenge_after_a_password_says_that_it_is_wrong(refused):
    assert "The server does not accept the user name and password of -p: check both.\n" in refused(
        BASIC, "enroll", *ENROLL, *LOGIN
    )


def after_login(request):
    return BARE if "Authorization" in request.headers else BASIC


@pytest.mark.parametrize("who", [LOGIN, CERT])
def test_a_401_for_an_unlinked_csr_mentions_the_link(refused, who):
    """libest's server answers 401 without a challenge to a CSR that is not linked."""
    answer = after_login if who is LOGIN else BARE
    said = refused(answer, "enroll", *ENROLL, *who, "--no-pop")
    assert UNLINKED in said
    if who is LOGIN:
        assert "or it misses something else: it names no challenge." in said
    assert "not linked" not in refused(answer, "enroll", *ENROLL, *who)


def test_a_401_for_a_finished_csr_mentions_the_link(refused):
    plan = request.plan(request.Wanted(common_name("x")), None)
    Path("r.csr").write_bytes(request.build(plan, keys.generate(keys.parse_spec("ec:P-256")), None))
    assert UNLINKED in refused(BARE, "enroll", "--csr", "r.csr", *CERT)
    assert UNLINKED in refused(after_login, "serverkeygen", "--csr", "r.csr", "-o", "x.pem", *LOGIN)


def test_a_401_of_an_unverified_server_suggests_anchors(holder, estclient):
    with rogue.Server(holder, lambda _: BASIC) as server:
        ended = estclient("cacerts", "-u", server.url, "--fingerprint", "00" * 32)
    assert ended.status == Exit.REFUSED
    assert (
        "This server is not verified, so it gets no password and no certificate: give -c FILE or --implicit first."
        in ended.err
    )


@pytest.mark.parametrize(
    ("command", "option"),
    [("enroll", "--csr"), ("serverkeygen", "--csr"), ("fullcmc", "--cmc"), ("fullcmc enroll", "--csr")],
)
@pytest.mark.parametrize("content", [b"", b" \n"])
def test_an_empty_request_file_is_named_before_anything_is_sent(
    ca, holder, anchor, estclient, enroller, command, option, content
):
    Path("request").write_bytes(content)
    Path("me.pem").write_bytes(ca.issue("me").both)
    extra = ("-o", "x.pem") if command == "serverkeygen" else ()
    with rogue.Server(holder, enroller()) as server:
        ended = estclient(*command.split(), option, "request", *extra, *CERT, "-u", server.url, "-c", anchor)
    assert ended.status == Exit.USAGE
    assert f"estclient {command}: request is empty: there is no request in it" in ended.err
    assert not server.requests
    assert not server.handshakes
