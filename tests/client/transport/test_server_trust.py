"""Servers that must not be trusted: what may be sent, and how the run ends (RFC 7030 3.6)."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL

from estgw.client.faults import Exit
from estgw.est import encoding
from estgw.est.der import SEQUENCE, elements, whole, wrap
from tests.client import rogue
from tests.client.common import ENROLL, LOGIN, challenge
from tests.kit.ca import DAY, NOW, RA_USAGES, SERVER_AUTH, root


def nothing_left(server):
    """No credentials and no request body have reached the server."""
    return not any("Authorization" in request.headers or request.body for request in server.requests)


# The identity of the server.


def test_a_wrong_name_ends_the_handshake(ca, anchor, estclient):
    holder = ca.server("other", names=["other.example"])
    with rogue.Server(holder, challenge) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *LOGIN, *ENROLL)
    assert ended.status == Exit.UNTRUSTED
    assert "DNS:other.example, not for localhost" in ended.err
    assert not server.requests


def test_cmcra_replaces_the_name_under_an_explicit_anchor(ca, anchor, estclient, enroller):
    holder = ca.server("ra", names=["other.example"], eku=RA_USAGES)
    with rogue.Server(holder, enroller()) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, "--json", *ENROLL)
    assert ended.status == Exit.DONE
    assert ended.json["connection"]["authorized_by"] == "cmcRA"


def test_cmcra_does_not_replace_the_name_under_implicit_anchors(ca, anchor, estclient, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(anchor))
    holder = ca.server("ra", names=["other.example"], eku=RA_USAGES)
    with rogue.Server(holder, challenge) as server:
        ended = estclient("enroll", "-u", server.url, "--implicit", *LOGIN, *ENROLL)
    assert ended.status == Exit.UNTRUSTED
    assert not server.requests


def test_cmcra_counts_only_under_explicit_anchors_where_both_are_given(ca, anchor, estclient, monkeypatch):
    stranger = root("Third party")
    other = anchor.with_name("other.pem")
    other.write_bytes(stranger.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(anchor))
    holder = ca.server("ra", names=["other.example"], eku=RA_USAGES)
    with rogue.Server(holder, challenge) as server:
        ended = estclient("enroll", "-u", server.url, "--implicit", "-c", other, *LOGIN, *ENROLL)
    assert ended.status == Exit.UNTRUSTED
    assert "under explicit anchors only" in ended.err
    assert nothing_left(server)


def test_the_right_name_is_enough_under_implicit_anchors(anchor, holder, estclient, enroller, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(anchor))
    with rogue.Server(holder, enroller()) as server:
        ended = estclient("enroll", "-u", server.url, "--implicit", "--json", *ENROLL)
    assert ended.status == Exit.DONE
    assert ended.json["connection"]["anchor"] == "implicit"


def test_the_systems_anchors_are_not_used_without_implicit(anchor, holder, estclient, enroller, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(anchor))
    stranger = anchor.with_name("stranger.pem")
    stranger.write_bytes(root("Third party").pem)
    with rogue.Server(holder, enroller()) as server:
        assert estclient("enroll", "-u", server.url, "-c", stranger, *ENROLL).status == Exit.UNTRUSTED
        assert estclient("enroll", "-u", server.url, *ENROLL).status == Exit.USAGE
    assert not server.requests


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"starts": NOW - 30 * DAY, "ends": NOW - DAY}, "has expired"),
        ({"starts": NOW + DAY}, "is not valid yet"),
        ({"eku": (ExtendedKeyUsageOID.CLIENT_AUTH,)}, "may not be a TLS server's"),
    ],
)
def test_an_expired_future_or_client_certificate_ends_the_handshake(ca, anchor, estclient, change, words):
    holder = ca.server("localhost", names=["localhost"], **change)
    with rogue.Server(holder, challenge) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *LOGIN, *ENROLL)
    assert ended.status == Exit.UNTRUSTED
    assert words in ended.err
    assert not server.requests


def test_an_unknown_issuer_gets_nothing_and_an_alert(anchor, estclient):
    holder = root("Test CA").server("localhost", names=["localhost"])  # the CA's name with another key
    with rogue.Server(holder, challenge) as server:
        ended = estclient("enroll", "-u", server.url, "-c", anchor, *LOGIN, *ENROLL)
        assert ended.status == Exit.UNTRUSTED
        assert not server.requests
        deadline = time.monotonic() + 5
        while not server.failures and time.monotonic() < deadline:
            time.sleep(0.01)
    assert isinstance(server.failures[0], SSL.Error)


def test_a_common_name_does_not_replace_a_missing_san(ca, anchor, estclient):
    with rogue.Server(ca.issue("localhost", eku=(SERVER_AUTH,)), challenge) as server:
        ended = estclient("cacerts", "-u", server.url, "-c", anchor)
    assert ended.status == Exit.UNTRUSTED
    assert "no SAN" in ended.err


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_an_ip_address_must_be_in_the_certificate(ca, holder, anchor, estclient, enroller, host):
    with rogue.Server(holder, enroller(), host=host.strip("[]")) as server:
        assert estclient("cacerts", "-u", f"{host}:{server.port}", "-c", anchor).status == Exit.DONE
    wrong = ca.server("x", names=["localhost", "192.0.2.1"])
    with rogue.Server(wrong, enroller(), host=host.strip("[]")) as server:
        assert estclient("cacerts", "-u", f"{host}:{server.port}", "-c", anchor).status == Exit.UNTRUSTED


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_server_with_tls_1_1_is_refused(holder, anchor, estclient, tmp_path):
    pair = tmp_path / "server.pem"
    pair.write_bytes(holder.both)
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", pair, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            accept = next(line for line in process.stdout if line.startswith("ACCEPT"))
            port = accept.strip().rpartition(":")[2]
            ended = estclient("cacerts", "-u", f"localhost:{port}", "-c", anchor, "--timeout", "5")
        finally:
            process.kill()
    assert ended.status == Exit.UNTRUSTED
    assert "protocol version" in ended.err


def test_a_server_without_tls_is_named(anchor, estclient):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak():
            raw, _ = listener.accept()
            with raw:
                raw.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                raw.recv(1000)

        thread = threading.Thread(target=speak)
        thread.start()
        port = listener.getsockname()[1]
        ended = estclient("cacerts", "-u", f"localhost:{port}", "-c", anchor)
        thread.join()
    assert ended.status == Exit.UNTRUSTED
    assert ended.err == (
        f"estclient cacerts: localhost:{port} does not speak TLS (wrong version number): "
        f"a plain HTTP server may listen on port {port}; check the port in -u\n"
    )


def test_a_wrong_port_is_named(anchor, estclient):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        ended = estclient("cacerts", "-u", f"localhost:{port}", "-c", anchor)
    assert ended.status == Exit.NO_CONNECTION
    assert ended.err == (
        f"estclient cacerts: localhost:{port}: connection refused: no server listens on port {port} there; "
        "check the port in -u, or start the server\n"
    )


def test_an_unknown_host_is_named(anchor, estclient):
    ended = estclient("cacerts", "-u", "nosuch.invalid", "-c", anchor)
    assert ended.status == Exit.NO_CONNECTION
    assert ended.err.startswith("estclient cacerts: nosuch.invalid: ")
    assert ended.err.endswith("; check the host name in -u\n")


def test_a_404_at_another_path_gets_a_hint_about_well_known_est(holder, anchor, estclient):
    with rogue.Server(holder, lambda _: rogue.reply(404, content_type=None)) as server:
        url = server.url
        ended = estclient("cacerts", "-u", f"{url}/est", "-c", anchor)
    assert ended.status == Exit.REFUSED
    assert ended.err == (
        "estclient cacerts: this server does not offer cacerts: the server says 404 Whatever\n"
        f"-u names the path /est, and EST is usually under /.well-known/est: try -u {url}.\n"
    )


# Data that may be sent.


def test_an_untrusted_server_gets_no_answer_to_its_401(ca, anchor, estclient):
    """RFC 7030 3.2.3: a server with the wrong name or of another CA never gets an Authorization header."""
    for holder in (
        ca.server("other", names=["other.example"]),
        root("Other CA").server("localhost", names=["localhost"]),
    ):
        for command in (("cacerts",), ("enroll", *ENROLL)):
            with rogue.Server(holder, challenge) as server:
                assert estclient(*command, "-u", server.url, "-c", anchor, *LOGIN).status == Exit.UNTRUSTED
            assert nothing_left(server)


def test_bootstrap_sends_no_credentials_and_refuses_their_options(holder, ca, estclient, tmp_path):
    """RFC 7030 4.1.1: no HTTP authentication on a connection that has not been verified, and no certificate."""
    me = tmp_path / "me.pem"
    me.write_bytes(ca.issue("me").both)
    with rogue.Server(holder, challenge) as server:
        assert estclient("cacerts", "-u", server.url, *LOGIN).status == Exit.USAGE
        assert estclient("cacerts", "-u", server.url, "--cert", me).status == Exit.USAGE
        assert not server.requests
        ended = estclient("cacerts", "-u", server.url)
    assert ended.status == Exit.REFUSED
    assert [request.headers.get("Authorization") for request in server.requests] == [None]
    assert server.requests[0].peer is None


def test_no_command_falls_back_to_an_unverified_server(holder, estclient, enroller, tmp_path):
    (tmp_path / "cmc.der").write_bytes(b"0\0")
    with rogue.Server(holder, enroller()) as server:
        for command in (
            ("csrattrs",),
            ("enroll", *ENROLL),
            ("serverkeygen", "--subject", "CN=x", "-o", "x.pem"),
        ):
            assert estclient(*command, "-u", server.url).status == Exit.USAGE
    assert server.handshakes == 0


def test_the_client_certificate_is_not_shown_to_the_wrong_server(ca, anchor, estclient, tmp_path):
    me = tmp_path / "me.pem"
    me.write_bytes(ca.issue("me").both)
    holder = ca.server("other", names=["other.example"])
    with rogue.Server(holder, challenge) as server:
        assert estclient("csrattrs", "-u", server.url, "-c", anchor, "--cert", me).status == Exit.UNTRUSTED
    assert server.handshakes == 0


# Certificates that OpenSSL reads and cryptography does not.


def resigned(ca, certificate, *changes):
    """The PEM of a certificate with some bytes replaced, under a good signature."""
    signed = certificate.tbs_certificate_bytes
    for old, new in changes:
        assert old in signed
        signed = signed.replace(old, new)
    algorithm = whole(elements(certificate.public_bytes(Encoding.DER), "a certificate")[1])
    signature = wrap(b"\x03", b"\0" + ca.key.sign(signed, ec.ECDSA(hashes.SHA256())))
    return encoding.encode_pem(wrap(SEQUENCE, signed + algorithm + signature), "CERTIFICATE")


VERSION_4 = (bytes.fromhex("a003020102"), bytes.fromhex("a003020103"))
LATIN_1 = (b"\x0c\x09localhost", b"\x14\x09l\xf6calhost")
"""In a T61String, as some CAs wrote names for years."""


@contextlib.contextmanager
def showing(path):
    """The URL of a server that sends the certificates of a file and no answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)

    def serve(listener):
        with contextlib.suppress(OSError):
            while True:
                raw, _ = listener.accept()
                with raw, contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True) as connection:
                    connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield f"https://localhost:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.fixture(scope="module")
