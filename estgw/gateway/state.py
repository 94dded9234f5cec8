"""Everything that one reading of the configuration amounts to; a reload makes a new one and swaps it in whole."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from estgw.auth import digest as digests
from estgw.auth import users
from estgw.auth.digest import Digest, Nonces
from estgw.auth.identity import Anchors
from estgw.auth.passwords import Passwords
from estgw.auth.pop_rules import Rules
from estgw.auth.users import Users
from estgw.callout import runners
from estgw.callout.caller import Caller, CalloutLimits
from estgw.callout.named_locks import NamedLocks
from estgw.callout.pool import Pool
from estgw.callout.runners import Runners
from estgw.callout.slots import Slots
from estgw.callout.warm import Warm
from estgw.config import routes
from estgw.config.model import Config
from estgw.config.route import Route
from estgw.errors import ConfigError, Malformed, spread
from estgw.est import certs
from estgw.est.template_check import TemplateCheck
from estgw.gateway.labels import Faults, Snapshot, out_of_service
from estgw.gateway.worker_share import ALONE, WorkerShare
from estgw.record import folder as folder_of_records
from estgw.tls.adapter import TLSContext
from estgw.tls.context import TLSSettings, server_context

FULL_CMC = "estgw.cmc_service.service"
"""What fullcmc imports.  It would take longer in each child than all else that the script does."""
POSTGRESQL = "estgw.register.postgresql"
"""What a register in PostgreSQL needs.  Its import starts programs, as ctypes looks for a library, so a worker of the
pool that did it would be replaced after each request."""


@dataclass(frozen=True)
class ProcessResources:
    """What a gateway process has for all its life, however often it reads its configuration."""

    warm: Warm = field(default_factory=Warm)
    locks: NamedLocks = field(default_factory=NamedLocks)
    share: WorkerShare = ALONE
    nonces: Nonces = field(default_factory=Nonces)
    """Used counts stay used over a reload, and a client may answer after it the challenge from before."""


@dataclass(frozen=True)
class State:
    """What requests are served with.  A request keeps the state it began with."""

    config: Config
    services: Mapping[str | None, routes.Service]
    labels: frozenset[str]
    extra_operations: frozenset[str]
    anchors: Anchors
    passwords: Passwords
    pop: Rules
    template_checks: Mapping[Path, TemplateCheck]
    """What `csr_template` files insist on."""
    label_faults: Faults
    """The labels that are out of service, and why."""
    context: TLSContext
    caller: Caller
    share: WorkerShare

    def require_in_service(self, label: str | None) -> None:
        """Raise `Unavailable` for a label with faults."""
        if found := self.label_faults.get(label):
            raise out_of_service(label, found, spread(self.config.callouts.retry_after))


def load(path: Path, resources: ProcessResources | None = None, snapshot: Snapshot | None = None) -> State:
    """Read the configuration and every file that it names.

    Raises `ConfigError` with all that is wrong.  A fault of some labels is none, as they are only taken out of service;
    but one that all labels have is.

    `resources` is of the process that will serve it.  Its warm parent is started when a script is to be run by it, and
    before a private key is read; without one, as in the commands that run nothing or one script, there is only exec.
    `snapshot` takes the place of conf.yaml and of what the checks of its labels find now.
    """
    snapshot = snapshot or Snapshot.take(path)
    settings = snapshot.settings
    share = resources.share if resources else ALONE
    faults: list[str] = []
    services = routes.build(settings)
    served = [route for route in routes.routes(services) if route.label in snapshot.in_service]
    caller = _caller(settings, served, resources, path.absolute().parent, faults)
    explicit = _certificates(settings.client_auth.explicit, faults)
    implicit = _certificates(settings.client_auth.implicit, faults)
    crls = _crls(settings.client_auth.crls, faults)
    passwords = _passwords(settings, resources.nonces if resources else Nonces(), faults)
    context = _context(settings, (*explicit, *implicit), crls, faults)
    faults += folder_of_records.faults(settings.record.dir) if settings.record.dir else []
    if faults or context is None or not snapshot.in_service:
        raise ConfigError(faults + snapshot.sentences())
    return State(
        config=settings,
        services=services,
        labels=frozenset(settings.labels),
        extra_operations=frozenset(
            name for service in services.values() for name, route in service.routes.items() if route.is_new
        ),
        anchors=Anchors(explicit, implicit),
        passwords=passwords,
        pop=Rules(settings.pop.rules, settings.pop.default),
        template_checks=snapshot.template_checks(),
        label_faults=snapshot.faults,
        context=context,
        caller=caller,
        share=share,
    )


def _preloaded(routes: Iterable[Route]) -> list[str]:
    """The modules that scripts of these routes import besides those of all scripts."""
    found = [FULL_CMC] if any(route.operation.holds_requests for route in routes) else []
    return [*found, POSTGRESQL] if any(route.register for route in routes) else found


def _caller(
    settings: Config, routes: Iterable[Route], resources: ProcessResources | None, folder: Path, faults: list[str]
) -> Caller:
    limits = settings.callouts
    asked = {(route.runner, route.handler) for route in routes}
    asked |= {(route.decision_runner, script) for route in routes for script in route.decisions}
    if resources is not None and any(runners.needs_warm(runner, script) for runner, script in asked):
        try:
            resources.warm.start(_preloaded(routes))
        except OSError as fault:
            faults.append(f"{sys.executable}: {fault.strerror}")
    allowed = CalloutLimits(limits.max_stdout, limits.max_stderr, limits.retry_after, limits.max_file)
    if resources is None:
        return Caller(Slots(limits.max_running, limits.max_waiting), allowed)
    part = resources.share.part
    slots = Slots(part(limits.max_running), part(limits.max_waiting), resources.locks)
    pool = Pool(resources.warm, part(limits.pool_size), limits.pool_requests)
    return Caller(slots, allowed, Runners.warm(resources.warm, pool, folder))


def _certificates(paths: Iterable[Path], faults: list[str]) -> list[x509.Certificate]:
    found: list[x509.Certificate] = []
    for path in paths:
        try:
            here = certs.load_pem(path.read_bytes())
        except OSError as fault:
            maker = path.parent / "create-ca"
            hint = f"; make a CA with: {maker}" if isinstance(fault, FileNotFoundError) and maker.exists() else ""
            faults.append(f"{path}: {fault.strerror}{hint}")
        except Malformed as fault:
            faults.append(f"{path}: {fault}")
        else:
            found += here
            if not here:
                faults.append(f"{path}: no certificate in it")
    return found


def _crls(paths: Iterable[Path], faults: list[str]) -> list[x509.CertificateRevocationList]:
    found: list[x509.CertificateRevocationList] = []
    for path in paths:
        try:
            found += certs.load_crls_pem(path.read_bytes())
        except OSError as fault:
            faults.append(f"{path}: {fault.strerror}")
        except Malformed as fault:
            faults.append(f"{path}: {fault}")
    return found


def _passwords(settings: Config, nonces: Nonces, faults: list[str]) -> Passwords:
    asked = settings.client_auth
    known: Users | None = None
    digest: Digest | None = None
    if asked.users is not None:
        try:
            known = users.load(asked.users, remember=asked.remember)
        except ConfigError as refusal:
            faults += refusal.faults
    if asked.digest_users is not None:
        try:
            hashes = digests.load(asked.digest_users, asked.realm)
            digest = Digest(asked.realm, asked.digest, hashes, nonces, asked.nonce_age)
        except ConfigError as refusal:
            faults += refusal.faults
    return Passwords(asked.realm, known, digest)


def _context(
    settings: Config,
    anchors: tuple[x509.Certificate, ...],
    crls: list[x509.CertificateRevocationList],
    faults: list[str],
) -> TLSContext | None:
    try:
        return server_context(
            TLSSettings(
                certificate=settings.tls.certificate,
                key=settings.tls.key,
                minimum=settings.tls.minimum,
                maximum=settings.tls.maximum,
                anchors=anchors,
                crls=tuple(crls),
                reject_unknown=settings.client_auth.unknown_certificates == "reject",
            )
        )
    except ConfigError as refusal:
        faults += refusal.faults
        return None
