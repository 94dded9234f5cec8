"""The command itself: its start, its words, and its files."""

from __future__ import annotations

import base64
import json
import os
import pty
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from estgw import client
from estgw.client import cli, faults
from estgw.client.faults import Exit, clean
from estgw.est import csrattrs
from estgw.est.csrattrs import AttributeWish, CsrAttrs
from tests.client import pki, rogue
from tests.client.common import ROOT, python

COMMANDS = ("cacerts", "csrattrs", "enroll", "simpleenroll", "reenroll", "simplereenroll", "serverkeygen", "fullcmc")


def test_version_starts_in_no_time():
    """150 ms on an idle machine; the best of five, because this one may be busy."""
    took = []
    for _ in range(5):
        began = time.monotonic()
        done = python("-m", "estgw.client.cli", "--version")
        took.append(time.monotonic() - began)
        assert done.stdout.startswith("estclient ")
    assert min(took) < 0.3, took


def test_version_loads_nothing_that_costs():
    code = "import sys; from estgw.client.cli import parser; parser(); print([m for m in sys.modules])"
    loaded = python("-c", code, check=True).stdout
    for name in ("aiohttp", "pydantic", "cryptography", "OpenSSL", "http.client", "ssl"):
        assert f"'{name}'" not in loaded


def test_no_command_loads_what_the_gateway_needs():
    modules = sorted(path.stem for path in Path(client.__file__).parent.glob("*.py"))
    lines = "; ".join(f"import estgw.client.{name}" for name in modules if name != "__init__")
    loaded = python("-c", f"import sys; {lines}; print([m for m in sys.modules])", check=True).stdout
    for name in ("aiohttp", "pydantic", "structlog", "pyasn1", "yaml", "estgw.config", "estgw.app"):
        assert f"'{name}'" not in loaded


def test_usage_is_status_2(estclient, anchor):
    for arguments in (
        (),
        ("enroll",),
        ("enroll", "-u", "x"),
        ("cacerts", "-u", "http://x", "-c", anchor),
        ("cacerts", "-u", "localhost", "-c", "nosuch"),
        ("cacerts", "-u", "localhost", "-c", __file__),
        ("cacerts", "-u", "localhost", "--timeout", "0"),
        ("cacerts", "-u", "localhost", "-c", anchor, "--key", anchor),
        ("csrattrs", "-u", "localhost", "-c", anchor, "--cert", anchor),
        ("reenroll", "-u", "localhost", "-c", anchor),
        ("enroll", "-u", "localhost", "-c", anchor, "--csr", "-", "--new-key"),
        ("enroll", "-u", "localhost", "-c", anchor, "-p", "a:b:c\n", "--csr", "x"),
    ):
        assert estclient(*arguments).status == Exit.USAGE, arguments


@pytest.mark.parametrize(
    "options",
    [
        ("enroll", "--csr", "x", "--subject", "CN=x"),
        ("enroll", "-R", "x", "--dns", "x", "--ip", "::1"),
        ("enroll", "--csr", "x", "--no-csrattrs"),
        ("enroll", "--csr", "x", "--key-out", "k"),
        ("enroll", "--reuse-key", "x", "--subject", "CN=x", "--key-out", "k"),
        ("enroll", "--new-key", "--subject", "CN=x", "-o", "x", "--no-pop", "--require-pop"),
        ("enroll", "--new-key", "--subject", "CN=x", "-o", "x", "--key-out", "x", "--outform", "der"),
        ("reenroll", "--cert", "x", "--key-out", "k"),
        ("reenroll", "--cert", "x", "--new-key", "--key-out", "k"),
        ("reenroll", "--cert", "x", "--outform", "der"),
        ("serverkeygen", "--csr", "x", "--uri", "x:y", "-o", "x"),
    ],
)
def test_no_option_is_silently_ignored(estclient, anchor, options):
    ended = estclient(*options, "-u", "localhost:1", "-c", anchor)
    assert ended.status == Exit.USAGE
    assert "x: No such file" not in ended.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_the_exit_statuses(estclient, command):
    ended = estclient(command, "--help")
    assert ended.status == 0
    assert "7 invalid answer" in ended.out


