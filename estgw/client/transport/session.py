"""One EST server, one session: connect, check, ask, answer a challenge, ask again (RFC 7030 3).

    from estgw.client import Credentials, Session, Trust

    with Session("https://est.example", Trust(explicit=anchors), credentials=Credentials("u", "p")) as session:
        certificate = session.enroll(lambda binding: my_csr(binding.text if binding else ""))

A connection is kept as long as the server allows, so that a 401 and the request after it share the channel binding.
For every new connection the request is made again, with the new binding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

from cryptography import x509

from estgw import __version__
from estgw.client.faults import ClientError, Dropped, InvalidAnswer, NotOffered, Refused, Untrusted, UsageError, clean
from estgw.client.transport import answers, issued, tls, unauthorized, url
from estgw.client.transport.challenge import Authorizer, Credentials
from estgw.client.transport.trust import Trust
from estgw.client.transport.url import Place
from estgw.client.transport.wire import Answer, Exchange, Link, Observer, values
from estgw.errors import Malformed
from estgw.est import csr, csrattrs, encoding
from estgw.est.binding import Binding
from estgw.est.operations import CERTS_ONLY, OPERATIONS, PKCS10

RequestMaker = Callable[[Binding | None], bytes]
"""Makes a request for one connection: a PKCS#10 as PEM, DER or base64."""

MAXIMUM_REDIRECTS = 5
_MAXIMUM_ROUNDS = 12
"""Requests sent for one operation, redirects, challenges and stale nonces included."""
_MAXIMUM_CHALLENGES = 2
"""Challenges answered for one operation: the first, and one that calls our nonce stale (RFC 7616 3.3)."""
CMC_REQUEST = "application/pkcs7-mime; smime-type=CMC-request"


