"""The life cycle of a gateway: reload on SIGHUP, drain on SIGTERM, edited scripts."""

from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from estgw.auth import users
from tests.kit.ca import CA, Credential, root
from tests.kit.cases import some
from tests.kit.connection import request
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, Gateway, enrol, running_gateway
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import ROOT, run, until

GOOD = csr()
SLOW = "touch $EST_CA_DIR/started; sleep 0.8; exec $EST_CA_DIR/../handlers/openssl/simpleenroll"


# SIGHUP.


def served(gateway: Gateway) -> x509.Certificate:
    """The server certificate on a new connection."""
    with gateway.connect() as connection:
        return x509.load_der_x509_certificate(connection.tls.getpeercert(binary_form=True))


def demo_ca(gateway: Gateway) -> CA:
    key = load_pem_private_key((gateway.lab.ca / "private/cakey.pem").read_bytes(), None)
    return CA(x509.load_pem_x509_certificate(gateway.lab.anchor.read_bytes()), key)


@pytest.fixture
def reloadable(own_lab):
    with running_gateway(own_lab) as gateway:
        yield gateway


def test_a_reload_swaps_configuration_certificate_anchors_and_users(reloadable, tmp_path):
    """Open connections stay open."""
    device = enrol(reloadable, tmp_path)
    renewed: Credential = demo_ca(reloadable).server()
    certificate, key = renewed.write(reloadable.lab.path, "renewed")
    anchor, _ = root("elsewhere").write(reloadable.lab.path, "other")
    users.set_password(reloadable.lab.path / "other.htpasswd", "alice", "wonderland")
    with reloadable.connect(certificate=device) as connection:
        assert connection.ask("POST", "simplereenroll", GOOD).status == 200
        reloadable.configure({
            "tls": {"certificate": str(certificate), "key": str(key)},
            "client_auth": {"explicit": [str(anchor)], "users": "other.htpasswd", "realm": "elsewhere"},
            "labels": {"fresh": {}},
        })  # fmt: skip
        assert reloadable.post("fresh/simpleenroll", GOOD).status == 404
        assert reloadable.reload()["event"] == "reloaded"

        # The connection stays open, but each request checks the client's certificate under the new anchors.
        assert connection.ask("GET", "fresh/cacerts").status == 200
        assert connection.ask("POST", "simplereenroll", GOOD).status == 403
    assert served(reloadable) == renewed.certificate
    answer = reloadable.post("fresh/simpleenroll", GOOD)
    assert (answer.status, answer.header("WWW-Authenticate")) == (401, 'Basic realm="elsewhere"')
    assert reloadable.post("fresh/simpleenroll", GOOD, login="alice:wonderland").status == 200
    assert reloadable.post("simpleenroll", GOOD, certificate=device, login=None).status == 401


@pytest.mark.parametrize(
    ("overrides", "fault"),
    some(
        [
            ({"server": {"nonsense": 1}}, "nonsense: no such key here"),
            ({"tls": {"key": "openssl-ca/private/cakey.pem"}}, "is not the key of"),
            ({"tls": {"certificate": "nowhere.pem"}}, "nowhere.pem: can't be read: No such file or directory"),
            ({"client_auth": {"explicit": ["handlers/README.md"]}}, "README.md: no certificate in it"),
            ({"client_auth": {"users": "nobody.htpasswd"}}, "nobody.htpasswd: No such file or directory"),
            ({"callouts": {"ca_dir": "no-ca"}}, "no-ca: not a directory"),
        ],
        2,
    ),
)
def test_a_failed_reload_names_the_fault_and_keeps_the_old_configuration(reloadable, overrides, fault):
    """The faulty file is not applied in part: its new label is not served."""
    before = served(reloadable)
    reloadable.configure({**overrides, "labels": {"fresh": {}}})
    said = reloadable.reload()
    assert (said["event"], said["level"]) == ("reload failed, the old configuration stays", "error")
    assert any(fault in line for line in said["faults"]), said["faults"]
    assert served(reloadable) == before
    assert reloadable.post("simpleenroll", GOOD).status == 200
    assert reloadable.get("fresh/cacerts").status == 404
    reloadable.configure({"labels": {"fresh": {}}})
    assert reloadable.reload()["event"] == "reloaded"
    assert reloadable.get("fresh/cacerts").status == 200


def test_a_failed_reload_names_file_and_line(reloadable):
    reloadable.config.write_text(reloadable.config.read_text() + "pop: {tls13: maybe}\n")
    line = len(reloadable.config.read_text().splitlines())
    (fault,) = reloadable.reload()["faults"]
    assert f"{reloadable.config}:{line}:" in fault
    reloadable.config.write_text("server: [")
    (fault,) = reloadable.reload()["faults"]
    assert f"{reloadable.config}:" in fault


