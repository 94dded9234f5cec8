"""The pipeline: one request from the TLS connection to the answer, in ten steps.

Step 1, the handshake, is over when a request arrives.  Authentication and POP come before any script: a script never
sees a request that cryptography has already refused.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web
from structlog.contextvars import bound_contextvars

from estgw.auth import identity, pop
from estgw.auth.identity import Client
from estgw.auth.requirements import authenticate
from estgw.auth.throttle import Throttle
from estgw.callout import cgi, scratch, shortage
from estgw.callout.call import Call
from estgw.callout.home import Home
from estgw.callout.verdicts import Kind
from estgw.config.routes import Route, Service, search_path
from estgw.errors import (
    BadRequest,
    HandlerFailed,
    Malformed,
    NoLongerTrusted,
    NotFound,
    RequestError,
    StaleNonce,
    Unauthenticated,
    Unavailable,
    apology,
)
from estgw.est import certs, names, operations
from estgw.est import csr as csrs
from estgw.est.operations import Profile
from estgw.gateway import body, renewal, reply
from estgw.gateway.state import State, check_csr
from estgw.logs import log, new_request_id
from estgw.metrics.meter import meter
from estgw.tls.adapter import connection_age, tls_info


class App:
    """The HTTP side of the gateway; `state` is replaced whole on reload."""

    def __init__(self, state: State, home: Home) -> None:
        """`home` is where each request has its private directory."""
        self.state = state
        self.home = home
        self.throttle = Throttle(state.config.client_auth.guess_delay, state.share.of)

    def reload(self, state: State) -> None:
        """Serve the next requests with another state; who guessed passwords stays remembered."""
        self.state = state
        self.throttle.most = state.config.client_auth.guess_delay

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request: always an answer, always one access line."""
        started, write = time.monotonic(), log.info
        exchange = Exchange(self.state, self.throttle, self.home, request)
        with bound_contextvars(request_id=exchange.request_id):
            try:
                response = await exchange.serve()
            except RequestError as refusal:
                exchange.entry["reason"] = str(refusal)
                response = exchange.refuse(refusal)
            except ConnectionError:
                log.info("client went away", **exchange.entry)
                return web.Response(status=400)  # for nobody; the error itself would become a 500 with a traceback
            except Exception as fault:  # noqa: BLE001 - the client gets an answer, and the log words or a traceback
                if short := shortage.words(fault):
                    write, exchange.entry["reason"] = log.error, short
                    patience = exchange.state.config.callouts.retry_after
                    response = exchange.refuse(Unavailable(shortage.PUBLIC, retry_after=patience))
                else:
                    log.exception("unexpected error", **exchange.entry)
                    response = exchange.refuse(HandlerFailed(apology(exchange.request_id)))
            finally:
                if exchange.tmp_dir is not None:
                    await scratch.remove(exchange.tmp_dir)
            if "Expect" in request.headers and not request.content.is_eof():
                # Nobody told this client to go on, so what comes next might be the body or a new request.
                response.force_close()
            if _is_old(request, exchange.state.config.server.max_connection_age):
                response.force_close()
            seconds = time.monotonic() - started
            meter.answered(exchange.entry, response.status, seconds)
            write("request", status=response.status, ms=round(seconds * 1000, 1), **exchange.entry)
            return response


