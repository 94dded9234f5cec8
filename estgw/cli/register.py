"""`estgw register`: make, upgrade and copy registers, and write the CRL of one."""

from __future__ import annotations

import contextlib
import os
from argparse import Namespace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from estgw.cli.arguments import CONFIG, config_file
from estgw.commandline.table import Command, Option
from estgw.config.route import Route
from estgw.errors import ConfigError, Malformed
from estgw.est import certs
from estgw.register import copying, crls, engines, hsm, schema, sqlite, takeover
from estgw.register.engine import Engine
from estgw.register.sqlite import SQLite

PATIENCE = 30.0
"""Seconds for one statement of a command."""

ADMINISTRATOR = """\
-- An administrator of PostgreSQL says this, in the database {database}, for the CA of {what}:
CREATE ROLE {role} LOGIN;  -- and a password by: \\password {role}; it goes into the passfile that the URL names
CREATE SCHEMA {role} AUTHORIZATION {role};
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER ROLE {role} SET search_path = {role};
ALTER ROLE {role} SET statement_timeout = '20s';
ALTER ROLE {role} SET lock_timeout = '10s';
ALTER ROLE {role} SET idle_in_transaction_session_timeout = '60s';
-- Then, as the gateway's user: estgw register init
"""


def init(arguments: Namespace) -> int:
    """Make the tables of a register in PostgreSQL, or print what an administrator must say first."""
    route = _route(arguments)
    if route.register is None:
        if arguments.sql:
            raise ConfigError([f"{_what(route)} has no register in conf.yaml: certs.sqlite needs no administrator"])
        engine = _engine(route)
        engine.rows("SELECT 1 FROM certificates LIMIT 1")
        print(f"{engine.place}: ready")
        return 0
    if arguments.sql:
        parts = urlsplit(route.register)
        role, database = unquote(parts.username or "estgw"), unquote(parts.path.strip("/") or parts.username or "estgw")
        print(ADMINISTRATOR.format(role=_quoted(role), database=_quoted(database), what=_what(route)), end="")
        return 0
    from estgw.register.postgresql import PostgreSQL

    made = PostgreSQL(route.register)
    made.create()
    print(f"{made.place}: ready")
    return 0


def upgrade(arguments: Namespace) -> int:
    """Bring registers up to this version, and take cmc.sqlite over; what is there stays."""
    for route in _routes(arguments):
        engine = _engine(route)
        number = engine.rows("SELECT count(*) FROM certificates")[0][0]
        print(f"{engine.place}: version {schema.VERSION}, {number} certificates")
        _take_over(route.ca_dir, engine)
    return 0


def copy(arguments: Namespace) -> int:
    """Copy certs.sqlite and cmc.sqlite of a CA to the register in PostgreSQL that conf.yaml names for it."""
    route = _route(arguments)
    if route.register is None:
        raise ConfigError([f"{_what(route)} has no register in conf.yaml: name the one to copy to"])
    source = SQLite(route.ca_dir.absolute() / sqlite.NAME)
    files = [(route.ca_dir / name).exists() for name in (sqlite.NAME, takeover.OLD)]
    if not any(files):
        raise ConfigError([f"{source.place}: no such file; there is nothing to copy"])
    source.patience = PATIENCE
    target = _engine(route)
    if files[0]:
        with contextlib.closing(source):
            for table, number in copying.copy(source, target).items():
                print(f"{table}: {number} copied to {target.place}")
    _take_over(route.ca_dir, target)
    return 0


def _take_over(folder: Path, engine: Engine) -> None:
    """Take over what fullcmc of estgw 0.1.0 kept in files of its own, if they are there."""
    if (number := takeover.take_over(folder, engine)) is not None:
        print(f"{folder / takeover.OLD}: {number} rows taken over to {engine.place}")
    if number := takeover.take_over_requests(folder / "pending", engine):
        print(f"{folder / 'pending'}: {number} requests of fullcmc taken over to {engine.place}")


