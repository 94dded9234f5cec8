"""Faults in the configuration at the start or a reload: the labels out of service, and the log."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from tests.kit.ca import DAY, NOW, root
from tests.kit.cases import some
from tests.kit.gateway import Gateway, enrol, running_gateway
from tests.kit.metrics import samples, value
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import ROOT, run, until
from tests.kit.workers import GOOD, one_each, pids, two_workers
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.slow

WORKERS = pytest.mark.parametrize("workers", some([1, 2], 2))
WORDS = "Label python is out of service, because its configuration has a fault. The server's log says which."


def out_of_service(gateway: Gateway, *, after: int = 0) -> list[str]:
    return [line["label"] for line in gateway.log[after:] if line["event"] == "label out of service"]


# One label.


@WORKERS
def test_a_label_with_a_fault_answers_503_and_the_others_serve(own_lab, workers):
    script = own_lab.path / "handlers/python/simpleenroll"
    script.chmod(0o644)
    with running_gateway(
        own_lab, {"server": {"workers": workers}, "metrics": {"listen": "127.0.0.1:0"}}, python=True
    ) as gateway:
        said = gateway.wait_for("label out of service")
        assert (said["level"], said["label"]) == ("error", "python")
        assert said["faults"] == [f"{script}: not executable; chmod +x {script}"]
        assert said["text"] == "its requests get a 503; mend the faults, then reload (SIGHUP)"
        assert out_of_service(gateway) == ["python"]  # once, also with several workers
        for answer in (gateway.get("python/cacerts"), gateway.post("python/simpleenroll", GOOD)):
            assert (answer.status, answer.words, answer.retries_after(60)) == (503, WORDS, True)
        assert gateway.access[-1]["label"] == "python"
        assert gateway.access[-1]["reason"].startswith(f"label python is out of service: {script}: not executable")
        assert gateway.post("simpleenroll", GOOD).status == 200
        assert value(samples(gateway), "estgw_labels_out_of_service") == 1
        script.chmod(0o755)
        assert gateway.reload()["event"] == "reloaded"
        assert gateway.post("python/simpleenroll", GOOD).status == 200
        assert value(samples(gateway), "estgw_labels_out_of_service") == 0


@pytest.mark.exhaustive
def test_all_workers_have_the_same_labels_in_service(own_lab):
    """After a reload, and after a worker is replaced while the files have changed."""
    script = own_lab.path / "handlers/python/cacerts"
    with two_workers(own_lab, python=True) as gateway, ExitStack() as stack:

        def statuses() -> set[int]:
            return {each.ask("GET", "python/cacerts").status for each in one_each(gateway, stack).values()}

        def replace_a_worker() -> None:
            first = pids(gateway)[1]
            os.kill(first, signal.SIGKILL)
            until(lambda: pids(gateway)[1] != first)

        assert statuses() == {200}
        script.rename(script.with_suffix(".away"))
        assert gateway.reload()["event"] == "reloaded"
        assert statuses() == {503}
        script.with_suffix(".away").rename(script)
        replace_a_worker()
        assert statuses() == {503}
        assert gateway.reload()["event"] == "reloaded"
        assert statuses() == {200}
        (own_lab.path / "handlers/python/csrattrs").unlink()
        replace_a_worker()
        assert statuses() == {200}


def test_the_default_label_can_have_a_fault_while_others_serve(own_lab):
    (own_lab.path / "handlers/openssl/cacerts").unlink()
    with running_gateway(own_lab, python=True) as gateway:
        answer = gateway.get("csrattrs")
        assert answer.status == 503
        assert answer.words.startswith("The default label is out of service, because its configuration has a fault.")
        assert gateway.get("python/cacerts").status == 200
        assert out_of_service(gateway) == [""]


@WORKERS
def test_a_fault_of_all_labels_refuses_the_reload(own_lab, workers):
    with running_gateway(own_lab, {"server": {"workers": workers}}, python=True) as gateway:
        gateway.configure({"server": {"workers": workers}, "callouts": {"ca_dir": "no-ca"}})
        said = gateway.reload()
        assert said["event"] == "reload failed, the old configuration stays"
        assert said["faults"] == [f"{own_lab.path}/no-ca: not a directory (the default label, label python)"]
        assert gateway.get("cacerts").status == gateway.get("python/cacerts").status == 200


# Open operations.


@WORKERS
def test_the_log_names_requirements_and_scripts_per_label(own_lab, workers):
    with running_gateway(own_lab, {"server": {"workers": workers}}, python=True) as gateway:
        lines = {line["label"]: line["operations"] for line in gateway.log if line["event"] == "label"}
    assert lines.keys() == {"", "python"}
    assert lines["python"][1] == (
        "simpleenroll, fullcmc: any (certificate or password); passwords by users.htpasswd; "
        "authorize handlers/python/authorize; handlers handlers/python (pool)"
    )
    assert "authorize handlers/openssl/authorize" in lines[""][1]
    assert len([line for line in gateway.log if line["event"] == "label"]) == 2


def test_the_shipped_configuration_says_that_python_has_a_policy_of_its_own():
    text = " ".join((ROOT / "conf.yaml").read_text().replace("#", "").split())
    assert "a policy of its own: an edit of handlers/openssl changes nothing here" in text


# Settings that a reload can't change.


@WORKERS
def test_a_reload_names_the_settings_that_it_cannot_change(own_lab, workers):
    with running_gateway(own_lab, {"server": {"workers": workers}}, python=True) as gateway:
        assert gateway.reload()["event"] == "reloaded"
        assert not [line for line in gateway.log if line["event"] == "not changed by a reload"]
        changed = {
            "server": {"workers": 3, "listen": ["127.0.0.1:1"], "max_body": 100000, "name": "127.0.0.1"},
            "log": {"level": "debug"},
            "metrics": {"listen": "127.0.0.1:9464"},
        }
        gateway.configure(changed)
        assert gateway.reload()["event"] == "reloaded"
        (said,) = [line for line in gateway.log if line["event"] == "not changed by a reload"]
        assert said["settings"] == [
            "server.listen: [127.0.0.1:0] stays, not [127.0.0.1:1]",
            f"server.workers: {workers} stays, not 3",
            "log.level: info stays, not debug",
            "metrics.listen: null stays, not 127.0.0.1:9464",
        ]
        assert (said["level"], said["text"]) == ("warning", "restart the gateway for these")


# Before a port is bound.


@WORKERS
def test_faults_are_reported_before_a_port_is_bound(own_lab, workers):
    """Then a busy port hides no fault, and no client reaches a gateway that will not start."""
    (own_lab.path / "users.htpasswd").write_text("nonsense\n")
    path = own_lab.path / "conf.yaml"
    data = yaml.safe_load(path.read_text())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        data["server"] = {"listen": [address], "workers": workers}
        data["metrics"] = {"listen": address}
        path.write_text(yaml.safe_dump(data))
        done = run(*forked_estgw(), "serve", "-c", path, status=1, cwd=ROOT)
    assert done.stderr.decode() == f"estgw: {own_lab.path}/users.htpasswd:1:1: not of the form user:hash\n"


# Dates.


def spoil_crl(lab: Workspace) -> None:
    """Make an expired CRL of our CA."""
    past = [f"{datetime.now(UTC) - timedelta(days=days):%Y%m%d%H%M%SZ}" for days in (9, 2)]
    command = ["openssl", "ca", "-config", "openssl.cnf", "-gencrl", "-out", "crl.pem"]
    environment = {"PATH": "/usr/bin:/bin", "EST_CA_DIR": ".", "REGISTER_DIR": "."}
    run(*command, "-crl_lastupdate", past[0], "-crl_nextupdate", past[1], cwd=lab.ca, env=environment)


def test_an_expired_crl_is_reported_at_the_start_and_at_each_refusal(own_lab, tmp_path):
    with running_gateway(own_lab) as gateway:
        client = enrol(gateway, tmp_path)
    spoil_crl(own_lab)
    with running_gateway(own_lab, {"client_auth": {"crls": [str(own_lab.ca / "crl.pem")]}}) as gateway:
        said = next(line for line in gateway.log if line["event"] == "date")
        assert (said["level"], said["kind"]) == ("warning", "crl")
        assert said["text"].startswith("the CRL of CN=estgw demo CA,O=estgw demo ")
        assert (
            "every client certificate of this CA is refused; make a new one (openssl-ca/crl), and reload"
            in said["text"]
        )
        answer = gateway.post("simplereenroll", GOOD, login=None, certificate=client)
        assert answer.status == 403
        for words in (answer.words, gateway.access[-1]["reason"], gateway.access[-1]["client_certificate"]):
            assert "CRL has expired: the server's CRL of CN=estgw demo CA,O=estgw demo ended at " in words
            assert "until the server has a current one, every certificate of this CA is refused" in words


@WORKERS
def test_gauges_and_the_log_have_the_dates_at_the_start_and_after_a_reload(own_lab, workers):
    maker, _ = root("maker").write(own_lab.path, "maker")  # for 30 days, so it is near its end
    on = {"server": {"workers": workers}, "metrics": {"listen": "127.0.0.1:0"}}
    with running_gateway(own_lab, on) as gateway:
        found = samples(gateway)
        ends = {
            dict(labels)["kind"]: moment
            for (name, labels), moment in found.items()
            if name == "estgw_valid_until_timestamp_seconds"
        }
        assert ends.keys() == {"server", "server-chain", "explicit-anchor", "issuing-ca"}
        assert 390 < (ends["server"] - datetime.now(UTC).timestamp()) / 86400 < 398
        assert not [line for line in gateway.log if line["event"] == "date"]
        gateway.configure({**on, "client_auth": {"implicit": [str(maker)]}})
        assert gateway.reload()["event"] == "reloaded"
        said = gateway.wait_for("date", kind="implicit-anchor")
        assert said["text"].startswith(f"the implicit anchor CN=maker ({Path(maker)}) ends at ")
        wanted = ("estgw_valid_until_timestamp_seconds", frozenset({("kind", "implicit-anchor"), ("name", "CN=maker")}))
        assert samples(gateway)[wanted] == pytest.approx((NOW + 30 * DAY).timestamp())
