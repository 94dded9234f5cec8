"""One request without a client: what the gateway would make of it, for the author of a script."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aiohttp import web
from cryptography import x509

from estgw.auth import requirements
from estgw.auth.credentials import Credentials
from estgw.auth.identity import Client, identify
from estgw.auth.pop import LINKING_ATTRIBUTES, POP
from estgw.callout import cgi, scratch
from estgw.callout.call import Call, ExchangeFacts, HTTPFacts
from estgw.callout.verdicts import Kind
from estgw.cli.offline import Offline
from estgw.config.route import Route
from estgw.errors import BadRequest, ConfigError, Malformed, RequestError
from estgw.est import certs, zeroing
from estgw.est.binding import EXPORTER_LENGTH, Binding, BindingType
from estgw.est.operations import PREFIX, Requires
from estgw.gateway import reply, request, state, taping
from estgw.gateway.state import State
from estgw.logs import new_request_id
from estgw.record.gates import Gate
from estgw.tls.info import TLSInfo, Verdict

BINDINGS = (BindingType.TLS_EXPORTER, BindingType.TLS13_FINISHED)


@dataclass(frozen=True)
class Trial:
    """What somebody wants to try: an operation, and who asks for it."""

    operation: str
    label: str | None = None
    csr_file: Path | None = None
    client_certificate: Path | None = None
    user: str | None = None
    anonymous_ok: bool = False
    """Whether the request goes on without the authentication that the operation requires."""
    handler_only: bool = False
    """Whether `authorize` is left out."""
    decision: Kind | None = None
    """The decision script that is run alone, about a request for this operation."""
    password: str = ""
    """What `authenticate` is asked about."""


@dataclass(frozen=True)
class Report:
    """What came of it."""

    response: web.Response
    stderr: list[str]
    reason: str | None = None
    """Why it failed, in the words of the log."""
    hint: str | None = None
    """What to do next about that."""
    issued: Sequence[x509.Certificate] = ()
    """The certificates in the answer that were not in the CA's own files before."""


def load_state(config_file: Path) -> State:
    """The state of a gateway; raises `ConfigError`."""
    return state.load(config_file)


async def prepare(gateway: State, trial: Trial, directory: Path) -> Call:
    """The call that the handler would get, with its files in `directory` (0700); no script is run.

    Raises `ConfigError` for a label or operation that is not served, or a file that can't be read, and a
    `RequestError` for what the gateway would refuse before any script runs.
    """
    attempt = _Preparation(gateway, trial, directory)
    try:
        await attempt.serve()
    except _Stopped as stopped:
        return stopped.call
    raise AssertionError("a preparation ends at its handler")


async def run(gateway: State, trial: Trial, directory: Path, copy: Path | None = None) -> Report:
    """Run the scripts of a request and judge their ends; raises `ConfigError` as `prepare` does.

    A refusal becomes a report, too.  With a `copy` of the CA's directory it is a dry run: the scripts work on that, and
    the signature of each certificate that they print is zeroed.
    """
    attempt = Attempt(gateway, trial, directory, copy)
    try:
        done = await attempt.serve()
    except RequestError as error:
        return attempt.refusal(error)
    answer = reply.success(done.call.route.operation, done.call.profile, done.output, done.answer)
    return attempt.report(answer)


async def decide(gateway: State, trial: Trial, directory: Path, copy: Path | None = None) -> Report:
    """Run the decision script of a trial alone; a yes is a response with status 200 and nothing else.

    Raises `ConfigError` as `prepare` does, and where no such script is configured.
    """
    attempt = _Decision(gateway, trial, directory, copy)
    try:
        await attempt.serve()
    except _Stopped:
        return attempt.report(web.Response(status=200))
    except RequestError as error:
        return attempt.refusal(error)
    raise AssertionError("a decision ends before its handler")