class Session:
    """The operations of one EST server; use it as a context manager, or call `close`.

    Every method may raise the exceptions of `estgw.client.faults`, with operation and URL in them.  Nothing is sent,
    and no answer is used, before the server has been authenticated and authorized under `trust` (RFC 7030 3.6).
    """

    def __init__(
        self,
        server: str | Place,
        trust: Trust,
        *,
        label: str | None = None,
        credentials: Credentials | None = None,
        identity: tls.Identity | None = None,
        tls_version: str | None = None,
        timeout: float = 30.0,
        finished_binding: bool = False,
        allow_redirect: bool = False,
        any_certificate: bool = False,
        observer: Observer | None = None,
    ) -> None:
        """Prepare a session; the first operation connects.

        `server` is a URL in any form (`url.parse`), `label` the CA label when the URL has none, `tls_version`
        `1.2` or `1.3` or None for both, `timeout` in seconds for each of TCP, TLS and every answer.
        `finished_binding` links by the Finished message at TLS 1.3, as libest does and no standard says.  Redirects to
        another origin are followed with `allow_redirect` only.  `any_certificate` accepts a certificate for the CSR's
        key whatever its names and its issuer (`issued`).  `observer` gets every exchange, secrets included.
        A bootstrapping session takes neither credentials nor identity (RFC 7030 4.1.1).
        """
        if trust.bootstrap and (credentials or identity):
            raise UsageError("an unverified server gets no credentials (RFC 7030 4.1.1)")
        self._place = url.parse(server, label) if isinstance(server, str) else server
        self._trust = trust
        self._credentials = credentials
        self._identity = identity
        self._tls_version = tls_version
        self._timeout = timeout
        self._finished = finished_binding
        self._allow_redirect = allow_redirect
        self._any_certificate = any_certificate
        self._observer = observer
        self._link: Link | None = None
        self._asked = ""
        self._authorizers: dict[tuple[str, int], Authorizer] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._link is not None:
            self._link.close()
            self._link = None

    @property
    def place(self) -> Place:
        """The server as it was configured."""
        return self._place

    @property
    def trust(self) -> Trust:
        """The anchors of this session."""
        return self._trust

    @property
    def identity(self) -> tls.Identity | None:
        """The client's own certificate and key."""
        return self._identity

    @property
    def connected(self) -> tls.Connected | None:
        """Facts about the connection in use: verdict on the server, binding, TLS version; None without a connection."""
        return None if self._link is None else self._link.connected

    def connect(self) -> tls.Connected:
        """Connect and check the server, unless that has been done."""
        return self._link_to(self._place).connected

    def cacerts(self) -> list[x509.Certificate]:
        """The CA's certificates, unchecked (RFC 7030 4.1): `bag.examine` says which of them to trust."""
        with self._named("cacerts"):
            return answers.bag(self._perform("cacerts", None))

    def csrattrs(self) -> csrattrs.CsrAttrs | None:
        """The CSR attributes of the server (RFC 7030 4.5); None for 204, 404 and 501."""
        with self._named("csrattrs"):
            try:
                answer = self._perform("csrattrs", None)
            except NotOffered:
                return None
            if answer.status == 204:
                return None
            if answer.content_type != "application/csrattrs":
                raise InvalidAnswer(f"CSR attributes of type {clean(answer.content_type, 100)!r}")
            try:
                return csrattrs.decode_csrattrs(encoding.decode(answer.body, ()))
            except Malformed as fault:
                raise InvalidAnswer(f"the server's CSR attributes can't be read: {fault}") from None

    def enroll(self, request: bytes | RequestMaker) -> x509.Certificate:
        """Get a certificate (RFC 7030 4.2.1); the key in the CSR must be the one in the certificate.

        `request` is a finished CSR, or is called with the binding of every connection that needs one.
        """
        return self._issued("simpleenroll", request)

    def reenroll(self, request: bytes | RequestMaker) -> x509.Certificate:
        """Renew or rekey (RFC 7030 4.2.2), in all else like `enroll`."""
        return self._issued("simplereenroll", request)

    def serverkeygen(self, request: bytes | RequestMaker) -> Answer:
        """Have the server make the key (RFC 7030 4.4); `keygen.read` takes the answer apart."""
        return self._post("serverkeygen", lambda binding: self._der(request, binding), PKCS10, "multipart/mixed")

    def fullcmc(self, request: bytes | RequestMaker) -> Answer:
        """Send a Full CMC request (RFC 7030 4.3), DER, as it is; `cmc.read` takes the answer apart.

        `fullcmc.Transaction` makes such requests, and checks and unpacks what comes back.
        """
        make = (lambda _: request) if isinstance(request, bytes) else request
        return self._post("fullcmc", make, CMC_REQUEST, "application/pkcs7-mime")

    def _issued(self, operation: str, request: bytes | RequestMaker) -> x509.Certificate:
        sent: list[bytes] = []

        def make(binding: Binding | None) -> bytes:
            sent.append(self._der(request, binding))
            return sent[-1]

        found = answers.bag(self._post(operation, make, PKCS10, CERTS_ONLY))
        wanted = csr.parse(sent[-1])
        certificate = issued.for_key(found, wanted)
        if not self._any_certificate:
            issued.require_names(certificate, wanted)
            issued.require_issuer(certificate, self._trust.explicit, self.cacerts)
        return certificate

    @staticmethod
    def _der(request: bytes | RequestMaker, binding: Binding | None) -> bytes:
        made = request if isinstance(request, bytes) else request(binding)
        try:
            return csr.parse(made).der
        except Malformed as fault:
            raise UsageError(f"the request can't be used: {fault}") from None

    def _post(self, operation: str, make: RequestMaker, content_type: str, accept: str) -> Answer:
        headers = {"Content-Type": content_type, "Content-Transfer-Encoding": "base64", "Accept": accept}
        with self._named(operation):
            return self._perform(operation, make, headers)

    def _perform(self, operation: str, make: RequestMaker | None, headers: Mapping[str, str] | None = None) -> Answer:
        """Run one operation until its 200 (or the 204 of csrattrs), through redirects and challenges."""
        row = OPERATIONS[operation]
        if self._trust.bootstrap and operation != "cacerts":
            raise Untrusted(f"{operation} needs a server that can be verified (RFC 7030 4.1.1)")
        place, target = self._place, self._place.path(operation)
        made_for: Link | None = None
        made = body = None
        hops = challenged = 0
        has_repeated = False
        for _ in range(_MAXIMUM_ROUNDS):
            self._asked = f"https://{place.authority}{target}"
            link = self._link_to(place)
            if make is not None and link is not made_for:
                made, made_for = make(link.connected.binding), link
                body = encoding.encode_base64(made)
            is_reused = link.answered > 0
            try:
                answer = self._exchange(link, row.method, target, headers or {}, body)
            except Dropped:
                # libest's server closes the connection 45 ms after a 401, without announcing it.  RFC 9112 9.3.1
                # lets a client repeat a request on a new connection if the old one ended without an answer, a POST
                # only if that does no harm.  If the server did run it, EST's operations issue a second certificate
                # for the same key or refuse the second try.  Repeat once, and never after a new connection.
                if has_repeated or not is_reused:
                    raise
                has_repeated = True
                continue
            if answer.status == 401:
                self._learn(link, answer, challenged, made if row.has_csr else None)
                challenged += 1
                continue
            if 300 <= answer.status < 400 and answer.headers.get("Location"):
                hops += 1
                place, target = self._follow(answer, place, target, row.method, hops)
                continue
            if operation != "csrattrs" or answer.status != 204:
                answers.require_ok(answer, row, hint=place.hint)
            return answer
        raise InvalidAnswer("the server's challenges and redirects do not end")

    @contextlib.contextmanager
    def _named(self, operation: str) -> Iterator[None]:
        """Put the operation and its URL into every error that is raised inside."""
        self._asked = self._place.url(operation)
        try:
            yield
        except ClientError as fault:
            fault.operation, fault.url = operation, self._asked
            raise

    def _link_to(self, place: Place) -> Link:
        """A usable connection to a place: the one at hand, or a new one with all checks."""
        link = self._link
        if link is not None and link.connected.place.origin == place.origin and link.is_usable():
            return link
        self.close()
        connected = tls.connect(
            place,
            self._trust,
            identity=self._identity,
            version=self._tls_version,
            timeout=self._timeout,
            finished=self._finished,
        )
        self._link = Link(connected)
        return self._link

    def _exchange(self, link: Link, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        sent = {"User-Agent": f"estclient/{__version__}", "Accept": "*/*", **headers}
        authorizer = self._authorizers.get(link.connected.place.origin)
        authorization = authorizer.header(method, target) if authorizer else None
        if authorization is not None:
            sent["Authorization"] = authorization
        exchange = Exchange(link.connected, method, target, sent, body or b"")
        if self._observer is not None:
            self._observer(exchange)
        answer = link.exchange(method, target, sent, body, self._timeout)
        if self._observer is not None:
            self._observer(replace(exchange, answer=answer))
        return answer

    def _learn(self, link: Link, answer: Answer, challenged: int, made: bytes | None) -> None:
        """Read the challenge of a 401; raise `Refused` if another request could not answer it (RFC 7030 3.2.3).

        `challenged` counts the challenges that this operation has answered, `made` is the CSR that was sent.
        """
        shown = unauthorized.Shown(
            certificate=self._identity is not None, is_unverified=self._trust.bootstrap, csr=made
        )
        if self._credentials is None or self._trust.bootstrap:
            raise unauthorized.refusal(answer, shown)
        authorizer = self._authorizers.setdefault(link.connected.place.origin, Authorizer(self._credentials))
        shown = replace(shown, has_password=True, password=bool(authorizer.scheme))
        if not authorizer.learn(values(answer.headers, "WWW-Authenticate"), again=challenged > 0):
            raise unauthorized.refusal(answer, shown)
        if challenged >= _MAXIMUM_CHALLENGES:
            raise InvalidAnswer("the server calls its own fresh nonce stale (RFC 7616 3.3)")

    def _follow(self, answer: Answer, place: Place, target: str, method: str, hops: int) -> tuple[Place, str]:
        """The target of a redirect that is allowed (RFC 7030 3.2.1)."""
        location = str(answer.headers["Location"])
        if hops > MAXIMUM_REDIRECTS:
            raise InvalidAnswer(f"more than {MAXIMUM_REDIRECTS} redirects")
        try:
            new, path = url.resolve(location, place, target)
        except UsageError as fault:
            raise InvalidAnswer(f"a redirect to a URL that EST can't use: {fault}") from None
        if answer.status == 303 and method != "GET":
            raise InvalidAnswer("a redirect (303) that asks for a GET instead of the request")
        if new.origin != place.origin and not self._allow_redirect:
            raise Refused(
                f"the server redirects to another origin, https://{new.authority}{clean(path, 200)}; "
                "--allow-redirect follows it (RFC 7030 3.2.1)",
                http_status=answer.status,
            )
        return new, path
