"""`estgw env` and `estgw run`: one script without a client."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import shutil
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from estgw import logs
from estgw.callout import contract, process, scratch
from estgw.callout.home import Home
from estgw.cli import trial
from estgw.cli.arguments import CONFIG
from estgw.commandline.table import Command, Option
from estgw.errors import ConfigError, RequestError
from estgw.est.operations import OPERATIONS


def env(arguments: Namespace) -> int:
    """Print a handler's environment; the files that it names lie in a new directory that stays."""
    logs.configure("auto", "warning")
    gateway = trial.load_state(arguments.config)
    directory = Path(tempfile.mkdtemp(prefix="estgw-env-"))
    try:
        call = asyncio.run(trial.prepare(gateway, _trial(arguments), directory))
        environment = contract.environment(call)
    except BaseException as fault:
        shutil.rmtree(directory)
        if isinstance(fault, RequestError):
            raise ConfigError([f"the gateway would answer {fault.status}: {fault.public or fault}"]) from None
        raise
    for name, value in environment.items():
        print(f"{name}={shlex.quote(value)}")
    return 0


def run(arguments: Namespace) -> int:
    """Run a handler, and print the response to the client and the lines of the log."""
    process.disown_inheritance()
    logs.configure("auto", "warning")
    gateway = trial.load_state(arguments.config)
    with contextlib.closing(Home(scratch.place())) as home:
        directory = home.directory()
        directory.mkdir(mode=0o700)
        report = asyncio.run(trial.run(gateway, _trial(arguments), directory))
    for line in report.stderr:
        print(f"stderr: {logs.escape(line)}", file=sys.stderr)
    if report.reason:
        print(f"log: {logs.escape(report.reason)}", file=sys.stderr)
    response = report.response
    print(f"HTTP/1.1 {response.status} {response.reason}")
    for name, value in response.headers.items():
        print(f"{name}: {value}")
    print()
    body = response.body if isinstance(response.body, bytes) else b""
    sys.stdout.flush()
    sys.stdout.buffer.write(body)
    sys.stdout.flush()
    return 0 if response.status < 400 else 1


def _trial(arguments: Namespace) -> trial.Trial:
    return trial.Trial(
        operation=arguments.operation,
        label=arguments.label,
        csr_file=arguments.csr,
        client_certificate=arguments.client_cert,
        user=arguments.user,
    )


_REQUEST = (
    CONFIG,
    Option("operation", "such as cacerts or simpleenroll", "OPERATION", suggestions=tuple(OPERATIONS)),
    Option("--csr", "the request: PEM, DER or base64", "FILE", type=Path),
    Option("--client-cert", "the client's TLS certificate, PEM", "FILE", type=Path),
    Option("--user", "the verified user name", "NAME"),
    Option("--label", "the CA label", "LABEL"),
)

COMMANDS = (
    Command(
        name="env",
        summary="Print the environment that a handler gets, as shell assignments.",
        run=env,
        options=_REQUEST,
        example="env simpleenroll --csr r.pem",
    ),
    Command(
        name="run",
        summary="Run one handler alone, as the gateway would.",
        run=run,
        options=_REQUEST,
        example="run simpleenroll --csr req.pem",
    ),
)