class Attempt(Offline):
    """One request of `estgw run`: its facts come from the command line."""

    def __init__(self, gateway: State, trial: Trial, directory: Path, copy: Path | None = None) -> None:
        super().__init__(gateway, directory, copy)
        self.trial = trial
        self.served = served(gateway, trial)
        path = "/".join(part for part in (PREFIX, trial.label, trial.operation) if part)
        self.entry.update(method=self.served.operation.method, path=path)

    def report(self, response: web.Response, reason: str | None = None) -> Report:
        """What came of it; a dry run shows no certificate in words either."""
        if self.copy is not None:
            self.stderr = zeroing.without_certificates("\n".join(self.stderr)).splitlines()
            reason = None if reason is None else zeroing.without_certificates(reason)
        return Report(response, self.stderr, reason, self.entry.get("hint"), self.made)

    def refusal(self, error: RequestError) -> Report:
        """The report of a request that was refused."""
        taping.explain(self, str(error), None)
        return self.report(self.refuse(error), str(error))

    def identify(self) -> Client:
        """The client of a connection over TLS 1.3 with the certificate given."""
        path = self.trial.client_certificate
        certificate = _certificate(path) if path else None
        verdict = self.state.context.rehearsal.verdict([certificate]) if certificate else Verdict((), None)
        bindings = {kind: Binding(kind, secrets.token_bytes(EXPORTER_LENGTH)) for kind in BINDINGS}
        tls = TLSInfo(
            version="TLSv1.3",
            cipher="TLS_AES_256_GCM_SHA384",
            server_name=self.state.config.server.name,
            certificate=certificate,
            verified_chain=verdict.chain,
            verify_error=verdict.error,
            bindings=bindings,
        )
        unknown = self.state.config.client_auth.unknown_certificates
        return identify(("127.0.0.1", 40000), tls, self.state.anchors, unknown)

    def http(self) -> HTTPFacts:
        """The head of the request that a plain client would send."""
        types = self.served.operation.request_types
        return HTTPFacts(
            method=self.entry["method"],
            target=self.entry["path"],
            raw_path=self.entry["path"],
            headers=[("Content-Type", types[0])] if types else [],
            server_name=self.state.config.server.name,
            server_port=8443,
        )

    async def read_body(self) -> bytes:
        """The file with the request, up to the gateway's limit."""
        if self.trial.csr_file is None:
            raise ConfigError([f"{self.trial.operation} takes a request: --csr FILE"])
        limit = self.state.config.server.max_body
        content = _read(self.trial.csr_file, limit + 1)
        if len(content) > limit:
            raise request.too_large(limit)
        return content

    def exchange(self) -> ExchangeFacts:
        """A new id, and the directory of this trial."""
        return ExchangeFacts(new_request_id(), self.directory, is_replay=self.copy is not None)

    async def authenticate(self, call: Call) -> Call:
        """Take the user at its word, and hold that against what the operation requires."""
        client, user = call.client, self.trial.user
        if user is not None:
            client = replace(client, claimed=Credentials("Basic", user, ""))
            if call.route.requires is not Requires.NONE:
                client = client.with_user(user)
        call = self.enter(Gate.REQUIRES, replace(call, client=client))
        if not self.trial.anonymous_ok:
            requirements.require(client, call.route.requires)
        return call

    def link(self, call: Call) -> Call:
        """Take a binding that a CSR carries at its word: there is no connection to compare it with."""
        if call.csr is None or call.channel.binding is None:
            return super().link(call)
        try:
            claims = [call.csr.pkcs10.text_attribute(oid) for oid in LINKING_ATTRIBUTES]
        except Malformed as fault:
            raise BadRequest(fault.sentence) from None
        if not any(claims):
            return super().link(call)
        return replace(call, csr=replace(call.csr, pop=POP.LINKED))

    async def authorize(self, call: Call) -> None:
        """Ask `authorize`, unless the handler alone is wanted."""
        if not self.trial.handler_only:
            await super().authorize(call)


class _Stopped(Exception):
    """The end of what does not go on to the handler."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call


class _Preparation(Attempt):
    """An attempt that ends where the handler would begin; `authorize` is not asked."""

    async def authorize(self, call: Call) -> None:
        pass

    async def handle(self, call: Call) -> cgi.Output:
        scratch.lay_out(call)
        raise _Stopped(call)


class _Decision(Attempt):
    """An attempt that asks one decision script and no other."""

    def __init__(self, gateway: State, trial: Trial, directory: Path, copy: Path | None = None) -> None:
        super().__init__(gateway, trial, directory, copy)
        assert trial.decision is not None
        self.kind = trial.decision
        script = self.served.authorize if self.kind is Kind.AUTHORIZE else self.served.authenticate
        if script is None:
            raise ConfigError([f"{self.kind.value}: no such script is configured for {trial.operation}"])

    async def read_body(self) -> bytes:
        """Who the client is can be asked without a request, too."""
        is_optional = self.kind is Kind.AUTHENTICATE and self.trial.csr_file is None
        return b"" if is_optional else await super().read_body()

    async def authenticate(self, call: Call) -> Call:
        """Ask `authenticate`, if that is the one."""
        if self.kind is not Kind.AUTHENTICATE:
            return await super().authenticate(call)
        claimed = Credentials("Basic", self.trial.user or "", self.trial.password)
        await self._ask(replace(call, client=replace(call.client, claimed=claimed)))
        raise AssertionError("a decision that is made ends it")

    async def authorize(self, call: Call) -> None:
        """Ask `authorize`."""
        await self._ask(call)

    async def _ask(self, call: Call) -> None:
        call = replace(call, kind=self.kind)
        await self.decide(call)
        raise _Stopped(call)


def is_operation(gateway: State, trial: Trial) -> bool:
    """Whether the label of a trial has an operation of this name."""
    service = gateway.services.get(trial.label)
    return service is not None and trial.operation in service.routes


def served(gateway: State, trial: Trial) -> Route:
    """The route of a trial; raises `ConfigError` with the labels or the operations that there are."""
    service = gateway.services.get(trial.label)
    if service is None:
        labels = ", ".join(sorted(gateway.labels)) or "none is configured"
        raise ConfigError([f"{trial.label}: no such label; there are: {labels}"])
    if faults := gateway.label_faults.get(trial.label):
        raise ConfigError(list(faults))
    route = service.routes.get(trial.operation)
    if route is None:
        where = f" under the label {trial.label}" if trial.label else ""
        raise ConfigError([f"{trial.operation}: not served{where}; there are: {', '.join(service.routes)}"])
    return route


def _certificate(path: Path) -> x509.Certificate:
    try:
        found = certs.load_pem(_read(path))
    except Malformed as fault:
        raise ConfigError([f"{path}: {fault}"]) from None
    if not found:
        raise ConfigError([f"{path}: no certificate in it"])
    return found[0]


def _read(path: Path, most: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as fault:
        raise ConfigError([f"{path}: {fault.strerror}"]) from None