def test_both_spellings_of_a_command(holder, anchor, estclient, enroller):
    with rogue.Server(holder, enroller()) as server:
        for name in ("enroll", "simpleenroll"):
            command = (name, "-u", server.url, "-c", anchor, "--new-key", "--subject", "CN=x", "-o", f"{name}.pem")
            assert estclient(*command).status == Exit.DONE


def test_json_is_one_object_whatever_happens(holder, anchor, estclient, enroller):
    with rogue.Server(holder, enroller()) as server:
        common = ("-u", server.url, "-c", anchor, "--json")
        done = estclient("cacerts", *common)
        assert done.json["status"] == "done"
        assert done.json["certificates"][0]["newest"] is True
        assert estclient("csrattrs", *common).json["wishes"] == []
        issued = estclient("enroll", *common, "--new-key", "--subject", "CN=x", "--key-out", "k").json
        assert issued["certificate"]["pem"].startswith("-----BEGIN CERTIFICATE")
    lost = estclient("cacerts", *common)
    assert (lost.status, lost.json["exit"], lost.json["status"]) == (6, 6, "no_connection")


def test_trace_shows_the_exchange_and_masks_the_password(holder, anchor, estclient, enroller):
    def answer(request):
        if "Authorization" not in request.headers:
            return rogue.reply(401, content_type=None, WWW_Authenticate="Basic realm=x", Set_Cookie="a=hidden")
        return enroller()(request)

    with rogue.Server(holder, answer) as server:
        common = ("-u", server.url, "-c", anchor, "-p", "estuser:estpwd", "--trace")
        ended = estclient("enroll", *common, "--new-key", "--subject", "CN=x", "-o", "c.pem", "--no-csrattrs")
    assert ended.status == Exit.DONE
    assert "> POST /.well-known/est/simpleenroll HTTP/1.1" in ended.err
    assert "> Authorization: Basic ***" in ended.err
    for secret in (base64.b64encode(b"estuser:estpwd").decode(), "estpwd", "hidden", "PRIVATE"):
        assert secret not in ended.err


def test_trace_hides_an_otp():
    from estgw.client import keys, request, trace
    from estgw.est import csr

    plan = request.plan(request.Wanted(pki.name("x")), None)
    key = keys.generate(keys.parse_spec("ec:P-256"))
    secret = AttributeWish(csr.OTP_CHALLENGE, (request.string("90503846"),))
    body = base64.b64encode(request.build(plan, key, None, [secret]))
    assert trace._request_text(body) == f"[{len(body)} bytes of CSR with a secret in it ***]"


def test_sslkeylogfile(holder, anchor, estclient, enroller, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with rogue.Server(holder, enroller()) as server:
        assert estclient("cacerts", "-u", server.url, "-c", anchor).status == Exit.DONE
    assert "EXPORTER_SECRET" in (tmp_path / "keys").read_text()
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600


def test_csrattrs_in_words_and_bytes(holder, anchor, estclient, enroller, tmp_path):
    wishes = CsrAttrs(
        (
            "1.2.840.113549.1.9.7",
            AttributeWish(csrattrs.EC_PUBLIC_KEY, (csrattrs.encode_oid("1.3.132.0.34"),)),
            AttributeWish(csrattrs.EXTENSION_REQUEST, (bytes.fromhex("300b30090603551d1304023000".replace(" ", "")),)),
            "1.2.840.10045.4.3.3",
        )
    )
    body = rogue.reply(body=base64.b64encode(wishes.encode()), content_type="application/csrattrs")
    with rogue.Server(holder, enroller(csrattrs=body)) as server:
        common = ("csrattrs", "-u", server.url, "-c", anchor)
        text = estclient(*common).out
        assert estclient(*common, "--outform", "der", "-o", "out").status == Exit.DONE
        assert estclient(*common, "--outform", "p7").status == Exit.USAGE
    assert "key: ec:P-384" in text
    assert "challengePassword" in text
    assert "SHA-384" in text
    assert (tmp_path / "out").read_bytes() == wishes.encode()


def test_a_progress_line_on_a_terminal(holder, anchor, enroller, tmp_path):
    count = [0]

    def later(_):
        count[0] += 1
        return rogue.reply(202, content_type=None, Retry_After="1") if count[0] < 2 else ...

    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with rogue.Server(holder, enroller(simpleenroll=later)) as server:
        command = [
            "enroll",
            "-u",
            server.url,
            "-c",
            str(anchor),
            "--new-key",
            "--subject",
            "CN=x",
            "-o",
            "c.pem",
            "--wait",
            "1m",
        ]
        code = "import sys; from estgw.client.cli import main; sys.exit(main())"
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *command], env=environment, stderr=theirs,
                              stdin=subprocess.DEVNULL, cwd=tmp_path, check=False, timeout=30)  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "Waiting for the server: next try in 1 s" in shown
    assert "Issued: CN=x" in shown


