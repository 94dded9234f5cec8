"""`estgw env` and `estgw run`: the scripts of one request, without a client."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import shlex
import shutil
import sys
import tempfile
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from estgw import logs
from estgw.callout import scratch, spawn
from estgw.callout.environment import environment_of
from estgw.callout.home import Home
from estgw.callout.verdicts import Kind
from estgw.cli.arguments import CONFIG, config_file
from estgw.commandline.table import Command, Option
from estgw.errors import ConfigError, RequestError
from estgw.est import certs, names
from estgw.est.operations import OPERATIONS
from estgw.register import ca_copy

if TYPE_CHECKING:
    from estgw.cli import trial


def env(arguments: Namespace) -> int:
    """Print a handler's environment; the files that it names lie in a new directory that stays."""
    from estgw.cli import trial

    logs.configure("auto", "warning")
    gateway = trial.load_state(config_file(arguments.config))
    directory = Path(tempfile.mkdtemp(prefix="estgw-env-"))
    try:
        call = asyncio.run(trial.prepare(gateway, _trial(arguments), directory))
        environment = environment_of(call)
    except BaseException as fault:
        shutil.rmtree(directory)
        if isinstance(fault, RequestError):
            raise ConfigError([f"the gateway would answer {fault.status}: {fault.public or fault}"]) from None
        raise
    for name, value in environment.items():
        print(f"{name}={shlex.quote(value)}")
    return 0


def run(arguments: Namespace) -> int:
    """Run the scripts of a request, and print the response to the client and the lines of the log."""
    from estgw.cli import trial

    spawn.disown_inheritance()
    logs.configure("auto", "warning")
    gateway = trial.load_state(config_file(arguments.config))
    wanted = _trial(arguments)
    if wanted.operation in _DECISIONS and not trial.is_operation(gateway, wanted):
        wanted = _about_a_decision(arguments, wanted)
    served = trial.served(gateway, wanted)
    ca_dir = served.ca_dir
    with contextlib.closing(Home(scratch.place())) as home:
        directory, copy = home.directory(), None
        directory.mkdir(mode=0o700)
        if arguments.dry_run:
            copy = home.directory()
            for sentence in ca_copy.copy_ca(ca_dir, copy, register=served.register):
                _note(sentence)
        _note(f"the scripts get a copy of {ca_dir}, which is removed" if copy else f"the scripts write to {ca_dir}")
        attempt = trial.decide if wanted.decision else trial.run
        report = asyncio.run(attempt(gateway, wanted, directory, copy))
    for line in report.stderr:
        print(f"stderr: {logs.escape(line)}", file=sys.stderr)
    if report.reason:
        print(f"log: {logs.escape(report.reason)}", file=sys.stderr)
    if report.hint:
        print(f"{logs.HINT} {logs.escape(report.hint)}", file=sys.stderr)
    _say_what_was_issued(report, ca_dir, dry=arguments.dry_run)
    if wanted.decision:
        print(_verdict(wanted.decision, report))
        return 0 if report.response.status == 200 else 1
    _print_response(report)
    return 0 if report.response.status < 400 else 1


def _note(sentence: str) -> None:
    print(f"note: {logs.escape(sentence)}", file=sys.stderr)


def _say_what_was_issued(report: trial.Report, ca_dir: Path, *, dry: bool) -> None:
    for certificate in report.issued:
        what = f"serial {certs.serial_hex(certificate)}, subject {names.dn_text(certificate.subject)}"
        if dry:
            _note(f"nothing was issued; this certificate has a signature of zeros: {what}")
        else:
            _note(f"a certificate was issued for real: {what}, by the CA in {ca_dir}")


def _print_response(report: trial.Report) -> None:
    response = report.response
    print(f"HTTP/1.1 {response.status} {response.reason}")
    for name, value in response.headers.items():
        print(f"{name}: {value}")
    print()
    sys.stdout.flush()
    sys.stdout.buffer.write(_body(report))
    sys.stdout.flush()


def _body(report: trial.Report) -> bytes:
    return report.response.body if isinstance(report.response.body, bytes) else b""


def _verdict(decision: Kind, report: trial.Report) -> str:
    """What a decision script said, in words."""
    status, words = report.response.status, _body(report).decode().strip()
    match status:
        case 200:
            return f"{decision.value} says yes"
        case 202:
            return f"{decision.value} says not yet; the client gets 202 and comes back"
        case _:
            return f"no; the client gets {status}{': ' if words else ''}{logs.escape(words)}"


def _about_a_decision(arguments: Namespace, wanted: trial.Trial) -> trial.Trial:
    """The trial of one decision script, about a request for another operation."""
    decision = _DECISIONS[wanted.operation]
    if decision is Kind.AUTHENTICATE and arguments.user is None:
        raise ConfigError(["authenticate: --user NAME is missing; the password is asked for, or read from a pipe"])
    password = _password(arguments.user) if decision is Kind.AUTHENTICATE else ""
    return replace(wanted, operation=arguments.about, decision=decision, password=password)


def _password(user: str) -> str:
    if sys.stdin.isatty():
        return getpass.getpass(f"Password for {user}: ")
    return sys.stdin.readline().rstrip("\n")


_DECISIONS = {kind.value: kind for kind in (Kind.AUTHORIZE, Kind.AUTHENTICATE)}


def _trial(arguments: Namespace) -> trial.Trial:
    from estgw.cli import trial

    return trial.Trial(
        operation=arguments.operation,
        label=arguments.label,
        csr_file=arguments.csr,
        client_certificate=arguments.client_cert,
        user=arguments.user,
        anonymous_ok=arguments.anonymous_ok,
        handler_only=getattr(arguments, "handler_only", False),
    )


_SUGGESTIONS = (*OPERATIONS, *_DECISIONS)

_REQUEST = (
    CONFIG,
    Option("operation", "such as cacerts or simpleenroll", "OPERATION", suggestions=_SUGGESTIONS),
    Option("--csr", "the request: PEM, DER or base64", "FILE", type=Path),
    Option("--client-cert", "the client's TLS certificate, PEM", "FILE", type=Path),
    Option("--user", "the verified user name", "NAME"),
    Option("--label", "the CA label", "LABEL"),
    Option("--anonymous-ok", "go on without the authentication that the operation requires"),
)
_RUN = (
    Option("--dry-run", "give the scripts a copy of the CA, and print certificates with a signature of zeros"),
    Option("--handler-only", "do not ask authorize first"),
    Option("--about", "authorize, authenticate: the operation asked for (default: simpleenroll)", "OPERATION",
           default="simpleenroll", suggestions=tuple(OPERATIONS)),
)  # fmt: skip

COMMANDS = (
    Command(
        name="env",
        summary="Print the environment that a handler gets, as shell assignments.",
        run=env,
        options=_REQUEST,
        example="env simpleenroll --csr req.pem --user estuser",
    ),
    Command(
        name="run",
        summary="Run the scripts of one request without a client, as the gateway would.",
        run=run,
        options=(*_REQUEST, *_RUN),
        description="The OPERATION may be authorize or authenticate: then that script is run alone, and its verdict "
        "printed. Without --dry-run, a certificate is issued for real, and a line on standard error says which.",
        example="run simpleenroll --csr req.pem --user estuser --dry-run",
    ),
)
