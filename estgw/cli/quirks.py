"""`estgw quirks`: a server that misbehaves on purpose, and a judge of clients."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import threading
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from estgw import logs
from estgw.commandline.table import Command, Option
from estgw.errors import ConfigError

if TYPE_CHECKING:
    from estgw.quirks.seen import Event

FAILED, USAGE, NOT_RUN = 1, 2, 3


def serve(arguments: Namespace) -> int:
    """Serve until a signal, and print a line for each event at a quirk."""
    from estgw.quirks import welcome
    from estgw.quirks.scores import Scores
    from estgw.quirks.server import QuirkServer, Settings
    from estgw.quirks.table import QUIRKS

    default = arguments.default.removeprefix("quirk-") if arguments.default else None
    if default is not None and (default not in QUIRKS or QUIRKS[default].face is not None):
        known = ", ".join(row.name for row in QUIRKS.values() if row.face is None)
        return _usage(f"--default: no quirk {default!r} at the main port; there are {known}")
    host, port = _address(arguments.listen)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    scores = Scores((host, *arguments.name))

    def observe(event: Event) -> None:
        scores.note(event)
        with contextlib.suppress(OSError):  # a full disk or a closed terminal must not end the connection
            print(_event(event), flush=True)

    settings = Settings(host, port, tuple(arguments.name), default)
    with QuirkServer(settings, observe, scores) as server, tempfile.TemporaryDirectory(prefix="estgw-quirks-") as room:
        print(welcome.text(server, arguments.name[0] if arguments.name else "localhost", Path(room)), flush=True)
        ended.wait()
    return 0


def run(arguments: Namespace) -> int:
    """Drive a client through the quirks and print each verdict."""
    from estgw.quirks import clients, report, runner
    from estgw.quirks.faults import CannotRunError, UsageError
    from estgw.quirks.seen import Result

    try:
        client = clients.client_of(arguments.client)
        quirks = runner.chosen(arguments.only, arguments.skip)
    except UsageError as fault:
        return _usage(str(fault))
    try:
        trials = runner.run(client, quirks, lambda trial: print(report.line(trial), flush=True))
    except CannotRunError as fault:
        print(f"estgw: {fault}", file=sys.stderr)
        return NOT_RUN
    print(report.summary(trials))
    _write(arguments.json, lambda: report.to_json(client.name, trials))
    _write(arguments.junit, lambda: report.to_junit(client.name, trials))
    return FAILED if any(trial.verdict.result is Result.FAIL for trial in trials) else 0


def _usage(words: str) -> int:
    print(f"estgw: {words}", file=sys.stderr)
    return USAGE


def _write(path: Path | None, content: Callable[[], str]) -> None:
    if path is not None:
        path.write_text(content(), encoding="utf-8")


def _address(listen: str) -> tuple[str, int]:
    from estgw.config.fields import split_address

    try:
        return split_address(listen)
    except ValueError as fault:
        raise ConfigError([f"--listen {listen}: {fault}"]) from None


def _event(event: Event) -> str:
    from estgw.quirks.seen import Exchange

    if isinstance(event, Exchange):
        who = event.client or f"{event.address} {event.agent}".strip()
        password = f", {event.scheme} {'right' if event.is_right else 'wrong'}" if event.scheme else ""
        words = f"{event.method} {event.operation} {event.status}{password}"
    else:
        who, words = event.address, f"handshake: {event.fault or event.version}"
    return logs.escape(f"quirk-{event.quirk} ({event.place.value}) {who}: {words}")


COMMANDS = (
    Command(
        name="quirks",
        summary="Judge EST clients by a server that misbehaves on purpose.",
        run=None,
        example="quirks run --client estclient",
    ),
    Command(
        name="quirks serve",
        summary="Serve all quirks until Ctrl-C, and show how clients do.",
        description="The label in the URL chooses the quirk: /.well-known/est/quirk-NAME[.CLIENT]/simpleenroll. "
        "Faults of TLS have the ports behind the first one. CA, keys and password are made at each start.",
        run=serve,
        options=[
            Option(
                "--listen",
                "the first address and port (default: 127.0.0.1:8450)",
                "ADDR:PORT",
                default="127.0.0.1:8450",
            ),
            Option("--name", "a host name or address for the certificate; may be repeated", "HOST", repeatable=True),
            Option("--default", "the quirk for URLs without a label", "QUIRK"),
        ],
        example="quirks serve --name lab.example",
    ),
    Command(
        name="quirks run",
        summary="Drive a client's command through the quirks and judge it.",
        description="The exit status is 0 if none failed, 1 if some did, 2 for a wrong command line, and 3 if the "
        "client could not be run or does not even enrol at a server without faults.",
        run=run,
        options=[
            Option(
                "--client",
                "estclient, curl, strongswan, libest, globalsign, a file of commands, or a command with placeholders",
                "CLIENT",
                required=True,
                suggestions=("estclient", "curl", "strongswan", "libest", "globalsign"),
            ),
            Option("--only", "this quirk; may be repeated", "QUIRK", repeatable=True),
            Option("--skip", "not this quirk; may be repeated", "QUIRK", repeatable=True),
            Option("--json", "write the results there as JSON", "FILE", type=Path),
            Option("--junit", "write them there as JUnit's XML", "FILE", type=Path),
        ],
        example="quirks run --client 'pki --est -u {url} -i {csr.der} -C {ca} -p {user}:{password} -f pem'",
    ),
)