def test_a_request_under_way_ends_under_the_old_configuration(own_lab):
    handler = str(own_lab.script("slow", SLOW))
    label = {"labels": {"old": {"operations": {"simpleenroll": {"handler": handler}}}}}
    with running_gateway(own_lab, label) as gateway, ThreadPoolExecutor(1) as aside:
        answer = aside.submit(gateway.post, "old/simpleenroll", GOOD)
        until((own_lab.ca / "started").exists)
        gateway.configure({})
        assert gateway.reload()["event"] == "reloaded"
        assert gateway.post("old/simpleenroll", GOOD).status == 404
        assert not answer.done()
        own_lab.verify(answer.result().certificate)


def test_many_reloads_leave_no_descriptor(reloadable):
    process = f"/proc/{reloadable.process.pid}/fd"
    reloadable.reload()
    reloadable.get("cacerts")
    before = len(run("ls", process).stdout.split())
    for _ in range(5):
        assert reloadable.reload()["event"] == "reloaded"
        assert reloadable.get("cacerts").status == 200
    until(lambda: len(run("ls", process).stdout.split()) <= before)  # the last connection needs a moment to close


# SIGTERM.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_running_handler_finishes_before_the_gateway_stops(own_lab, number):
    """Its client gets the answer. Idle connections end at once, and new ones are refused."""
    handler = str(own_lab.script("slow", SLOW))
    with (
        running_gateway(own_lab, {"callouts": {"operations": {"simpleenroll": {"handler": handler}}}}) as gateway,
        ThreadPoolExecutor(1) as aside,
        gateway.connect() as idle,
    ):
        assert idle.ask("GET", "cacerts").status == 200
        answer = aside.submit(gateway.post, "simpleenroll", GOOD)
        until((own_lab.ca / "started").exists)
        gateway.process.send_signal(number)
        gateway.wait_for("draining")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gateway.port))
        assert idle.rest() == b""
        assert not answer.done()
        own_lab.verify(answer.result().certificate)
        assert gateway.process.wait(5) == 0
        assert gateway.log[-1]["event"] == "stopped"
        assert gateway.access[-1]["status"] == 200


def test_a_handler_that_exceeds_drain_timeout_is_killed(own_lab):
    script = own_lab.script("hang", "echo $$ >$EST_CA_DIR/started; sleep 60")
    overrides = {
        "server": {"drain_timeout": 0.3},
        "callouts": {"operations": {"simpleenroll": {"handler": str(script)}}},
    }
    with running_gateway(own_lab, overrides) as gateway, gateway.connect() as connection:
        connection.send(request("POST", "simpleenroll", GOOD, login=LOGIN))
        until(lambda: (own_lab.ca / "started").exists() and (own_lab.ca / "started").read_text().strip())
        began = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(20) == 0
        assert time.monotonic() - began < 10
        assert connection.rest() == b""
    with pytest.raises(ProcessLookupError):
        os.kill(int((own_lab.ca / "started").read_text()), 0)


def test_a_second_gateway_on_the_same_port_says_that_it_is_in_use(gateway, own_lab):
    config = own_lab.path / "conf.yaml"
    config.write_text(config.read_text().replace("127.0.0.1:8443", f"127.0.0.1:{gateway.port}"))
    done = run(*forked_estgw(), "serve", "-c", config, status=1, cwd=ROOT)
    assert b"127.0.0.1:%d is in use by another program; try: estgw serve " % gateway.port in done.stderr
    assert b"Traceback" not in done.stderr


# Scripts.


def test_an_edit_of_a_script_takes_effect_with_the_next_request(reloadable):
    before = reloadable.lab.books()
    script = "handlers/openssl/simpleenroll"
    policy = '# only_user_name || refuse "you may only be CN=${REMOTE_USER-} and nothing else"'
    reloadable.lab.edit(script, policy, policy.removeprefix("# "))
    answer = reloadable.post("simpleenroll", GOOD)
    assert (answer.status, answer.words) == (403, "you may only be CN=estuser and nothing else")
    assert reloadable.lab.books() == before
    reloadable.lab.verify(reloadable.post("simpleenroll", csr("estuser")).certificate)
    reloadable.lab.edit(script, policy.removeprefix("# "), policy)
    reloadable.lab.verify(reloadable.post("simpleenroll", GOOD).certificate)


def test_an_edit_of_openssl_cnf_takes_effect_with_the_next_request(reloadable):
    reloadable.lab.edit("openssl-ca/openssl.cnf", "policy           = policy_anything", "policy = policy_match")
    answer = reloadable.post("simpleenroll", GOOD)
    assert answer.status == 403
    assert "organizationName" in answer.words
