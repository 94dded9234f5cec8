"""TLS by pyOpenSSL behind asyncio's own TLS transport.

asyncio drives TLS through `context.wrap_bio()` and a handful of calls on what that returns.  `TLSContext` and
`TLSObject` answer those calls with a pyOpenSSL connection on memory BIOs, because the `ssl` module can't
export keying material, refuses every client whose certificate it does not trust, and shows no verified chain.

    asyncio's BIO --_feed--> pyOpenSSL's BIO --> OpenSSL --> pyOpenSSL's BIO --_flush--> asyncio's BIO
"""

from __future__ import annotations

import asyncio
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

_RECORD = 16384
"""OpenSSL returns at most one TLS record per read, so a larger buffer would only be allocated."""
_FLUSH = 65536

# asyncio makes a buffer of this size for each connection and fills it with zeros: 256 KiB by default, of which a read
# of ours uses one record.  2,000 open connections take 0.1 GB so, and 0.6 GB otherwise.
sslproto.SSLProtocol.max_size = _RECORD


class TLSObject:
    """One connection: the calls that asyncio's transport makes on an `ssl.SSLObject`, and what EST wants."""

    server_hostname = None

    def __init__(
        self,
        context: TLSContext,
        connection: SSL.Connection,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        self.context = context
        self.began = time.monotonic()
        self.failure: str | None = None
        """Why the handshake failed, in OpenSSL's words."""
        self._connection = connection
        self._incoming, self._outgoing = incoming, outgoing
        self._fed = False
        self._eof = False
        self._has_tickets = False
        self._judged_by, self._judged_at = context, time.time()
        # The connection holds the record, not this object: without a cycle OpenSSL's memory goes at once.
        self._verification = Verification()
        connection.set_app_data(self._verification)

    @cached_property
    def info(self) -> TLSInfo:
        """What the handshake established, with the latest verdict on the client's certificate."""
        return read_info(self._connection, self._verification)

    def info_under(self, context: TLSContext) -> TLSInfo:
        """`info`, with the verdict of a handshake under `context` now; `tls_info` is the usual way here."""
        info = self.info
        if info.certificate is None:
            return info
        certificates, now = (info.certificate, *info.chain), time.time()
        if context is not self._judged_by or now >= context.rehearsal.stands_until(certificates, self._judged_at):
            self._judged_by, self._judged_at = context, now
            verdict = context.rehearsal.verdict(certificates)
            self.info = replace(info, verified_chain=verdict.chain, verify_error=verdict.error)
        return self.info

    # What asyncio calls.

    def do_handshake(self) -> None:
        if self.failure is not None:
            # The alert is on its way.  Swallow what the client still sends: closing a socket with unread data
            # is a reset, which can overtake the alert.  The client's EOF or the handshake timeout ends this.
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
            if self._outgoing.pending:
                # On an error asyncio closes the socket at once, and the client would see a reset instead of
                # the reason.  While we want to read, it writes first.
                raise _want_read() from None
            raise

    def _shake_hands(self) -> None:
        self._connection.do_handshake()
        # What is left to send after a handshake of TLS 1.3 are two tickets that no session can be resumed with.
        # pyOpenSSL can't ask for none; they need no packet of their own and go with what comes next.
        self._has_tickets = self._connection.get_protocol_version_name() == "TLSv1.3"

    def read(self, n: int = _RECORD, buffer: memoryview | None = None) -> bytes | int:
        try:
            if buffer is None:
                return self._run(self._connection.recv, min(n, _RECORD))
            return self._run(self._connection.recv_into, buffer, min(n, _RECORD, len(buffer)))
        except ssl.SSLZeroReturnError:
            # Like `ssl`: the peer's close_notify is an EOF, unless it answers ours.
            if self._connection.get_shutdown() & SSL.SENT_SHUTDOWN:
                raise
            return b"" if buffer is None else 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        # All of it: a memory BIO is never full, and with renegotiation off no write has to read first.
        return self._run(self._connection.sendall, data) if len(data) else 0

    def unwrap(self) -> None:
        # The first call sends our close_notify, the second looks for the peer's.
        if not self._run(self._connection.shutdown) and not self._run(self._connection.shutdown):
            raise _want_read()

    def pending(self) -> int:
        # Ciphertext that has left asyncio's BIO counts too: uvloop reads on only while something is pending,
        # and would never see a request that came in one segment with the client's Finished.
        return self._connection.pending() or int(self._fed)

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any]:
        """Empty, like an unverified one of `ssl`: asyncio asks after every handshake, `info` knows more."""
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

    # Plumbing.

    def _run(self, call: Callable[..., T], *args: Any) -> T:
        """`call`, with input as long as there is some, output always, and `ssl`'s exceptions."""
        self._feed()  # there is nearly always some, and to try without it first is a call into OpenSSL for nothing
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
                # An EOF.  It must not become SSLSyscallError, which asyncio takes for "try again".
                raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "connection closed without close_notify") from None
            except SSL.Error as exc:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, error_words(exc)) from None
            finally:
                if not self._has_tickets:
                    self._flush()

    def _feed(self) -> bool:
        """Hand on what asyncio has received; False if there is nothing new."""
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
    """Makes a `TLSObject` per connection; `estgw.tls.context.server_context` makes this.

    A subclass only because some callers look for one: the SSL_CTX that it inherits stays unused.
    """

    def __new__(cls, openssl: SSL.Context, rehearsal: Rehearsal) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, openssl: SSL.Context, rehearsal: Rehearsal) -> None:
        """`rehearsal` trusts what `openssl` trusts."""
        self.openssl = openssl
        self.rehearsal = rehearsal

    def wrap_bio(  # type: ignore[override]  # a look-alike, on purpose
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
    """What the handshake of `transport` established, with the verdict on the client's certificate brought up to date.

    It is the verdict of a new handshake under `context`: anchors, CRLs and the time may have changed since the
    connection began.
    """
    info: TLSInfo = transport.get_extra_info("ssl_object").info_under(context)
    return info


def connection_age(transport: asyncio.BaseTransport) -> float:
    """Seconds since the TLS handshake of `transport` began."""
    began: float = transport.get_extra_info("ssl_object").began
    return time.monotonic() - began


def error_words(exc: SSL.Error) -> str:
    """The reasons in OpenSSL's error queue, as one text."""
    errors = exc.args[0] if exc.args and isinstance(exc.args[0], list) else []
    return "; ".join(error[-1] for error in errors if error[-1]) or "TLS error"


def _want_read() -> ssl.SSLWantReadError:
    return ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "more data needed")
