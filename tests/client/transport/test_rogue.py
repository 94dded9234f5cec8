"""Answers with one fault each, and some unusual but correct ones."""

from __future__ import annotations

import base64
import contextlib
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from estgw.client.faults import Exit
from estgw.est import certs
from estgw.est.der import wrap
from tests.client import rogue
from tests.client.common import ENROLL
from tests.kit.ca import common_name, root


def head(*lines):
    return b"HTTP/1.1 200 OK\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


TYPE = b"Content-Type: application/pkcs7-mime"


@pytest.fixture
def der(ca):
    return certs.pack([ca.certificate])


def test_correct_framings_are_read(ask, der, tmp_path, ca):
    """Chunked, lower-case headers, no Content-Length, base64 in one line or many, and bytes that are DER."""
    wrapped, unbroken = base64.encodebytes(der), base64.b64encode(der)
    crlf = wrapped.replace(b"\n", b"\r\n") + b"\t \r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in wrapped.splitlines(keepends=True)) + b"0\r\n\r\n"
    pem = b"-----BEGIN PKCS7-----\n" + wrapped + b"-----END PKCS7-----\n"
    for raw in (
        head(TYPE, b"Transfer-Encoding: chunked") + chunks,
        head(TYPE.lower(), b"content-length: %d" % len(unbroken)) + unbroken,
        [head(TYPE) + wrapped],
        head(TYPE, b"Content-Length: %d" % len(wrapped)) + wrapped,
        head(TYPE, b"Content-Length: %d" % len(crlf)) + crlf,
        head(TYPE, b"Content-Length: %d" % len(der)) + der,
        head(TYPE, b"Content-Length: %d" % len(pem)) + pem,
        b"HTTP/1.0 200 OK\r\n" + TYPE + b"; charset=x\r\nContent-Length: %d\r\n\r\n" % len(wrapped) + wrapped,
    ):
        ended = ask(raw)
        assert ended.status == Exit.DONE, (raw, ended)
        assert certs.load_pem((tmp_path / "out.pem").read_bytes()) == [ca.certificate]


def ber(der, depth=4):
    """The same value with indefinite lengths down to a depth."""
    out, at = b"", 0
    while at < len(der):
        tag, length, at = der[at : at + 1], der[at + 1], at + 2
        if length & 0x80:
            octets = length & 0x7F
            length, at = int.from_bytes(der[at : at + octets], "big"), at + octets
        content, at = der[at : at + length], at + length
        if tag[0] & 0x20 and depth:
            out += tag + b"\x80" + ber(content, depth - 1) + b"\0\0"
        else:
            out += wrap(tag, content)
    return out


def test_ber_is_read(ask, der):
    body = base64.b64encode(ber(der))
    assert body != base64.b64encode(der)
    assert ask(rogue.reply(body=body)).status == Exit.DONE


def test_a_bag_in_any_order_is_read(ask, ca, tmp_path):
    sub = ca.vouch(root("A subordinate with a rather long name"))
    data = certs.pack([ca.certificate, sub])
    first, second = sorted((ca.certificate.public_bytes(Encoding.DER), sub.public_bytes(Encoding.DER)))
    for body in (data, data.replace(first + second, second + first)):
        assert ask(rogue.reply(body=base64.b64encode(body))).status == Exit.DONE
        assert len(certs.load_pem((tmp_path / "out.pem").read_bytes())) == 2


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"0\x80" * 300_000, id="nested BER"),
        pytest.param(base64.b64encode(b"0\x80" * 500_000), id="nested BER in base64"),
        pytest.param(b"0\x84\x7f\xff\xff\xff\x06", id="a false length"),
        pytest.param(base64.b64encode(b"\x30\x83\x0f\x42\x40" + b"\x05\x00" * 500_000), id="many elements"),
        pytest.param(b"A" * 1_900_000, id="base64 of nothing"),
        pytest.param(b"-----BEGIN PKCS7-----\n" * 80_000, id="PEM that only begins"),
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>", id="a web page"),
    ],
)
def test_a_huge_answer_is_refused_quickly(ask, body):
    began = time.monotonic()
    assert ask(rogue.reply(body=body)).status == Exit.INVALID_ANSWER
    assert time.monotonic() - began < 5


