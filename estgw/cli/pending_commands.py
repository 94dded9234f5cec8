"""`estgw pending`: a person looks at the requests that wait, and decides on them."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from estgw import logs
from estgw.cli import pending
from estgw.cli.arguments import CONFIG, config_file
from estgw.commandline.table import Command, Option
from estgw.register import engines, sqlite
from estgw.register.requests import Requests

PATIENCE = 10.0
"""Seconds in which a register must answer."""


def list_requests(arguments: Namespace) -> int:
    """Print one line for each request, the oldest first."""
    found = pending.requests(_places(arguments.config))
    found = [request for request in found if arguments.all or request.state in ("waiting", "approved")]
    if arguments.json:
        print(json.dumps([request.describe() for request in found], indent=2))
        return 0
    for request in found:
        what = f"{request.facts.get('EST_OPERATION')} of {request.facts.get('EST_CSR_SUBJECT')}"
        line = f"{request.id[:12]}  {request.state:8}  {request.since:%Y-%m-%d %H:%M}  {what}, by {request.client}"
        print(logs.escape(line))
    return 0


def show(arguments: Namespace) -> int:
    """Print everything about one request."""
    facts = pending.find(_places(arguments.config), arguments.id).describe()
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        for text in value if isinstance(value, list) else [value]:
            if text:
                for line in f"{name}: {text}".split("\n"):  # a CSR of a register is PEM
                    print(logs.escape(line))
    return 0


def approve(arguments: Namespace) -> int:
    """Let a request be issued."""
    request = pending.approve(_places(arguments.config), arguments.id)
    print(f"{request.id[:12]}: approved; the certificate is issued when the client comes back")
    return 0


def refuse(arguments: Namespace) -> int:
    """Refuse a request, with a reason for the client."""
    request = pending.refuse(_places(arguments.config), arguments.id, arguments.reason)
    print(f"{request.id[:12]}: refused; the client is told so when it comes back")
    return 0


def _places(path: Path) -> list[pending.Place]:
    """Where requests of the configured CAs wait: in the folder of each, and in its register if there is one."""
    from estgw.config import loading, routes

    served = {(each.ca_dir, each.register) for each in routes.routes(routes.build(loading.load(config_file(path))))}
    folders = sorted({folder / "pending" for folder, _ in served})
    registers = {
        url or str(folder): Requests(engines.open_register(url, folder, PATIENCE))
        for folder, url in sorted(served, key=str)
        if url is not None or (folder / sqlite.NAME).exists()
    }
    return [*folders, *registers.values()]


_ID = Option("id", "the EST_PENDING_ID of the request, or enough of its beginning", "ID")
_JSON = Option("--json", "print JSON for a program")
_REASON = Option("--reason", "one line that the client reads", "TEXT", required=True)

COMMANDS = (
    Command(
        name="pending",
        summary="Decide on requests that wait for a person.",
        description="Policies of handlers/python and the handler handlers/examples/manual-approval make requests wait.",
        run=None,
        example="pending list",
    ),
    Command(
        name="pending list",
        summary="Print the requests that wait, one a line.",
        run=list_requests,
        options=[CONFIG, _JSON, Option("--all", "print issued and refused requests as well")],
        example="pending list --all",
    ),
    Command(
        name="pending show",
        summary="Print everything about one request.",
        run=show,
        options=[CONFIG, _ID, _JSON],
        example="pending show 1a2b",
    ),
    Command(
        name="pending approve",
        summary="Let a request be issued when the client comes back.",
        run=approve,
        options=[CONFIG, _ID],
        example="pending approve 1a2b",
    ),
    Command(
        name="pending refuse",
        summary="Refuse a request, and tell the client why when it comes back.",
        run=refuse,
        options=[CONFIG, _ID, _REASON],
        example='pending refuse 1a2b --reason "ask your teacher"',
    ),
)
