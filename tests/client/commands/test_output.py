"""The output of a run: words on stderr, a result on stdout or in files, and no terminal control characters."""

from __future__ import annotations

import base64
import os
import pty
import subprocess
import sys
import threading

import pytest

from estgw.client import faults, files
from estgw.client.faults import Exit, clean
from estgw.est import certs
from estgw.est.csrattrs import AttributeWish
from tests.client import rogue
from tests.kit.ca import common_name
from tests.kit.processes import ROOT


def test_json_output_is_one_object_also_after_a_failure(holder, anchor, estclient, enroller):
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
    from estgw.client import keys, request
    from estgw.client.commands import trace
    from estgw.est import csr

    plan = request.plan(request.Wanted(common_name("x")), None)
    key = keys.generate(keys.parse_spec("ec:P-256"))
    secret = AttributeWish(csr.OTP_CHALLENGE, (request.string("90503846"),))
    body = base64.b64encode(request.build(plan, key, None, [secret]))
    assert trace._request_text(body, "application/pkcs10") == f"[{len(body)} bytes of CSR with a secret in it ***]"


def test_a_terminal_shows_a_progress_line_while_waiting(holder, anchor, enroller, tmp_path):
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
        code = "import sys; from estgw.client.commands.cli import main; sys.exit(main())"
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *command], env=environment, stderr=theirs,
                              stdin=subprocess.DEVNULL, cwd=tmp_path, check=False, timeout=30)  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "Waiting for the server: next try in 1 s" in shown
    assert "Issued: CN=x" in shown


CACERTS = "'{python}' -m estgw.client cacerts -u {url} -c {anchor}"


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        (f"{CACERTS} >/dev/full", Exit.FAILED, "standard output: No space left"),
        (f"{CACERTS} --json >/dev/full", Exit.FAILED, "standard output: No space left"),
        (f"{CACERTS} >&-", Exit.FAILED, "standard output is closed"),
        (f"{CACERTS} -o ca.pem 2>/dev/full", Exit.DONE, ""),
        (f"{CACERTS} -o ca.pem 2>&-", Exit.DONE, ""),
    ],
)
def test_a_result_that_cannot_be_written_fails_the_run(holder, anchor, enroller, tmp_path, line, status, words):
    """A closed stderr is no failure: a renewal must work without a terminal."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with rogue.Server(holder, enroller()) as server:
        text = line.format(python=sys.executable, url=server.url, anchor=anchor)
        done = subprocess.run(["bash", "-c", text], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert (tmp_path / "ca.pem").exists() == (status == Exit.DONE)


def test_an_unwritable_file_fails_before_any_post(holder, anchor, estclient, enroller):
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
def test_clean_escapes_control_characters_and_shortens(text, shown):
    assert clean(text) == shown


def test_trace_shows_a_request_that_gets_no_answer(holder, anchor, estclient):
    with rogue.Server(holder, lambda _: None) as server:
        ended = estclient("cacerts", "-u", server.url, "-c", anchor, "--trace")
    assert ended.status == Exit.NO_CONNECTION
    assert "> GET /.well-known/est/cacerts HTTP/1.1" in ended.err


def test_an_issued_certificate_goes_to_stdout_when_its_file_fails(holder, anchor, estclient, enroller, tmp_path):
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


def test_serverkeygen_sends_no_request_if_the_key_cannot_be_stored(holder, anchor, estclient, enroller):
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


def test_a_closed_pipe_fails_the_run(holder, anchor, enroller):
    with rogue.Server(holder, enroller()) as server:
        command = [sys.executable, "-m", "estgw.client", "cacerts", "-u", server.url, "-c", str(anchor)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            words = process.stderr.read()
        assert process.returncode == Exit.FAILED
    assert b"standard output: Broken pipe" in words
    assert b"Traceback" not in words


def test_a_device_is_written_to_and_never_replaced(ca, holder, anchor, estclient, enroller, tmp_path):
    """As root, the replacement would succeed and turn /dev/null into a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    with rogue.Server(holder, enroller()) as server:
        assert estclient("cacerts", "-u", server.url, "-c", anchor, "-o", pipe).status == Exit.DONE
    reader.join(5)
    assert pipe.is_fifo()
    assert certs.load_pem(read[0]) == [ca.certificate]
    for call in (
        lambda: files.renew(pipe, b"x"),
        lambda: files.replace_pair(pipe, anchor, b"x", b"x"),
        lambda: files.replace_pair(anchor, pipe, b"x", b"x"),
    ):
        with pytest.raises(faults.ClientError):
            call()
    assert pipe.is_fifo()
    assert anchor.read_bytes() == ca.pem
