"""Enrolment with a correct server: linking, challenges, and the sources of the request."""

from __future__ import annotations

import base64
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from estgw.client import keys, request
from estgw.client.faults import Exit
from estgw.est import csr, csrattrs
from estgw.est.csrattrs import AttributeWish, CsrAttrs
from tests.client import rogue
from tests.client.common import LOGIN, NEW, V12, V13, pair_fits
from tests.client.conftest import Terminal
from tests.kit.ca import common_name
from tests.kit.processes import ROOT


def challenged(answer, header, accept):
    """`answer`, for requests with the right credentials only."""

    def check(request):
        authorization = request.headers.get("Authorization", "")
        if request.method == "POST" and not authorization.startswith(accept):
            return rogue.reply(401, content_type=None, WWW_Authenticate=header)
        return answer(request)

    return check


@pytest.mark.parametrize("version", [V12, V13])
def test_a_csr_is_linked_by_default(ca, holder, anchor, estclient, enroller, version, tmp_path):
    """RFC 7030 3.5: tls-unique at 1.2, the exporter of RFC 9266 at 1.3, as PrintableString."""
    with rogue.Server(holder, enroller(), version=version) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW, "--json", "--dns", "a.example")
    assert ended.status == Exit.DONE
    assert ended.json["connection"]["binding"] == ("tls-unique" if version == V12 else "tls-exporter")
    request = server.requests[-1]
    parsed = csr.parse(request.body)
    csr.verify(parsed)
    assert parsed.text_attribute(csr.CHALLENGE_PASSWORD) == request.binding
    assert bytes(parsed.attributes[csr.CHALLENGE_PASSWORD][0].tag_bytes) == b"\x13"
    assert request.headers["Content-Type"] == "application/pkcs10"
    assert server.handshakes == 1
    assert pair_fits(tmp_path / "device.pem", tmp_path / "device.key")
    assert stat.S_IMODE((tmp_path / "device.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("version", [V12, V13])
def test_pop_finished_puts_the_finished_message_into_the_csr(holder, anchor, estclient, enroller, version):
    with rogue.Server(holder, enroller(), version=version) as server:
        assert estclient("enroll", "-u", server.url, "-c", anchor, *NEW, "--pop-finished").status == Exit.DONE
    parsed = csr.parse(server.requests[-1].body)
    assert parsed.text_attribute(csr.CHALLENGE_PASSWORD) == server.requests[-1].finished


def test_no_pop_leaves_the_binding_out(holder, anchor, estclient, enroller):
    with rogue.Server(holder, enroller()) as server:
        assert estclient("enroll", "-u", server.url, "-c", anchor, *NEW, "--no-pop").status == Exit.DONE
    assert csr.CHALLENGE_PASSWORD not in csr.parse(server.requests[-1].body).attributes


@pytest.mark.parametrize(
    ("header", "accept"),
    [
        ('Basic realm="estrealm"', "Basic " + base64.b64encode(b"estuser:estpwd").decode()),
        ('Digest realm="estrealm", nonce="n", qop="auth", algorithm=SHA-256', "Digest username="),
        ('Digest realm="estrealm", nonce="n", qop="auth"', "Digest username="),
    ],
)
def test_a_challenge_is_answered_on_the_same_connection(holder, anchor, estclient, enroller, header, accept):
    with rogue.Server(holder, challenged(enroller(), header, accept)) as server:
        assert estclient("enroll", "-u", server.url, "-c", anchor, *LOGIN, *NEW).status == Exit.DONE
    first, second = server.requests[-2:]
    assert first.connection == second.connection
    assert first.body == second.body
    assert "Authorization" not in first.headers


def test_a_server_that_hangs_up_after_its_401_gets_a_csr_for_the_new_connection(holder, anchor, estclient, enroller):
    good = enroller()

    def answer(request):
        if request.method == "POST" and "Authorization" not in request.headers:
            return rogue.reply(401, content_type=None, WWW_Authenticate="Basic realm=x", Connection="close")
        return good(request)

    with rogue.Server(holder, answer) as server:
        assert estclient("enroll", "-u", server.url, "-c", anchor, *LOGIN, *NEW).status == Exit.DONE
    first, second = server.requests[-2:]
    assert first.connection != second.connection
    assert csr.parse(second.body).text_attribute(csr.CHALLENGE_PASSWORD) == second.binding != first.binding


def test_a_wrong_password_ends_after_one_try(holder, anchor, estclient, enroller):
    with rogue.Server(holder, challenged(enroller(), "Basic realm=x", "Basic never")) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *LOGIN, *NEW, "--json")
    assert ended.status == Exit.REFUSED
    assert ended.json["http_status"] == 401
    assert len([request for request in server.requests if request.method == "POST"]) == 2


def test_password_file_gives_its_first_line(holder, anchor, estclient, enroller, tmp_path):
    (tmp_path / "password").write_text("estpwd\nmore\n")
    accept = "Basic " + base64.b64encode(b"estuser:estpwd").decode()
    with rogue.Server(holder, challenged(enroller(), "Basic realm=x", accept)) as server:
        command = ("enroll", "-u", server.url, "-c", anchor, *NEW)
        assert estclient(*command, "-p", "estuser", "--password-file", "password").status == Exit.DONE
        assert estclient(*command, "-p", "estuser").status == Exit.USAGE  # no terminal to ask at
        assert estclient(*command, "--password-file", "password").status == Exit.USAGE


# The request.


def test_a_request_script_gets_the_binding_of_the_connection(
    holder, anchor, estclient, enroller, monkeypatch, tmp_path
):
    """The reference client's option -R, with the script that the README names."""
    monkeypatch.setenv("CN", "scripted")
    monkeypatch.setenv("TLS_UNIQUE_SR", "a stale one")
    genp10 = ROOT / "handlers" / "examples" / "genp10"
    for version in (V12, V13):
        with rogue.Server(holder, enroller(), version=version) as server:
            command = ("enroll", "-u", server.url, "-c", anchor, "-R", genp10, "-o", "device.pem", "--require-pop")
            assert estclient(*command).status == Exit.DONE
        request = server.requests[-1]
        assert csr.parse(request.body).text_attribute(csr.CHALLENGE_PASSWORD) == request.binding
    assert pair_fits(tmp_path / "device.pem", tmp_path / "device.key")
    assert x509.load_pem_x509_certificate((tmp_path / "device.pem").read_bytes()).subject == common_name("scripted")


def test_a_request_script_prints_pem_der_or_base64(holder, anchor, estclient, enroller, tmp_path):
    script = tmp_path / "script"
    made = (
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -subj /CN=x -out r 2>/dev/null"
    )
    for last in ("openssl req -in r -outform DER", "openssl req -in r -outform DER | base64 -w0", "cat r"):
        script.write_text(f"#!/bin/bash\n{made} && {last}\n")
        script.chmod(0o755)
        with rogue.Server(holder, enroller()) as server:
            assert estclient("enroll", "-u", server.url, "-c", anchor, "-R", "script").status == Exit.DONE
            ended = estclient("enroll", "-u", server.url, "-c", anchor, "-R", "script", "--require-pop")
            assert ended.status == Exit.FAILED
            assert "did not put the channel binding" in ended.err


@pytest.mark.parametrize(
    ("text", "status"),
    [("exit 3", 1), ("true", 1), ("echo hello", 2), ("sleep 20", 1)],
)
def test_a_failing_request_script_ends_the_run_before_a_request(
    holder, anchor, estclient, enroller, tmp_path, text, status
):
    (tmp_path / "script").write_text(f"#!/bin/bash\nexec 2>/dev/null\n{text}\n")
    (tmp_path / "script").chmod(0o755)
    with rogue.Server(holder, enroller()) as server:
        command = ("enroll", "-u", server.url, "-c", anchor, "-R", "script", "--timeout", "0.7")
        assert estclient(*command).status == status
        assert not server.requests


def test_a_request_script_must_be_executable(holder, anchor, estclient, enroller, tmp_path):
    (tmp_path / "script").write_text("#!/bin/bash\n")
    with rogue.Server(holder, enroller()) as server:
        assert "not executable" in estclient("enroll", "-u", server.url, "-c", anchor, "-R", "script").err
        assert estclient("enroll", "-u", server.url, "-c", anchor, "-R", "nosuch").status == Exit.USAGE


def test_a_finished_csr_cannot_be_linked(holder, anchor, estclient, enroller, tmp_path):
    key = keys.generate(keys.parse_spec("ec:P-256"))
    made = request.build(request.plan(request.Wanted(common_name("x")), None), key, None)
    (tmp_path / "csr.der").write_bytes(made)
    with rogue.Server(holder, enroller()) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, "--csr", "csr.der")
        assert ended.status == Exit.DONE
        assert "can't be linked" in ended.err
        assert ended.out.startswith("-----BEGIN CERTIFICATE")
        count = len(server.requests)
        command = ("enroll", "-u", server.url, "-c", anchor, "--csr", "csr.der", "--require-pop")
        assert estclient(*command).status == Exit.FAILED
        assert len(server.requests) == count


