"""TLS by pyOpenSSL behind asyncio's own TLS transport.

Theory of operation.  asyncio drives TLS through `context.wrap_bio()` and a few calls on its result.  `TLSContext` and
`TLSObject` answer these calls with a pyOpenSSL connection on memory BIOs.  The `ssl` module is not enough for EST: it
can't export keying material, it refuses every client whose certificate it does not trust, and it shows no verified
chain.

    asyncio's BIO --_feed--> pyOpenSSL's BIO --> OpenSSL --> pyOpenSSL's BIO --_flush--> asyncio's BIO

`_run` wraps each call into OpenSSL: it feeds input while there is some, flushes output afterwards, and translates
pyOpenSSL's exceptions into those of `ssl`, by which asyncio decides what to do next.  Three cases need care:

1. A failed handshake.  asyncio closes the socket at once, and unread input turns that into a reset, which can overtake
   the alert.  So `do_handshake` first asks for more input, which makes asyncio write the alert, and then reads until
   the client's end.
2. The session tickets of TLS 1.3.  They are never used here, and are not worth a packet; they go with the next output.
3. The verdict on the client's certificate.  `info_under` computes it anew when the configuration has changed or when
   time
   may have changed it (`rehearsal`).
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from asyncio import sslproto
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, Self, TypeVar

from OpenSSL import SSL

from estgw.tls.handshake import Verification, read_info
from estgw.tls.info import TLSInfo
from estgw.tls.rehearsal import Rehearsal

T = TypeVar("T")

_numbers = itertools.count(1)

_RECORD = 16384
"""OpenSSL returns at most one TLS record per read; a larger buffer would not be used."""
_FLUSH = 65536

# asyncio allocates a buffer of this size for each connection: 256 KiB by default, of which a read here uses one record.
# 2,000 open connections take 0.1 GB with this size, and 0.6 GB with the default.
sslproto.SSLProtocol.max_size = _RECORD


_HTTP_REQUEST = "http request"
"""OpenSSL's reason when a client begins with GET, POST, HEAD or PUT instead of a TLS record."""
_WORDS = b"This port speaks HTTPS only: write https:// in the URL.\n"
_PLAIN_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_WORDS), _WORDS)
)