def test_a_reader_that_has_gone_is_no_success(holder, anchor, enroller, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with rogue.Server(holder, enroller()) as server:
        code = "import sys; from estgw.client.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "cacerts", "-u", server.url, "-c", str(anchor)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            assert b"Traceback" not in process.stderr.read()
        assert process.returncode == Exit.FAILED


def test_where_a_file_can_not_be_written(holder, anchor, estclient, enroller):
    with rogue.Server(holder, enroller()) as server:
        assert estclient("cacerts", "-u", server.url, "-c", anchor, "-o", "no/such/dir").status == Exit.FAILED
        command = ("enroll", "-u", server.url, "-c", anchor, "--new-key", "--subject", "CN=x", "-o", "no/such/dir.pem")
        assert estclient(*command).status == Exit.FAILED
        assert not any(request.method == "POST" for request in server.requests)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 日本", "plain ä 日本"),
        ("a\r\nb\n", "a\nb"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("\u202e\u2066\ufeff", "\\u202e\\u2066\\ufeff"),
        ("\U000e0001", "\\U000e0001"),
        ("x" * 3000, "x" * 2048 + "..."),
    ],
)
def test_clean(text, shown):
    assert clean(text) == shown


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 2592000), ("12h", 43200), ("5m", 300), ("7", 7), ("2w", 1209600)]
)
def test_durations(text, seconds):
    assert cli.duration(text).total_seconds() == seconds


def test_the_exit_statuses_are_a_promise():
    promised = {
        fault.status
        for fault in vars(faults).values()
        if isinstance(fault, type) and issubclass(fault, faults.ClientError)
    }
    assert promised == {1, 2, 3, 4, 5, 6, 7}


def test_the_library_face_is_lazy():
    code = "import sys, estgw.client as c; print('OpenSSL' in sys.modules); print(c.Session.__name__)"
    assert python("-c", code, check=True).stdout.split() == ["False", "Session"]
    with pytest.raises(AttributeError):
        client.Nothing  # noqa: B018
    assert json.dumps(client.__all__)


def test_trace_shows_a_request_that_gets_no_answer(holder, anchor, estclient):
    with rogue.Server(holder, lambda _: None) as server:
        ended = estclient("cacerts", "-u", server.url, "-c", anchor, "--trace")
    assert ended.status == Exit.NO_CONNECTION
    assert "> GET /.well-known/est/cacerts HTTP/1.1" in ended.err


def test_what_a_ca_has_issued_is_not_lost(holder, anchor, estclient, enroller, tmp_path):
    (tmp_path / "out").mkdir()
    with rogue.Server(holder, enroller()) as server:
        command = (
            "enroll",
            "-u",
            server.url,
            "-c",
            anchor,
            "--new-key",
            "--subject",
            "CN=x",
            "--key-out",
            "k",
            "-o",
            "out",
        )
        ended = estclient(*command)
    assert ended.status == Exit.FAILED
    assert ended.out.startswith("-----BEGIN CERTIFICATE")
    assert (tmp_path / "k").exists()


def test_a_server_key_that_could_not_be_stored_is_not_asked_for(holder, anchor, estclient, enroller):
    with rogue.Server(holder, enroller()) as server:
        command = (
            "serverkeygen",
            "-u",
            server.url,
            "-c",
            anchor,
            "--subject",
            "CN=x",
            "-o",
            "no/such/dir",
            "--no-csrattrs",
        )
        assert estclient(*command).status == Exit.FAILED
        assert not server.requests
