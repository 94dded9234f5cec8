"""Everything that one reading of the configuration amounts to; a reload makes a new one and swaps it in whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from estgw import config, services
from estgw.auth import users
from estgw.auth.identity import Anchors
from estgw.auth.users import Users
from estgw.callout import program
from estgw.callout.caller import Caller, CalloutLimits
from estgw.callout.slots import Slots
from estgw.config import Config
from estgw.errors import ConfigError, Malformed
from estgw.est import certs
from estgw.tls.adapter import TLSContext
from estgw.tls.context import TLSSettings, server_context


@dataclass(frozen=True)
class State:
    """What requests are served with.  A request keeps the state it began with."""

    config: Config
    services: Mapping[str | None, services.Service]
    labels: frozenset[str]
    extra_operations: frozenset[str]
    anchors: Anchors
    users: Users | None
    context: TLSContext
    caller: Caller


def load(path: Path) -> State:
    """Read the configuration and every file that it names; raises `ConfigError` with all that is wrong."""
    settings = config.load(path)
    faults: list[str] = []
    explicit = _certificates(settings.client_auth.explicit, faults)
    implicit = _certificates(settings.client_auth.implicit, faults)
    crls = _crls(settings.client_auth.crls, faults)
    known_users = _users(settings, faults)
    context = _context(settings, (*explicit, *implicit), crls, faults)
    served = services.build(settings)
    routes = list(services.routes(served))
    for handler in sorted({route.handler for route in routes}):
        faults += program.faults(handler, settings.callouts.path)
    for folder in sorted({route.ca_dir for route in routes}):
        if not folder.is_dir():
            faults.append(f"{folder}: not a directory")
    if faults or context is None:
        raise ConfigError(faults)
    limits = settings.callouts
    return State(
        config=settings,
        services=served,
        labels=frozenset(settings.labels),
        extra_operations=frozenset(
            name for service in served.values() for name, route in service.routes.items() if route.is_new
        ),
        anchors=Anchors(explicit, implicit),
        users=known_users,
        context=context,
        caller=Caller(
            Slots(limits.max_running, limits.max_waiting),
            CalloutLimits(limits.max_stdout, limits.max_stderr, limits.retry_after),
        ),
    )


def _certificates(paths: Iterable[Path], faults: list[str]) -> list[x509.Certificate]:
    found: list[x509.Certificate] = []
    for path in paths:
        try:
            here = certs.load_pem(path.read_bytes())
        except OSError as fault:
            faults.append(f"{path}: {fault.strerror}")
        except Malformed as fault:
            faults.append(f"{path}: {fault}")
        else:
            found += here
            if not here:
                faults.append(f"{path}: no certificate in it")
    return found


def _crls(paths: Iterable[Path], faults: list[str]) -> list[x509.CertificateRevocationList]:
    found = []
    for path in paths:
        try:
            found.append(x509.load_pem_x509_crl(path.read_bytes()))
        except OSError as fault:
            faults.append(f"{path}: {fault.strerror}")
        except ValueError as fault:
            faults.append(f"{path}: not a CRL in PEM: {fault}")
    return found


def _users(settings: Config, faults: list[str]) -> Users | None:
    if settings.client_auth.users is None:
        return None
    try:
        return users.load(settings.client_auth.users, remember=settings.client_auth.remember)
    except ConfigError as refusal:
        faults += refusal.faults
        return None


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
