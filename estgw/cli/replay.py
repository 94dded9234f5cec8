"""A recorded request once more, with the configuration and the scripts of today; nothing is issued."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from estgw.auth import requirements
from estgw.auth.credentials import Credentials
from estgw.auth.identity import Client, identify
from estgw.callout.call import Call, ExchangeFacts, HTTPFacts
from estgw.callout.caller import Caller, CalloutLimits
from estgw.callout.observer import Ran
from estgw.callout.runners import Runners
from estgw.callout.slots import Slots
from estgw.cli.offline import OF_THE_CA, Offline, known_certificates
from estgw.cli.sandbox import Sandbox
from estgw.errors import NoLongerTrusted, RequestError, Unauthenticated
from estgw.est import zeroing
from estgw.est.operations import Requires
from estgw.gateway import reply, request, taping
from estgw.gateway.request import Found
from estgw.gateway.state import State
from estgw.logs import new_request_id
from estgw.record import build
from estgw.record.digests import Digests
from estgw.record.draft import draft
from estgw.record.gates import Gate
from estgw.record.origin import Origin
from estgw.record.ring import Record
from estgw.record.tape import Connection, Head, Tape


@dataclass(frozen=True)
class Changes:
    """What is tried in place of the configured scripts."""

    handler: Path | None = None
    authorize: Path | None = None


@dataclass(frozen=True)
class Place:
    """Where the scripts of a replay work."""

    directory: Path
    """What the scripts share (0700)."""
    copy: Path | None
    """The copy of the CA's directory; None: they work on the CA itself."""
    config_file: Path


@dataclass
class _Tape(Tape):
    """A tape on which no certificate has a usable signature."""

    known: Collection[bytes] = ()
    """The DER of the CA's own certificates, which stay as they are."""
    zeroes: bool = True

    def callout(self, ran: Ran) -> None:
        """Take note of a callout, without signatures."""
        outcome, call = ran.outcome, self.call
        if outcome is not None and self.zeroes and not (call and call.route.operation.body in OF_THE_CA):
            stderr = zeroing.without_certificates(outcome.stderr.decode("utf-8", "surrogateescape"))
            outcome = replace(
                outcome,
                stdout=zeroing.without_signatures(outcome.stdout, self.known),
                stderr=stderr.encode("utf-8", "surrogateescape"),
            )
        super().callout(ran._replace(outcome=outcome))


