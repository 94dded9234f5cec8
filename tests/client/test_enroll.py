"""Enrolment and renewal against a server that behaves: linking, challenges, waiting, and what lies in files after."""

from __future__ import annotations

import base64
import datetime as dt
import os
import stat
import time
from email.utils import format_datetime
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from estgw.client import Credentials, Identity, Session, Trust, files, keys, request, waiting
from estgw.client.answers import delay
from estgw.client.faults import Exit, TryLater
from estgw.client.report import Report
from estgw.client.wire import Exchange
from estgw.est import csr, csrattrs
from estgw.est.csrattrs import AttributeWish, CsrAttrs
from tests.client import pki, rogue
from tests.client.conftest import Terminal

ROOT = Path(__file__).parents[2]
NEW = ("--new-key", "ec:P-256", "--subject", "CN=device", "-o", "device.pem")
LOGIN = ("-p", "estuser:estpwd")
V12, V13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION


def challenged(answer, header, accept):
    """`answer`, but for those who show the right credentials."""

    def check(request):
        authorization = request.headers.get("Authorization", "")
        if request.method == "POST" and not authorization.startswith(accept):
            return rogue.reply(401, content_type=None, WWW_Authenticate=header)
        return answer(request)

    return check


def pair_fits(certificate, key):
    loaded = x509.load_pem_x509_certificate(Path(certificate).read_bytes())
    return loaded.public_key() == load_pem_private_key(Path(key).read_bytes(), None).public_key()


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
def test_links_as_libests_servers_want_them(holder, anchor, estclient, enroller, version):
    with rogue.Server(holder, enroller(), version=version) as server:
        assert estclient("enroll", "-u", server.url, "-c", anchor, *NEW, "--pop-finished").status == Exit.DONE
    parsed = csr.parse(server.requests[-1].body)
    assert parsed.text_attribute(csr.CHALLENGE_PASSWORD) == server.requests[-1].finished


def test_no_pop(holder, anchor, estclient, enroller):
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


def test_a_password_from_a_file(holder, anchor, estclient, enroller, tmp_path):
    (tmp_path / "password").write_text("estpwd\nmore\n")
    accept = "Basic " + base64.b64encode(b"estuser:estpwd").decode()
    with rogue.Server(holder, challenged(enroller(), "Basic realm=x", accept)) as server:
        command = ("enroll", "-u", server.url, "-c", anchor, *NEW)
        assert estclient(*command, "-p", "estuser", "--password-file", "password").status == Exit.DONE
        assert estclient(*command, "-p", "estuser").status == Exit.USAGE  # no terminal to ask at
        assert estclient(*command, "--password-file", "password").status == Exit.USAGE


# The request.


def test_a_request_script_sees_the_binding(holder, anchor, estclient, enroller, monkeypatch, tmp_path):
    """The seed's line, with the script that the README names."""
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
    assert x509.load_pem_x509_certificate((tmp_path / "device.pem").read_bytes()).subject == pki.name("scripted")


def test_what_a_request_script_may_print(holder, anchor, estclient, enroller, tmp_path):
    script = tmp_path / "script"
    made = "openssl req -new -newkey rsa:2048 -nodes -keyout k -subj /CN=x -out r 2>/dev/null"
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
def test_a_request_script_that_fails(holder, anchor, estclient, enroller, tmp_path, text, status):
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


def test_a_finished_csr_can_not_be_linked(holder, anchor, estclient, enroller, tmp_path):
    key = keys.generate(keys.parse_spec("ec:P-256"))
    made = request.build(request.plan(request.Wanted(pki.name("x")), None), key, None)
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


def test_one_file_for_both(holder, anchor, estclient, enroller, tmp_path):
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


def test_the_server_decides_on_the_kind_of_key(holder, anchor, estclient, enroller, tmp_path):
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


# Renewal.


@pytest.fixture
def device(ca, tmp_path):
    """A device with a pair in two files."""
    made = ca.issue("device", dns=["a.example"], usages=())
    (tmp_path / "device.pem").write_bytes(made.pem)
    (tmp_path / "device.key").write_bytes(made.key_pem)
    (tmp_path / "device.key").chmod(0o640)
    return ("--cert", "device.pem", "--key", "device.key")