def test_a_new_key_needs_a_file_and_overwrites_none(holder, anchor, estclient, enroller, tmp_path):
    with rogue.Server(holder, enroller()) as server:
        command = ("enroll", "-u", server.url, "-c", anchor, "--new-key", "ec:P-256", "--subject", "CN=x")
        assert estclient(*command).status == Exit.USAGE
        assert estclient(*command, "--key-out", "k.pem").status == Exit.DONE
        before = (tmp_path / "k.pem").read_bytes()
        ended = estclient(*command, "--key-out", "k.pem")
        assert ended.status == Exit.FAILED
        assert "never overwritten" in ended.err
        assert (tmp_path / "k.pem").read_bytes() == before
        assert b"PRIVATE" not in ended.out.encode()
        assert estclient(*command, "--reuse-key", "k.pem").status == Exit.USAGE  # one or the other
        again = ("enroll", "-u", server.url, "-c", anchor, "--reuse-key", "k.pem", "--subject", "CN=x", "-o", "c.pem")
        assert estclient(*again).status == Exit.DONE
        assert pair_fits(tmp_path / "c.pem", tmp_path / "k.pem")


def test_one_file_can_have_key_and_certificate(holder, anchor, estclient, enroller, tmp_path):
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
            "-o",
            "b",
            "--key-out",
            "b",
        )
        assert estclient(*command).status == Exit.DONE
        assert pair_fits(tmp_path / "b", tmp_path / "b")
        assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600
        first = (tmp_path / "b").read_bytes()
        for more in ((), ("--new-key",)):
            assert estclient("reenroll", "-u", server.url, "-c", anchor, "--cert", "b", *more).status == Exit.DONE
            assert pair_fits(tmp_path / "b", tmp_path / "b")
            assert (tmp_path / "b").read_bytes() != first
            assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600


