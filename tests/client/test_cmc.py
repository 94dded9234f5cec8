"""`estclient fullcmc --cmc`: the message that is sent, and a failure inside a 200."""

from __future__ import annotations

import base64
import re
import subprocess
from functools import partial
from pathlib import Path

import pytest

from estgw.client import cmc
from estgw.client.faults import Exit
from estgw.cmc.controls import Control
from estgw.cmc.messages import PKI_DATA, PKI_RESPONSE, PKIData, PKIResponse
from estgw.cmc.status import StatusInfo
from estgw.cms import signed
from estgw.errors import Malformed
from estgw.est.csrattrs import encode_oid
from estgw.est.der import wrap
from tests.client import cmcca, rogue
from tests.client.transport.test_rogue import ber
from tests.kit.ca import RA_USAGES, root

REQUEST = (Path(__file__).parents[1] / "vectors" / "altmod-rfc6402-cmc-fullpkirequest.b64").read_bytes()
TYPE = "application/pkcs7-mime; smime-type=CMC-response"


def integer(value):
    return wrap(b"\x02", bytes([value]))


def sequence(*parts):
    return wrap(b"\x30", b"".join(parts))


def control(number, name, value):
    return sequence(integer(number), encode_oid(f"1.3.6.1.5.5.7.7.{name}"), wrap(b"\x31", value))


def status(code, failure=None, text=None, number=1):
    parts = [integer(code), sequence(integer(1))]
    if text is not None:
        parts.append(wrap(b"\x0c", text.encode()))
    if failure is not None:
        parts.append(integer(failure))
    return control(number, 25, sequence(*parts))


@pytest.fixture
def respond(ca, tmp_path):
    """A PKI Response with these controls, signed by an RA."""

    def make(*controls, oid=PKI_RESPONSE, eku=RA_USAGES):
        signer = ca.issue("signer", eku=eku)
        (tmp_path / "signer.pem").write_bytes(signer.both)
        content = sequence(sequence(*controls), sequence(), sequence())
        command = ["openssl", "cms", "-sign", "-binary", "-nodetach", "-outform", "DER", "-econtent_type", oid]
        command += ["-signer", str(tmp_path / "signer.pem")]
        return subprocess.run(command, input=content, capture_output=True, check=True).stdout

    return make


@pytest.fixture
def ask(holder, estclient, anchor, tmp_path):
    def run(answer, *options):
        (tmp_path / "request").write_bytes(REQUEST)
        with rogue.Server(holder, lambda _: answer) as server:
            ended = estclient("fullcmc", "-u", server.url, "-c", anchor, "--cmc", "request", "-o", "out", *options)
        return ended, server.requests

    return run


def test_a_successful_answer_is_stored_in_every_format(ask, respond, tmp_path):
    der = respond(status(0))
    ended, (request,) = ask(rogue.reply(body=base64.encodebytes(der), content_type=TYPE))
    assert ended.status == Exit.DONE
    assert request.headers["Content-Type"] == "application/pkcs7-mime; smime-type=CMC-request"
    assert request.der == base64.b64decode(REQUEST)
    assert (tmp_path / "out").read_bytes().startswith(b"-----BEGIN CERTIFICATE")
    ended, _ = ask(rogue.reply(body=base64.encodebytes(ber(der)), content_type=TYPE), "--outform", "p7")
    assert ended.status == Exit.DONE
    assert (tmp_path / "out").read_bytes().startswith(b"-----BEGIN PKCS7")
    ended, _ = ask(rogue.reply(body=base64.encodebytes(der), content_type=TYPE), "--outform", "der")
    assert (tmp_path / "out").read_bytes() == der


def test_a_simple_response_is_success(ask, ca):
    ended, _ = ask(rogue.reply(body=rogue.bag(ca.certificate), content_type=rogue.CERTS_ONLY))
    assert ended.status == Exit.DONE


def test_pem_output_has_the_certificates_and_crls_of_the_answer(ask, ca, tmp_path):
    """An answer to a revocation has neither, and is a success."""
    ready = (Control.make(1, "statusInfoV2", StatusInfo(0, (1,))),)
    signer = signed.Signer.of(ca.key, ca.certificate)
    for bag, lists, blocks in (
        ([ca.certificate], [cmcca.Desk(ca).crl()], [b"CERTIFICATE", b"X509 CRL"]),
        ([], [cmcca.Desk(ca).crl()], [b"X509 CRL"]),
        ([], [], []),
    ):
        (tmp_path / "out").unlink(missing_ok=True)
        der = signed.sign(PKI_RESPONSE, PKIResponse(ready).encode(), [signer], certificates=bag, crls=lists)
        ended, _ = ask(rogue.reply(body=base64.encodebytes(der), content_type=TYPE))
        assert ended.status == Exit.DONE, ended.err
        written = (tmp_path / "out").read_bytes() if blocks else b""
        assert re.findall(rb"-----BEGIN (.*)-----", written) == blocks
        assert ("no certificate and no CRL" in ended.err) == (not blocks)
    ended, _ = ask(rogue.reply(body=base64.encodebytes(signed.certs_only([])), content_type=rogue.CERTS_ONLY))
    assert ended.status == Exit.INVALID_ANSWER