def crl(arguments: Namespace) -> int:
    """Write the CRL of a register to a file."""
    route = _route(arguments)
    if (route.ca_dir / "index.txt").exists():
        raise ConfigError(
            [f"{route.ca_dir}: its list comes from index.txt too: say openssl-ca/crl --dir {route.ca_dir}"]
        )
    pem = x509.load_der_x509_crl(crls.current(_engine(route), _issuer(route.ca_dir))).public_bytes(Encoding.PEM)
    new: Path = arguments.out.with_name(f".{arguments.out.name}.{os.getpid()}")
    try:
        with new.open("xb") as file:
            file.write(pem)
            os.fsync(file.fileno())
        new.replace(arguments.out)  # so that a gateway never reads half of it
    finally:
        new.unlink(missing_ok=True)
    print(f"wrote {arguments.out}; the gateway reads it with the next reload (SIGHUP)")
    return 0


def _issuer(folder: Path) -> crls.Issuer:
    """The CA's key and the certificate that fits it."""
    if hsm.is_used(folder):
        return crls.Issuer(*hsm.load(folder))
    file = folder / "private/cakey.pem"
    try:
        key = load_pem_private_key(file.read_bytes(), None)
        files = [folder / name for name in ("issuer.pem", "cacert.pem", "chain.pem")]
        found = [each for name in files if name.exists() for each in certs.load_pem(name.read_bytes())]
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm, Malformed) as fault:
        raise ConfigError([f"{file}: {fault}"]) from None
    for certificate in found:
        if certificate.public_key() == key.public_key():
            return crls.Issuer(certificate, key)
    raise ConfigError([f"{folder}: no certificate fits the key in private/cakey.pem"])


def _routes(arguments: Namespace) -> list[Route]:
    """One route for each CA, those of one label if it is named."""
    from estgw.config import loading, routes

    services = routes.build(loading.load(config_file(arguments.config)))
    if arguments.label is not None and arguments.label not in services:
        raise ConfigError([f"{arguments.label}: no such label in {arguments.config}"])
    chosen = services.values() if arguments.label is None else [services[arguments.label]]
    found = {(each.register, each.ca_dir): each for service in chosen for each in service.routes.values()}
    return list(found.values())


def _route(arguments: Namespace) -> Route:
    """The one CA that is meant."""
    found = _routes(arguments)
    named = [route for route in found if route.register is not None]
    if len(found) > 1 and len(named) == 1:
        return named[0]
    if len(found) != 1:
        raise ConfigError([f"{arguments.config} has {len(found)} CAs: name the label of one with --label"])
    return found[0]


def _engine(route: Route) -> Engine:
    return engines.open_register(route.register, route.ca_dir, PATIENCE)


def _what(route: Route) -> str:
    return f"label {route.label}" if route.label else "the default label"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_LABEL = Option("--label", "the CA of this label", "LABEL")

COMMANDS = (
    Command(
        name="register",
        summary="Make, upgrade and copy registers, and write the CRL of one.",
        description="A CA's register is certs.sqlite in its directory, or the PostgreSQL that `register` names.",
        run=None,
        example="register upgrade",
    ),
    Command(
        name="register init",
        summary="Make the tables of a register.",
        run=init,
        options=[CONFIG, _LABEL, Option("--sql", "print what an administrator of PostgreSQL must say before")],
        example="register init --sql --label python",
    ),
    Command(
        name="register upgrade",
        summary="Bring registers of an earlier version up to this one.",
        description="What fullcmc kept in cmc.sqlite moves to the register; the file becomes cmc.sqlite.taken-over.",
        run=upgrade,
        options=[CONFIG, _LABEL],
        example="register upgrade",
    ),
    Command(
        name="register copy",
        summary="Copy certs.sqlite to the register in PostgreSQL, in one transaction; then take cmc.sqlite over.",
        description="What is there already stays.  Stop the gateway before, or certificates of meanwhile are missing.",
        run=copy,
        options=[CONFIG, _LABEL],
        example="register copy --label python",
    ),
    Command(
        name="register crl",
        summary="Write the CRL of a register as PEM, for client_auth.crls.",
        run=crl,
        options=[CONFIG, _LABEL, Option("-o --out", "the file", "FILE", type=Path, required=True)],
        example="register crl --label python -o crl.pem",
    ),
)
