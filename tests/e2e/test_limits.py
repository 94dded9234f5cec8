"""Limits for slow, many and large requests, none of which keeps other clients from their certificates."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kit.connection import PKCS10, request
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, Gateway, running_gateway
from tests.kit.processes import run, until
from tests.kit.workspace import Workspace

GOOD = csr()
SHORT = {"handshake_timeout": 0.8, "idle_timeout": 0.8, "body_timeout": 0.8}


@pytest.fixture(scope="module")
def hasty(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Short timeouts, small bodies, one running and one waiting callout."""
    own = lab.copy(tmp_path_factory.mktemp("hasty"))
    own.script("slow", "touch $EST_CA_DIR/started; sleep 0.7; cat $EST_CA_DIR/cacert.pem")
    slow = {"slow": {"operations": {"simpleenroll": {"handler": "slow"}}}}
    overrides = {
        "server": {**SHORT, "max_body": 4096},
        "callouts": {"max_running": 1, "max_waiting": 1, "retry_after": 17},
        "labels": slow,
    }
    with running_gateway(own, overrides) as running:
        yield running


# Slow.


def test_a_silent_connection_is_closed_and_logged(hasty):
    before, began = len(hasty.log), time.monotonic()
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=10) as plain:
        assert plain.recv(1) == b""
    assert 0.7 < time.monotonic() - began < 5
    assert hasty.wait_for("TLS handshake failed", after=before)["reason"] == "handshake timed out"


@pytest.mark.parametrize("beginning", [b"", b"GET /.well-kn", request("GET", "cacerts")[:-2]])
@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
def test_a_connection_without_a_complete_head_is_closed(hasty, beginning, kept):
    with hasty.connect() as connection:
        if kept:
            assert connection.ask("GET", "cacerts").status == 200
        began = time.monotonic()
        connection.send(beginning)
        assert connection.rest() == b""
    assert 0.5 < time.monotonic() - began < 5


def test_a_request_sent_byte_by_byte_does_not_escape_the_timeout(hasty):
    with hasty.connect() as connection:
        began = time.monotonic()
        try:
            for byte in request("GET", "cacerts") + bytes(400):
                connection.send(bytes([byte]))
                time.sleep(0.02)
        except OSError:
            pass
    assert time.monotonic() - began < 8


def test_an_incomplete_body_times_out_with_408(hasty):
    with hasty.connect() as connection:
        connection.send(request("POST", "simpleenroll", GOOD, login=LOGIN)[:-10])
        began = time.monotonic()
        answer = connection.response()
    assert (answer.status, answer.words) == (408, "The body took too long to arrive.")
    assert answer.header("Connection") == "close"
    assert 0.7 < time.monotonic() - began < 5


def test_a_slow_request_within_the_limits_is_served(gateway):
    """A small device may send a byte at a time, within the limits."""
    with gateway.connect() as connection:
        for byte in request("POST", "simpleenroll", GOOD, login=LOGIN):
            connection.send(bytes([byte]))
        assert connection.response().status == 200


# Many.


def test_a_connection_beyond_max_connections_is_refused(own_lab):
    with running_gateway(own_lab, {"server": {"max_connections": 6}}) as gateway:
        with ExitStack() as stack:
            kept = [stack.enter_context(gateway.connect()) for _ in range(6)]
            with pytest.raises(OSError):
                gateway.connect()
            assert gateway.wait_for("TLS handshake failed")["reason"] == "refused: 6 connections are open"
            assert kept[0].ask("GET", "cacerts").status == 200
        until(lambda: _is_served(gateway))


def _is_served(gateway: Gateway) -> bool:
    try:
        return gateway.get("cacerts").status == 200
    except OSError:
        return False


def test_200_idle_connections_do_not_delay_an_enrolment(gateway):
    """Half of them are in the handshake, half of them past it."""
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=10))
        for _ in range(100):
            stack.enter_context(gateway.connect())
        began = time.monotonic()
        assert gateway.post("simpleenroll", GOOD).status == 200
        assert time.monotonic() - began < 5