@pytest.mark.parametrize("version", [V12, V13])
def test_a_renewal_has_the_old_names_and_goes_in_their_place(
    ca, holder, anchor, estclient, enroller, device, version, tmp_path
):
    old = (tmp_path / "device.pem").read_bytes()
    with rogue.Server(holder, enroller(), version=version) as server:
        command = ("reenroll", "-u", server.url, "-c", anchor, *device)
        assert estclient(*command).status == Exit.DONE
        assert (tmp_path / "device.pem").read_bytes() != old
        assert not (tmp_path / "device.pem").is_symlink()
        for _ in range(3):
            assert estclient(*command, "--new-key").status == Exit.DONE
            assert pair_fits(tmp_path / "device.pem", tmp_path / "device.key")
        assert estclient(*command).status == Exit.DONE  # with the same key, through the links
        assert pair_fits(tmp_path / "device.pem", tmp_path / "device.key")
    request = server.requests[-1]
    assert request.operation == "simplereenroll"
    assert request.peer.subject == pki.name("device")  # RFC 7030 3.3.2: by the certificate being renewed
    parsed = csr.parse(request.body)
    assert csr.difference(parsed, x509.load_pem_x509_certificate(old)) is None
    assert parsed.text_attribute(csr.CHALLENGE_PASSWORD) == request.binding
    assert stat.S_IMODE((tmp_path / "device.key").stat().st_mode) == 0o640
    assert len([path for path in tmp_path.iterdir() if path.name.startswith(".device.pem.pair-")]) == 2
    assert not (tmp_path / "device.key.next").exists()


def test_renewal_into_other_files_leaves_the_old_ones(holder, anchor, estclient, enroller, device, tmp_path):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with rogue.Server(holder, enroller()) as server:
        command = ("reenroll", "-u", server.url, "-c", anchor, *device, "--new-key", "ed25519", "-o", "new.pem")
        assert estclient(*command).status == Exit.DONE
    assert pair_fits(tmp_path / "new.pem", tmp_path / "new.key")
    assert all((tmp_path / name).read_bytes() == data for name, data in before.items())


def test_nothing_is_done_before_it_is_due(holder, anchor, estclient, enroller, device):
    with rogue.Server(holder, enroller()) as server:
        command = ("reenroll", "-u", server.url, "-c", anchor, *device, "--json", "--if-expires-within")
        ended = estclient(*command, "10d")
        assert (ended.status, ended.json["renewed"]) == (Exit.DONE, False)
        assert server.handshakes == 0
        assert estclient(*command, "40d").json["renewed"] is True
        assert estclient(*command, "forever").status == Exit.USAGE


def test_a_rekey_that_is_cut_off_goes_on_with_the_same_key(holder, anchor, estclient, enroller, device, tmp_path):
    """The CA knows a pending request by its public key: another key would begin another request."""
    pending = [True]

    def later(_):
        return rogue.reply(202, content_type=None, Retry_After="3600") if pending[0] else ...

    with rogue.Server(holder, enroller(simplereenroll=later)) as server:
        command = ("reenroll", "-u", server.url, "-c", anchor, *device, "--new-key", "ec:P-384")
        assert estclient(*command).status == Exit.TRY_LATER
        assert pair_fits(tmp_path / "device.pem", tmp_path / "device.key")
        assert stat.S_IMODE((tmp_path / "device.key.next").stat().st_mode) == 0o600
        pending[0] = False
        assert estclient(*command).status == Exit.DONE
    first, second = [csr.parse(request.body) for request in server.requests if request.method == "POST"]
    assert first.spki == second.spki
    assert first.sha256 != second.sha256
    assert pair_fits(tmp_path / "device.pem", tmp_path / "device.key")


