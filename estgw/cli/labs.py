"""`estgw lab`: lessons that check themselves."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from estgw import logs
from estgw.cli import workspace
from estgw.cli.arguments import CONFIG, config_file
from estgw.commandline.table import Command, Option
from estgw.errors import ConfigError

if TYPE_CHECKING:
    from estgw.labs.evidence import Place
    from estgw.labs.sheets import Gateway, Sheet
    from estgw.record.ring import Record

NOT_YET = 3


def list_labs(arguments: Namespace) -> int:
    """Print a line for each lab, with what the last check said."""
    from estgw.labs import outcomes

    known = outcomes.outcomes(arguments.config.absolute().parent)
    for number, sheet in _sheets().items():
        print(f"{number:>2}  {_word(known.get(str(number), {})):8}  {sheet.title} ({sheet.time})")
    return 0


def _word(found: dict[str, str]) -> str:
    """The outcome of a lab: the worst of its steps; empty if it was never checked."""
    return next((word for word in ("wrong", "not yet", "done") if word in found.values()), "")


def show(arguments: Namespace) -> int:
    """Print a sheet."""
    sheet, gateway = _find(arguments.number), _gateway(arguments.config)
    sys.stdout.write(sheet.markdown(gateway) if arguments.markdown else sheet.shown(gateway, hints=arguments.hints))
    return 0


def _gateway(path: Path) -> Gateway:
    """Address and user as in conf.yaml; those of the sheets where it has none, or several users, or can't be read."""
    from estgw.auth import users
    from estgw.config import fields, loading
    from estgw.labs.sheets import DEFAULT_URL, DEFAULT_USER, Gateway

    try:
        settings = loading.load(path)
        names = users.load(settings.client_auth.users).names if settings.client_auth.users else []
    except ConfigError:
        return Gateway()
    _, port = fields.split_address(settings.server.listen[0])
    url = f"https://{settings.server.name}:{port}" if port else DEFAULT_URL
    return Gateway(url, names[0] if len(names) == 1 else DEFAULT_USER)


def start(arguments: Namespace) -> int:
    """Add a lab's settings to conf.yaml, and let only count what happens from now on."""
    from estgw.config import loading
    from estgw.labs import files, outcomes, settings
    from estgw.labs.sheets import LabError

    sheet, path = _find(arguments.number), config_file(arguments.config)
    loading.load(path)  # a fault that is there already is named as one of this file
    text = path.read_text(encoding="utf-8")
    try:
        new = settings.added(text, sheet.settings, path)
    except LabError as fault:
        raise ConfigError([str(fault)]) from None
    if new != text:
        files.write(path, new, approve=loading.load)
        print(f"{path} has these lines now:\n{sheet.settings}")
        print('Make the gateway read them: pkill -HUP -f "estgw demo", or stop it with Ctrl-C and start it again.')
    now = time.time()
    at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03}Z"
    outcomes.start(path.absolute().parent, sheet.number, at)
    print(f"Lab {sheet.number} begins: what came before does not count. The sheet: estgw lab show {sheet.number}")
    return 0


def check(arguments: Namespace) -> int:
    """Say of each step of a lab whether it is done, and write that down."""
    from estgw.labs import outcomes
    from estgw.labs.evidence import Evidence
    from estgw.labs.step import Outcome
    from estgw.labs.table import LABS

    sheet, path = _find(arguments.number), config_file(arguments.config)
    place = _place(path, sheet.number, arguments.label)
    findings = LABS[sheet.number].check(Evidence(place))
    print(f"Lab {sheet.number}: {sheet.title}")
    width = max(map(len, findings))
    for step, finding in findings.items():
        print(logs.escape(f"  {finding.outcome.value:8}  {step:{width}}  {finding.sentence}"))
    if not place.records.is_dir():
        print(f"note: there are no records in {place.records}: estgw demo makes them, or `record` in conf.yaml")
    try:
        outcomes.keep(place.workspace, sheet.number, findings)
    except OSError as fault:
        print(f"note: this outcome could not be written down: {fault.filename}: {fault.strerror}", file=sys.stderr)
    return 0 if all(finding.outcome is Outcome.DONE for finding in findings.values()) else NOT_YET


def _place(path: Path, number: int, label: str | None) -> Place:
    from estgw.callout import spawn
    from estgw.cli.replay import Changes
    from estgw.cli.replaying import Bench
    from estgw.labs import outcomes
    from estgw.labs.evidence import Place

    spawn.disown_inheritance()
    logs.configure("auto", "warning")
    bench = Bench(path)
    services = bench.gateway.services
    if label is not None and label not in services:
        raise ConfigError([f"--label {label}: {path} has no such label"])
    route = next(iter(services[label].routes.values()))

    def replay(record: Record) -> Record:
        return bench.replay(record, Changes()).record

    folder = path.absolute().parent
    return Place(folder, bench.records, route.ca_dir, replay, label, outcomes.started(folder, number))


def _sheets() -> dict[int, Sheet]:
    from estgw.labs import sheets

    try:
        return sheets.sheets(workspace.template())
    except sheets.LabError as fault:
        raise ConfigError([str(fault)]) from None


def _find(number: str) -> Sheet:
    known = _sheets()
    sheet = known.get(int(number)) if number in map(str, known) else None
    if sheet is None:
        raise ConfigError([f"there is no lab {number[:20]!r}; the labs have the numbers 1 to {max(known)}"])
    return sheet


_NUMBER = Option("number", "the number of the lab", "N")

COMMANDS = (
    Command(
        name="lab",
        summary="Lessons that check themselves.",
        description="Checks read the records of requests, the CA and files; they change nothing but .estgw/labs.json.",
        run=None,
        example="lab list",
    ),
    Command(
        name="lab list",
        summary="Print the labs, and what the last check said.",
        run=list_labs,
        options=[CONFIG],
        example="lab list",
    ),
    Command(
        name="lab show",
        summary="Print the sheet of a lab.",
        run=show,
        options=[
            CONFIG,
            _NUMBER,
            Option("--hints", "with the hints, which give the solution away"),
            Option("--markdown", "as Markdown, with folded hints, for a page"),
        ],
        example="lab show 1",
    ),
    Command(
        name="lab start",
        summary="Begin a lab, or begin it anew.",
        description="It adds what the lab needs to conf.yaml, and says so. What came before does not count any more.",
        run=start,
        options=[CONFIG, _NUMBER],
        example="lab start 4",
    ),
    Command(
        name="lab check",
        summary="Say of each step of a lab whether it is done.",
        description="Exit status: 0 all steps are done, 3 some are not.",
        run=check,
        options=[CONFIG, _NUMBER, Option("--label", "only requests with this CA label count", "LABEL")],
        example="lab check 1",
    ),
)
