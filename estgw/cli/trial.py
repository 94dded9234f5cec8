"""One handler, alone, as the gateway would run it: a script author's loop without a client."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from aiohttp import web
from cryptography import x509

from estgw.auth.http import Credentials
from estgw.auth.identity import Client, identify
from estgw.auth.pop import POP
from estgw.callout import contract, process, shortage
from estgw.callout.call import Call
from estgw.callout.process import CouldNotStart, Limits, Outcome
from estgw.config.routes import Route, search_path
from estgw.errors import BadRequest, ConfigError, HandlerFailed, Malformed, RequestError, Unavailable, apology
from estgw.est import certs
from estgw.est import csr as csrs
from estgw.est.binding import EXPORTER_LENGTH, Binding, BindingType
from estgw.est.csr import CSR
from estgw.est.operations import Profile
from estgw.gateway import renewal, reply, state
from estgw.gateway.state import State
from estgw.logs import new_request_id, stderr_lines
from estgw.tls.info import TLSInfo, Verdict


@dataclass(frozen=True)
class Trial:
    """What somebody wants to try: an operation and who asks for it."""

    operation: str
    label: str | None = None
    csr_file: Path | None = None
    client_certificate: Path | None = None
    user: str | None = None


@dataclass(frozen=True)
class Report:
    """What came of it."""

    response: web.Response
    stderr: list[str]
    reason: str | None
    """Why it failed, in the words of the log."""


def load_state(config_file: Path) -> State:
    """The state of a gateway; raises `ConfigError`."""
    return state.load(config_file)


async def prepare(gateway: State, trial: Trial, directory: Path) -> tuple[Route, Call]:
    """Make the call that a request of this kind would make, with its files in `directory` (0700).

    Raises `ConfigError` for a label or operation that is not served, or a file that can't be read, and a
    `RequestError` for what the gateway would refuse before any script runs.
    """
    service = gateway.services.get(trial.label)
    route = service.routes.get(trial.operation) if service else None
    if route is None:
        served = ", ".join(gateway.services[None].routes)
        where = f" under the label {trial.label}" if trial.label else ""
        raise ConfigError([f"{trial.operation}: not served{where}; there are: {served}"])
    client = _client(gateway, trial)
    body, csr = b"", None
    if route.operation.takes_body:
        if trial.csr_file is None:
            raise ConfigError([f"{trial.operation} takes a CSR: --csr FILE"])
        body = _read(trial.csr_file)
    if route.operation.has_csr:
        csr = _csr(body, route)
    renewed = await renewal.renewed_certificate(client, csr, route) if csr and route.operation.renews else None
    call = Call(
        request_id=new_request_id(),
        operation=route.operation,
        label=route.label,
        profile=Profile.RFC,
        client=client,
        ca_dir=route.ca_dir,
        tmp_dir=directory,
        timeout=route.timeout,
        search_path=search_path(gateway.config),
        method=route.operation.method,
        script_name="/.well-known/est/" + "/".join(part for part in (trial.label, trial.operation) if part),
        query="",
        server_name=gateway.config.server.name,
        server_port=8443,
        content_type=route.operation.request_types[0] if route.operation.request_types else None,
        body=body,
        handler_env=route.handler_env,
        binding=client.tls.bindings[BindingType.TLS_EXPORTER],
        csr=csr,
        new_names=renewal.new_names(client, csr, route) if csr else None,
        pop_required=gateway.pop.announces(client, route.label),
        # A CSR that carries a binding is taken at its word: there is no connection to compare it with.
        pop=None if csr is None else POP.LINKED if csr.text_attribute(csrs.CHALLENGE_PASSWORD) else POP.ABSENT,
        renewed=renewed,
        inner=gateway.inner_rules(route, client) if route.operation.holds_requests else None,
    )
    if csr is not None:
        gateway.check_template(route, csr, call.new_names)
    for path, content in call.files():
        path.write_bytes(content)
    return route, call


async def run(gateway: State, trial: Trial, directory: Path) -> Report:
    """Run the handler and judge its end; raises `ConfigError` as `prepare` does.

    What the gateway would refuse before any script runs becomes a report, too.
    """
    stderr: list[str] = []
    try:
        route, call = await prepare(gateway, trial, directory)
        outcome = await _run(gateway, route, call)
        stderr = stderr_lines(outcome.stderr, truncated=outcome.stderr_truncated)
        output = gateway.caller.judge_handler(route.handler, call, outcome)
        answer = reply.to_wire(route, output, call, columns=64, linking_attribute=gateway.config.pop.attribute)
    except RequestError as error:
        return Report(reply.refusal(error, operation=trial.operation, challenges=[]), stderr, str(error))
    return Report(reply.success(route.operation, Profile.RFC, output, answer), stderr, None)


async def _run(gateway: State, route: Route, call: Call) -> Outcome:
    limits = gateway.config.callouts
    bounds = Limits(call.timeout, limits.max_stdout, limits.max_stderr, limits.max_file)
    try:
        return await process.run(route.handler, contract.environment(call), call.body, bounds)
    except CouldNotStart as fault:
        if short := shortage.words(fault):
            raise Unavailable(shortage.PUBLIC, retry_after=gateway.config.callouts.retry_after, log=short) from None
        raise HandlerFailed(apology(call.request_id), log=f"could not start {fault}") from None


def _csr(body: bytes, route: Route) -> CSR:
    try:
        csr = csrs.parse(body)
        state.check_csr(csr, route)
    except Malformed as fault:
        raise BadRequest(fault.sentence) from None
    return csr


def _client(gateway: State, trial: Trial) -> Client:
    certificate = _certificate(trial.client_certificate) if trial.client_certificate else None
    verdict = gateway.context.rehearsal.verdict([certificate]) if certificate else Verdict((), None)
    exporter = Binding(BindingType.TLS_EXPORTER, secrets.token_bytes(EXPORTER_LENGTH))
    tls = TLSInfo(
        version="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        server_name=gateway.config.server.name,
        certificate=certificate,
        verified_chain=verdict.chain,
        verify_error=verdict.error,
        bindings={exporter.type: exporter},
    )
    client = identify(("127.0.0.1", 40000), tls, gateway.anchors, gateway.config.client_auth.unknown_certificates)
    if trial.user is None:
        return client
    return replace(client, user=trial.user, claimed=Credentials("Basic", trial.user, ""))


def _certificate(path: Path) -> x509.Certificate:
    found = certs.load_pem(_read(path))
    if not found:
        raise ConfigError([f"{path}: no certificate in it"])
    return found[0]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise ConfigError([f"{path}: {fault.strerror}"]) from None
