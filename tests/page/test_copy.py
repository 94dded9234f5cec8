"""The commands that the page offers: they run in Bash, and a peer's text in them is nothing but text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from estgw.est import encoding
from estgw.record.ring import Record
from tests.kit.csr import csr
from tests.kit.gateway import Gateway
from tests.kit.preloaded import forked_estgw, script
from tests.page import samples
from tests.page.conftest import Look
from tests.page.shown import FACTS, Shown, shown

pytestmark = [pytest.mark.client("chromium-headless-shell"), pytest.mark.slow, pytest.mark.exhaustive]

HIDDEN = set(map(chr, [*range(32), 127, 0x200B, 0x2028, 0x202E, 0x2066])) - {"\n"}


def copied(tab: Page, identifier: str, button: str) -> str:
    """Press a button in a record's detail; what it has put into the clipboard, which it shows as well."""
    tab.evaluate(f"location.hash = '#id={identifier}'")
    tab.locator("#detail .head", has_text=identifier).wait_for()
    if not tab.get_by_role("button", name=button).is_visible():
        tab.get_by_text("More…").click()
    tab.get_by_role("button", name=button).click()
    tab.locator(".said pre").wait_for()
    text = str(tab.evaluate("navigator.clipboard.readText()"))
    assert tab.locator(".said pre").evaluate("(node) => node.textContent") == text
    return text


def tab_of(look: Look, page: Shown) -> Page:
    return look.at(page.url, look.window(permissions=["clipboard-read", "clipboard-write"]))


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory with a curl and an estgw that only write down how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("curl", "estgw"):
        script = folder / name
        script.write_text(
            f"#!{sys.executable}\nimport json, os, sys\n"
            "files = [open(each).read() for each in sys.argv if each.startswith('/dev/fd/')]\n"
            "called = {'argv': sys.argv[1:], 'stdin': sys.stdin.read(), 'files': files}\n"
            f"json.dump(called, open('{tmp_path}/called', 'w'))\n"
        )
        script.chmod(0o755)
    return folder


def called(command: str, programs: Path) -> Any:
    """Run a command with these programs: how the one in it was called.  Nothing else may happen."""
    where = programs.parent / "where"
    where.mkdir(exist_ok=True)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(where)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=where, env=environment, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), command
    assert not list(where.iterdir())
    return json.loads((programs.parent / "called").read_text())


def recorded(page: Shown, identifier: str) -> Record:
    entry = page.ring.get(identifier)
    assert entry is not None
    return entry.record()


def test_each_record_is_a_command_for_bash_without_hidden_characters(look: Look, page: Shown, programs: Path):
    tab = tab_of(look, page)
    for record in (made for _, entry in page.ring.since(0) if (made := entry.record())["request"]):
        command = copied(tab, record["id"], "Copy as curl")
        assert not HIDDEN & set(command)
        argv = called(command, programs)["argv"]
        target = record["request"]["line"].split(" ")[1]
        assert argv[:3] == ["-sS", "--fail-with-body", FACTS.url + target]
        if record["id"] in ("8f0c21ab08", "8f0c21ab0c"):
            command = copied(tab, record["id"], "Copy as estgw run")
            assert not HIDDEN & set(command)
            assert called(command, programs)["argv"][:4] == ["run", "-c", "/lab/conf.yaml", record["operation"]]
            command = copied(tab, record["id"], "Copy as estgw replay")
            assert called(command, programs)["argv"] == ["replay", "-c", "/lab/conf.yaml", record["id"]]


def test_curl_sends_what_was_sent_and_a_placeholder_for_the_password(look: Look, page: Shown, programs: Path):
    record = recorded(page, "8f0c21ab08")
    found = called(copied(tab_of(look, page), record["id"], "Copy as curl"), programs)
    assert found["argv"][3:] == [
        "-u", "estuser:PLACEHOLDER", "--cacert", "/lab/openssl-ca/anchors.pem", "-H", "Accept: */*",
        "-H", "Content-Type: application/pkcs10", "--data-binary", "@-",
    ]  # fmt: skip
    assert samples.b64(found["stdin"].encode()) == record["request"]["body"]