class TLSObject:
    """One connection: the methods of `ssl.SSLObject` that asyncio calls, and the facts that EST needs."""

    server_hostname = None

    def __init__(
        self,
        context: TLSContext,
        connection: SSL.Connection,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        self.context = context
        self.number = next(_numbers)
        """Of all connections of this process, from 1."""
        self.requests = 0
        """Counted by the recorder of requests, if there is one."""
        self.began = time.monotonic()
        self.established: float | None = None
        """When the handshake was over; `began` and this are by the monotonic clock."""
        self.failure: str | None = None
        """Why the handshake failed, in OpenSSL's words."""
        self._connection = connection
        self._incoming, self._outgoing = incoming, outgoing
        self._fed = False
        self._eof = False
        self._has_tickets = False
        self._judged_by, self._judged_at = context, time.time()
        # The connection refers to the record, not to this object.  Without a cycle OpenSSL's memory is freed at once.
        self._verification = Verification()
        connection.set_app_data(self._verification)

    @cached_property
    def info(self) -> TLSInfo:
        """What the handshake established, with the latest verdict on the client's certificate."""
        return read_info(self._connection, self._verification)

    def info_under(self, context: TLSContext) -> TLSInfo:
        """`info`, with the verdict that a handshake under `context` would reach now; call `tls_info` instead."""
        info = self.info
        if info.certificate is None:
            return info
        certificates, now = (info.certificate, *info.chain), time.time()
        if context is not self._judged_by or now >= context.rehearsal.stands_until(certificates, self._judged_at):
            self._judged_by, self._judged_at = context, now
            verdict = context.rehearsal.verdict(certificates)
            self.info = replace(info, verified_chain=verdict.chain, verify_error=verdict.error)
        return self.info

    # The methods that asyncio calls.

    def do_handshake(self) -> None:
        if self.failure is not None:
            # The alert has been sent.  Read and drop further input: closing a socket with unread data causes a reset,
            # which can overtake the alert.  The client's EOF or the handshake timeout ends this.
            self._incoming.read()
            if not self._incoming.eof:
                raise _want_read()
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, self.failure)
        try:
            self._run(self._shake_hands)
            self._has_tickets = False
        except ssl.SSLWantReadError:
            raise
        except ssl.SSLError as exc:
            self.failure = str(exc.args[-1])
            if self._verification.words:
                self.failure += f": {self._verification.words}"
            if self.failure == _HTTP_REQUEST:
                self._outgoing.write(_PLAIN_HTTP)
            if self._outgoing.pending:
                # On an error asyncio closes the socket at once, and the client sees a reset instead of the reason.  If
                # more input is wanted, asyncio writes first.
                raise _want_read() from None
            raise

    def _shake_hands(self) -> None:
        self._connection.do_handshake()
        # After a handshake of TLS 1.3 OpenSSL sends two tickets, with which no session can be resumed here.  pyOpenSSL
        # can't switch them off.  They need no packet of their own and go with the next output.
        self.established = time.monotonic()
        self._has_tickets = self._connection.get_protocol_version_name() == "TLSv1.3"

    def read(self, n: int = _RECORD, buffer: memoryview | None = None) -> bytes | int:
        try:
            if buffer is None:
                return self._run(self._connection.recv, min(n, _RECORD))
            return self._run(self._connection.recv_into, buffer, min(n, _RECORD, len(buffer)))
        except ssl.SSLZeroReturnError:
            # As in `ssl`, the peer's close_notify is an EOF, unless it answers ours.
            if self._connection.get_shutdown() & SSL.SENT_SHUTDOWN:
                raise
            return b"" if buffer is None else 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        # All data is written: a memory BIO is never full, and without renegotiation no write has to read first.
        return self._run(self._connection.sendall, data) if len(data) else 0

    def unwrap(self) -> None:
        # The first call sends our close_notify, the second looks for the peer's.
        if not self._run(self._connection.shutdown) and not self._run(self._connection.shutdown):
            raise _want_read()

    def pending(self) -> int:
        # Ciphertext that has been taken from asyncio's BIO counts too.  uvloop goes on reading only while something is
        # pending; otherwise it would not see a request that came in one segment with the client's Finished.
        return self._connection.pending() or int(self._fed)

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any]:
        """Empty, as `ssl` has it for an unverified certificate.  asyncio asks for it; `info` has the certificate."""
        return {}

    def cipher(self) -> tuple[str | None, str | None, int | None]:
        connection = self._connection
        return connection.get_cipher_name(), connection.get_cipher_version(), connection.get_cipher_bits()

    def compression(self) -> None:
        return None

    def version(self) -> str:
        return self._connection.get_protocol_version_name()

    def selected_alpn_protocol(self) -> None:
        return None

    # Input and output.

    def _run(self, call: Callable[..., T], *args: Any) -> T:
        """Call into OpenSSL: feed input while there is some, flush output, raise the exceptions of `ssl`."""
        self._feed()  # nearly always there is input, without which the first call would be in vain
        while True:
            try:
                return call(*args)
            except SSL.WantReadError:
                self._fed = False
                if not self._feed():
                    raise _want_read() from None
            except SSL.ZeroReturnError:
                raise ssl.SSLZeroReturnError(ssl.SSL_ERROR_ZERO_RETURN, "TLS closed by the peer") from None
            except SSL.SysCallError:
                # An EOF.  It must not become SSLSyscallError, at which asyncio would try again.
                raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "connection closed without close_notify") from None
            except SSL.Error as exc:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, error_words(exc)) from None
            finally:
                if not self._has_tickets:
                    self._flush()

    def _feed(self) -> bool:
        """Pass asyncio's input to OpenSSL.  Returns False if there is none."""
        if data := self._incoming.read():
            self._connection.bio_write(data)
            self._fed = True
            return True
        if self._incoming.eof and not self._eof:
            self._eof = True
            self._connection.bio_shutdown()
            return True
        return False

    def _flush(self) -> None:
        try:
            while True:
                data = self._connection.bio_read(_FLUSH)
                self._outgoing.write(data)
                if len(data) < _FLUSH:
                    return
        except SSL.WantReadError:
            pass


class TLSContext(ssl.SSLContext):
    """Makes a `TLSObject` per connection.  `estgw.tls.context.server_context` makes one.

    It is a subclass because some callers test for `ssl.SSLContext`; the SSL_CTX that it inherits is not used.
    """

    def __new__(cls, openssl: SSL.Context, rehearsal: Rehearsal) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, openssl: SSL.Context, rehearsal: Rehearsal) -> None:
        """`rehearsal` has the same anchors and CRLs as `openssl`."""
        self.openssl = openssl
        self.rehearsal = rehearsal

    def wrap_bio(  # type: ignore[override]  # it has fewer attributes than SSLObject
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> TLSObject:
        connection = SSL.Connection(self.openssl, None)
        connection.set_accept_state()
        return TLSObject(self, connection, incoming, outgoing)


def tls_info(transport: asyncio.BaseTransport, context: TLSContext) -> TLSInfo:
    """What the handshake of `transport` established, with a current verdict on the client's certificate.

    The verdict is that of a new handshake under `context`: anchors, CRLs and the time may have changed since the
    connection began.
    """
    return tls_object(transport).info_under(context)


def connection_age(transport: asyncio.BaseTransport) -> float:
    """Seconds since the TLS handshake of `transport` began."""
    return time.monotonic() - tls_object(transport).began


def tls_object(transport: asyncio.BaseTransport) -> TLSObject:
    """The TLS of a connection whose handshake is over."""
    found: TLSObject = transport.get_extra_info("ssl_object")
    return found


def error_words(exc: SSL.Error) -> str:
    """The reasons in OpenSSL's error queue, as one text."""
    errors = exc.args[0] if exc.args and isinstance(exc.args[0], list) else []
    return "; ".join(error[-1] for error in errors if error[-1]) or "TLS error"


def _want_read() -> ssl.SSLWantReadError:
    return ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "more data needed")
