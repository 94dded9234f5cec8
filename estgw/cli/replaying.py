"""`estgw replay`: recorded requests once more, with the scripts of today."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estgw import logs
from estgw.callout import scratch, spawn
from estgw.callout.home import Home
from estgw.cli.arguments import CONFIG, config_file
from estgw.commandline.table import Command, Option
from estgw.errors import ConfigError
from estgw.est.operations import OPERATIONS
from estgw.record import folder
from estgw.record.folder import RecordError
from estgw.record.ring import Record
from estgw.register import ca_copy

if TYPE_CHECKING:
    from estgw.cli.compare import Difference
    from estgw.cli.replay import Changes, Replayed
    from estgw.gateway.state import State

SAME, DIFFERS = 0, 3
RECORDS = "records"
"""Beside conf.yaml, where that does not say otherwise."""


class Bench:
    """What replays need of this machine and of the configuration, read once."""

    def __init__(self, path: Path, *, ca_copy: Path | None = None, for_real: bool = False, sandbox: bool = True):
        """Raises `ConfigError`.

        `ca_copy` is a copy of the CA that the user has made, `for_real` lets scripts work on the CA itself.
        """
        from estgw.cli import sandbox as sandboxes
        from estgw.cli import trial

        self.path = path
        self.gateway: State = trial.load_state(path)
        if ca_copy is not None and not ca_copy.is_dir():
            raise ConfigError([f"--ca-copy {ca_copy}: no such directory; make it with: cp -a CA-DIRECTORY {ca_copy}"])
        self.ca_copy = ca_copy
        self.for_real = for_real
        self.bwrap = sandboxes.find() if sandbox and not for_real else None

    @property
    def records(self) -> Path:
        """Where the records lie."""
        return self.gateway.config.record.dir or self.path.absolute().parent / RECORDS

    @property
    def first_line(self) -> str:
        """How scripts are confined."""
        return f"sandbox: {'bwrap' if self.bwrap else 'none'}"

    def replay(self, record: Record, changes: Changes) -> Replayed:
        """Replay one record; raises `RecordError` for one that can't be, and `ConfigError`."""
        from estgw.cli import replay
        from estgw.record.origin import Origin

        origin = Origin.of(record)
        with contextlib.closing(Home(scratch.place())) as home:
            directory = home.directory()
            directory.mkdir(mode=0o700)
            place = replay.Place(directory, self._copy(home, record), self.path)
            gateway = self.gateway
            if self.bwrap is not None:
                gateway = replay.confined(gateway, self.bwrap, place)
            return asyncio.run(replay.replay(gateway, origin, place, changes))

    def _copy(self, home: Home, record: Record) -> Path | None:
        if self.for_real:
            return None
        if self.ca_copy is not None:
            return self.ca_copy.absolute()
        copy = home.directory()
        service = self.gateway.services.get(record.get("label")) or self.gateway.services[None]
        route = service.routes.get(str(record.get("operation"))) or next(iter(service.routes.values()))
        way_out = "; make a copy yourself and name it with --ca-copy DIR"
        for sentence in ca_copy.copy_ca(route.ca_dir, copy, way_out, route.register):
            print(f"note: {logs.escape(sentence)}", file=sys.stderr)
        return copy


def replay(arguments: Namespace) -> int:
    """Replay one record or all of an operation, and say what differs."""
    bench, changes = bench_of(arguments), changes_of(arguments)
    if arguments.all is not None:
        return _replay_all(bench, changes, arguments)
    record = record_of(bench, arguments.record)
    try:
        made = bench.replay(record, changes)
    except RecordError as fault:
        raise ConfigError([str(fault)]) from None
    found = differences_of(record, made.record)
    if arguments.json:
        print(json.dumps(_as_json(bench, found, made.record)))
    else:
        print(bench.first_line)
        print_result(record, made, found)
    return DIFFERS if found else SAME


def bench_of(arguments: Namespace) -> Bench:
    spawn.disown_inheritance()
    logs.configure("auto", "warning")
    return Bench(
        config_file(arguments.config),
        ca_copy=arguments.ca_copy,
        for_real=getattr(arguments, "for_real", False),
        sandbox=not arguments.no_sandbox,
    )


def changes_of(arguments: Namespace) -> Changes:
    from estgw.cli.replay import Changes

    for script in (arguments.handler, arguments.authorize):
        if script is not None and not script.is_file():
            raise ConfigError([f"{script}: no such file"])
    absolute = [script.absolute() if script else None for script in (arguments.handler, arguments.authorize)]
    return Changes(*absolute)


def differences_of(record: Record, made: Record) -> list[Difference]:
    from estgw.cli import compare

    try:
        return compare.differences(record, made)
    except (ValueError, TypeError, KeyError, AttributeError) as fault:
        raise ConfigError([f"{record['id']}: no sound record: {fault}"]) from None


def record_of(bench: Bench, name: str) -> Record:
    """The record of an id, in a file, or on standard input."""
    try:
        if name == "-":
            return folder.parse(sys.stdin.buffer.read(folder.MOST + 1), "standard input")
        if Path(name).is_file():
            return folder.read(Path(name))
        return folder.read(folder.find(bench.records, name))
    except RecordError as fault:
        raise ConfigError([str(fault)]) from None


