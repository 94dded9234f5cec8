"""The pipeline: one request from the TLS connection to the answer, in ten steps."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from aiohttp import HttpVersion10, web
from cryptography import x509
from structlog.contextvars import bound_contextvars

from estgw import reply
from estgw.auth import http, identity, pop
from estgw.auth.identity import Client, Trust
from estgw.auth.pop import POP
from estgw.auth.requirements import authenticate
from estgw.callout.call import Call
from estgw.errors import (
    BadRequest,
    Forbidden,
    HandlerFailed,
    Malformed,
    NotFound,
    RequestError,
    RequestTimedOut,
    TooLarge,
)
from estgw.est import certs, names, operations
from estgw.est import csr as csrs
from estgw.est.binding import Binding
from estgw.est.csr import CSR
from estgw.est.operations import Profile
from estgw.logs import log, new_request_id
from estgw.services import Route, Service
from estgw.state import State
from estgw.tls.info import tls_info

Entry = dict[str, Any]
"""What the access line will say; the steps add to it as they learn."""


class App:
    """The HTTP side of the gateway; `state` is replaced whole on reload."""

    def __init__(self, state: State) -> None:
        self.state = state

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request: always an answer, always one access line."""
        state, started, request_id = self.state, time.monotonic(), new_request_id()
        entry: Entry = {"method": request.method, "path": request.rel_url.raw_path[:200]}
        with bound_contextvars(request_id=request_id):
            try:
                response = await self._serve(state, request, request_id, entry)
            except RequestError as refusal:
                entry["reason"] = str(refusal)
                response = self._refuse(state, refusal, entry)
            except ConnectionError:
                log.info("client went away", **entry)
                raise
            except Exception:  # noqa: BLE001 - whatever it is, the client gets an answer and the log a traceback
                log.exception("unexpected error", **entry)
                response = self._refuse(state, HandlerFailed(reply.apology(request_id)), entry)
            if "Expect" in request.headers and not request.content.is_eof():
                # Nobody told this client to go on, so what comes next might be the body or a new request.
                response.force_close()
            milliseconds = round((time.monotonic() - started) * 1000, 1)
            log.info("request", status=response.status, ms=milliseconds, **entry)
            return response

    async def _serve(self, state: State, request: web.BaseRequest, request_id: str, entry: Entry) -> web.Response:
        client = self._identify(state, request, entry)
        service, route, profile = self._route(state, request, entry)
        body = await self._read_body(state, request, route)
        client = await self._authenticate(state, request, client, route, entry)
        csr, renewed = self._read_csr(client, route, body, entry)
        binding, linked = self._link(state, client, csr, entry)
        with tempfile.TemporaryDirectory(prefix="estgw-", ignore_cleanup_errors=True) as tmp_dir:
            limits = state.config.callouts
            call = Call(
                request_id=request_id,
                operation=route.operation,
                label=route.label,
                profile=profile,
                client=client,
                ca_dir=route.ca_dir,
                tmp_dir=Path(tmp_dir),
                timeout=route.timeout,
                search_path=limits.path,
                method=request.method,
                script_name=operations.decode_path(request.rel_url.raw_path),
                query=request.rel_url.raw_query_string,
                server_name=state.config.server.name,
                server_port=_port(request),
                content_type=request.headers.get("Content-Type"),
                body=body,
                headers={name: request.headers[name] for name in limits.pass_headers if name in request.headers},
                pass_credentials=route.pass_credentials,
                handler_env=route.handler_env,
                binding=binding,
                csr=csr,
                pop=linked,
                renewed=renewed,
            )
            for path, content in call.files():
                path.write_bytes(content)
            output = await state.caller.handle(route.handler, call, serialize=route.serialize)
        columns = _columns(request, service)
        answer = reply.to_wire(route, output, columns=columns, request_id=request_id, csr=csr)
        if answer.issued is not None:
            entry["serial"] = certs.serial_hex(answer.issued)
        return reply.success(route.operation, profile, output, answer)

    def _identify(self, state: State, request: web.BaseRequest, entry: Entry) -> Client:
        """Step 2: who is it?"""
        if request.transport is None:
            raise ConnectionResetError
        peer = request.transport.get_extra_info("peername")
        try:
            tls = tls_info(request.transport)
        except ValueError:
            raise BadRequest("The TLS client certificate can't be read.") from None
        client = identity.identify(peer[:2], tls, state.anchors, state.config.client_auth.unknown_certificates)
        entry.update(peer=peer[0], tls=tls.version)
        if client.name is not None:
            entry["identity"] = client.name
        if tls.verify_error:
            entry["client_certificate"] = tls.verify_error
        return client

    def _route(self, state: State, request: web.BaseRequest, entry: Entry) -> tuple[Service, Route, Profile]:
        """Step 3: path, method and media type."""
        target = operations.resolve(request.rel_url.raw_path, state.labels, state.extra_operations)
        service = state.services[target.label]
        route = service.routes.get(target.operation)
        if route is None:
            raise NotFound(f"{target.operation} is not switched on here.")
        entry.update(operation=target.operation, **({"label": target.label} if target.label else {}))
        operations.check_method(route.operation, request.method)
        content_type = request.headers.get("Content-Type")
        profile = operations.profile_of(target, content_type, service.profile)
        operations.check_media_type(route.operation, content_type, profile)
        return service, route, profile

    async def _read_body(self, state: State, request: web.BaseRequest, route: Route) -> bytes:
        """Step 4: the body, before any 401, so that the connection and its channel binding survive."""
        if not route.operation.takes_body:
            return b""
        limit = state.config.server.max_body
        too_large = TooLarge(f"The body is larger than {limit} bytes.")
        if (request.content_length or 0) > limit:
            raise too_large
        if request.headers.get("Expect", "").lower() == "100-continue" and request.version > HttpVersion10:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # aiohttp takes any output for the beginning of the answer
        body = bytearray()
        try:
            async with asyncio.timeout(state.config.server.body_timeout):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limit:
                        raise too_large
        except TimeoutError:
            raise RequestTimedOut("The body took too long to arrive.") from None
        except web.RequestPayloadError as fault:
            raise BadRequest("The body's framing is broken.", log=f"body: {fault}") from None
        return bytes(body)

    async def _authenticate(
        self, state: State, request: web.BaseRequest, client: Client, route: Route, entry: Entry
    ) -> Client:
        """Step 5: HTTP credentials, and what the operation requires."""
        headers = request.headers.getall("Authorization", [])
        client = await authenticate(client, headers, route.requires, state.users)
        if client.user is not None:
            entry["user"] = client.user
            entry.setdefault("identity", client.user)
        return client

    def _read_csr(
        self, client: Client, route: Route, body: bytes, entry: Entry
    ) -> tuple[CSR | None, x509.Certificate | None]:
        """Step 6: decode the CSR, check its signature, and on reenroll its names."""
        operation = route.operation
        if not operation.has_csr:
            return None, None
        try:
            csr = csrs.parse(body)
            entry["subject"] = names.dn_text(csr.subject)[:500]
            csrs.require_subject(csr)
            if operation.proves_key:
                csrs.verify(csr)
        except Malformed as fault:
            raise BadRequest(_sentence(fault)) from None
        return csr, self._renewed(client, csr) if operation.renews else None

    def _renewed(self, client: Client, csr: CSR) -> x509.Certificate:
        """The certificate that a reenroll renews: the client's own, with the same names (RFC 7030 4.2.2)."""
        if client.certificate is None or client.trust is Trust.NONE:
            raise Forbidden("A reenroll renews the certificate that the client presents in TLS; there was none.")
        if difference := csrs.difference(csr, client.certificate):
            raise Forbidden(f"A reenroll keeps subject and subject alternative name: {difference}.")
        return client.certificate

    def _link(self, state: State, client: Client, csr: CSR | None, entry: Entry) -> tuple[Binding | None, POP | None]:
        """Step 7: does the CSR belong to this TLS connection?"""
        binding = pop.binding_in_force(client.tls, state.config.pop.tls13)
        if csr is None:
            return binding, None
        try:
            linked = pop.link(csr, binding, client.tls.version)
        except Malformed as fault:
            raise BadRequest(_sentence(fault)) from None
        entry["pop"] = linked.value
        return binding, linked

    def _refuse(self, state: State, error: RequestError, entry: Entry) -> web.Response:
        challenges = [http.basic_challenge(state.config.client_auth.realm)] if state.users else []
        return reply.refusal(error, operation=entry.get("operation"), challenges=challenges)


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


def _sentence(fault: Exception) -> str:
    text = str(fault)
    return f"{text[:1].upper()}{text[1:]}."
