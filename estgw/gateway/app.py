"""The HTTP side of the gateway: each request becomes an exchange, goes through the pipeline, and is answered."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from aiohttp import HttpVersion10, HttpVersion11, web
from structlog.contextvars import bound_contextvars

from estgw.auth import identity
from estgw.auth.identity import Client
from estgw.auth.requirements import authenticate, require
from estgw.auth.throttle import Throttle
from estgw.callout import cgi, scratch, shortage
from estgw.callout.call import Call, ExchangeFacts, HTTPFacts
from estgw.callout.home import Home
from estgw.callout.verdicts import Kind
from estgw.config.route import Route
from estgw.errors import (
    BadRequest,
    HandlerFailed,
    NoLongerTrusted,
    RequestError,
    Unauthenticated,
    Unavailable,
    apology,
    spread,
)
from estgw.est import operations
from estgw.gateway import body, reply, taping
from estgw.gateway.pipeline import Answered, Pipeline
from estgw.gateway.state import State
from estgw.logs import log, new_request_id
from estgw.metrics.meter import meter
from estgw.record.gates import Gate
from estgw.record.recorder import Recorder
from estgw.register.engine import RegisterBusy
from estgw.tls.adapter import connection_age, tls_info

CLAIMED = 100
"""Characters in the log of a user name that a client has claimed and that is not verified."""


class App:
    """The HTTP side of the gateway; `state` is replaced whole on reload."""

    def __init__(self, state: State, home: Home, recorder: Recorder | None = None) -> None:
        """`home` is where each request has its private directory; without a recorder nothing is recorded."""
        self.state = state
        self.home = home
        self.recorder = recorder
        self.throttle = Throttle(state.config.client_auth.guess_delay, state.share.of)

    def reload(self, state: State) -> None:
        """Serve the next requests with another state.  The throttle keeps its counts."""
        self.state = state
        self.throttle.most = state.config.client_auth.guess_delay

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request.  There is always an answer and one log line."""
        started, short = time.monotonic(), None
        exchange = Exchange(self.state, self.throttle, self.home, request)
        recorder = self.recorder
        if recorder is not None:
            exchange.tape = taping.begin(request, exchange.request_id)
        with bound_contextvars(request_id=exchange.request_id):
            try:
                response = exchange.respond(await exchange.serve())
                if response.status >= 400:
                    taping.explain(exchange, taping.SAID_BY_THE_ANSWER, recorder)
            except RequestError as refusal:
                response = exchange.refuse(refusal)
                taping.explain(exchange, str(refusal), recorder)
            except RegisterBusy as fault:
                words = "The CA's register can't be used now. Try again later."
                patience = spread(exchange.state.config.callouts.retry_after)
                response = exchange.refuse(Unavailable(words, retry_after=patience, log=str(fault)))
                taping.explain(exchange, words, recorder)
            except ConnectionError:
                log.info("client went away", **exchange.entry)
                if recorder is not None:
                    taping.keep(recorder, exchange, request, None)
                return web.Response(status=400)  # it is not sent; raising would log a traceback
            except Exception as fault:  # noqa: BLE001 - the client gets an answer, and the log words or a traceback
                if short := shortage.words(fault):
                    taping.explain(exchange, short, recorder)
                    patience = spread(exchange.state.config.callouts.retry_after)
                    response = exchange.refuse(Unavailable(shortage.PUBLIC, retry_after=patience))
                else:
                    log.exception("unexpected error", **exchange.entry)
                    taping.explain(exchange, "unexpected error; the log has a traceback", recorder)
                    response = exchange.refuse(HandlerFailed(apology(exchange.request_id)))
            finally:
                if exchange.tmp_dir is not None:
                    await scratch.remove(exchange.tmp_dir)
            if "Expect" in request.headers and not request.content.is_eof():
                # The client has not been told to continue: the next bytes may be the body or a new request.
                response.force_close()
            if _is_old(request, exchange.state.config.server.max_connection_age):
                response.force_close()
            seconds = time.monotonic() - started
            meter.answered(exchange.entry, response.status, seconds)
            if recorder is not None:
                taping.keep(recorder, exchange, request, response)
            write = log.error if short else log.warning if response.status >= 500 else log.info
            write("request", status=response.status, ms=round(seconds * 1000, 1), **exchange.entry)
            return response