def _as_json(bench: Bench, found: list[Difference], made: Record) -> dict[str, Any]:
    return {
        "sandbox": "bwrap" if bench.bwrap else "none",
        "same": not found,
        "differences": [{"what": each.what, "before": each.before, "now": each.now} for each in found],
        "record": made,
    }


def print_result(record: Record, made: Replayed, found: list[Difference]) -> None:
    from estgw.cli import compare

    outcome = made.record["outcome"]
    print(f"{title(record)}\n{'differs' if found else 'same'}: {logs.escape(compare.describe(made.record))}")
    for each in found:
        print(f"  {logs.escape(each.line)}")
    if outcome["reason"] and outcome["gate"]:
        print(f"reason: {logs.escape(outcome['reason'])}")
    if outcome["hint"]:
        print(f"{logs.HINT} {logs.escape(outcome['hint'])}")
    for line in made.stderr:
        print(f"stderr: {logs.escape(line)}", file=sys.stderr)


def title(record: Record) -> str:
    csr = (record.get("request") or {}).get("csr") or {}
    place = "/".join(filter(None, (record.get("label"), record.get("operation") or "no operation")))
    user = (record.get("auth") or {}).get("user")
    who = [f"as {user}" if user else "", f"for {csr['subject']}" if csr.get("subject") else ""]
    return logs.escape(" ".join(part for part in (record["id"], record["at"], place, *who) if part))


def _replay_all(bench: Bench, changes: Changes, arguments: Namespace) -> int:
    """Whose outcome do today's scripts change?"""
    from estgw.cli import compare

    results: list[dict[str, Any]] = []
    counts = {"same": 0, "differs": 0, "left out": 0}
    if not arguments.json:
        print(bench.first_line)
    for record in records_of(bench, arguments.all):
        try:
            made = bench.replay(record, changes)
        except RecordError as fault:
            counts["left out"] += 1
            results.append({"id": record["id"], "left out": str(fault)})
            line = f"left out: {fault}"
        else:
            found = differences_of(record, made.record)
            counts["differs" if found else "same"] += 1
            results.append({"id": record["id"], **_as_json(bench, found, made.record)})
            line = "same" if not found else f"differs: {'; '.join(each.line for each in found)}"
            line = f"{title(record)}  {line}  ({compare.describe(made.record)})"
        if not arguments.json:
            print(logs.escape(line), flush=True)
    if arguments.json:
        print(json.dumps({"sandbox": "bwrap" if bench.bwrap else "none", "counts": counts, "replays": results}))
    else:
        print(", ".join(f"{number} {word}" for word, number in counts.items()))
    if not counts["same"] + counts["differs"]:
        raise ConfigError([f"{bench.records}: no record of {arguments.all} that can be replayed"])
    return DIFFERS if counts["differs"] else SAME


def records_of(bench: Bench, operation: str) -> Iterator[Record]:
    """The requests for an operation, oldest first; a file that is no record is named and left out."""
    try:
        paths = folder.names(bench.records)
    except RecordError as fault:
        raise ConfigError([str(fault)]) from None
    for path in paths:
        try:
            record = folder.read(path)
        except RecordError as fault:
            print(f"note: {logs.escape(str(fault))}", file=sys.stderr)
            continue
        if record["kind"] == "request" and record.get("operation") == operation:
            yield record


def _replay_fault(arguments: Namespace) -> str:
    if (arguments.record is None) == (arguments.all is None):
        return "give the id or the file of one record, or --all OPERATION"
    if arguments.for_real and (arguments.ca_copy or arguments.all):
        return "--for-real replays one record on the CA itself: without --all and --ca-copy"
    return ""


TRIED = (
    Option("--handler", "run this script in place of the configured one", "FILE", type=Path),
    Option("--authorize", "ask this script in place of the configured one", "FILE", type=Path),
    Option("--ca-copy", "a copy of the CA's directory that you have made, for a large one; scripts write to it", "DIR",
           type=Path),
    Option("--no-sandbox", "run scripts without bwrap, even where it works"),
)  # fmt: skip

COMMANDS = (
    Command(
        name="replay",
        summary="Repeat a recorded request with the scripts and the configuration of today, and say what differs.",
        description="Nothing is issued: scripts work on a copy of the CA (EST_REPLAY=1), and certificates are shown "
        "with a signature of zeros. The verified user and the channel binding are believed as recorded. Where bwrap "
        "works, scripts have no network and can write to the copy alone; the first line says so. "
        "Exit status: 0 the outcome is the same, 3 it differs, 1 trouble, 2 usage.",
        run=replay,
        options=(
            CONFIG,
            Option("record", "the id of a record, its file, or - for standard input", "ID|FILE", optional=True),
            Option("--all", "all recorded requests for this operation", "OPERATION", suggestions=tuple(OPERATIONS)),
            *TRIED,
            Option("--json", "print the result as JSON, with a record of the replay"),
            Option("--for-real", "work on the CA itself: a certificate is issued"),
        ),
        fault=_replay_fault,
        example="replay --all simpleenroll",
    ),
)
