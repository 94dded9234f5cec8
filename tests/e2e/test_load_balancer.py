"""A gateway behind a load balancer: whose address counts, readiness, drain, and what is refused."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

import pytest

from estgw.errors import spread
from tests.kit.cases import some
from tests.kit.clients import digest_answer, digest_challenge, digest_file
from tests.kit.connection import Connection, request
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, Gateway, merged, running_gateway
from tests.kit.haproxy import running_haproxy
from tests.kit.processes import until

GOOD = csr()
BALANCED: Mapping[str, Any] = {"server": {"proxies": ["127.0.0.0/8"]}, "metrics": {"listen": "127.0.0.1:0"}}


def line(client: str) -> bytes:
    """What a load balancer sends before the client's bytes, with source and destination."""
    return f"PROXY TCP4 {client} 198.51.100.1 40000 443\r\n".encode()


def health_port(gateway: Gateway) -> int:
    port: int = gateway.wait_for("metrics")["port"]
    return port


def health(gateway: Gateway, path: str = "/readyz", method: str = "GET") -> int:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", health_port(gateway), timeout=10)) as connection:
        connection.request(method, path)
        return connection.getresponse().status


# Whose address counts.


def test_the_clients_address_counts_for_scripts_rules_log_and_guesses(own_lab):
    script = own_lab.script("tell", 'echo "$REMOTE_ADDR $REMOTE_PORT $SERVER_PORT"; exit 77')
    overrides = merged(
        BALANCED,
        {
            "client_auth": {"guess_delay": 30},
            "pop": {"rules": [{"address": "203.0.113.0/24", "pop": "required"}]},
            "callouts": {"operations": {"simpleenroll": {"handler": str(script)}}},
        },
    )
    with running_gateway(own_lab, overrides) as gateway:

        def ask(client: str, login: str = LOGIN) -> Any:
            return gateway.post("simpleenroll", GOOD, header=line(client), login=login)

        assert ask("192.0.2.1").words == "192.0.2.1 40000 443"
        assert "is required here" in ask("203.0.113.9").words
        assert [entry["peer"] for entry in gateway.access] == ["192.0.2.1", "203.0.113.9"]
        # A guess delays the user at its own address, not those behind the same load balancer.
        assert ask("192.0.2.66", "estuser:wrong").status == 401
        began = time.monotonic()
        assert ask("192.0.2.1").status == 403
        assert time.monotonic() - began < 15


# ssl leaves a socket open that is reset before its handshake.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_header_that_nobody_may_send_is_refused(own_lab):
    """From an address that is no load balancer, and at a gateway that has no load balancer."""
    with running_gateway(own_lab, {"server": {"proxies": ["192.0.2.10"]}}) as gateway:
        with pytest.raises(OSError):
            gateway.post("simpleenroll", GOOD, header=line("192.0.2.1"))
        said = gateway.wait_for("TLS handshake failed")
        assert said["reason"] == "refused: it does not come from a load balancer in server.proxies"
        assert "connect to that, or add the address to server.proxies" in said["hint"]
        # A reload is enough to change them.
        gateway.configure({"server": {"proxies": ["127.0.0.1"]}})
        assert gateway.reload()["event"] == "reloaded"
        assert gateway.post("simpleenroll", GOOD, header=line("192.0.2.1")).status == 200
        with pytest.raises(OSError):
            gateway.post("simpleenroll", GOOD)
        said = gateway.wait_for("TLS handshake failed", reason="no PROXY header")
        assert "send-proxy-v2" in said["hint"]
        gateway.configure({})
        assert gateway.reload()["event"] == "reloaded"
        with pytest.raises(OSError):
            gateway.post("simpleenroll", GOOD, header=line("192.0.2.1"))
        said = gateway.wait_for("TLS handshake failed", reason="wrong version number")
        assert "add it to server.proxies" in said["hint"]
        assert not [entry for entry in gateway.access if entry["peer"] != "192.0.2.1"]


@pytest.mark.parametrize("proxies", [[], ["127.0.0.1"]], ids=["direct", "behind one"])
def test_a_tcp_probe_leaves_no_line_at_warning_level(own_lab, proxies):
    with running_gateway(own_lab, {"server": {"proxies": proxies}}) as gateway:
        for _ in range(3):
            socket.create_connection(("127.0.0.1", gateway.port)).close()
        until(lambda: [entry["event"] for entry in gateway.log].count("TLS handshake failed") == 3)
        assert {entry["level"] for entry in gateway.log} == {"info"}


# Health, readiness, drain.


@pytest.mark.parametrize("workers", some([1, 2], 2))
def test_readyz_says_503_from_sigterm_on_while_connections_are_still_taken(own_lab, workers):
    overrides = merged(BALANCED, {"server": {"workers": workers, "drain_delay": 1.5, "proxies": []}})
    with running_gateway(own_lab, overrides) as gateway:
        for path in ("/healthz", "/readyz"):
            assert (health(gateway, path), health(gateway, path, "HEAD"), health(gateway, path, "POST")) == (
                200,
                200,
                405,
            )
        began = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: health(gateway) == 503)
        assert health(gateway, "/healthz") == 200
        assert gateway.post("simpleenroll", GOOD).status == 200
        assert not [entry for entry in gateway.log if entry["event"] == "draining"]
        assert gateway.wait_for("no longer ready")["seconds"] == 1.5
        gateway.wait_for("draining")
        assert time.monotonic() - began >= 1.5
        assert gateway.process.wait(30) == 0


