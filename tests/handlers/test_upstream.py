"""What all handlers/upstream share, in front of a server that gives any answer: its status decides the end."""

from __future__ import annotations

import contextlib
import http.server
import importlib
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from estgw.cli import ca_check
from estgw.cli import main as command_line
from tests.kit.ca import CMC_RA, pem, root
from tests.kit.csr import csr, extension_request
from tests.kit.der import SEQUENCE, armoured, attribute, extension, tlv
from tests.kit.gateway import running_gateway
from tests.kit.processes import PATH, ROOT, until
from tests.kit.restore import logging_as_before
from tests.kit.upstream import Upstream
from tests.kit.workspace import Result, Workspace

FOLDER = ROOT / "handlers/upstream"
SCRIPTS = sorted(path.name for path in FOLDER.iterdir() if path.is_file() and path.read_bytes().startswith(b"#!/usr"))
LONGEST = {"acme": 70, "cfssl": 40, "est": 46, "openbao": 40}


class Anything(http.server.ThreadingHTTPServer):
    """It answers each request with what a test wants, and remembers what it was asked."""

    daemon_threads = True
    status, body, location, pause = 200, b"", "", 0.0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Anything

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()
        with contextlib.suppress(OSError):  # the handler has gone
            size = 100 if self.server.pause else 1 << 16
            for at in range(0, len(self.server.body), size):
                self.wfile.write(self.server.body[at : at + size])
                time.sleep(self.server.pause)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def anything() -> Iterator[Anything]:
    with Anything() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def shared(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    """A handler whose CA is reached by plain HTTP on this machine."""
    own = lab.copy(tmp_path_factory.mktemp("upstream") / "lab")
    own.script("handlers/upstream/plain", PLAIN)
    made = Upstream.create(own, "plain", {})
    made.write("secrets/token", "t")
    return made


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the scripts import, in this process."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setenv("EST_OPERATION", "simpleenroll")
    monkeypatch.setenv("EST_TIMEOUT", "30")
    return SimpleNamespace(rest=importlib.import_module("rest"), upstream=importlib.import_module("upstream"))


PLAIN = """#!/usr/bin/env python3
import os
import sys

sys.path.insert(0, "")
import rest
import upstream

csr = upstream.request()
ca = rest.Server(os.environ["CA"])
print(ca.post("sign", {"csr": csr.pem.decode()}, X_Token=upstream.secret("token")).get("result", "certificate"))
"""


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_short_and_explains_itself(name):
    text = (FOLDER / name).read_text()
    assert text.startswith(f'#!/usr/bin/env python3\n"""{name}: ')
    assert "    #### Settings: edit me" in text
    assert "Try it alone: estgw run " in text
    assert len(text.splitlines()) <= LONGEST[name]


def test_no_module_hides_one_of_pythons_own():
    assert not {path.stem for path in FOLDER.glob("*.py")} & sys.stdlib_module_names


LATER = "The CA can't be asked now; come back later."
ENDS = [
    (200, b'{"result": {"certificate": "PEM"}}', 0, "PEM", ""),
    (200, b'{"result": {}}', 69, LATER, "sign: the answer has no result.certificate"),
    (200, b"[]", 69, LATER, "the answer has no result"),
    (200, b"<html>", 69, LATER, "HTTP 200, and the body is not JSON"),
    (401, b"", 69, LATER, "HTTP 401"),
    (403, b'{"errors": ["permission denied"]}', 69, LATER, "HTTP 403: permission denied"),
    (404, b"", 69, LATER, "HTTP 404"),
    (429, b"", 69, LATER, "HTTP 429"),
    (500, b'{"errors": [{"message": "disk full"}]}', 69, LATER, "HTTP 500: disk full"),
    (503, b"sealed", 69, LATER, "HTTP 503"),
    (307, b"", 69, LATER, "HTTP 307"),
    (400, b'{"detail": "no such name"}', 77, "the CA refused: no such name", "HTTP 400: no such name"),
    (400, b'{"errors": ["one", {"message": "two"}, 3]}', 77, "the CA refused: one; two", ""),
    (422, b'{"error_message": "too short"}', 77, "the CA refused: too short", ""),
    (400, b"<html>", 77, "the CA refused: HTTP 400", ""),
    (400, b'{"error": "a\\u001b[31mb"}', 77, "the CA refused: a\\x1b[31mb", "HTTP 400: a\\x1b[31mb"),
]


@pytest.mark.parametrize(("status", "body", "end", "words", "log"), ENDS)
def test_the_status_of_the_ca_decides_the_end(modules, anything, capsys, status, body, end, words, log):
    anything.status, anything.body = status, body
    try:
        print(modules.rest.Server(anything.url).post("sign", {}).get("result", "certificate"))
    except SystemExit as ended:
        assert ended.code == end
    else:
        assert end == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == words
    assert log in printed.err


WISHES: dict[str, list[Any]] = {
    "an RA's usage": [x509.ExtendedKeyUsage([CMC_RA])],
    "a usage of servers": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])],
    "signing certificates": [x509.KeyUsage(True, False, False, False, False, True, False, False, False)],
    "being a CA": [x509.BasicConstraints(ca=True, path_length=None)],
    "an extension of its own": [x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")],
    "no revocation": [x509.OCSPNoCheck()],
    "another place for extensions": [
        attribute("1.3.6.1.4.1.311.2.1.14", tlv(SEQUENCE, extension("2.5.29.14", tlv(4, b"1")))),
        extension_request(extension("2.5.29.37", x509.ExtendedKeyUsage([CMC_RA]).public_bytes())),
    ],
}


