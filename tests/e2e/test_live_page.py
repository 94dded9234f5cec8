"""The live page of a gateway: what happens there is on the page; a reload keeps it; a demo has it by itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from cryptography import x509

from tests.kit.csr import csr
from tests.kit.live_page import ON, Link, paged
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import DEADLINE, ROOT, run
from tests.kit.workspace import Workspace


def test_what_happens_at_the_gateway_is_on_the_page(own_lab: Workspace):
    with paged(own_lab) as (gateway, page):
        gateway.post("simpleenroll", csr("seen"))
        gateway.post("simpleenroll", csr("seen"), login=None)
        gateway.get("cacerts")
        rows = page.rows(3)
        assert [(row["operation"], row["status"], row["gate"]) for row in rows] == [
            ("simpleenroll", 200, None),
            ("simpleenroll", 401, "requires"),
            ("cacerts", 200, None),
        ]
        assert rows[0]["subject"] == "CN=seen"
        record = page.get(f"/api/records/{rows[0]['id']}")
        assert record["format"] == 1
        assert record["outcome"]["status"] == 200
        assert "estpwd" not in json.dumps(record)
        facts = page.get("/api/facts")
        assert facts["url"] == gateway.url
        assert facts["config"] == str(gateway.config)
        assert facts["anchor"] == str(own_lab.ca / "anchors.pem")


def test_a_replay_makes_a_record_of_its_own_and_issues_nothing(own_lab: Workspace):
    with paged(own_lab) as (gateway, page):
        gateway.post("simpleenroll", csr("again"))
        (row,) = page.rows(1)
        books = own_lab.books()
        connection = page.connect()
        headers = {"Authorization": f"Bearer {page.token}", "Origin": page.base.rstrip("/")}
        connection.request("POST", f"/api/replay/{row['id']}", headers=headers)
        told = json.loads(connection.getresponse().read())
        assert told["error"] is None
        made = page.get(f"/api/records/{told['id']}", connection)
        assert (made["kind"], made["of"], made["outcome"]["status"]) == ("replay", row["id"], 200)
        assert own_lab.books() == books
        own_lab.edit("handlers/openssl/simpleenroll", "#### Policy", 'refuse "not today"\n#### Policy')
        connection.request("POST", f"/api/replay/{row['id']}", headers=headers)
        told = json.loads(connection.getresponse().read())
        assert page.get(f"/api/records/{told['id']}", connection)["outcome"]["status"] == 403
        connection.close()


def test_a_reload_keeps_the_page_its_token_and_its_connections(own_lab: Workspace):
    with paged(own_lab) as (gateway, page):
        connection = page.connect()
        assert page.get("/api/facts", connection)["replay"] is True
        port = connection.sock.getsockname()[1]
        assert gateway.reload()["event"] == "reloaded"
        assert page.get("/api/records", connection)["rows"] == []
        assert connection.sock.getsockname()[1] == port
        gateway.get("cacerts")
        assert len(page.rows(1)) == 1
        connection.close()
        changed = {**ON, "page": {"listen": "127.0.0.1:0", "hosts": ["lab.example"]}}
        gateway.configure(changed)
        gateway.reload()
        assert "page.hosts: [] stays, not [lab.example]" in gateway.log_text


def test_the_token_is_printed_and_not_logged(own_lab: Workspace):
    with paged(own_lab) as (gateway, page):
        page.get("/api/facts")
        assert page.token not in gateway.log_text


def test_a_public_page_has_the_gateways_certificate_and_the_new_one_after_a_reload(own_lab: Workspace):
    public = {**ON, "page": {"listen": "0.0.0.0:0", "public": True, "hosts": ["localhost"]}}
    with paged(own_lab, public) as (gateway, page):
        assert page.base.startswith("https://localhost:")
        place = ("127.0.0.1", urlsplit(page.base).port or 0)
        before = certificate_at(place)
        assert before == x509.load_pem_x509_certificate((own_lab.ca / "server.pem").read_bytes())
        assert page.get("/api/facts")["url"] == gateway.url
        own_lab.do("create-ca", "--server-only", "--name", "localhost")
        assert gateway.reload()["event"] == "reloaded"
        assert certificate_at(place) != before
        assert page.get("/api/records")["rows"] == []


def test_a_page_on_all_addresses_is_linked_by_a_name_that_works_here(own_lab: Workspace):
    with paged(own_lab, {**ON, "page": {"listen": "0.0.0.0:0", "public": True}}) as (gateway, page):
        assert page.base.startswith("https://localhost:")
        assert page.get("/api/facts")["url"] == gateway.url


def certificate_at(place: tuple[str, int]) -> x509.Certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(place) as raw, context.wrap_socket(raw) as secure:
        der = secure.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def test_a_gateway_that_ends_does_not_wait_for_pages(own_lab: Workspace):
    with paged(own_lab, {**ON, "server": {"drain_timeout": 30}}) as (gateway, page):
        connection = page.connect()
        connection.request("GET", "/api/events", headers={"Authorization": f"Bearer {page.token}"})
        stream = connection.getresponse()
        assert stream.status == 200
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(15) == 0
        stream.read()
        connection.close()


def test_a_taken_port_of_the_page_is_told_with_its_setting(own_lab: Workspace):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = own_lab.path / "conf-taken.yaml"
        port = taken.getsockname()[1]
        text = (own_lab.path / "conf.yaml").read_text().replace("[127.0.0.1:8443]", "[127.0.0.1:0]")
        config.write_text(f"{text}\nrecord: {{keep: 5}}\npage: {{listen: 127.0.0.1:{port}}}\n")
        command = [*forked_estgw(), "serve", "-c", str(config)]
        done = run(*command, status=1, cwd=own_lab.path, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert f"page.listen: can't listen on 127.0.0.1:{port}".encode() in done.stderr


@contextlib.contextmanager
def demo(lab: Workspace, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A demo in a workspace that is there."""
    command = [*forked_estgw(), "demo", "--dir", str(lab.path), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (lab.path / "said").open("w") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment)
    try:
        yield process
        process.terminate()
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.slow
def test_a_demo_shows_its_page_and_a_taken_port_does_not_stop_it(own_lab: Workspace):
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # taken by another test, it is as taken as it should be
            stack.enter_context(socket.create_server(("127.0.0.1", 8444)))
        process = stack.enter_context(demo(own_lab, "--listen", "127.0.0.1:0"))
        assert process.stdout is not None
        ready, page = process.stdout.readline(), Link(process.stdout.readline())
        assert ready.startswith("estgw ready https://localhost:")
        assert 8444 < (urlsplit(page.base).port or 0) < 8544
        assert page.get("/api/facts")["url"] == ready.split()[-1]
        assert f"{page.base}#{page.token}" in (own_lab.path / "said").read_text()


@pytest.mark.slow
def test_a_demo_follows_a_conf_yaml_that_wants_no_page(own_lab: Workspace):
    with (own_lab.path / "conf.yaml").open("a") as config:
        config.write("\npage: {listen: null}\n")
    with demo(own_lab, "--listen", "127.0.0.1:0") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("estgw ready")
        process.terminate()
        assert process.stdout.read() == ""