@pytest.mark.exhaustive
def test_a_gateway_of_several_workers_is_ready_while_one_of_them_is(own_lab):
    with running_gateway(own_lab, merged(BALANCED, {"server": {"workers": 2, "proxies": []}})) as gateway:
        assert health(gateway) == 200
        workers = [entry["pid"] for entry in gateway.log if entry["event"] == "worker started"]
        os.kill(workers[0], signal.SIGKILL)
        assert health(gateway) == 200


def test_retry_after_is_spread_between_once_and_twice(own_lab):
    found = {spread(60) for _ in range(2000)}
    assert (min(found), max(found)) == (60, 120)
    script = own_lab.script("busy", "exit 69")
    overrides = {"callouts": {"retry_after": 1000, "operations": {"simpleenroll": {"handler": str(script)}}}}
    with running_gateway(own_lab, overrides) as gateway, gateway.connect() as connection:
        asked = [connection.ask("POST", "simpleenroll", GOOD, login=LOGIN) for _ in range(6)]
    waits = [int(answer.header("Retry-After") or 0) for answer in asked]
    assert all(1000 <= wait <= 2000 for wait in waits)
    assert len(set(waits)) > 1


# HAProxy.


@pytest.mark.client("haproxy")
@pytest.mark.parametrize("header", ["send-proxy", "send-proxy-v2"])
def test_haproxy_passes_the_clients_address_on(own_lab, tmp_path, header):
    with (
        running_gateway(own_lab, BALANCED) as gateway,
        running_haproxy(tmp_path, [(gateway.port, health_port(gateway))], gateway.anchor, header=header) as front,
        Connection(front, source="127.0.0.77") as connection,
    ):
        assert connection.ask("POST", "simpleenroll", GOOD, login=LOGIN).status == 200
        assert gateway.access[-1]["peer"] == "127.0.0.77"
        assert {entry["level"] for entry in gateway.log} == {"info"}


@pytest.mark.client("haproxy")
def test_a_rolling_restart_behind_haproxy_loses_no_request(own_lab, tmp_path):
    """The first gateway drains while clients enrol; HAProxy sees its 503 before connections would be refused."""
    draining = merged(BALANCED, {"server": {"drain_delay": 1}})
    with running_gateway(own_lab, BALANCED) as stays, running_gateway(own_lab, draining) as goes:
        gateways = [(each.port, health_port(each)) for each in (stays, goes)]
        with running_haproxy(tmp_path, gateways, stays.anchor) as front:

            def ask() -> int:
                with Connection(front) as connection:
                    connection.send(request("GET", "cacerts"))
                    return connection.response().status

            before = [ask() for _ in range(6)]
            assert len(stays.access) == len(goes.access) == 3
            goes.process.send_signal(signal.SIGTERM)
            during = []
            while goes.process.poll() is None:
                during.append(ask())
            after = [ask() for _ in range(4)]
            until(lambda: front.states() == {"gateway-1": "UP", "gateway-2": "DOWN"})
        assert {*before, *during, *after} == {200}
        assert len(stays.access) + len(goes.access) == len(before + during + after)


@pytest.mark.client("haproxy")
def test_a_recorded_digest_request_is_refused_by_both_gateways(own_lab, tmp_path):
    """A nonce is authenticated with a secret of its process: the other gateway does not know that it was used."""
    digest = {"client_auth": {"digest": ["MD5"], "digest_users": str(digest_file(own_lab, LOGIN))}}
    overrides = merged(BALANCED, digest)
    with running_gateway(own_lab, overrides) as first, running_gateway(own_lab, overrides) as second:
        gateways = [(each.port, health_port(each)) for each in (first, second)]
        with running_haproxy(tmp_path, gateways, first.anchor) as front:
            with Connection(front) as connection:
                challenge = digest_challenge(connection.ask("POST", "simpleenroll", GOOD))
                recorded = {"Authorization": digest_answer(challenge, LOGIN)}
                assert connection.ask("POST", "simpleenroll", GOOD, headers=recorded).status == 200
            issued = own_lab.books()
            stale = []
            for _ in range(4):  # HAProxy takes one gateway after the other
                with Connection(front) as connection:
                    answer = connection.ask("POST", "simpleenroll", GOOD, headers=recorded)
                    stale.append("stale" in digest_challenge(answer))
        assert own_lab.books() == issued
        # The gateway that made the nonce knows that it was used.  The other one says that it is not of this time.
        assert sorted(stale) == [False, False, True, True]
        refused = [[entry["status"] for entry in each.access].count(401) for each in (first, second)]
        assert sorted(refused) == [2, 3], refused  # the first question is one of them
