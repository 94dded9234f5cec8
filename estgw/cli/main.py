"""The command line `estgw COMMAND`: its table, and the exit status of a fault."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from estgw import __version__
from estgw.cli import (
    cmc,
    conform,
    csrattrs,
    labs,
    log,
    passwd,
    pending_commands,
    quirks,
    register,
    replaying,
    serving,
    trying,
    watching,
    workshop,
)
from estgw.cli.workspace import WorkspaceError
from estgw.commandline.table import Program
from estgw.errors import ConfigError, Malformed
from estgw.register.engine import RegisterError
from estgw.register.requests import RequestError
from estgw.workshop.fault import WorkshopError

PROGRAM = Program(
    name="estgw",
    version=__version__,
    description="A CGI-style callout server for EST (RFC 7030): one script per operation.",
    commands=(
        *serving.COMMANDS,
        *trying.COMMANDS,
        *replaying.COMMANDS,
        *watching.COMMANDS,
        *csrattrs.COMMANDS,
        *cmc.COMMANDS,
        *pending_commands.COMMANDS,
        *register.COMMANDS,
        *passwd.COMMANDS,
        *log.COMMANDS,
        *conform.COMMANDS,
        *quirks.COMMANDS,
        *labs.COMMANDS,
        *workshop.COMMANDS,
    ),
    exit_status=(
        (0, "done", "Done."),
        (1, "failed, and stderr says why", "The command failed; a message on standard error says why."),
        (2, "wrong command line", "The command line itself is wrong."),
        (
            3,
            "a replay differs, no judgement, or a lab is not done",
            (
                "replay: the outcome differs from the recorded one.  conform: the server could not be judged.  "
                "lab check: some step is not done."
            ),
        ),
        (130, "interrupted", "Ctrl-C ended the command."),
    ),
    example="demo",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    run, arguments = PROGRAM.parse(sys.argv[1:] if argv is None else argv)
    try:
        return run(arguments)
    except ConfigError as refusal:
        for fault in refusal.faults:
            print(f"estgw: {fault}", file=sys.stderr)
        return 1
    except (WorkspaceError, WorkshopError, RequestError, RegisterError, Malformed, OSError) as fault:
        print(f"estgw: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