def test_curl_sends_a_body_of_any_bytes(look: Look, programs: Path):
    body = bytes(range(256)) * 3
    record = samples.enrolment(1, 0)
    record["request"] |= {"body": samples.b64(body), "length": len(body)}
    with shown(record) as page:
        command = copied(tab_of(look, page), record["id"], "Copy as curl")
    program = programs / "curl"
    program.write_text(program.read_text().replace("sys.stdin.read()", "sys.stdin.buffer.read().hex()"))
    assert called(command, programs)["stdin"] == body.hex()


def test_a_certificate_is_a_file_to_put_in(look: Look, page: Shown, programs: Path):
    tab = tab_of(look, page)
    command = copied(tab, "8f0c21ab04", "Copy as curl")
    assert command.startswith("# client.pem and client.key stand for the client's certificate and its key.\n")
    argv = called(command, programs)["argv"]
    assert argv[argv.index("--cert") :][:4] == ["--cert", "client.pem", "--key", "client.key"]
    found = called(copied(tab, "8f0c21ab04", "Copy as estgw run"), programs)
    (sent,) = found["files"]
    assert sent == recorded(page, "8f0c21ab04")["tls"]["certificate"]


def test_a_csr_that_was_linked_warns_that_it_cant_be_sent_again(look: Look, page: Shown):
    tab = tab_of(look, page)
    assert copied(tab, "8f0c21ab14", "Copy as curl").startswith(
        "# This CSR carries the channel binding of the recorded"
    )
    assert "channel binding" not in copied(tab, "8f0c21ab08", "Copy as curl")


def test_a_peers_text_is_no_command(look: Look, page: Shown, programs: Path):
    hostile = recorded(page, "8f0c21ab0c")
    tab = tab_of(look, page)
    argv = called(copied(tab, hostile["id"], "Copy as curl"), programs)["argv"]
    assert f"{hostile['auth']['user']}:PLACEHOLDER" in argv
    assert "Content-Type: application/pkcs10'; id #" in argv
    found = called(copied(tab, hostile["id"], "Copy as estgw run"), programs)
    assert found["argv"][found["argv"].index("--user") + 1] == hostile["auth"]["user"]


def test_a_word_is_the_same_after_bash_has_read_it(look: Look, page: Shown):
    tab = look.at(page.url)
    for text in ("it's", "a\\b", "$(id)`id`", "-x", "~", "", "é€😀", "\x1b\x07\x7f", "\u202e'\\\u2028", "\n", "a\tb"):
        word = tab.evaluate("async (text) => (await import('/js/copy.js')).quoted(text)", text)
        for locale in ("C", "C.UTF-8"):
            environment = {"PATH": os.environ["PATH"], "LC_ALL": locale}
            command = ["bash", "-c", f"printf %s {word}"]
            done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
            assert done.stdout.decode() == text, word


# With a gateway.


def enrolment_at(gateway: Gateway) -> dict[str, Any]:
    """A request as that gateway may have recorded it."""
    body = encoding.encode_base64(csr("copied"))
    record = samples.enrolment(1, 0, "copied")
    record["request"] |= {"body": samples.b64(body), "length": len(body)}
    return record


@pytest.mark.client("curl")
def test_the_copied_curl_enrols_at_a_gateway(look: Look, gateway: Gateway, tmp_path: Path):
    record = enrolment_at(gateway)
    facts = replace(FACTS, url=gateway.url, config=str(gateway.config), anchor=str(gateway.anchor))
    with shown(record, facts=facts) as page:
        command = copied(tab_of(look, page), record["id"], "Copy as curl")
    refused = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, check=False)
    assert b"401" in refused.stderr  # the placeholder is no password
    done = subprocess.run(
        ["bash", "-c", command.replace("PLACEHOLDER", "estpwd")], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"MII" in done.stdout
    assert gateway.access[-1]["subject"] == "CN=copied"


def test_the_copied_estgw_run_runs_the_scripts(look: Look, gateway: Gateway, tmp_path: Path):
    record = enrolment_at(gateway)
    program = tmp_path / "estgw"
    program.write_text(script(forked_estgw()))
    program.chmod(0o755)
    facts = replace(FACTS, url=gateway.url, config=str(gateway.config))
    with shown(record, facts=facts) as page:
        command = copied(tab_of(look, page), record["id"], "Copy as estgw run")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("HTTP/1.1 200 OK\n")
    assert "nothing was issued" in done.stderr
