"""handlers/upstream/est: this gateway as the RA of a second one, which issues, refuses, waits, is absent or slow."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.kit.ca import pem, root
from tests.kit.clients import bound
from tests.kit.connection import V12
from tests.kit.csr import csr
from tests.kit.gateway import Gateway, running_gateway
from tests.kit.keys import KEY_PEM
from tests.kit.processes import PATH, free_port, run
from tests.kit.upstream import Upstream
from tests.kit.workspace import Workspace

LATER = "The CA can't be asked now; come back later."


@dataclass(frozen=True)
class Outer:
    """The gateway of the CA, and its own workspace."""

    gateway: Gateway
    lab: Workspace


@pytest.fixture(scope="module")
def outer(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outer]:
    own = lab.copy(tmp_path_factory.mktemp("outer") / "lab")
    wait = own.script("wait", 'printf "Status: 202\\nRetry-After: 77\\n\\n"; exit 75')
    refuse = own.script("refuse", "echo no such name; exit 65")
    forbid = own.script("forbid", "echo not for RAs; exit 77")
    label = {name: {"operations": {"simpleenroll": {"handler": str(script)}}} for name, script in
             (("wait", wait), ("refuse", refuse), ("forbid", forbid))}  # fmt: skip
    overrides = {"pop": {"rules": [{"ra": True, "pop": "waived"}], "default": "required"}, "labels": label}
    with running_gateway(own, overrides) as running:
        yield Outer(running, own)


@pytest.fixture(scope="module")
def ra(outer: Outer, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The RA's key and certificate, as its operator makes it."""
    directory = tmp_path_factory.mktemp("ra")
    request = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    request += ["-keyout", "ra.key", "-subj", "/CN=front desk", "-out", "ra.csr"]
    run(*request, cwd=directory)
    issued = run(outer.lab.ca / "issue", directory / "ra.csr", "--profile", "ra", env={"PATH": PATH}).stdout
    return (directory / "ra.key").read_bytes() + issued


@pytest.fixture(scope="module")
def shared_est(outer: Outer, ra: bytes, lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    return set_up(outer, ra, lab.copy(tmp_path_factory.mktemp("inner") / "lab"))


@pytest.fixture
def est(outer: Outer, ra: bytes, own_lab: Workspace) -> Upstream:
    return set_up(outer, ra, own_lab)


def set_up(outer: Outer, ra: bytes, lab: Workspace) -> Upstream:
    made = Upstream.create(lab, "est", {'url = "https://est.example.org"': f'url = "{outer.gateway.url}"'})
    made.write("est-anchors.pem", outer.lab.anchor.read_bytes())
    made.write("secrets/ra.pem", ra)
    return made


def at(est: Upstream, outer: Outer, label: str) -> Upstream:
    est.lab.edit(est.script, f'"{outer.gateway.url}"', f'"{outer.gateway.url}/.well-known/est/{label}"')
    return est


@pytest.mark.slow
def test_clients_enrol_and_renew_with_this_gateway_and_the_other_ca_issues(outer, est):
    """The CSR is linked to the connection with this gateway, which the other one can't check."""
    own = str(est.write("anchors.pem", outer.lab.anchor.read_bytes()))
    overrides = {
        "client_auth": {"explicit": ["openssl-ca/anchors.pem", own]},
        "labels": {"outer": est.settings()},
        "pop": {"default": "required"},
    }
    before = len(outer.lab.rows)
    with running_gateway(est.lab, overrides) as gateway:
        assert outer.lab.root in gateway.get("/.well-known/est/outer/cacerts").certificates
        with gateway.connect(version=V12) as connection:
            path = "/.well-known/est/outer/simpleenroll"
            first = connection.ask("POST", path, csr(challenge=bound(connection)), login="estuser:estpwd").certificate
        outer.lab.verify(first)
        files = est.write("client.pem", pem(first)), est.write("client.key", KEY_PEM)
        with gateway.connect(version=V12, certificate=files) as connection:
            path = "/.well-known/est/outer/simplereenroll"
            second = connection.ask("POST", path, csr(challenge=bound(connection))).certificate
    outer.lab.verify(second)
    assert (second.subject, second.issuer) == (first.subject, first.issuer)
    assert len(outer.lab.rows) == before + 2


def test_a_202_of_the_other_server_is_a_202_here(outer, est):
    result = at(est, outer, "wait").run("simpleenroll", csr())
    assert result.status == 75
    assert result.out == b"Status: 202\nRetry-After: 77\n\n"


def test_a_400_of_the_other_server_is_the_clients_with_its_words(outer, est):
    result = at(est, outer, "refuse").run("simpleenroll", csr())
    assert (result.status, result.words) == (77, "the CA refused: no such name")


@pytest.mark.parametrize(("label", "reason"), [("forbid", "HTTP 403: not for RAs"), ("unknown", "No such CA label")])
def test_a_403_or_404_of_the_other_server_is_ours_to_mend(outer, est, label, reason):
    result = at(est, outer, label).run("simpleenroll", csr())
    assert (result.status, result.words) == (69, LATER)
    assert reason in result.err


@pytest.mark.exhaustive
def test_a_certificate_that_the_other_server_does_not_accept_is_ours_to_mend(est):
    stranger = root().issue("front desk")
    est.write("secrets/ra.pem", stranger.both)
    result = est.run("simpleenroll", csr())
    assert (result.status, result.words) == (69, LATER)
    assert "HTTP 40" in result.err


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("content", "fault"),
    [(b"nothing", "it must have a private key in PEM"), (KEY_PEM, "it must have the key's certificate, too, in PEM")],
)
def test_a_file_without_key_and_certificate_is_named(est, content, fault):
    est.write("secrets/ra.pem", content)
    result = est.run("simpleenroll", csr())
    assert result.status == 78
    assert result.err == f"{est.folder}/secrets/ra.pem: {fault}\n"


@pytest.mark.exhaustive
def test_a_key_that_others_can_read_is_not_used(est):
    (est.folder / "secrets/ra.pem").chmod(0o644)
    result = est.run("simpleenroll", csr())
    assert result.status == 78
    assert "secrets/ra.pem: others can read it" in result.err


@pytest.mark.exhaustive
def test_a_server_with_another_certificate_gets_no_request(outer, est):
    est.write("est-anchors.pem", root().pem)
    before = len(outer.lab.rows)
    result = est.run("simpleenroll", csr())
    assert (result.status, result.words) == (69, LATER)
    assert "certificate" in result.err
    assert len(outer.lab.rows) == before


@pytest.mark.exhaustive
def test_an_absent_server_is_a_503(outer, est):
    est.lab.edit(est.script, outer.gateway.url, f"https://localhost:{free_port()}")
    for operation in ("simpleenroll", "cacerts"):
        result = est.run(operation, csr())
        assert (result.status, result.words) == (69, LATER)


@pytest.mark.exhaustive
def test_a_slow_server_is_a_503(outer, shared_est):
    os.kill(outer.gateway.process.pid, signal.SIGSTOP)
    try:
        result = shared_est.run("simpleenroll", csr(), EST_TIMEOUT="6")
    finally:
        os.kill(outer.gateway.process.pid, signal.SIGCONT)
    assert (result.status, result.words) == (69, LATER)


def test_a_dry_run_sends_no_request(outer, shared_est):
    before = len(outer.lab.rows)
    result = shared_est.run("simpleenroll", csr(), EST_REPLAY="1")
    assert result.status == 69
    assert result.words.startswith("This is a dry run: nothing was sent")
    assert len(outer.lab.rows) == before