def test_a_full_queue_answers_503_with_retry_after(hasty):
    """One runs, one waits, the others are refused at once."""
    assert hasty.post("simpleenroll", GOOD).status == 200  # from now on, the gateway knows the password without hashing
    with ExitStack() as stack:
        connections = [stack.enter_context(hasty.connect()) for _ in range(4)]
        for connection in connections:
            connection.send(request("POST", "slow/simpleenroll", GOOD, login=LOGIN))
        answers = [connection.response() for connection in connections]
    turned_away = [answer for answer in answers if answer.status == 503]
    assert sorted(answer.status for answer in answers) == [200, 200, 503, 503]
    for answer in turned_away:
        assert answer.words == "Too many requests at once; try again soon."
        assert answer.retries_after(17)
    line = next(line for line in hasty.access if line["status"] == 503)
    assert line["reason"] == "the queue of callouts is full"
    assert line["ms"] < 600
    assert hasty.post("simpleenroll", GOOD).status == 200


# Large.


def test_an_announced_large_body_is_a_413_before_it_is_read(hasty):
    """The client has sent the head only, or a part of the body; it can read the answer in both cases."""
    head = request("POST", "simpleenroll", None, login=LOGIN, headers={
        "Content-Type": PKCS10, "Content-Length": str(10**9)})  # fmt: skip
    for sent in (b"", bytes(60_000)):
        with hasty.connect() as connection:
            connection.send(head + sent)
            answer = connection.response()
        assert (answer.status, answer.words) == (413, "The body is larger than 4096 bytes.")
        assert answer.header("Connection") == "close"


def test_a_large_body_gets_413_instead_of_100_continue(hasty):
    """A client that waits for 100 Continue never sends it."""
    head = request("POST", "simpleenroll", None, login=LOGIN, headers={
        "Content-Type": PKCS10, "Content-Length": "5000", "Expect": "100-continue"})  # fmt: skip
    with hasty.connect() as connection:
        connection.send(head)
        answer = connection.response()
    assert (answer.status, answer.header("Connection")) == (413, "close")


def test_an_enrolment_is_finished_although_its_client_has_left(own_lab):
    """Issuing is a transaction: it is finished and in the register, even if the client has left."""
    own_lab.script("slow", "touch $EST_CA_DIR/started; sleep 0.3; exec $EST_CA_DIR/../handlers/openssl/simpleenroll")
    with running_gateway(own_lab, {"callouts": {"operations": {"simpleenroll": {"handler": "slow"}}}}) as gateway:
        with gateway.connect() as connection:
            connection.send(request("POST", "simpleenroll", csr("gone"), login=LOGIN))
            until((own_lab.ca / "started").exists)
        register = own_lab.ca / "index.txt"  # for a moment, `openssl ca` has renamed it and has none
        until(lambda: b"/CN=gone" in run("cat", register, status=None).stdout)
        assert gateway.get("cacerts").status == 200
        until(lambda: any(line.get("subject") == "CN=gone" for line in gateway.log))


@pytest.mark.parametrize("sent", [1, 60, -1], ids=["head", "more", "most"])
def test_a_client_that_leaves_during_its_request_is_logged_as_info(gateway, sent):
    """One log line says so, at the level info."""
    before = len(gateway.log)
    raw = request("POST", "simpleenroll", GOOD, login=LOGIN)
    with gateway.connect() as connection:
        connection.send(raw[: -len(GOOD) + sent] if sent > 0 else raw[:sent])
    line = gateway.wait_for("client went away", after=before)
    assert (line["level"], line["operation"]) == ("info", "simpleenroll")
    assert gateway.get("cacerts").status == 200
    assert [line["event"] for line in gateway.log[before:]] == ["client went away", "request"]


@pytest.mark.parametrize(
    "litter",
    [
        "true",
        "mkdir -p d/e; touch d/e/f",
        "touch {1..200}",
        "truncate -s 2M big",
        "ln -s /etc link",
        "mkfifo pipe",
    ],
)
def test_the_directory_of_a_request_is_removed_with_all_its_files(own_lab, litter):
    own_lab.script("litter", f'cd "$EST_TMPDIR"; echo "$PWD"; {litter}; exit 77')
    label = {"labels": {"x": {"operations": {"cacerts": {"handler": str(own_lab.path / "litter")}}}}}
    with running_gateway(own_lab, label) as gateway:
        answer = gateway.get("x/cacerts")
        assert (answer.status, Path(answer.words).parent.name.startswith("estgw-")) == (403, True)
        assert not os.path.lexists(answer.words)
