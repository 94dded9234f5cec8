"""`estgw watch`: a recorded request once more, whenever a script is saved."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from argparse import Namespace
from pathlib import Path

from estgw import logs
from estgw.callout import scratch
from estgw.callout.home import Home
from estgw.cli.arguments import CONFIG
from estgw.cli.replaying import TRIED, Bench, bench_of, changes_of, differences_of, print_result, record_of, records_of
from estgw.commandline.table import Command, Option
from estgw.errors import ConfigError
from estgw.est import names
from estgw.est.operations import OPERATIONS
from estgw.record.folder import RecordError
from estgw.record.ring import Record
from estgw.register import ca_copy

POLL = 0.5
"""Seconds between two looks at the files."""
MOST_WATCHED = 1000
"""Files of a directory of scripts that are looked at."""


def watch(arguments: Namespace) -> int:
    """Replay the last record of an operation now, and again whenever a script is saved, until Ctrl-C."""
    bench = bench_of(arguments)
    record = None if arguments.csr is not None else _last(bench, arguments)
    print(bench.first_line, flush=True)
    before: dict[Path, int] | None = None
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            now = _settled(bench, arguments, before)
            if before is not None:
                changed = sorted(path.name for path in now.keys() | before.keys() if now.get(path) != before.get(path))
                print(f"\n{time.strftime('%H:%M:%S')}  saved: {', '.join(changed[:5])}", flush=True)
            before = now
            bench = _again(arguments, bench, record)
    return 0


def _again(arguments: Namespace, bench: Bench, record: Record | None) -> Bench:
    """One replay, with everything read anew; the faults of what is being edited are printed."""
    from estgw.callout import syntax

    changes = changes_of(arguments)

    try:
        fresh = bench_of(arguments)
        for script, path in _scripts(fresh, arguments, record):
            if faults := syntax.faults(script, path):
                raise ConfigError(faults)
        if record is None:
            _dry_run(fresh, arguments)
        else:
            made = fresh.replay(record, changes)
            print_result(record, made, differences_of(record, made.record))
    except ConfigError as refusal:
        for fault in refusal.faults:
            print(f"fault: {logs.escape(fault)}")
    except (RecordError, OSError) as fault:
        print(f"fault: {logs.escape(str(fault))}")
    else:
        bench = fresh
    sys.stdout.flush()
    return bench


def _dry_run(bench: Bench, arguments: Namespace) -> None:
    """Run the scripts for a request without a record, on a copy of the CA."""
    from estgw.cli import replay, trial

    wanted = trial.Trial(arguments.operation, arguments.label, arguments.csr, arguments.client_cert, arguments.user)
    with contextlib.closing(Home(scratch.place())) as home:
        directory, copy = home.directory(), home.directory()
        directory.mkdir(mode=0o700)
        served = trial.served(bench.gateway, wanted)
        ca_copy.copy_ca(served.ca_dir, copy, register=served.register)
        gateway = bench.gateway
        if bench.bwrap is not None:
            gateway = replay.confined(gateway, bench.bwrap, replay.Place(directory, copy, bench.path))
        report = asyncio.run(trial.run(gateway, wanted, directory, copy))
    body = report.response.body if isinstance(report.response.body, bytes) else b""
    words = body.decode("utf-8", "replace").strip() if report.response.status >= 300 else ""
    subjects = [f"for {names.dn_text(each.subject)}" for each in report.issued]
    parts = (str(report.response.status), words, *subjects)
    print(logs.escape(", ".join(part for part in parts if part)))
    if report.reason:
        print(f"reason: {logs.escape(report.reason)}")
    if report.hint:
        print(f"{logs.HINT} {logs.escape(report.hint)}")
    for line in report.stderr:
        print(f"stderr: {logs.escape(line)}", file=sys.stderr)


def _scripts(bench: Bench, arguments: Namespace, record: Record | None) -> list[tuple[Path, str]]:
    """The scripts that a replay runs, each with its search path for commands."""
    label, operation = (arguments.label, arguments.operation) if record is None else _place(record)
    service = bench.gateway.services.get(label)
    route = service.routes.get(operation) if service else None
    if route is None:
        return []
    changes = changes_of(arguments)
    found = (changes.authorize or route.authorize, changes.handler or route.handler)
    return [(script, route.search_path) for script in found if script is not None and script.is_file()]


def _place(record: Record) -> tuple[str | None, str]:
    return record.get("label"), str(record.get("operation"))


def _settled(bench: Bench, arguments: Namespace, before: dict[Path, int] | None) -> dict[Path, int]:
    """The times of the files when they differ from `before`, and have not changed for a moment."""
    while True:
        now = _times(bench, arguments)
        if now != before:
            time.sleep(POLL / 2 if before is not None else 0)
            if _times(bench, arguments) == now:
                return now
        else:
            time.sleep(POLL)


def _times(bench: Bench, arguments: Namespace) -> dict[Path, int]:
    """When each file that may matter was changed: conf.yaml, and all beside the scripts."""
    folders = {script.parent for service in bench.gateway.services.values() for route in service.routes.values()
               for script in route.programs}  # fmt: skip
    folders |= {script.absolute().parent for script in (arguments.handler, arguments.authorize) if script}
    found = {}
    for path in [bench.path, *(each for each_folder in sorted(folders) for each in _inside(each_folder))]:
        with contextlib.suppress(OSError):
            found[path] = path.stat().st_mtime_ns
    return found


def _inside(directory: Path) -> list[Path]:
    try:
        return [path for path in sorted(directory.iterdir())[:MOST_WATCHED] if path.is_file()]
    except OSError:
        return []


def _last(bench: Bench, arguments: Namespace) -> Record:
    """The record to watch: the one named, else the last of the operation."""
    if arguments.id is not None:
        return record_of(bench, arguments.id)
    newest = None
    with contextlib.suppress(ConfigError):
        for record in records_of(bench, arguments.operation):
            newest = record
    if newest is None:
        hint = "send a request, or name one with --csr FILE"
        raise ConfigError([f"{bench.records}: no record of {arguments.operation} yet; {hint}"])
    return newest


def _fault(arguments: Namespace) -> str:
    if arguments.csr is None and (arguments.user or arguments.client_cert):
        return "--user and --client-cert go with --csr FILE"
    return "--csr and --id exclude each other" if arguments.csr is not None and arguments.id is not None else ""


COMMANDS = (
    Command(
        name="watch",
        summary="Replay the last recorded request for an operation whenever a script is saved.",
        description="The syntax of the scripts is checked first. With --csr the request is made up, as for estgw run "
        "--dry-run. Ctrl-C ends it.",
        run=watch,
        options=(
            CONFIG,
            Option("operation", "such as simpleenroll", "OPERATION", suggestions=tuple(OPERATIONS)),
            Option("--id", "the id of another record, or its file", "ID"),
            *TRIED,
            Option("--csr", "a request without a record: PEM, DER or base64", "FILE", type=Path),
            Option("--user", "with --csr: the verified user name", "NAME"),
            Option("--client-cert", "with --csr: the client's TLS certificate, PEM", "FILE", type=Path),
            Option("--label", "with --csr: the CA label", "LABEL"),
        ),
        fault=_fault,
        example="watch simpleenroll",
    ),
)
