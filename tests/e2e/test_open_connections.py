"""A connection that stays open: new verdicts on its client's certificate, and its end."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.kit.ca import CA, pem, root
from tests.kit.connection import Connection
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, enrol, merged, running_gateway
from tests.kit.keys import KEY_PEM
from tests.kit.processes import run
from tests.kit.workers import TWO, one_each
from tests.kit.workspace import Workspace
from tests.tls.serving import DEADLINE

pytestmark = pytest.mark.slow

GOOD = csr()
CHECKED = {"client_auth": {"crls": ["openssl-ca/crl.pem"]}}


@pytest.fixture
def revocable(own_lab: Workspace) -> Workspace:
    """A workspace with a CRL that is checked."""
    run(own_lab.ca / "crl")
    return own_lab


def revoke(lab: Workspace, device: tuple[Path, Path]) -> None:
    run(lab.ca / "revoke", device[0])


def reenroll(connection: Connection) -> Any:
    return connection.ask("POST", "simplereenroll", GOOD)


def anchored(lab: Workspace, *cas: CA, **more: Any) -> dict[str, Any]:
    """A configuration that has these CAs as explicit anchors."""
    files = [str(ca.write(lab.path, f"ca-{number}")[0]) for number, ca in enumerate(cas)]
    return {"client_auth": {"explicit": [str(lab.anchor), *files], **more}}


# Verdicts.


def test_a_revoked_certificate_is_refused_on_its_open_connection(revocable, tmp_path):
    with running_gateway(revocable, CHECKED) as gateway:
        device = enrol(gateway, tmp_path)
        with gateway.connect(certificate=device) as kept:
            assert reenroll(kept).status == 200
            revoke(revocable, device)
            assert gateway.reload()["event"] == "reloaded"
            answer = reenroll(kept)
            with gateway.connect(certificate=device) as fresh:
                wanted = reenroll(fresh)
            assert (answer.status, answer.words) == (wanted.status, wanted.words) == (403, answer.words)
            assert "certificate revoked" in answer.words
            assert gateway.access[-2]["client_certificate"] == "certificate revoked"
            # It counts as no certificate, so operations without a requirement are still allowed.
            assert kept.ask("GET", "cacerts").status == 200


def test_pass_shows_scripts_a_certificate_revoked_on_an_open_connection(revocable, tmp_path):
    script = str(revocable.script("show", 'echo "$SSL_CLIENT_VERIFY $EST_CLIENT_TRUST"; exit 77'))
    overrides = merged(CHECKED, {
        "client_auth": {"unknown_certificates": "pass"},
        "callouts": {"authorize": None, "operations": {"simpleenroll": {"handler": script}}},
    })  # fmt: skip
    label = {"labels": {"plain": {"operations": {"simpleenroll": {"handler": "handlers/openssl/simpleenroll"}}}}}
    with running_gateway(revocable, merged(overrides, label)) as gateway:
        certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
        certificate.write_bytes(pem(gateway.post("plain/simpleenroll", GOOD).certificate))
        key.write_bytes(KEY_PEM)
        with gateway.connect(certificate=(certificate, key)) as kept:
            assert kept.ask("POST", "simpleenroll", GOOD, login=LOGIN).words == "SUCCESS explicit"
            revoke(revocable, (certificate, key))
            gateway.reload()
            assert kept.ask("POST", "simpleenroll", GOOD, login=LOGIN).words == "FAILED:certificate revoked none"


def test_reject_ends_an_open_connection_of_a_revoked_certificate(revocable, tmp_path):
    """A new handshake would fail, so nothing is served on the open connection, not even /cacerts."""
    with running_gateway(revocable, merged(CHECKED, {"client_auth": {"unknown_certificates": "reject"}})) as gateway:
        device = enrol(gateway, tmp_path)
        with gateway.connect(certificate=device) as kept:
            assert reenroll(kept).status == 200
            revoke(revocable, device)
            gateway.reload()
            answer = kept.ask("GET", "cacerts")
            assert (answer.status, answer.header("Connection")) == (403, "close")
            assert answer.words == "Your TLS client certificate is no longer accepted here: certificate revoked."
            assert kept.rest() == b""
            assert gateway.access[-1]["client_certificate"] == "certificate revoked"


def test_an_open_connection_follows_the_removal_and_return_of_its_anchor(own_lab, tmp_path):
    ca = root("Another CA")
    device = ca.issue("device-1").write(tmp_path, "device")
    with running_gateway(own_lab, anchored(own_lab, ca)) as gateway, gateway.connect(certificate=device) as kept:
        assert reenroll(kept).status == 200
        gateway.configure({})
        gateway.reload()
        refused = reenroll(kept)
        assert (refused.status, "unable to get local issuer certificate" in refused.words) == (403, True)
        gateway.configure(anchored(own_lab, ca))
        gateway.reload()
        assert reenroll(kept).status == 200


LIFE = timedelta(seconds=10)


def test_an_expired_certificate_is_refused_on_its_open_connection(own_lab, tmp_path):
    ca = root("Another CA")
    with running_gateway(own_lab, anchored(own_lab, ca)) as gateway:
        ends = datetime.now(UTC).replace(microsecond=0) + LIFE
        files = ca.issue("device-1", ends=ends).write(tmp_path, "device")
        with gateway.connect(certificate=files) as kept:
            assert reenroll(kept).status == 200
            wait_until(ends)
            answer = reenroll(kept)
            assert (answer.status, "certificate has expired" in answer.words) == (403, True)


def test_an_expired_crl_verifies_no_client_on_an_open_connection(own_lab, tmp_path):
    ca = root("Another CA")
    crl = own_lab.path / "short.crl"
    files = ca.issue("device-1").write(tmp_path, "device")
    with running_gateway(own_lab, anchored(own_lab, ca)) as gateway, gateway.connect(certificate=files) as kept:
        ends = datetime.now(UTC).replace(microsecond=0) + LIFE
        crl.write_bytes(ca.crl(ends=ends).public_bytes(Encoding.PEM))
        gateway.configure(anchored(own_lab, ca, crls=[str(crl)]))
        assert gateway.reload()["event"] == "reloaded"
        assert reenroll(kept).status == 200
        wait_until(ends)
        assert "CRL has expired" in reenroll(kept).words


def wait_until(moment: datetime) -> None:
    """Sleep until a second after this moment, so that it has passed by any reading of the standard."""
    time.sleep((moment - datetime.now(UTC)).total_seconds() + 1.1)


@pytest.mark.exhaustive
def test_each_worker_checks_open_connections_after_a_reload(revocable, tmp_path):
    with running_gateway(revocable, merged(TWO, CHECKED)) as gateway, ExitStack() as stack:
        device = enrol(gateway, tmp_path)
        connect = gateway.connect
        gateway.connect = lambda **options: connect(certificate=device, **options)  # type: ignore[method-assign]
        kept = one_each(gateway, stack)
        assert {reenroll(each).status for each in kept.values()} == {200}
        revoke(revocable, device)
        assert gateway.reload()["event"] == "reloaded"
        answers = [reenroll(each) for each in kept.values()]
        assert [(each.status, "certificate revoked" in each.words) for each in answers] == [(403, True)] * 2


# Age.


def test_the_first_answer_after_max_connection_age_ends_a_connection(own_lab):
    with running_gateway(own_lab, {"server": {"max_connection_age": 3}}) as gateway, gateway.connect() as kept:
        began = time.monotonic()
        while (answer := kept.ask("GET", "cacerts")).header("Connection") != "close":
            assert answer.status == 200
            assert time.monotonic() - began < DEADLINE
            time.sleep(0.2)
        assert answer.status == 200
        assert time.monotonic() - began > 2
        assert kept.rest() == b""


def test_a_request_that_runs_at_max_connection_age_gets_its_answer(own_lab):
    handler = str(own_lab.script("slow", "sleep 3; exec $EST_CA_DIR/../handlers/openssl/simpleenroll"))
    overrides = {
        "server": {"max_connection_age": 1},
        "callouts": {"operations": {"simpleenroll": {"handler": handler}}},
    }
    with running_gateway(own_lab, overrides) as gateway, gateway.connect() as connection:
        answer = connection.ask("POST", "simpleenroll", GOOD, login=LOGIN)
        own_lab.verify(answer.certificate)
        assert answer.header("Connection") == "close"
        assert connection.rest() == b""


def test_an_idle_connection_ends_at_max_connection_age(own_lab):
    limits = {"server": {"max_connection_age": 1, "idle_timeout": 3600}}
    with running_gateway(own_lab, limits) as gateway, gateway.connect() as idle:
        assert idle.rest() == b""


def test_a_reload_applies_max_connection_age_to_open_connections(own_lab):
    with running_gateway(own_lab) as gateway, gateway.connect() as kept:
        assert kept.ask("GET", "cacerts").header("Connection") is None
        gateway.configure({"server": {"max_connection_age": 0.001}})
        gateway.reload()
        assert kept.ask("GET", "cacerts").header("Connection") == "close"
