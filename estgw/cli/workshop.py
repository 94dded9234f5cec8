"""`estgw workshop`: a course on one machine, from its directory to the printed handouts."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estgw import logs
from estgw.commandline.table import Command, Option
from estgw.workshop.fault import WorkshopError

if TYPE_CHECKING:
    from estgw.workshop.plan import Workshop

_SAME_USER = (
    "All scripts run as one user, on one CA: each participant's scripts can read the CA's key and everybody's files, "
    "and can stop the gateway. That is for people who trust one another; as root, each participant gets a user id."
)
_SETTINGS = ("isolation", "listen", "port", "page_port", "trainer_port", "uid_base", "memory", "tasks", "disk")


def init(arguments: Namespace) -> int:
    """Make a workshop, or what is missing of it."""
    from estgw.workshop import control, layout, plan

    folder: Path = arguments.dir.resolve()
    given = {key: getattr(arguments, key) for key in _SETTINGS if getattr(arguments, key) is not None}
    workshop = _extended(folder, arguments, given) if (folder / plan.FILE).exists() else _new(folder, arguments, given)
    plan.require_sound(workshop)
    layout.require_possible(workshop)
    folder.mkdir(parents=True, exist_ok=True)
    with plan.locked(folder):
        plan.save(workshop)
        made = layout.make(workshop, lambda line: print(line, flush=True))
    served = control.ask(folder / layout.RUN / "control", do="status") is not None
    if not made:
        print("nothing is missing" + (", and it is served already; next:" if served else ""))
    elif served:
        print("the running `estgw workshop serve` does not know them yet: end it and start it again, then:")
    if not workshop.isolated:
        print(_SAME_USER, file=sys.stderr)
    where = _shown(arguments.dir)
    if not served:
        print(f"Next:\n    estgw workshop serve {where}\nand in another terminal:")
    print(f"    estgw workshop check {where}\n    estgw workshop handouts {where}")
    return 0


def _new(folder: Path, arguments: Namespace, given: dict[str, Any]) -> Workshop:
    from estgw.workshop.plan import LABELS, PROCESSES, Workshop

    if arguments.participants is None or not arguments.name:
        raise WorkshopError("a new workshop needs --participants N and --name HOST_OR_IP")
    isolation = PROCESSES if os.geteuid() == 0 else LABELS
    return Workshop(
        folder, arguments.participants, tuple(dict.fromkeys(arguments.name)), **{"isolation": isolation, **given}
    )


def _extended(folder: Path, arguments: Namespace, given: dict[str, Any]) -> Workshop:
    """An existing workshop with more participants; nothing else changes."""
    from estgw.workshop import plan

    workshop = plan.load(folder)
    wanted = workshop.participants if arguments.participants is None else arguments.participants
    others = [key for key, value in given.items() if value != getattr(workshop, key)]
    if others or (arguments.name and tuple(dict.fromkeys(arguments.name)) != workshop.names):
        key = others[0] if others else "names"
        way_out = "estgw workshop addresses gives it other names" if key == "names" else "wipe it first for another one"
        raise WorkshopError(f"{folder / plan.FILE} is there, with another value of {key}; {way_out}")
    if wanted < workshop.participants:
        raise WorkshopError(f"{folder} has {workshop.participants} participants; init adds some and removes none")
    return replace(workshop, participants=wanted)


def serve(arguments: Namespace) -> int:
    """Serve everything in the foreground, or write units for systemd."""
    from estgw.workshop import checking, supervisor, units

    workshop = _ready(arguments)
    if arguments.systemd:
        made = units.write(workshop)
        print(f"made {made[0].parent}; to start them now and with the machine:")
        print(f"    systemctl link {' '.join(shlex.quote(str(path)) for path in made)}")
        print(f"    systemctl enable --now {units.TARGET}")
        return 0
    logs.configure("auto", "info")

    def ready(silent: list[Path]) -> None:
        print(f"workshop ready, {workshop.participants} participants; Ctrl-C stops it")
        for path in silent:
            print(f"but {path.parent.name} does not answer yet; its last words are in {path}")
        print(checking.links(workshop)[0], flush=True)

    print(f"starting {workshop.participants} participants' gateways", flush=True)
    supervisor.serve(workshop, ready)
    return 0


def check(arguments: Namespace) -> int:
    """Check a running workshop."""
    from estgw.workshop import checking

    faults = checking.faults(_ready(arguments), lambda line: print(line, flush=True))
    for fault in faults:
        print(f"fault: {logs.escape(fault)}", file=sys.stderr)
    print(f"{len(faults)} fault{'s' * (len(faults) > 1)}" if faults else "all well")
    return 1 if faults else 0


def status(arguments: Namespace) -> int:
    """A line for each participant."""
    from estgw.workshop import checking, control, layout
    from estgw.workshop.standings import Standings

    workshop = _ready(arguments)
    running = control.ask(workshop.folder / layout.RUN / "control", do="status")
    children = {child["id"]: child for child in (running or {}).get("children", ())}

    async def ask() -> list[dict[str, Any]]:
        told = json.loads((workshop.folder / "trainer.json").read_text(encoding="utf-8"))
        standings = Standings(told["seats"])
        try:
            return await standings.all()
        finally:
            await standings.close()

    found = asyncio.run(ask())
    for standing in found:
        print(logs.escape(_line(standing, children.get(standing["id"], {}))))
    if running is None and all(standing["state"] == "down" for standing in found):
        print(f"nothing answers; start it with: estgw workshop serve {_shown(arguments.dir)}")
    if arguments.links:
        print("\n".join(checking.links(workshop)))
    return 0


def _line(standing: dict[str, Any], child: dict[str, Any]) -> str:
    parts = [standing["id"], standing["state"]]
    if child.get("memory"):
        parts.append(f"{child['memory'] // 1_000_000} MB")
    if restarts := child.get("restarts"):
        parts.append(f"{restarts} restart{'s' * (restarts > 1)}")
    if standing.get("hand"):
        parts.append("HAND RAISED")
    if standing.get("stuck"):
        parts.append(f"STUCK: {standing['stuck']}")
    if labs := standing.get("labs"):
        parts.append(f"labs {', '.join(labs)}")
    if last := standing.get("last"):
        parts.append(f"last: {last['operation'] or last['line'] or 'handshake'} {last['status'] or 'failed'}")
    if refusal := standing.get("refusal"):
        parts.append(f"refused: {refusal['gate']}: {refusal['reason']} (hint: {refusal['hint'] or 'none'})")
    return "  ".join(parts)


def addresses(arguments: Namespace) -> int:
    """Give the workshop the addresses that this machine has now, or the names that were given."""
    from estgw.workshop import checking, control, layout, plan

    workshop = _ready(arguments)
    here = checking.addresses()
    names = tuple(dict.fromkeys(arguments.name)) or _moved(workshop.names, here)
    if not names:
        raise WorkshopError("this machine has no address that others reach now; name one with --name")
    if names == workshop.names:
        print(f"nothing has changed: {', '.join(names)}")
        return 0
    renamed = plan.with_names(workshop, names)
    with plan.locked(workshop.folder):
        failed = []
        trainer, seats = plan.trainer(workshop), plan.seats(workshop)
        for seat in (trainer, *(seats if workshop.isolated else seats[:1])):
            if seat is not trainer:
                layout.mount(workshop, seat)
            try:
                layout.name_anew(renamed, seat, anew=False)
            except WorkshopError as fault:
                failed.append(str(fault))
        plan.save(renamed)
        layout.tell_trainer(renamed)
    control.ask(workshop.folder / layout.RUN / "control", do="rename")
    print(f"before: {', '.join(workshop.names)}\nnow:    {', '.join(names)}")
    print(f"{checking.links(renamed)[0]}\nPrint the handouts anew: estgw workshop handouts {_shown(arguments.dir)}")
    for sentence in failed:
        print(f"estgw: {sentence}", file=sys.stderr)
    return 1 if failed else 0


def _moved(names: tuple[str, ...], here: list[str]) -> tuple[str, ...]:
    """The names with the present addresses in the place of the old ones, in the order that they had."""
    import re

    kept = [name for name in names if name in here or not re.fullmatch(r"[0-9.]+|.*:.*", name)]
    gone = len(names) - len(kept)
    fresh = [address for address in here if address not in names][: max(gone, 0)]
    if not gone:
        return names
    first_went = names[0] not in kept
    return tuple([*fresh, *kept] if first_went else [*kept, *fresh])


def reset(arguments: Namespace) -> int:
    """Give one participant fresh scripts and the CA of the first day."""
    from estgw.workshop import control, layout, plan

    if (Path(arguments.participant) / plan.FILE).exists():
        raise WorkshopError(f"whom to reset is missing: estgw workshop reset p07 {_shown(Path(arguments.participant))}")
    workshop = _ready(arguments)
    seat = plan.seat(workshop, arguments.participant)
    answer = control.ask(workshop.folder / layout.RUN / "control", do="reset", who=seat.id)
    if answer is None:
        from estgw.workshop import identity

        with plan.locked(workshop.folder):
            identity.end_all(seat)
            answer = {"old": str(layout.reset(workshop, seat))}
    print(f"{seat.id} is as on the first day; the old files are in {answer['old']}")
    return 0


def handouts(arguments: Namespace) -> int:
    """Write the handouts."""
    from estgw.workshop import handouts as pages

    made = pages.write(_ready(arguments))
    print(f"made {made[0]}, and {len(made) - 1} files with one page each; passwords and links are on them")
    return 0


def export(arguments: Namespace) -> int:
    """Write an archive for each participant."""
    from estgw.workshop import layout

    made = layout.export(_ready(arguments))
    print(f"made {len(made)} archives in {made[0].parent}; private keys and passwords are not in them")
    return 0


def wipe(arguments: Namespace) -> int:
    """Remove a workshop."""
    from estgw.workshop import control, layout, plan

    workshop = plan.load(arguments.dir)
    if control.ask(workshop.folder / layout.RUN / "control", do="status") is not None:
        raise WorkshopError(f"{workshop.folder} is being served; stop that first")
    if not arguments.yes:
        raise WorkshopError(
            f"this removes all keys, scripts, records and old files of {workshop.folder}; say it with --yes"
        )
    layout.wipe(workshop)
    print(f"{workshop.folder} is no workshop any more")
    return 0


def _shown(folder: Path) -> str:
    """The directory as it is typed in the next command."""
    return shlex.quote(str(folder))


def _ready(arguments: Namespace) -> Workshop:
    from estgw.workshop import plan

    workshop = plan.load(arguments.dir)
    if workshop.isolated and os.geteuid() != 0:
        raise WorkshopError(f"{workshop.folder} has a user id for each participant: this needs root")
    return workshop


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError(text)
    return int(text)


_number.__name__ = "number"  # argparse says "invalid number value"

DIR = Option("dir", "the directory of the workshop (default: here)", "DIR", type=Path, default=Path(), optional=True)
_NAMES = Option("--name", "a host name or IP address of this machine; repeatable, the first is in URLs",
                "HOST_OR_IP", repeatable=True)  # fmt: skip

COMMANDS = (
    Command(name="workshop", summary="Hold a course on one machine.", run=None, example="workshop status /srv/course"),
    Command(
        name="workshop init",
        summary="Make a workshop: a directory, a CA, a password and a page for each participant.",
        description="As root, each participant has a user id and a gateway of its own; otherwise a label in one "
        "gateway. A second init adds what is missing, and overwrites nothing. docs/workshops.md has the rest.",
        run=init,
        options=(
            Option("dir", "the directory of the workshop", "DIR", type=Path),
            Option("--participants", "how many, from 1 to 99", "N", type=_number),
            _NAMES,
            Option("--isolation", "a process and a user id each, or a label each (default: processes as root)",
                   choices=("processes", "labels")),
            Option("--listen", "the IP address to listen on (default: 0.0.0.0)", "ADDR"),
            Option("--port", "the port of p01's gateway (default: 8501)", "PORT", type=_number),
            Option("--page-port", "the port of p01's page (default: 8601)", "PORT", type=_number),
            Option("--trainer-port", "the port of the trainer's page (default: 8500)", "PORT", type=_number),
            Option("--uid-base", "the user id of the trainer's page; p01's is the next (default: 58000)", "UID",
                   type=_number),
            Option("--memory", "megabytes of all processes of a participant (default: 768)", "MIB", type=_number),
            Option("--tasks", "processes and threads of a participant (default: 150)", "N", type=_number),
            Option("--disk", "megabytes of a file system for each participant (default: 0, none of their own)", "MIB",
                   type=_number),
        ),
        example="workshop init /srv/course --participants 20 --name est.lab.example --name 192.0.2.10",
    ),
    Command(
        name="workshop serve",
        summary="Run the gateways of all participants and the trainer's page.",
        description="What dies is started again. SIGHUP makes the gateways reload; Ctrl-C and SIGTERM stop everything.",
        run=serve,
        options=(DIR, Option("--systemd", "write units for systemd in place of serving")),
        example="workshop serve /srv/course",
    ),
    Command(
        name="workshop check",
        summary="Try every port at every address, one enrolment each, all at once, and the clock.",
        run=check,
        options=(DIR,),
        example="workshop check /srv/course",
    ),
    Command(
        name="workshop status",
        summary="Print a line for each participant: last request, last refusal and its hint, labs, hand.",
        run=status,
        options=(DIR, Option("--links", "print the links of all pages as well")),
        example="workshop status --links /srv/course",
    ),
    Command(
        name="workshop addresses",
        summary="Go on under the addresses that this machine has now.",
        description="Host names stay; --name gives all names anew. The CAs stay, and make new server certificates.",
        run=addresses,
        options=(DIR, _NAMES),
        example="workshop addresses /srv/course",
    ),
    Command(
        name="workshop reset",
        summary="Give one participant the scripts and the CA of the first day; the old files are kept.",
        run=reset,
        options=(Option("participant", "such as p07", "PNN"), DIR),
        example="workshop reset p07 /srv/course",
    ),
    Command(
        name="workshop handouts",
        summary="Write a page to print for each participant.",
        run=handouts,
        options=(DIR,),
        example="workshop handouts /srv/course",
    ),
    Command(
        name="workshop export",
        summary="Write an archive for each participant, without private keys and passwords.",
        run=export,
        options=(DIR,),
        example="workshop export /srv/course",
    ),
    Command(
        name="workshop wipe",
        summary="Remove a workshop with all its keys.",
        run=wipe,
        options=(DIR, Option("--yes", "really")),
        example="workshop wipe --yes /srv/course",
    ),
)  # fmt: skip