def test_a_rekey_never_goes_on_with_the_key_in_use(holder, anchor, estclient, enroller, device, tmp_path):
    """What a power cut between the switch and the tidying up leaves."""
    (tmp_path / "device.key.next").write_bytes((tmp_path / "device.key").read_bytes())
    before = (tmp_path / "device.key").read_bytes()
    with rogue.Server(holder, enroller()) as server:
        assert estclient("reenroll", "-u", server.url, "-c", anchor, *device, "--new-key").status == Exit.DONE
    assert (tmp_path / "device.key").read_bytes() != before
    assert pair_fits(tmp_path / "device.pem", tmp_path / "device.key")


def test_a_crash_at_any_instant_leaves_a_pair_that_works(ca, tmp_path, monkeypatch):
    """Every call that changes the file system is in turn the last one; what two names lead to must always fit."""
    changing = [
        ("os", name)
        for name in (
            "open",
            "write",
            "fsync",
            "mkdir",
            "fchmod",
            "fchown",
            "unlink",
            "rmdir",
            "rename",
            "replace",
            "symlink",
            "chmod",
        )
    ]

    class PowerCut(BaseException):
        pass

    def lay_out(room):
        old = ca.issue("device")
        (room / "d.pem").write_bytes(old.pem)
        (room / "d.key").write_bytes(old.key_pem)
        return old

    def cut_after(count, action):
        """Run with a power cut at call number `count`; False when the run was over before."""
        left = [count]
        with monkeypatch.context() as patch:
            for _, name in changing:
                real = getattr(os, name)

                def counted(*arguments, real=real, **options):
                    if left[0] == 0:
                        raise PowerCut
                    left[0] -= 1
                    return real(*arguments, **options)

                patch.setattr(os, name, counted)
            try:
                action()
            except PowerCut:
                return True
        return False

    def renew(room, holder):
        files.replace_pair(room / "d.pem", room / "d.key", holder.pem, holder.key_pem)

    seen_old = seen_new = 0
    for round_trip in range(2):  # from plain files, and from links
        for count in range(200):
            room = tmp_path / f"{round_trip}-{count}"
            room.mkdir()
            old = lay_out(room)
            if round_trip:
                old = ca.issue("device")
                renew(room, old)
            new = ca.issue("device")
            was_cut = cut_after(count, partial(renew, room, new))
            assert pair_fits(room / "d.pem", room / "d.key"), (round_trip, count)
            is_new = (room / "d.pem").read_bytes() == new.pem
            assert is_new or (room / "d.pem").read_bytes() == old.pem
            seen_new, seen_old = seen_new + is_new, seen_old + (not is_new)
            # And the next run, after the lights are on again, goes through.
            last = ca.issue("device")
            renew(room, last)
            assert (room / "d.pem").read_bytes() == last.pem
            assert pair_fits(room / "d.pem", room / "d.key")
            if not was_cut:
                assert is_new
                break
        else:
            pytest.fail("it never came to an end")
    assert seen_old > 20
    assert seen_new > 2


def test_a_pair_in_two_directories(ca, tmp_path):
    for name in ("certs", "private"):
        (tmp_path / name).mkdir()
    old, new = ca.issue("x"), ca.issue("x")
    certificate, key = tmp_path / "certs" / "x.pem", tmp_path / "private" / "x.key"
    certificate.write_bytes(old.pem)
    key.write_bytes(old.key_pem)
    files.replace_pair(certificate, key, new.pem, new.key_pem)
    assert certificate.read_bytes() == new.pem
    assert pair_fits(certificate, key)


# Waiting.


def test_202_ends_with_3_and_says_when(holder, anchor, estclient, enroller, tmp_path):
    later = rogue.reply(202, content_type=None, Retry_After="90")
    with rogue.Server(holder, enroller(simpleenroll=later)) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW, "--json")
    assert ended.status == Exit.TRY_LATER
    assert "Come back in 90 s" in ended.err
    assert ended.json["retry_after"] == 90
    assert "--reuse-key device.key" in ended.err
    assert (tmp_path / "device.key").exists()
    assert not (tmp_path / "device.pem").exists()


