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
from estgw.callout import program, runners
from estgw.callout.caller import Caller, CalloutLimits
from estgw.callout.language import language
from estgw.callout.named_locks import NamedLocks
from estgw.callout.pool import Pool
from estgw.callout.runners import Runners
from estgw.callout.slots import Slots
from estgw.callout.warm import Warm
from estgw.config import csrattrs_yaml, model, routes
from estgw.config.model import Config
from estgw.config.route import Route
from estgw.errors import ConfigError, Malformed
from estgw.est import certs
from estgw.est.encoding import pem_blocks
from estgw.est.template_check import TemplateCheck
from estgw.gateway.worker_share import ALONE, WorkerShare
from estgw.tls.adapter import TLSContext
from estgw.tls.context import TLSSettings, server_context

_CRL = "X509 CRL"
FULL_CMC = "estgw.cmc_service.service"
"""What fullcmc imports.  It would take longer in each child than all else that the script does."""


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
    context: TLSContext
    caller: Caller
    share: WorkerShare


def load(path: Path, resources: ProcessResources | None = None, text: str | None = None) -> State:
    """Read the configuration and every file that it names; raises `ConfigError` with all that is wrong.

    `resources` is of the process that will serve it.  Its warm parent is started when a script is to be run by it, and
    before a private key is read; without one, as in the commands that run nothing or one script, there is only exec.
    `text` is taken for what stands in the file.
    """
    settings = model.load(path, text)
    share = resources.share if resources else ALONE
    faults: list[str] = []
    services = routes.build(settings)
    served = list(routes.routes(services))
    caller = _caller(settings, served, resources, path.absolute().parent, faults)
    explicit = _certificates(settings.client_auth.explicit, faults)
    implicit = _certificates(settings.client_auth.implicit, faults)
    crls = _crls(settings.client_auth.crls, faults)
    passwords = _passwords(settings, resources.nonces if resources else Nonces(), faults)
    context = _context(settings, (*explicit, *implicit), crls, faults)
    scripts = {(script, route.search_path) for route in served for script in route.programs}
    for script, search_path in sorted(scripts):
        found = program.faults(script, search_path)
        faults += [fault for fault in found if fault not in faults]  # scripts share a directory
    for folder in sorted({route.ca_dir for route in served}):
        if not folder.is_dir():
            faults.append(f"{folder}: not a directory")
    template_checks = _template_checks({route.csr_template for route in served}, faults)
    if faults or context is None:
        raise ConfigError(faults)
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
        template_checks=template_checks,
        context=context,
        caller=caller,
        share=share,
    )


def _caller(
    settings: Config, routes: Iterable[Route], resources: ProcessResources | None, folder: Path, faults: list[str]
) -> Caller:
    limits = settings.callouts
    faults += [
        f"{route.handler}: the runner {route.runner} is for Python scripts; auto and exec are for all"
        for route in routes
        if not runners.can_run(route.runner, language(route.handler))
    ]
    asked = {(route.runner, route.handler) for route in routes}
    asked |= {(route.decision_runner, script) for route in routes for script in route.decisions}
    if resources is not None and any(runners.needs_warm(runner, script) for runner, script in asked):
        try:
            takes_messages = any(route.operation.holds_requests for route in routes)
            resources.warm.start((FULL_CMC,) if takes_messages else ())
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


def _template_checks(paths: Iterable[Path | None], faults: list[str]) -> dict[Path, TemplateCheck]:
    found = {}
    for path in sorted(path for path in paths if path is not None):
        try:
            found[path] = csrattrs_yaml.load_template_check(path)
        except ConfigError as refusal:
            faults += refusal.faults
    return found


def _crls(paths: Iterable[Path], faults: list[str]) -> list[x509.CertificateRevocationList]:
    found: list[x509.CertificateRevocationList] = []
    for path in paths:
        try:
            # A file may have several: a CA that changed its key signs one with each.
            here = [_crl(block.der) for block in pem_blocks(path.read_bytes()) if block.label == _CRL]
        except OSError as fault:
            faults.append(f"{path}: {fault.strerror}")
        except ValueError as fault:
            faults.append(f"{path}: not a CRL in PEM: {fault}")
        else:
            found += here
            if not here:
                faults.append(f"{path}: not a CRL in PEM: no X509 CRL block in it")
    return found


def _crl(der: bytes) -> x509.CertificateRevocationList:
    """A CRL; raises ValueError, also for an issuer that can't be read, which cryptography looks at when first asked."""
    crl = x509.load_der_x509_crl(der)
    _ = crl.issuer
    return crl


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
