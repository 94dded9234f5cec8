"""The TLS object, driven by hand over memory BIOs: the behaviour that asyncio's transport relies on."""

from __future__ import annotations

import gc
import ssl
import weakref

import pytest
from OpenSSL import SSL

from estgw.tls.adapter import TLSContext, TLSObject, error_words
from tests.tls.serving import VERSIONS, World

both_versions = pytest.mark.parametrize("version", list(VERSIONS.values()))


class Pair:
    """A client of the standard library and the gateway's TLS object, connected by BIOs."""

    def __init__(self, context: TLSContext, client: ssl.SSLContext) -> None:
        self.to_server, self.to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server: TLSObject = context.wrap_bio(self.to_server, self.to_client, server_side=True)
        self.client = client.wrap_bio(self.to_client, self.to_server, server_hostname="localhost")

    def handshake(self) -> Pair:
        client_done = server_done = False
        for _ in range(10):
            client_done = client_done or _done(self.client)
            server_done = server_done or _done(self.server)
            if client_done and server_done:
                return self
        raise AssertionError("no handshake")


def _done(end: ssl.SSLObject | TLSObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


@pytest.fixture
def pair(world: World) -> Pair:
    return Pair(world.context(), world.client())


@both_versions
def test_data_passes_in_both_directions(world, version):
    pair = Pair(world.context(), world.client(version)).handshake()
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.read(100)
    pair.client.write(b"question")
    assert pair.server.read(100) == b"question"
    assert pair.server.write(b"answer") == 6
    assert pair.client.read(100) == b"answer"


def test_connection_facts_are_known_after_the_handshake(pair):
    pair.handshake()
    assert pair.server.getpeercert() == {}
    assert pair.server.cipher() == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
    assert pair.server.version() == "TLSv1.3"
    assert pair.server.compression() is None
    assert pair.server.selected_alpn_protocol() is None
    assert pair.server.info is pair.server.info


def test_read_fills_a_buffer_up_to_its_length(pair):
    pair.handshake()
    pair.client.write(b"0123456789")
    buffer = memoryview(bytearray(8))
    assert pair.server.read(4, buffer) == 4
    assert pair.server.read(100, buffer[4:]) == 4
    assert bytes(buffer) == b"01234567"
    assert pair.server.read(100) == b"89"


def test_a_large_write_is_taken_whole(pair):
    """asyncio removes what was written and retries the rest. In 16 kB pieces that would copy gigabytes."""
    pair.handshake()
    data = bytes(range(256)) * 20_000
    for form in (data, bytearray(data), memoryview(data)):
        assert pair.server.write(form) == len(data)
        received = bytearray()
        while len(received) < len(data):
            received += pair.client.read(1 << 20)
        assert received == data
    assert pair.server.write(b"") == 0


def test_pending_counts_data_that_openssl_has_not_decrypted_yet(pair):
    """A request can come in one segment with the Finished. uvloop reads it only if something is pending."""
    assert not _done(pair.client)
    assert not _done(pair.server)
    assert _done(pair.client)
    pair.client.write(b"early")
    assert _done(pair.server)
    assert pair.to_server.pending == 0
    assert pair.server.pending()
    assert pair.server.read(100) == b"early"
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.read(100)
    assert not pair.server.pending()


# The end of a connection.


@both_versions
def test_the_clients_close_notify_is_an_eof_and_is_answered(world, version):
    pair = Pair(world.context(), world.client(version)).handshake()
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.unwrap()
    assert pair.server.read(100) == b""
    assert pair.server.read(100, memoryview(bytearray(100))) == 0
    pair.server.unwrap()
    pair.client.unwrap()


@both_versions
def test_our_close_notify_waits_for_the_clients(world, version):
    pair = Pair(world.context(), world.client(version)).handshake()
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.unwrap()
    assert pair.client.read(100) == b""
    pair.client.unwrap()
    with pytest.raises(ssl.SSLZeroReturnError):
        pair.server.read(100)
    pair.server.unwrap()


@both_versions
def test_unwrap_ends_at_once_after_the_clients_close_notify(world, version):
    """The client sends nothing more, so a second call would wait for the shutdown timeout."""
    pair = Pair(world.context(), world.client(version)).handshake()
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.unwrap()
    pair.server.unwrap()
    pair.client.unwrap()


def test_an_eof_is_not_reported_as_try_again(world):
    """asyncio takes SSLSyscallError as "try again" and would loop forever."""
    pair = Pair(world.context(), world.client())
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.do_handshake()
    pair.to_client.read()
    pair.to_server.write_eof()
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.do_handshake()  # OpenSSL has an alert even for an EOF
    assert pair.to_client.pending
    with pytest.raises(ssl.SSLError, match="connection closed") as caught:
        pair.server.do_handshake()
    assert type(caught.value) is ssl.SSLError
    assert pair.server.failure == "connection closed without close_notify"
    pair = Pair(world.context(), world.client()).handshake()
    pair.to_server.write_eof()
    with pytest.raises(ssl.SSLEOFError):
        pair.server.read(100)


def test_garbage_after_the_handshake_fails_with_an_alert(pair):
    pair.handshake()
    pair.to_server.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError, match="decryption failed or bad record mac"):
        pair.server.read(100)
    with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
        pair.client.read(100)


# A handshake that fails.


def test_a_failed_handshake_sends_its_alert_before_the_error(world):
    pair = Pair(world.context(maximum="1.2"), world.client(VERSIONS["TLSv1.3"]))
    _done(pair.client)
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.do_handshake()
    assert pair.server.failure == "unsupported protocol"
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        pair.client.do_handshake()
    # The server discards what the client still sends, so that closing the socket causes no reset.
    pair.to_server.write(b"more")
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.do_handshake()
    assert pair.to_server.pending == 0


def test_the_clients_alert_is_the_reason_of_the_failure(world):
    distrustful = ssl.create_default_context(cafile=str(world.files["stranger"][0]))
    pair = Pair(world.context(), distrustful)
    _done(pair.client)
    assert not _done(pair.server)
    with pytest.raises(ssl.SSLCertVerificationError):
        pair.client.do_handshake()
    with pytest.raises(ssl.SSLError):
        pair.server.do_handshake()
    assert pair.server.failure == "tlsv1 alert unknown ca"


def test_plain_http_is_answered_with_a_hint_to_use_https(world):
    server = Pair(world.context(), world.client()).server
    server._incoming.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with pytest.raises(ssl.SSLError):
        server.do_handshake()
    assert server.failure == "http request"
    assert server._outgoing.read().endswith(b"This port speaks HTTPS only: write https:// in the URL.\n")


def test_error_words_join_the_reasons_of_openssl():
    assert error_words(SSL.Error([("SSL routines", "", "one"), ("x", "", ""), ("y", "", "two")])) == "one; two"
    assert error_words(SSL.Error()) == "TLS error"


def test_a_connection_is_freed_without_the_garbage_collector(world):
    gc.disable()
    try:
        pair = Pair(world.context(), world.client(name="stranger")).handshake()
        assert pair.server.info.verify_error
        connection = weakref.ref(pair.server._connection)
        del pair
        assert connection() is None
    finally:
        gc.enable()