def test_waiting_re_signs_for_every_connection(holder, anchor, estclient, enroller):
    count = [0]

    def later(_):
        count[0] += 1
        return rogue.reply(202, content_type=None, Retry_After="1") if count[0] < 3 else ...

    with rogue.Server(holder, enroller(simpleenroll=later)) as server:
        began = time.monotonic()
        assert (
            estclient("enroll", "-u", server.url, "-c", anchor, *NEW, "--wait", "30", "--no-csrattrs").status
            == Exit.DONE
        )
        assert time.monotonic() - began >= 2
    assert [request.connection for request in server.requests] == [1, 2, 3]
    parsed = [csr.parse(request.body) for request in server.requests]
    assert len({one.spki for one in parsed}) == 1
    for sent, one in zip(server.requests, parsed, strict=True):
        assert one.text_attribute(csr.CHALLENGE_PASSWORD) == sent.binding


def test_patience_that_does_not_last_is_not_spent():
    slept: list[float] = []

    def attempt():
        raise TryLater("later", seconds=100, when=dt.datetime.now(dt.UTC))

    report = Report("enroll", as_json=False, is_verbose=False)
    with pytest.raises(TryLater):
        waiting.until_done(attempt, 99, report, sleep=slept.append)
    assert not slept


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", 1),
        ("99999999999999", 366 * 86400),
        (None, None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
    ],
)
def test_retry_after_in_seconds(text, seconds):
    assert delay(text, dt.datetime.now(dt.UTC)) == seconds


def test_retry_after_as_a_date():
    now = dt.datetime(2026, 11, 23, 12, 0, 0, tzinfo=dt.UTC)
    assert delay(format_datetime(now + dt.timedelta(seconds=75), usegmt=True), now) == 75
    assert delay(format_datetime(now - dt.timedelta(days=1), usegmt=True), now) == 1
    assert delay("Mon, 23 Nov 2026 12:00:30 -0000", now) == 30


def test_503_with_a_time_is_try_later_too(holder, anchor, estclient):
    busy = rogue.reply(503, b"the CA sleeps", "text/plain", Retry_After="5")
    with rogue.Server(holder, lambda _: busy) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *NEW, "--no-csrattrs")
    assert ended.status == Exit.TRY_LATER
    assert "the CA sleeps" in ended.err


# The library face.


def test_the_library(ca, holder, enroller):
    """Session as the README shows it."""
    me = ca.issue("me", usages=())
    key = keys.generate(keys.parse_spec("ml-dsa-65"))
    plan = request.plan(request.Wanted(pki.name("library")), None)
    seen: list[Exchange] = []
    with (
        rogue.Server(holder, enroller()) as server,
        Session(
            server.url,
            Trust(explicit=(ca.certificate,)),
            credentials=Credentials("u", "p"),
            identity=Identity(me.certificate, me.key),
            observer=seen.append,
        ) as session,
    ):
        assert session.cacerts() == [ca.certificate]
        assert session.csrattrs() is None
        issued = session.enroll(lambda binding: request.build(plan, key, binding))
        assert session.connected is not None
        assert session.connected.verdict.by == "name"
        assert session.connected.binding is not None
        assert session.connected.binding.text == server.requests[-1].binding
    assert issued.subject == pki.name("library")
    assert server.handshakes == 1
    assert [exchange.answer.status for exchange in seen if exchange.answer] == [200, 204, 200]


def test_a_connection_that_went_away_between_two_operations(ca, holder, enroller):
    gone = enroller(cacerts=lambda _: rogue.reply(body=rogue.bag(ca.certificate), Connection="close"))
    with rogue.Server(holder, gone) as server, Session(server.url, Trust(explicit=(ca.certificate,))) as session:
        session.cacerts()
        session.csrattrs()
        session.csrattrs()
    assert [request.connection for request in server.requests] == [1, 2, 2]


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


def test_a_label_of_its_own_option(holder, anchor, estclient, enroller):
    with rogue.Server(holder, enroller()) as server:
        assert estclient("enroll", "-u", server.url, "--label", "iot", "-c", anchor, *NEW).status == Exit.DONE
    assert server.requests[-1].target == "/.well-known/est/iot/simpleenroll"


def test_a_certificate_for_nobody_is_not_asked_for(holder, anchor, estclient, enroller):
    with rogue.Server(holder, enroller()) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, "--new-key", "-o", "x.pem")
    assert ended.status == Exit.USAGE
    assert "for whom" in ended.err