class Exchange(Pipeline):
    """One request over TLS: its facts come from the connection and from aiohttp."""

    def __init__(self, state: State, throttle: Throttle, home: Home, request: web.BaseRequest) -> None:
        super().__init__(state)
        self.throttle = throttle
        self.home = home
        self.request = request
        self.request_id = new_request_id()
        self.entry.update(method=request.method, path=request.rel_url.raw_path[:200])
        self.tmp_dir: Path | None = None

    def identify(self) -> Client:
        """Step 2.  The client: TLS version, binding, certificate, trust class, RA or not."""
        if self.request.transport is None:
            raise ConnectionResetError
        peer = self.request.transport.get_extra_info("peername")
        if peer is None:  # the transport under TLS has ended, as after half a body and a close
            raise ConnectionResetError
        self.entry["peer"] = peer[0]
        try:
            tls = tls_info(self.request.transport, self.state.context)
        except ValueError:
            raise BadRequest("The TLS client certificate can't be read.") from None
        unknown = self.state.config.client_auth.unknown_certificates
        if unknown == "reject" and tls.certificate is not None and tls.verify_error:
            if self.tape is not None:
                self.tape.identified(tls)
            # The handshake was good; a new one would fail.
            self.entry["client_certificate"] = tls.verify_error
            raise NoLongerTrusted(f"Your TLS client certificate is no longer accepted here: {tls.verify_error}.")
        client = identity.identify(peer[:2], tls, self.state.anchors, unknown)
        if self.tape is not None:
            self.tape.identified(tls, client)
        self.entry["tls"] = tls.version
        if client.name is not None:
            self.entry["identity"] = client.name
        if tls.verify_error:
            self.entry["client_certificate"] = tls.verify_error
        return client

    def http(self) -> HTTPFacts:
        """The head, as aiohttp has read it."""
        if self.request.version not in (HttpVersion10, HttpVersion11):
            raise BadRequest("The HTTP version is not 1.1.")
        url = self.request.rel_url
        return HTTPFacts(
            method=self.request.method,
            target=self.request.raw_path,
            raw_path=url.raw_path,
            query=url.raw_query_string,
            headers=tuple(self.request.headers.items()),
            server_name=self.state.config.server.name,
            server_port=_port(self.request),
        )

    async def read_body(self) -> bytes:
        """The body, up to the limit and in time."""
        server = self.state.config.server
        content = await body.read(self.request, limit=server.max_body, seconds=server.body_timeout)
        if self.tape is not None:
            self.tape.arrived = time.monotonic()
        return content

    def exchange(self) -> ExchangeFacts:
        """A new id; the directory is made when the first script runs."""
        self.tmp_dir = self.home.directory()
        return ExchangeFacts(self.request_id, self.tmp_dir, self.tape)

    async def authenticate(self, call: Call) -> Call:
        """Step 5.  Verify HTTP credentials by a script or the password files, and apply `requires`."""

        async def verify(client: Client) -> bool:
            name = client.claimed.username if client.claimed else ""
            if self._is_remembered(call.route, client, name):
                return True
            self.entry["claimed_user"] = name[:CLAIMED]
            async with self.throttle.turn(client.address, name):
                # A stale nonce raises, so neither is called: it is not a guess, and a replay must not forgive guesses.
                good = await self._is_genuine(replace(call, client=client))
                (self.throttle.succeeded if good else self.throttle.failed)(client.address, name)
            return good

        client = await authenticate(call.client, call.http.values("Authorization"), call.route.requires, verify)
        if client.user is not None:
            self.entry.pop("claimed_user", None)
            self.entry["user"] = client.user
            self.entry.setdefault("identity", client.user)
        call = self.enter(Gate.REQUIRES, replace(call, client=client))
        require(client, call.route.requires)
        return call

    def _is_remembered(self, route: Route, client: Client, name: str) -> bool:
        """Whether the password file has confirmed these credentials a short time ago, and nothing delays the client."""
        return (
            route.authenticate is None
            and client.claimed is not None
            and self.throttle.is_quiet(client.address, name)
            and self.state.passwords.remembers(client.claimed)
        )

    async def _is_genuine(self, call: Call) -> bool:
        claimed = call.client.claimed
        if claimed is None:
            return False
        if call.route.authenticate is None:
            targets = operations.twins(call.http.target, call.route.label)
            return await self.state.passwords.verify(claimed, call.http.method, targets)
        if claimed.password is None:
            return False
        try:
            await self.decide(replace(call, kind=Kind.AUTHENTICATE))
        except Unauthenticated as refusal:
            log.info("not authenticated", reason=str(refusal))
            return False
        return True

    async def run_scripts(self, call: Call) -> cgi.Output:
        """Steps 8 and 9, in one process where both scripts are made for that."""
        if call.route.authorize is None or call.route.operation.holds_requests:
            return await self.handle(self.enter(Gate.HANDLER, call))

        def decided(seconds: float) -> None:
            self.enter(Gate.HANDLER, call, ago=seconds)

        return await self.state.caller.authorize_and_handle(call, decided)

    def respond(self, answered: Answered) -> web.Response:
        """The answer to a request that went well."""
        call = answered.call
        self.state.caller.keep(call, answered.output)
        return reply.success(call.route.operation, call.profile, answered.output, answered.answer)


def _is_old(request: web.BaseRequest, seconds: float) -> bool:
    """Whether the connection has reached its age, so that this answer is its last."""
    return request.transport is not None and connection_age(request.transport) >= seconds


def _port(request: web.BaseRequest) -> int:
    name = request.transport.get_extra_info("sockname") if request.transport else None
    return int(name[1]) if name else 0