@pytest.mark.parametrize("wish", WISHES)
def test_a_csr_that_asks_for_what_a_ca_would_copy_is_refused(modules, monkeypatch, tmp_path, capsys, wish):
    (tmp_path / "csr.pem").write_bytes(armoured(csr("device-1", *WISHES[wish])))
    monkeypatch.setenv("EST_CSR_FILE", str(tmp_path / "csr.pem"))
    with pytest.raises(SystemExit) as ended:
        modules.upstream.request("clientAuth")
    assert ended.value.code == 77
    assert re.search("^(Leave .* out of the CSR|Ask for extensions by)", capsys.readouterr().out)


def test_a_csr_that_asks_for_what_every_client_gets_is_taken(modules, monkeypatch, tmp_path):
    harmless: list[Any] = [
        x509.KeyUsage(True, False, True, False, False, False, False, False, False),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
        x509.BasicConstraints(ca=False, path_length=None),
        x509.DNSName("one.example"),
    ]
    (tmp_path / "csr.pem").write_bytes(armoured(csr("device-1", *harmless)))
    monkeypatch.setenv("EST_CSR_FILE", str(tmp_path / "csr.pem"))
    assert modules.upstream.request("clientAuth").subject_text == "CN=device-1"


def ask(shared: Upstream, anything: Anything, **env: str) -> Result:
    return shared.run("simpleenroll", csr(), CA=anything.url, **env)


def test_a_redirect_is_not_followed_with_the_token(shared, anything):
    anything.status, anything.location = 307, f"{anything.url}elsewhere"
    assert ask(shared, anything).status == 69
    assert anything.asked == ["/sign"]


def test_an_answer_without_an_end_is_cut_off(shared, anything):
    anything.body = json.dumps({"errors": ["x" * (2 << 20)]}).encode()
    result = ask(shared, anything)
    assert result.status == 69
    assert "more than 1048576 bytes" in result.err


def test_an_answer_that_drips_is_too_slow(shared, anything):
    anything.body, anything.pause = b" " * 10_000, 0.1
    began = time.monotonic()
    result = ask(shared, anything, EST_TIMEOUT="3")
    assert time.monotonic() - began < 9
    assert result.status == 69
    assert "no answer in 2 s; it may have issued what nobody gets" in result.err


def test_a_token_goes_to_no_other_machine_in_the_clear(shared):
    result = shared.run("simpleenroll", csr(), CA="http://ca.example.org/")
    assert result.status == 78
    assert "only https, as secrets are sent" in result.err


def test_a_dry_run_sends_nothing(shared, anything):
    result = ask(shared, anything, EST_REPLAY="1")
    assert (result.status, anything.asked) == (69, [])
    assert result.words.startswith("This is a dry run: nothing was sent")


def test_new_names_inside_the_csr_are_refused(shared, anything):
    result = ask(shared, anything, EST_CHANGE_SUBJECT="/CN=another")
    assert (result.status, anything.asked) == (77, [])
    assert "enrol anew for other names" in result.words


OWN = """#!/usr/bin/env python3
import os
import urllib.request
from pathlib import Path

token = Path(os.environ["EST_CA_DIR"], "secrets/token").read_text()
request = urllib.request.Request(os.environ["CA"] + "sign", b"", {"X-Token": token})
print(urllib.request.urlopen(request).read().decode())
"""
"""A script of an operator's own, which does not know of dry runs."""


@pytest.mark.slow
@pytest.mark.parametrize(("text", "end"), [(PLAIN, "This is a dry run: nothing was sent"), (OWN, "")])
def test_neither_a_dry_run_nor_a_replay_makes_a_ca_issue(own_lab, anything, capfd, text, end):
    own_lab.script("handlers/upstream/plain", text)
    plain = Upstream.create(own_lab, "plain", {})
    plain.write("secrets/token", "t")
    certificate = pem(root().certify(csr())).decode()
    anything.body = (
        json.dumps({"result": {"certificate": certificate}}).encode() if text is PLAIN else certificate.encode()
    )
    handler = {"handler": str(own_lab.path / plain.script), "handler_env": {"CA": anything.url}}
    label = {"ca_dir": str(plain.folder), "operations": {"simpleenroll": handler}}
    with running_gateway(
        own_lab, {"labels": {"plain": label}, "record": {"dir": str(own_lab.path / "records")}}
    ) as gateway:
        assert gateway.post("/.well-known/est/plain/simpleenroll", csr()).status == 200
        until(lambda: list((own_lab.path / "records").glob("*.json")))
        assert anything.asked == ["/sign"]
        (own_lab.path / "req.pem").write_bytes(armoured(csr()))
        config = ["-c", str(gateway.config)]
        dry = ["run", "simpleenroll", "--label", "plain", "--csr", str(own_lab.path / "req.pem"), "--user", "estuser"]
        with logging_as_before():
            assert command_line.main([*dry, "--dry-run", *config]) == 1
        printed = capfd.readouterr()
        assert end in printed.out
        assert f"{plain.folder}/secrets: left out of the copy, as scripts could issue elsewhere with it" in printed.err
        with logging_as_before():
            assert command_line.main(["replay", "--all", "simpleenroll", "--no-sandbox", *config]) == 3
        assert "0 same, 1 differs, 0 left out" in capfd.readouterr().out
        assert anything.asked == ["/sign"]


def test_a_check_names_the_secrets_that_others_can_read(own_lab):
    plain = Upstream.create(own_lab, "openbao", {})
    plain.write("secrets/token", "t")
    assert ca_check.faults(plain.folder, PATH) == []
    file = plain.write("secrets/token", "t", 0o644)
    assert ca_check.faults(plain.folder, PATH) == [f"{file}: others can read it; chmod 600 {file}"]
