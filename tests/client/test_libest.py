"""A server like libest's: it counts a NUL in Content-Length, and closes after a 401 without announcing it."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from estgw.client import Session, Trust, keys, request
from estgw.client.faults import Exit
from estgw.errors import Malformed
from estgw.est import csr, encoding
from tests.client import rogue
from tests.client.common import ENROLL, LOGIN, NEW, V12, V13, pair_fits

WISHES = base64.b64encode(bytes.fromhex("300b06092a864886f70d010907")) + b"\0"
"""The OID of challengePassword, then the NUL that Content-Length counts."""
CHALLENGE = {"Basic": 'Basic realm="estrealm"', "Digest": 'Digest qop="auth", realm="estrealm", nonce="1795974560"'}


def closing(answer):
    """An answer after which the connection ends 45 ms later."""
    yield answer
    time.sleep(0.045)


def old(answer):
    return answer.replace(b"HTTP/1.1", b"HTTP/1.0", 1)


@pytest.fixture
def libest(holder, enroller):
    """A server like libest's. `version` is of TLS, `scheme` of the challenge; `speak` changes each answer."""

    def start(version=None, scheme="Basic", speak=lambda answer: answer, **answers):
        def enroll(request):
            if "Authorization" not in request.headers:
                return closing(speak(rogue.reply(401, content_type=None, WWW_Authenticate=CHALLENGE[scheme])))
            assert request.headers["Authorization"].startswith(scheme)
            return ...

        attributes = speak(rogue.reply(body=WISHES, content_type="application/csrattrs"))
        good = enroller(**{"csrattrs": attributes, "simpleenroll": enroll, **answers})
        return rogue.Server(holder, good, version)

    return start


def posts(server):
    return [request for request in server.requests if request.method == "POST"]


def bindings_fit(requests):
    return [csr.parse(each.body).text_attribute(csr.CHALLENGE_PASSWORD) == each.binding for each in requests]


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("scheme", ["Basic", "Digest"])
@pytest.mark.parametrize("speak", [bytes, old], ids=["HTTP 1.1", "HTTP 1.0"])
def test_a_password_enrols_although_the_401_closes_the_connection(libest, anchor, estclient, version, scheme, speak):
    with libest(version, scheme, speak) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW, *LOGIN)
    assert ended.status == Exit.DONE, ended.err
    assert pair_fits("device.pem", "device.key")
    first, *_, last = posts(server)
    assert first.connection != last.connection
    assert all(bindings_fit(posts(server)))


def dying(operation):
    """Answers for one operation on each connection, which then dies."""
    used = set()

    def first(request):
        used.add(request.connection)
        return ...

    def later(request):
        return None if request.connection in used else ...

    return {operation: first, "simpleenroll": later}


def test_a_request_is_repeated_when_its_reused_connection_dies(holder, anchor, estclient, enroller):
    with rogue.Server(holder, enroller(**dying("csrattrs"))) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW)
    assert ended.status == Exit.DONE, ended.err
    assert [each.connection for each in server.requests] == [1, 1, 2]
    assert all(bindings_fit(posts(server)))
    assert len({each.binding for each in posts(server)}) == 2


def test_a_finished_request_is_repeated_unchanged(holder, anchor, estclient, enroller, ca):
    made = request.build(
        request.plan(request.Wanted(ca.certificate.subject), None), keys.generate(keys.parse_spec("ec:P-256")), None
    )
    with (
        rogue.Server(holder, enroller(**dying("cacerts"))) as server,
        Session(server.url, Trust(explicit=(ca.certificate,))) as session,
    ):
        session.cacerts()
        session.enroll(made)
    assert [each.body for each in posts(server)] == [encoding.encode_base64(made)] * 2


@pytest.mark.parametrize(("options", "count"), [((), 2), (("--no-csrattrs",), 1)])
def test_a_request_is_repeated_once_and_never_on_a_fresh_connection(
    holder, anchor, estclient, enroller, options, count
):
    good = enroller()
    with rogue.Server(holder, lambda it: None if it.operation == "simpleenroll" else good(it)) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW, *options)
    assert ended.status == Exit.NO_CONNECTION
    assert "the server closed the connection without an answer" in ended.err
    assert len(posts(server)) == count