class Exchange:
    """One request on its way down the house; the state that it began with is the one it is served with."""

    def __init__(self, state: State, throttle: Throttle, home: Home, request: web.BaseRequest) -> None:
        self.state = state
        self.throttle = throttle
        self.home = home
        self.request = request
        self.request_id = new_request_id()
        self.entry: dict[str, Any] = {"method": request.method, "path": request.rel_url.raw_path[:200]}
        """What the access line will say; the steps add to it as they learn."""
        self.route: Route | None = None
        self.tmp_dir: Path | None = None

    async def serve(self) -> web.Response:
        """The steps; each adds what it found to the facts of the call, or raises a `RequestError`."""
        client = self.identify()  # 2
        service, route, profile = self.find_route()  # 3
        content = await self.read_body(route)  # 4
        call = self.describe(route, profile, client, content)
        call = await self.authenticate(route, call)  # 5
        call = await self.read_csr(route, call)  # 6
        call = self.link(route, call)  # 7
        await self.authorize(route, call)  # 8
        output = await self.handle(route, call)  # 9
        return self.answer(service, route, call, output)  # 10

    def identify(self) -> Client:
        """Who is it?  Version, binding, certificate, trust class, RA or not."""
        if self.request.transport is None:
            raise ConnectionResetError
        peer = self.request.transport.get_extra_info("peername")
        self.entry["peer"] = peer[0]
        try:
            tls = tls_info(self.request.transport, self.state.context)
        except ValueError:
            raise BadRequest("The TLS client certificate can't be read.") from None
        unknown = self.state.config.client_auth.unknown_certificates
        if unknown == "reject" and tls.certificate is not None and tls.verify_error:
            # The handshake was good; a new one would fail.
            self.entry["client_certificate"] = tls.verify_error
            raise NoLongerTrusted(f"Your TLS client certificate is no longer accepted here: {tls.verify_error}.")
        client = identity.identify(peer[:2], tls, self.state.anchors, unknown)
        self.entry["tls"] = tls.version
        if client.name is not None:
            self.entry["identity"] = client.name
        if tls.verify_error:
            self.entry["client_certificate"] = tls.verify_error
        return client

    def find_route(self) -> tuple[Service, Route, Profile]:
        """Path, method and media type to label, operation and profile."""
        if self.request.version not in (HttpVersion10, HttpVersion11):
            raise BadRequest("The HTTP version is not 1.1.")
        raw_path = self.request.rel_url.raw_path
        target = operations.resolve(raw_path, self.state.labels, self.state.extra_operations)
        service = self.state.services[target.label]
        self.entry["operation"] = target.operation
        if target.label:
            self.entry["label"] = target.label
        route = service.routes.get(target.operation)
        if route is None:
            raise NotFound(f"{target.operation} is not switched on here.")
        self.route = route
        operations.check_method(route.operation, self.request.method)
        content_type = self.request.headers.get("Content-Type")
        profile = operations.profile_of(target, content_type, service.profile)
        operations.check_media_type(route.operation, content_type, profile)
        return service, route, profile

    async def read_body(self, route: Route) -> bytes:
        """The body, before any 401, so that the connection and its channel binding survive."""
        if not route.operation.takes_body:
            return b""
        server = self.state.config.server
        return await body.read(self.request, limit=server.max_body, seconds=server.body_timeout)

    def describe(self, route: Route, profile: Profile, client: Client, content: bytes) -> Call:
        """The facts so far."""
        self.tmp_dir = self.home.directory()
        settings, headers, url = self.state.config.callouts, self.request.headers, self.request.rel_url
        return Call(
            request_id=self.request_id,
            operation=route.operation,
            label=route.label,
            profile=profile,
            client=client,
            ca_dir=route.ca_dir,
            tmp_dir=self.tmp_dir,
            timeout=route.timeout,
            search_path=search_path(self.state.config),
            method=self.request.method,
            script_name=operations.decode_path(url.raw_path),
            query=url.raw_query_string,
            server_name=self.state.config.server.name,
            server_port=_port(self.request),
            content_type=headers.get("Content-Type"),
            body=content,
            headers={name: headers[name] for name in settings.pass_headers if name in headers},
            pass_credentials=route.pass_credentials,
            handler_env=route.handler_env,
            binding=pop.binding_in_force(client.tls, self.state.config.pop.tls13),
            pop_required=self.state.pop.announces(client, route.label),
        )

    async def authenticate(self, route: Route, call: Call) -> Call:
        """HTTP credentials, by a callout or by the password files, and what the operation requires."""

        async def verify(client: Client) -> bool:
            name = client.claimed.username if client.claimed else ""
            async with self.throttle.turn(client.address):
                # A stale nonce passes by both: it is no guess, and a recorded answer must not take guesses back.
                good = await self._is_genuine(route, replace(call, client=client))
                (self.throttle.succeeded if good else self.throttle.failed)(client.address, name)
            return good

        headers = self.request.headers.getall("Authorization", [])
        client = await authenticate(call.client, headers, route.requires, verify)
        if client.user is not None:
            self.entry["user"] = client.user
            self.entry.setdefault("identity", client.user)
        return replace(call, client=client)

    async def _is_genuine(self, route: Route, call: Call) -> bool:
        claimed = call.client.claimed
        if claimed is None:
            return False
        if route.authenticate is None:
            targets = operations.twins(self.request.raw_path, route.label)
            return await self.state.passwords.verify(claimed, call.method, targets)
        if claimed.password is None:
            return False
        try:
            await self._decide(route, route.authenticate, replace(call, pass_credentials=True), Kind.AUTHENTICATE)
        except Unauthenticated as refusal:
            log.info("not authenticated", reason=str(refusal))
            return False
        return True

    async def read_csr(self, route: Route, call: Call) -> Call:
        """The CSR: decode it, check its signature, and on reenroll its names."""
        operation = route.operation
        if not operation.has_csr:
            return call
        try:
            csr = csrs.parse(call.body)
            self.entry["subject"] = names.dn_text(csr.subject)[:500]
            check_csr(csr, route)
        except Malformed as fault:
            raise BadRequest(fault.sentence) from None
        renewed = await renewal.renewed_certificate(call.client, csr, route) if operation.renews else None
        new_names = renewal.new_names(call.client, csr, route)
        self.state.check_template(route, csr, new_names)
        return replace(call, csr=csr, renewed=renewed, new_names=new_names)

    def link(self, route: Route, call: Call) -> Call:
        """Linking identity and POP: does the CSR belong to this TLS connection?

        What comes inside a Full PKI Request is for its handler to link, by the rules of simpleenroll.
        """
        if call.operation.holds_requests:
            return replace(call, inner=self.state.inner_rules(route, call.client))
        if call.csr is None:
            return call
        linking = self.state.pop.linking(call.client, call.operation.name, call.label)
        try:
            attribute = self.state.config.pop.attribute
            linked = pop.link(call.csr, call.binding, linking, call.client.tls.version, attribute)
        except Malformed as fault:
            raise BadRequest(fault.sentence) from None
        self.entry["pop"] = linked.value
        return replace(call, pop=linked)

    async def authorize(self, route: Route, call: Call) -> None:
        """May this client do this?  About each request inside a Full PKI Request, its handler asks."""
        if route.authorize is not None and not call.operation.holds_requests:
            await self._decide(route, route.authorize, call, Kind.AUTHORIZE)

    async def handle(self, route: Route, call: Call) -> cgi.Output:
        """The operation's handler."""
        return await self.state.caller.handle(route.handler, call, serialize=route.serialize, runner=route.runner)

    def answer(self, service: Service, route: Route, call: Call, output: cgi.Output) -> web.Response:
        """The wire form, validated."""
        columns = _columns(self.request, service)
        made = reply.to_wire(route, output, call, columns=columns, linking_attribute=self.state.config.pop.attribute)
        if made.issued is not None:
            self.entry["serial"] = certs.serial_hex(made.issued)
        self.state.caller.keep(route.handler, call, output)
        return reply.success(route.operation, call.profile, output, made)

    def refuse(self, error: RequestError) -> web.Response:
        """The answer for an error; a 401 has the challenges of the route."""
        challenges = []
        if isinstance(error, Unauthenticated):
            basic_only = self.route is not None and self.route.authenticate is not None
            stale = isinstance(error, StaleNonce)
            challenges = self.state.passwords.challenges(basic_only=basic_only, stale=stale)
        # Without a route, an unknown label say, the path's last word is what the client meant.
        operation = self.entry.get("operation") or self.request.rel_url.raw_path.rpartition("/")[2].lower()
        return reply.refusal(error, operation=operation, challenges=challenges)

    async def _decide(self, route: Route, script: Path, call: Call, kind: Kind) -> None:
        call = replace(call, timeout=self.state.config.callouts.decision_timeout)
        await self.state.caller.decide(script, call, kind, runner=route.decision_runner)


def _is_old(request: web.BaseRequest, seconds: float) -> bool:
    """Whether the connection has reached its age, so that this answer is its last."""
    return request.transport is not None and connection_age(request.transport) >= seconds


def _columns(request: web.BaseRequest, service: Service) -> int | None:
    """Base64 line length.

    One client fails on any line break and another on an unbroken body; the first is known by sending neither
    User-Agent nor Accept.
    """
    if service.base64_lines == "auto":
        terse = "User-Agent" not in request.headers and "Accept" not in request.headers
        return None if terse else 64
    return 64 if service.base64_lines == "64" else None


def _port(request: web.BaseRequest) -> int:
    name = request.transport.get_extra_info("sockname") if request.transport else None
    return int(name[1]) if name else 0
