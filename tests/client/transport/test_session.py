"""The library: `Session` in a program."""

from __future__ import annotations

from estgw.client import Credentials, Identity, Session, Trust, keys, request
from estgw.client.transport.wire import Exchange
from tests.client import rogue
from tests.kit.ca import common_name


def test_a_session_runs_three_operations_on_one_connection(ca, holder, enroller):
    """`Session` is used as in the README."""
    me = ca.issue("me")
    key = keys.generate(keys.parse_spec("ml-dsa-65"))
    plan = request.plan(request.Wanted(common_name("library")), None)
    seen: list[Exchange] = []
    with (
        rogue.Server(holder, enroller()) as server,
        Session(
            server.url,
            Trust(explicit=(ca.certificate,)),
            credentials=Credentials("u", "p"),
            identity=Identity(me.certificate, me.key),
            observer=seen.append,
        ) as session,
    ):
        assert session.cacerts() == [ca.certificate]
        assert session.csrattrs() is None
        issued = session.enroll(lambda binding: request.build(plan, key, binding))
        assert session.connected is not None
        assert session.connected.verdict.by == "name"
        assert session.connected.binding is not None
        assert session.connected.binding.text == server.requests[-1].binding
    assert issued.subject == common_name("library")
    assert server.handshakes == 1
    assert [exchange.answer.status for exchange in seen if exchange.answer] == [200, 204, 200]


def test_a_session_reconnects_after_the_server_has_closed(ca, holder, enroller):
    gone = enroller(cacerts=lambda _: rogue.reply(body=rogue.bag(ca.certificate), Connection="close"))
    with rogue.Server(holder, gone) as server, Session(server.url, Trust(explicit=(ca.certificate,))) as session:
        session.cacerts()
        session.csrattrs()
        session.csrattrs()
    assert [request.connection for request in server.requests] == [1, 2, 2]