@pytest.mark.parametrize(
    ("controls", "expected", "words"),
    [
        ([(2, 7, "no such secret")], 4, "failed (badIdentity): no such secret"),
        ([(0,), (2, 9)], 4, "failed (popFailed)"),
        ([(2, 99)], 4, "failInfo 99"),
        ([(7,)], 4, "partial"),
        ([(4,)], 4, "noSupport"),
        ([(77,)], 4, "status 77"),
        ([(3,)], 3, "pending"),
        ([(2, 2, "\x1b[2J")], 4, "\\x1b[2J"),
        ([], 7, "without any status"),
    ],
)
def test_a_200_around_a_cmc_failure_is_a_refusal(ask, respond, tmp_path, controls, expected, words):
    made = []
    for number, (code, *rest) in enumerate(controls, 1):
        failure, text = (*rest, None, None)[:2]
        made.append(status(code, failure, text, number))
    body = base64.encodebytes(respond(*made))
    ended, _ = ask(rogue.reply(body=body, content_type=TYPE))
    assert ended.status == expected
    assert words in ended.err
    assert not (tmp_path / "out").exists()


def test_an_answer_needs_an_authorized_signer(ask, respond, tmp_path):
    """TLS authenticates the server; the signature shows that its CA or RA has made the answer."""
    ended, _ = ask(rogue.reply(body=base64.encodebytes(respond(status(0), eku=())), content_type=TYPE))
    assert ended.status == Exit.INVALID_ANSWER
    assert "neither a CA nor its RA" in ended.err
    assert not (tmp_path / "out").exists()


def test_an_answer_to_another_message_is_refused(holder, estclient, anchor, respond, tmp_path):
    """A server may leave out transaction and nonce, since this message was made elsewhere; wrong ones are refused."""
    marks = (Control.make(1, "transactionId", 6), Control.make(2, "senderNonce", b"our nonce"))
    request = signed.sign(PKI_DATA, PKIData(marks).encode(), [])
    (tmp_path / "request").write_bytes(request)
    for name, value, expected in (
        (5, integer(6), Exit.DONE),
        (5, integer(7), Exit.INVALID_ANSWER),
        (7, wrap(b"\x04", b"our nonce"), Exit.DONE),
        (7, wrap(b"\x04", b"another's"), Exit.INVALID_ANSWER),
    ):
        body = base64.encodebytes(respond(status(0), control(2, name, value)))
        answer = rogue.reply(body=body, content_type=TYPE)
        with rogue.Server(holder, partial(lambda given, _: given, answer)) as server:
            ended = estclient("fullcmc", "-u", server.url, "-c", anchor, "--cmc", "request")
        assert ended.status == expected
        assert ("not for our message" in ended.err) == (expected != Exit.DONE)


def test_a_pending_answer_is_asked_for_again(holder, estclient, anchor, respond, tmp_path):
    (tmp_path / "request").write_bytes(REQUEST)
    answers = [rogue.reply(200, base64.encodebytes(respond(status(code))), TYPE, Retry_After="1") for code in (3, 0)]
    with rogue.Server(holder, lambda _: answers.pop(0)) as server:
        command = ("fullcmc", "-u", server.url, "-c", anchor, "--cmc", "request", "--wait", "60")
        assert estclient(*command).status == Exit.DONE
    assert not answers


def test_a_400_with_a_cmc_answer_prints_its_failure(ask, respond):
    """RFC 7030 4.3.2: the body of the 4xx is a PKI Response."""
    body = base64.encodebytes(respond(status(2, 8, "link it")))
    ended, _ = ask(rogue.reply(400, body, TYPE))
    assert ended.status == Exit.REFUSED
    assert "CMC failed (popRequired): link it" in ended.err


@pytest.mark.parametrize("body", [b"", b"MAA=", b"<html>", base64.b64encode(b"\x30\x80" * 100)])
def test_an_unreadable_answer_is_an_invalid_answer(ask, body):
    for kind in (TYPE, "text/html"):
        ended, _ = ask(rogue.reply(body=body, content_type=kind))
        assert ended.status == Exit.INVALID_ANSWER


def test_a_cmc_answer_with_another_inner_type_is_an_invalid_answer(ask, respond):
    ended, _ = ask(rogue.reply(body=base64.encodebytes(respond(oid="1.2.840.113549.1.7.1")), content_type=TYPE))
    assert ended.status == Exit.INVALID_ANSWER


def test_a_file_without_a_cmc_request_is_a_usage_error(estclient, anchor, tmp_path):
    for data in (b"", b"hello", base64.b64encode(root().pem)):
        (tmp_path / "request").write_bytes(data)
        assert estclient("fullcmc", "-u", "localhost:1", "-c", anchor, "--cmc", "request").status == Exit.USAGE
    with pytest.raises(Malformed):
        cmc.request(base64.b64encode(sequence(encode_oid("1.2.840.113549.1.7.1"), wrap(b"\xa0", b"\x04\x00"))))