class Replay(Offline):
    """One recorded request: its facts come from the record.

    The verified user and the channel binding are believed.  The present configuration judges everything else: whether
    the certificate is trusted, what the operation requires, the CSR and its template, and the rules of `pop`.
    """

    def __init__(self, gateway: State, origin: Origin, place: Place, changes: Changes) -> None:
        super().__init__(gateway, place.directory, place.copy)
        self.origin = origin
        self.changes = changes
        self.request_id = new_request_id()
        self.entry.update(method=origin.method, path=origin.target.partition("?")[0])
        connection = Connection(0, 0, origin.address, origin.port, time.time())
        head = Head(origin.method, origin.target, headers=origin.headers, length=len(origin.body))
        self.tape: _Tape = _Tape(self.request_id, connection, head, "replay", origin.id, zeroes=place.copy is not None)
        self.tape.enter(Gate.TLS)

    def identify(self) -> Client:
        """The client of the recorded connection, as far as the present anchors and CRLs trust it."""
        tls = self.origin.tls
        if tls.certificate is not None:
            verdict = self.state.context.rehearsal.verdict([tls.certificate, *tls.chain])
            tls = replace(tls, verified_chain=verdict.chain, verify_error=verdict.error)
        unknown = self.state.config.client_auth.unknown_certificates
        client = identify((self.origin.address, self.origin.port), tls, self.state.anchors, unknown)
        self.tape.identified(tls, client)
        if unknown == "reject" and tls.certificate is not None and tls.verify_error:
            raise NoLongerTrusted(f"Your TLS client certificate is no longer accepted here: {tls.verify_error}.")
        return client

    def http(self) -> HTTPFacts:
        """The recorded head, without the headers whose values were secrets."""
        raw_path, _, query = self.origin.target.partition("?")
        return HTTPFacts(
            method=self.origin.method,
            target=self.origin.target,
            raw_path=raw_path,
            query=query,
            headers=self.origin.headers,
            server_name=self.state.config.server.name,
            server_port=8443,
        )

    def find_route(self, http: HTTPFacts) -> Found:
        """The route, with the scripts that are tried."""
        found = super().find_route(http)
        if self.copy is not None:
            self.tape.known = known_certificates(self.copy)
        handler = self.changes.handler or found.route.handler
        authorize = self.changes.authorize or found.route.authorize
        return replace(found, route=replace(found.route, handler=handler, authorize=authorize))

    async def read_body(self) -> bytes:
        """The recorded body, up to the present limit."""
        limit = self.state.config.server.max_body
        if len(self.origin.body) > limit:
            raise request.too_large(limit)
        self.tape.arrived = time.monotonic()
        return self.origin.body

    def exchange(self) -> ExchangeFacts:
        """The id of the replay, and its directory."""
        return ExchangeFacts(self.request_id, self.directory, self.tape, is_replay=self.copy is not None)

    async def authenticate(self, call: Call) -> Call:
        """Believe the record about the password, and hold that against what the operation requires now."""
        origin, client = self.origin, call.client
        if origin.refused is not None and call.route.requires is not Requires.NONE:
            raise _refusal(origin.refused.status, origin.refused.reason)
        if origin.scheme is not None:
            client = replace(client, claimed=Credentials(origin.scheme, origin.user or ""))
        if origin.is_verified and call.route.requires is not Requires.NONE:
            client = client.with_user(origin.user or "")
        call = self.enter(Gate.REQUIRES, replace(call, client=client))
        requirements.require(client, call.route.requires)
        return call


def _refusal(status: int, reason: str) -> RequestError:
    """The refusal that a record has, without its words for the client, which that did not get in a 401 either."""
    error = Unauthenticated(log=reason) if status == 401 else RequestError("", log=reason)
    error.status = status
    return error


@dataclass(frozen=True)
class Replayed:
    """What came of a replay."""

    record: Record
    """Of kind `replay`."""
    stderr: list[str] = field(default_factory=list)


async def replay(gateway: State, origin: Origin, place: Place, changes: Changes) -> Replayed:
    """Replay one request."""
    attempt = Replay(gateway, origin, place, changes)
    try:
        done = await attempt.serve()
    except RequestError as error:
        response = attempt.refuse(error)
        taping.explain(attempt, str(error), None)
    else:
        response = reply.success(done.call.route.operation, done.call.profile, done.output, done.answer)
        if response.status >= 400:
            taping.explain(attempt, taping.SAID_BY_THE_ANSWER, None)
    tape = attempt.tape
    tape.label, tape.operation = attempt.entry.get("label"), attempt.entry.get("operation")
    folder = place.config_file.absolute().parent
    made = draft(tape, taping.verdict(attempt, response), Digests(folder))
    made.values["auth"]["scheme"] = origin.scheme  # the header with the password is in no record
    stderr = attempt.stderr
    if place.copy is not None:
        stderr = zeroing.without_certificates("\n".join(stderr)).splitlines()
    return Replayed(build.record(made), stderr)


def confined(gateway: State, bwrap: Path, place: Place) -> State:
    """The same state with scripts in a sandbox."""
    assert place.copy is not None
    box = Sandbox(bwrap, place.directory.parent, (place.copy, place.directory))
    limits = gateway.config.callouts
    allowed = CalloutLimits(limits.max_stdout, limits.max_stderr, limits.retry_after, limits.max_file)
    slots = Slots(limits.max_running, limits.max_waiting)
    return replace(gateway, caller=Caller(slots, allowed, Runners({"exec": box})))