def test_a_bag_of_thousands_is_refused(ask, ca):
    body = base64.b64encode(certs.pack([ca.certificate] * 3000))
    began = time.monotonic()
    ended = ask(rogue.reply(body=body))
    assert ended.status == Exit.INVALID_ANSWER
    assert "3000 certificates; 100 is the maximum" in ended.err
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (head(TYPE), b"A" * 16384),
        (head(TYPE, b"Transfer-Encoding: chunked"), b"4000\r\n" + b"A" * 16384 + b"\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        (head(TYPE, b"Transfer-Encoding: chunked") + b"1\r\nA\r\n0\r\n", b"X: y\r\n" * 3000),
        (b"HTTP/1.1 200 OK\r\nX: ", b"A" * 16384),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 10),
    ],
)
def test_an_endless_answer_ends_at_the_maximum_size(ask, first, piece):
    ended = ask(rogue.endless(first, piece))
    assert ended.status == Exit.INVALID_ANSWER


def test_an_endless_answer_ends_at_the_timeout(ca, estclient, anchor, holder):
    def drip(_):
        yield head(TYPE, b"Content-Length: 100000")
        for _ in range(1000):
            time.sleep(0.02)
            yield b"A"

    with rogue.Server(holder, drip) as server:
        began = time.monotonic()
        ended = estclient("cacerts", "-u", server.url, "-c", anchor, "--timeout", "0.7")
        assert time.monotonic() - began < 10
    assert ended.status == Exit.INVALID_ANSWER
    assert "not complete after 0.7 s" in ended.err


def test_a_silent_server_is_reported_as_no_connection(estclient, anchor, holder):
    def wait(_):
        time.sleep(1)
        return rogue.reply()

    with rogue.Server(holder, wait) as server:
        ended = estclient("cacerts", "-u", server.url, "-c", anchor, "--timeout", "0.4")
        assert ended.status == Exit.NO_CONNECTION
    with rogue.Server(holder, lambda _: None) as server:
        assert estclient("cacerts", "-u", server.url, "-c", anchor).status == Exit.NO_CONNECTION


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param([head(TYPE, b"Content-Length: 5000") + b"MII"], id="cut off"),
        pytest.param([head(TYPE, b"Transfer-Encoding: chunked") + b"ff\r\nMII"], id="a chunk cut off"),
        pytest.param([b"EHLO\r\n\r\n"], id="no HTTP"),
        pytest.param(head(TYPE, b"Content-Length: 99999999"), id="a length too large"),
        pytest.param(head(TYPE, b"Content-Encoding: gzip", b"Content-Length: 3") + b"\x1f\x8b\x08", id="gzip"),
        pytest.param(rogue.reply(body=b"MAA=", content_type="text/html"), id="another type"),
        pytest.param(rogue.reply(body=b"MAA=", content_type=None), id="no type"),
        pytest.param(rogue.reply(206, b"MAA="), id="another 2xx"),
        pytest.param(rogue.reply(202, Retry_After="1"), id="cacerts that wants to wait"),
    ],
)
def test_an_unreadable_answer_is_an_invalid_answer(ask, raw):
    assert ask(raw).status == Exit.INVALID_ANSWER


def test_a_certificate_for_another_key_is_an_invalid_answer(ca, anchor, holder, estclient, enroller, tmp_path):
    other = ca.issue("device")
    wrong = rogue.reply(body=rogue.bag(other.certificate), content_type=rogue.CERTS_ONLY)
    with rogue.Server(holder, enroller(simpleenroll=wrong)) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *ENROLL)
    assert ended.status == Exit.INVALID_ANSWER
    assert "another key" in ended.err
    assert not (tmp_path / "device.pem").exists()


def test_a_chain_beside_the_issued_certificate_is_dropped(ca, anchor, holder, estclient, enroller, tmp_path):
    def both(request):
        issued = ca.certify(request.der)
        return rogue.reply(body=rogue.bag(ca.certificate, issued), content_type=rogue.CERTS_ONLY)

    with rogue.Server(holder, enroller(simpleenroll=both)) as server:
        assert estclient("enroll", "-u", server.url, "-c", anchor, *ENROLL).status == Exit.DONE
    assert len(certs.load_pem((tmp_path / "device.pem").read_bytes())) == 1