def unreadable(ca, holder):
    """Certificate chains of servers by their fault, each with a key."""
    stranger = root("A stranger")
    sub = root("A subordinate")
    leaf = sub.server("localhost", names=["localhost"])
    return {
        "version 4": holder.key_pem + resigned(ca, holder.certificate, VERSION_4),
        "version 4 of a stranger": holder.key_pem + resigned(stranger, holder.certificate, VERSION_4),
        "version 4 above": leaf.both + resigned(ca, ca.vouch(sub), VERSION_4),
        "a stranger's Latin-1": holder.key_pem + resigned(stranger, holder.certificate, LATIN_1),
    }


@pytest.mark.parametrize("command", [("enroll", *LOGIN, *ENROLL), ("cacerts",)])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("version 4", "the server's certificate can't be read: 3 is not a valid X509 version"),
        ("version 4 of a stranger", "the server's certificate can't be read: 3 is not a valid X509 version"),
        ("version 4 above", "the certificate 1 above the server's can't be read: 3 is not a valid X509 version"),
        ("a stranger's Latin-1", "the server's certificate can't be read: error parsing asn1 value"),
    ],
)
def test_an_unreadable_server_certificate_is_untrusted_and_named(
    anchor, unreadable, estclient, tmp_path, command, fault, words
):
    (tmp_path / "server.pem").write_bytes(unreadable[fault])
    with showing(tmp_path / "server.pem") as url:
        ended = estclient(*command, "-u", url, "-c", anchor)
    assert ended.status == Exit.UNTRUSTED
    assert words in ended.err


def test_an_unreadable_certificate_at_bootstrap_is_untrusted_and_named(unreadable, estclient, tmp_path):
    (tmp_path / "server.pem").write_bytes(unreadable["version 4"])
    with showing(tmp_path / "server.pem") as url:
        ended = estclient("cacerts", "-u", url, "--fingerprint", "00" * 32)
    assert ended.status == Exit.UNTRUSTED
    assert "a certificate of the server's can't be read: 3 is not a valid X509 version" in ended.err