def test_the_kind_of_key_follows_the_servers_csr_attributes(holder, anchor, estclient, enroller, tmp_path):
    wishes = CsrAttrs(
        (AttributeWish(csrattrs.EC_PUBLIC_KEY, (csrattrs.encode_oid("1.3.132.0.34"),)), "1.2.840.10045.4.3.4")
    )
    body = rogue.reply(body=base64.b64encode(wishes.encode()), content_type="application/csrattrs")
    with rogue.Server(holder, enroller(csrattrs=body)) as server:
        command = ("enroll", "-u", server.url, "-c", anchor, "--subject", "CN=x", "-o", "c.pem")
        ended = estclient(*command, "--new-key", "ec:P-256")
        assert ended.status == Exit.FAILED
        assert "wants a key ec:P-384" in ended.err
        assert estclient(*command, "--new-key").status == Exit.DONE
        asked = csr.parse(server.requests[-1].body).request
        assert keys.spec_of(load_pem_private_key((tmp_path / "c.key").read_bytes(), None)) == keys.parse_spec(
            "ec:P-384"
        )
        assert isinstance(asked.signature_hash_algorithm, hashes.SHA512)
        (tmp_path / "c.key").unlink()
        assert estclient(*command, "--new-key", "ec:P-256", "--no-csrattrs").status == Exit.DONE


def test_a_password_is_asked_for_at_a_terminal(holder, anchor, estclient, enroller, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal())
    asked = []

    def ask(prompt):
        asked.append(prompt)
        return "estpwd"

    monkeypatch.setattr("getpass.getpass", ask)
    accept = "Basic " + base64.b64encode(b"estuser:estpwd").decode()
    with rogue.Server(holder, challenged(enroller(), "Basic realm=x", accept)) as server:
        assert estclient("enroll", "-u", server.url, "-c", anchor, *NEW, "-p", "estuser").status == Exit.DONE
    assert asked == ["Password for estuser: "]


def test_label_adds_the_ca_label_to_the_path(holder, anchor, estclient, enroller):
    with rogue.Server(holder, enroller()) as server:
        assert estclient("enroll", "-u", server.url, "--label", "iot", "-c", anchor, *NEW).status == Exit.DONE
    assert server.requests[-1].target == "/.well-known/est/iot/simpleenroll"


def test_enroll_refuses_a_csr_without_a_name(holder, anchor, estclient, enroller):
    with rogue.Server(holder, enroller()) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, "--new-key", "-o", "x.pem")
    assert ended.status == Exit.USAGE
    assert "the certificate would have no name: give --subject" in ended.err


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (rogue.reply(500, content_type=None), Exit.FAILED),
        (rogue.reply(403, content_type=None), Exit.REFUSED),
        (rogue.reply(body=b"MAA", content_type="application/csrattrs"), Exit.INVALID_ANSWER),
    ],
)
def test_a_failing_csrattrs_ends_the_enrolment(holder, anchor, estclient, enroller, tmp_path, answer, status):
    """Without CSR attributes the certificate might be of the wrong kind, so the user decides."""
    with rogue.Server(holder, enroller(csrattrs=answer)) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW)
        assert ended.status == status
        assert "--no-csrattrs skips it" in ended.err
        assert not (tmp_path / "device.key").exists()
        assert estclient("enroll", "-u", server.url, "-c", anchor, *NEW, "--no-csrattrs").status == Exit.DONE
