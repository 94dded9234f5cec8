"""`estgw check`: all that is wrong with a configuration and the files that it names, and who may do what under it."""

from __future__ import annotations

from pathlib import Path

from estgw.callout import syntax
from estgw.cli import ca_check
from estgw.config import routes
from estgw.config.model import Config
from estgw.config.routes import Service
from estgw.errors import ConfigError, Malformed
from estgw.est import certs, hostnames
from estgw.est.printable import printable
from estgw.gateway import advice, labels, live_page, openness, state, validity
from estgw.gateway.labels import Snapshot
from estgw.register import engines
from estgw.register.engine import RegisterError


def check(config_file: Path) -> int:
    """Print who may do what, then the warnings; raises `ConfigError` with all faults."""
    snapshot = Snapshot.take(config_file)
    settings, services = snapshot.settings, routes.build(snapshot.settings)
    print(openness.table(openness.rows(settings, services, config_file.absolute().parent)), end="\n\n")
    warnings = [*advice.advice(settings), *validity.sentences(settings)]
    for sentence in warnings:
        print(f"{config_file}: {sentence}")
    found = {label: (*snapshot.faults.get(label, ()), *_deeper(service)) for label, service in services.items()}
    faults = [*_general_faults(config_file, snapshot), *labels.sentences(found, only_one=not settings.labels)]
    faults += [*_name_faults(settings), *live_page.faults(settings)]
    if faults:
        raise ConfigError(faults)
    print(f"{config_file}: {'it can be served as it is' if warnings else 'all well'}")
    return 0


def _general_faults(config_file: Path, snapshot: Snapshot) -> list[str]:
    """Those that would refuse the whole configuration; the faults of labels are told by their labels."""
    try:
        state.load(config_file, snapshot=snapshot)
    except ConfigError as refusal:
        return [fault for fault in refusal.faults if fault not in snapshot.sentences()]
    return []


def _deeper(service: Service) -> list[str]:
    """Faults of a label that a gateway does not look for, as its scripts and its CA may change at any time."""
    found: list[str] = []
    scripts = {(script, route.search_path) for route in service.routes.values() for script in route.programs}
    scripts = {(script, path) for script, path in scripts if script.is_file()}
    for script, path in sorted(scripts):
        found += syntax.faults(script, path)
    for folder, path in sorted({(script.parent, path) for script, path in scripts}):
        found += syntax.library_faults(folder, path)
    for folder, path in sorted({(route.ca_dir, route.search_path) for route in service.routes.values()}):
        found += ca_check.faults(folder, path)
    for url, folder in sorted({(route.register, route.ca_dir) for route in service.routes.values() if route.register}):
        found += _register_faults(url, folder)
    return list(dict.fromkeys(found))


def _register_faults(url: str, folder: Path) -> list[str]:
    """Whether a register in PostgreSQL can be used now."""
    try:
        engines.open_register(url, folder, PATIENCE).rows("SELECT 1 FROM certificates LIMIT 1")
    except RegisterError as fault:
        return [str(fault)]
    return []


PATIENCE = 5.0
"""Seconds in which a register must answer."""


def _name_faults(settings: Config) -> list[str]:
    """`server.name` goes into URLs and to the scripts, so the certificate should be for it."""
    try:
        own = certs.load_pem(settings.tls.certificate.read_bytes())[:1]
    except (OSError, Malformed):
        return []
    name = settings.server.name
    return [
        f"server.name: {name} is not in the certificate {settings.tls.certificate}, which is for "
        f"{printable(hostnames.identities(certificate), 300)}; change server.name, or get a certificate for it "
        "(openssl-ca/README.md has the commands)"
        for certificate in own
        if not hostnames.matches(certificate, name)
    ]