def test_the_body_of_a_204_is_not_read_as_the_next_answer(ca, anchor, holder, estclient, enroller):
    """The bytes after a 204 must not be read as the answer to the enrolment."""
    forged = rogue.reply(body=rogue.bag(ca.issue("evil").certificate), content_type=rogue.CERTS_ONLY)

    def attributes(_):
        return b"HTTP/1.1 204 No Content\r\nContent-Length: %d\r\n\r\n" % len(forged) + forged

    with rogue.Server(holder, enroller(csrattrs=attributes)) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *ENROLL[:-1])
    assert ended.status == Exit.DONE
    assert [request.operation for request in server.requests] == ["csrattrs", "simpleenroll"]


def test_the_words_of_a_server_are_escaped(ask):
    body = b"no\x1b]0;owned\x07 \x9b31m \xe2\x80\xae reversed\r\nsecond line\x00"
    ended = ask(rogue.reply(403, body, "text/plain"), "csrattrs")
    assert ended.status == Exit.REFUSED
    assert "\\x1b]0;owned\\x07" in ended.err
    assert "\\u202e reversed\nsecond line\\x00" in ended.err


def test_a_reason_phrase_is_escaped(ask):
    ended = ask(b"HTTP/1.1 500 \x1b[2J\r\nContent-Length: 0\r\n\r\n", "csrattrs")
    assert ended.status == Exit.FAILED
    assert "\\x1b[2J" in ended.err


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, 4),
        (401, 4),
        (403, 4),
        (404, 4),
        (405, 4),
        (413, 4),
        (415, 4),
        (429, 4),
        (500, 1),
        (501, 4),
        (502, 1),
        (503, 1),
    ],
)
def test_every_failure_has_its_exit_status(ask, status, expected):
    raw = rogue.reply(status, b"because", None)
    ended = ask(raw, "enroll", *ENROLL)
    assert ended.status == expected
    assert f"{status}" in ended.err


def test_a_key_is_removed_after_a_refusal_but_kept_after_a_failure(ask, tmp_path):
    assert ask(rogue.reply(403, b"no", None), "enroll", *ENROLL).status == Exit.REFUSED
    assert not (tmp_path / "device.key").exists()
    assert ask(rogue.reply(500, b"no", None), "enroll", *ENROLL).status == Exit.FAILED
    assert (tmp_path / "device.key").exists()


def test_a_certificate_with_an_unknown_key_is_an_invalid_answer(ca, anchor, holder, estclient, enroller):
    """An answer with other certificates, one of them with a key of an unknown kind."""
    key = ec.generate_private_key(ec.SECP256R1())
    odd = (
        ca.sign(common_name("odd"), key.public_key())
        .public_bytes(Encoding.DER)
        .replace(bytes.fromhex("2a8648ce3d0201"), b"*\x86H\xce=\x02\x7f")
    )
    body = base64.b64encode(certs.pack([x509.load_der_x509_certificate(odd)]))
    wrong = rogue.reply(body=body, content_type=rogue.CERTS_ONLY)
    with rogue.Server(holder, enroller(simpleenroll=wrong)) as server:
        assert estclient("enroll", "-u", server.url, "-c", anchor, *ENROLL).status == Exit.INVALID_ANSWER


def test_an_answer_before_the_request_was_read_is_printed(ca, anchor, holder, estclient, tmp_path):
    """A server may refuse early and close. Its words must be printed nonetheless."""
    import socket
    import threading

    (tmp_path / "csr").write_bytes(b"-----BEGIN CERTIFICATE REQUEST-----\n")
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(holder.certificate)
    context.use_privatekey(holder.key)
    script = tmp_path / "script"
    script.write_text(
        "#!/bin/bash\nopenssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -subj /CN=x\n"
    )
    script.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse():
            raw, _ = listener.accept()
            with raw:
                connection = SSL.Connection(context, raw)
                connection.set_accept_state()
                connection.do_handshake()
                connection.recv(10)
                connection.sendall(rogue.reply(413, b"too much", "text/plain", Connection="close"))
                connection.shutdown()
                raw.settimeout(1)
                with contextlib.suppress(OSError):
                    while raw.recv(65536):
                        pass

        thread = threading.Thread(target=refuse)
        thread.start()
        port = listener.getsockname()[1]
        ended = estclient("enroll", "-u", f"localhost:{port}", "-c", anchor, "-R", "script", "--timeout", "5")
        thread.join()
    assert ended.status == Exit.REFUSED
    assert "too much" in ended.err
