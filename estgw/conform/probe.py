"""What a case works with: connections, requests with and without credentials, and what earlier cases have found out.

Everything that several cases look at is done once: /cacerts, /csrattrs, the first enrolment, a certificate to renew.
Each case that uses it shows the same exchange.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from cryptography import x509

from estgw.client.faults import ClientError, InvalidAnswer
from estgw.client.transport import answers, tls
from estgw.client.transport.tls import Identity
from estgw.conform.csrs import Maker
from estgw.conform.http import Reply
from estgw.conform.line import Line, Transcript
from estgw.conform.login import Login
from estgw.conform.model import Finding, Setup
from estgw.est import encoding
from estgw.est.operations import OPERATIONS, PKCS10

T = TypeVar("T")

JUNK = b"\x30\x00"
"""An empty SEQUENCE: no server can take it for a request."""
_LONGEST_WAIT = 5
"""Seconds that a 429 or 503 with Retry-After may cost."""


@dataclass(frozen=True)
class Form:
    """What is unusual about a POST."""

    operation: str = "simpleenroll"
    change: Callable[[bytes], bytes] = lambda der: der
    """Changes the DER of the body after its signature has been made."""
    encode: Callable[[bytes], bytes] = encoding.encode_base64
    headers: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    """TLS 1.2 or 1.3; None for what has worked so far."""
    identity: Identity | None = None
    """A certificate for TLS."""
    authorization: str | None = None
    """An Authorization header in place of the user's own."""
    with_login: bool = True


PLAIN = Form()


@dataclass(frozen=True)
class Way:
    """How this server lets our client enrol."""

    version: str | None = None
    is_linked: bool = True


class Probe:
    """One server under test."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.login = Login(setup.credentials)
        self.transcript = Transcript()
        self.way = Way()
        self._facts: dict[str, tuple[Any, list[str]]] = {}
        self._numbers = itertools.count(1)
        self.issued = 0
        """Certificates that the server has handed out."""

    # Connections and requests.

    def line(self, version: str | None = None, identity: Identity | None = None) -> Line:
        """A new connection, its server checked; raises the exceptions of `tls.connect`."""
        connected = tls.connect(
            self.setup.place, self.setup.trust, identity=identity, version=version, timeout=self.setup.timeout
        )
        return Line(connected, self.transcript, self.setup.timeout)

    def target(self, operation: str) -> str:
        """The request target of an operation."""
        return self.setup.place.path(operation)

    def get(self, operation: str, *, with_login: bool = False) -> Reply:
        """GET on a connection of its own."""
        identity = self.setup.identity if with_login and not self.login.is_usable else None
        with self.line(identity=identity) as line:
            target = self.target(operation)
            header = self.login.header("GET", target) if with_login else None
            return line.ask("GET", target, {} if header is None else {"Authorization": header})

    def post(self, make: Maker, form: Form = PLAIN) -> Reply:
        """POST on a connection of its own; without a password the user's certificate logs in."""
        identity = form.identity
        if identity is None and form.with_login and form.authorization is None and not self.login.is_usable:
            identity = self.setup.identity
        with self.line(form.version or self.way.version, identity) as line:
            return self.post_on(line, make, form)

    def post_on(self, line: Line, make: Maker, form: Form = PLAIN) -> Reply:
        """POST on a given connection, again after a stale nonce and after a short wait that the server asks for."""
        body = form.encode(form.change(make(line.binding)))
        reply = self._post_once(line, body, form)
        if reply.status in (429, 503) and 0 < (wait := _wait(reply)) <= _LONGEST_WAIT:
            time.sleep(wait)
            reply = self._post_once(line, body, form)
        if reply.status == 200 and OPERATIONS[form.operation].may_wait:
            self.issued += 1
        return reply

    def _post_once(self, line: Line, body: bytes, form: Form) -> Reply:
        target = self.target(form.operation)
        headers = {"Content-Type": PKCS10, "Content-Transfer-Encoding": "base64", **form.headers}
        for _ in range(2):
            own = self.login.header("POST", target) if form.with_login else None
            header = form.authorization or own
            sent = headers if header is None else {**headers, "Authorization": header}
            reply = line.ask("POST", target, sent, body)
            if header is None:
                self.login.meet(reply)
                break
            if form.authorization is not None or not self.login.judge(reply):
                break
        return reply

    # Names, and what is found out once.

    def name(self) -> x509.Name:
        """The next subject; `{n}` in --subject becomes a number."""
        return self.setup.name(next(self._numbers))

    def once(self, fact: str, find: Callable[[Probe], T]) -> T:
        """What `find` returns or raises, the first time; later the same, with the same lines in the transcript."""
        if fact in self._facts:
            found, lines = self._facts[fact]
            self.transcript.add(*lines)
        else:
            start = len(self.transcript.lines)
            try:
                found = find(self)
            except (Finding, ClientError) as end:
                found = end
            self._facts[fact] = found, self.transcript.lines[start:]
        if isinstance(found, Finding | ClientError):
            raise found
        return cast(T, found)


def _wait(reply: Reply) -> int:
    """Seconds that the server asks to wait; 0 when it does not."""
    try:
        return answers.delay(reply.get("Retry-After"), datetime.now(UTC)) or 0
    except InvalidAnswer:
        return 0