@pytest.mark.parametrize(
    ("piece", "status"),
    [(b"H", Exit.INVALID_ANSWER), (b"HTTP/1.1 100 Continue\r\n\r\n", Exit.NO_CONNECTION)],
)
def test_a_request_is_not_repeated_once_a_byte_has_come(holder, anchor, estclient, enroller, piece, status):
    with rogue.Server(holder, enroller(simpleenroll=lambda _: [piece])) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW)
    assert ended.status == status
    assert [each.connection for each in server.requests] == [1, 1]


@pytest.mark.parametrize("status", [400, 405, 410])
@pytest.mark.parametrize("command", ["enroll", "reenroll", "serverkeygen"])
def test_a_server_without_csrattrs_stops_no_enrolment(holder, anchor, estclient, enroller, ca, status, command):
    """Servers without this path answer 405 or 400; RFC 7030 4.5.2 has 204 and 404 for it."""
    refusal = rogue.reply(status, b"no such thing", "text/plain")
    me = ca.issue("me")
    Path("me.pem").write_bytes(me.both)
    words = {
        "enroll": NEW,
        "reenroll": ("--cert", "me.pem"),
        "serverkeygen": ("--subject", "CN=x", "-o", "x.pem"),
    }[command]
    with rogue.Server(holder, enroller(csrattrs=refusal)) as server:
        ended = estclient(command, "-u", server.url, "-c", anchor, *words)
        url = server.url
    assert f"Warning: csrattrs at {url}/.well-known/est/csrattrs: the server says {status}" in ended.err
    assert "no such thing\nGoing on as if the server asked for no CSR attribute." in ended.err
    assert server.requests[-1].method == "POST"
    if command != "serverkeygen":
        assert ended.status == Exit.DONE


@pytest.mark.parametrize("status", [404, 501])
def test_missing_csrattrs_are_not_reported(holder, anchor, estclient, enroller, status):
    with rogue.Server(holder, enroller(csrattrs=rogue.reply(status))) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW)
    assert ended.status == Exit.DONE
    assert "csrattrs" not in ended.err


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (rogue.reply(401, content_type=None), Exit.REFUSED, "the server says 401 Whatever"),
        (rogue.reply(403, b"no", None), Exit.REFUSED, "the server says 403 Whatever: no"),
        (rogue.reply(500, b"no", None), Exit.FAILED, "the server says 500 Whatever: no"),
        (rogue.reply(503, Retry_After="7"), Exit.TRY_LATER, "the server says 503 Whatever"),
        (rogue.reply(body=b"MAA"), Exit.INVALID_ANSWER, "CSR attributes of type"),
        (None, Exit.NO_CONNECTION, "the server closed the connection without an answer"),
    ],
    ids=["401", "403", "500", "503", "not csrattrs", "nothing"],
)
def test_csrattrs_that_fail_during_an_enrolment_are_named(holder, anchor, estclient, enroller, answer, expected, words):
    good = enroller()
    with rogue.Server(holder, lambda it: answer if it.operation == "csrattrs" else good(it)) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW, "--json")
        where = f"{server.url}/.well-known/est/csrattrs"
    assert ended.status == expected
    assert f"estclient enroll: csrattrs at {where}: {words}" in ended.err
    assert (ended.json["operation"], ended.json["url"]) == ("csrattrs", where)


def test_a_failing_enrolment_is_reported_under_its_own_operation(holder, anchor, estclient, enroller):
    with rogue.Server(holder, enroller(simpleenroll=rogue.reply(403, b"no", None))) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *ENROLL, "--json")
    assert "estclient enroll: the server says 403 Whatever: no" in ended.err
    assert ended.json["operation"] == "simpleenroll"


@pytest.mark.parametrize("tail", [b"\0", b"\0\0", b"\r\n\0", b"\0\r\n", b"\n\0\n"])
def test_nul_after_base64_is_dropped(tail):
    assert encoding.decode(b"MAA=" + tail, ()) == b"0\0"


def test_nul_inside_base64_is_malformed_but_allowed_in_der():
    assert encoding.decode(b"0\0", ()) == b"0\0"
    for body in (b"MA\0A=", b"\0MAA=", b"\0", b" \0\n"):
        with pytest.raises(Malformed):
            encoding.decode(body, ())
