"""The pipeline: one request from the TLS connection to the answer, in ten steps.

The gateway and `estgw run` both go through it; they differ in where the HTTP facts, the identity and the channel
binding come from.  Step 1, the handshake, is over when a request arrives.  Authentication and POP come before any
script: a script never sees a request that cryptography has already refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, overload

from aiohttp import web
from cryptography import x509

from estgw.auth import pop
from estgw.auth.identity import Client
from estgw.callout import cgi
from estgw.callout.call import Call, ChannelFacts, CSRFacts, ExchangeFacts, HTTPFacts
from estgw.callout.verdicts import Kind
from estgw.config.route import Route
from estgw.errors import RequestError, StaleNonce, Unauthenticated
from estgw.est import certs, operations
from estgw.est.answers import Answer
from estgw.gateway import renewal, reply, request
from estgw.gateway.request import Found
from estgw.gateway.state import State
from estgw.record.gates import Gate
from estgw.record.tape import Tape


@dataclass(frozen=True)
class Answered:
    """A request that went well: the call of its handler, the handler's output, and the answer in wire form."""

    call: Call
    output: cgi.Output
    answer: Answer


class Pipeline(ABC):
    """One request, served with the state that it began with."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.entry: dict[str, Any] = {}
        """The fields of the request's log line; the steps add to it."""
        self.route: Route | None = None
        self.gate = Gate.TLS
        """The gate that the request has reached."""
        self.call: Call | None = None
        """The facts as that gate has them."""
        self.tape: Tape | None = None
        """Takes note of the request; None: nobody records it."""
        self.issued: x509.Certificate | None = None
        """The certificate in the answer."""

    async def serve(self) -> Answered:
        """Go through the steps.  Each adds facts to the call, or raises a `RequestError`."""
        client = self.identify()  # 2
        self.enter(Gate.PATH)
        http = self.http()
        found = self.find_route(http)  # 3
        if found.route.operation.takes_body:
            http = replace(http, body=await self.read_body())  # 4
        call = self.enter(Gate.PASSWORD, self.describe(found, client, http))
        call = await self.authenticate(call)  # 5, which enters Gate.REQUIRES
        call = await self.read_csr(self.enter(Gate.CSR, call))  # 6
        call = self.link(self.enter(Gate.LINKING, call))  # 7
        output = await self.run_scripts(self.enter(Gate.AUTHORIZE, call))  # 8 and 9
        return self.answer(found, call, output)  # 10

    @overload
    def enter(self, gate: Gate) -> None: ...

    @overload
    def enter(self, gate: Gate, call: Call, *, ago: float = 0.0) -> Call: ...

    def enter(self, gate: Gate, call: Call | None = None, *, ago: float = 0.0) -> Call | None:
        """The request has reached a gate, so many seconds ago, with the facts so far; returns these."""
        self.gate, self.call = gate, call
        if self.tape is not None:
            self.tape.enter(gate, call, ago)
        return call

    # The facts, which differ between the gateway and `estgw run`.

    @abstractmethod
    def identify(self) -> Client:
        """Step 2.  The client, as far as TLS can tell."""

    @abstractmethod
    def http(self) -> HTTPFacts:
        """The request's head."""

    @abstractmethod
    async def read_body(self) -> bytes:
        """Step 4.  The body; it comes before any 401, so that the connection and its channel binding survive."""

    @abstractmethod
    def exchange(self) -> ExchangeFacts:
        """The request's id, and where its private directory will be."""

    @abstractmethod
    async def authenticate(self, call: Call) -> Call:
        """Step 5.  HTTP credentials, then `enter(Gate.REQUIRES)` and what the operation requires."""

    # The steps that are the same for both.

    def find_route(self, http: HTTPFacts) -> Found:
        """Step 3.  Path, method and media type to label, operation and profile."""
        target = operations.resolve(http.raw_path, self.state.labels, self.state.extra_operations)
        self.entry["operation"] = target.operation
        if target.label:
            self.entry["label"] = target.label
        self.state.require_in_service(target.label)
        self.route = self.state.services[target.label].routes.get(target.operation)
        return request.find_route(target, self.state.services, http)

    def describe(self, found: Found, client: Client, http: HTTPFacts) -> Call:
        """The facts so far."""
        binding = pop.binding_in_force(client.tls, self.state.config.pop.tls13)
        channel = ChannelFacts(binding, self.state.pop.announces(client, found.route.label))
        return request.describe(self.exchange(), found.route, found.profile, client, http, channel)

    async def read_csr(self, call: Call) -> Call:
        """Step 6.  The CSR: decode it, check its signature, its names and the template, and what it renews."""
        route = call.route
        if not route.operation.has_csr:
            return call
        csr = request.read_csr(call.http.body)
        if self.tape is not None:
            self.tape.csr = csr
        self.entry["subject"] = csr.subject_text[:500]
        request.require_acceptable(csr, route)
        renewed = await renewal.renewed_certificate(call.client, csr, route) if route.operation.renews else None
        facts = CSRFacts(csr, renewed, request.new_names(call.client, csr, route))
        check = None if route.csr_template is None else self.state.template_checks[route.csr_template]
        request.require_template(facts, route, check)
        return replace(call, csr=facts)

    def link(self, call: Call) -> Call:
        """Step 7.  Linking identity and POP: does the CSR belong to this TLS connection?

        A handler of Full PKI Requests links the requests inside, by the rules of simpleenroll.
        """
        operation, label = call.route.operation, call.route.label
        if operation.holds_requests:
            linking = self.state.pop.linking(call.client, "simpleenroll", label)
            return replace(call, inner=request.inner_rules(call.route, linking))
        linking = self.state.pop.linking(call.client, operation.name, label)
        if self.tape is not None:
            self.tape.linking = linking
        call = request.link(call, linking, self.state.config.pop.attribute)
        if call.csr and call.csr.pop:
            self.entry["pop"] = call.csr.pop.value
        return call

    async def run_scripts(self, call: Call) -> cgi.Output:
        """Steps 8 and 9."""
        await self.authorize(call)
        return await self.handle(self.enter(Gate.HANDLER, call))

    async def authorize(self, call: Call) -> None:
        """Step 8.  Run `authorize`.  A handler of Full PKI Requests runs it for each request inside."""
        if call.route.authorize is not None and not call.route.operation.holds_requests:
            await self.decide(replace(call, kind=Kind.AUTHORIZE))

    async def decide(self, call: Call) -> None:
        """Ask a decision script; returns for yes."""
        await self.state.caller.decide(call)

    async def handle(self, call: Call) -> cgi.Output:
        """Step 9.  The operation's handler."""
        return await self.state.caller.handle(call)

    def answer(self, found: Found, call: Call, output: cgi.Output) -> Answered:
        """Step 10.  The form of the wire, validated."""
        columns = reply.columns(found.service.base64_lines, call.http)
        made = reply.to_wire(call, output, columns=columns, linking_attribute=self.state.config.pop.attribute)
        self.issued = made.issued
        if made.issued is not None:
            self.entry["serial"] = certs.serial_hex(made.issued)
        return Answered(call, output, made)

    def refuse(self, error: RequestError) -> web.Response:
        """The answer for an error; a 401 has the challenges of the route."""
        challenges = []
        if isinstance(error, Unauthenticated):
            basic_only = self.route is not None and self.route.authenticate is not None
            stale = isinstance(error, StaleNonce)
            challenges = self.state.passwords.challenges(basic_only=basic_only, stale=stale)
        # Without a route, at an unknown label for instance, the operation is the last segment of the path.
        operation = self.entry.get("operation") or self.entry["path"].rpartition("/")[2].lower()
        return reply.refusal(error, operation=operation, challenges=challenges)
