"""The command line `estgw COMMAND`: its table, and the exit status of a fault."""

from __future__ import annotations

import functools
import importlib
import os
import select
import sys
from collections.abc import Sequence

from estgw import __version__
from estgw.commandline.table import Command, Program
from estgw.errors import ConfigError, Malformed, Unusable

MODULES = {
    "serving": ("demo", "init", "serve", "check"),
    "trying": ("env", "run"),
    "replaying": ("replay",),
    "watching": ("watch",),
    "csrattrs": ("csrattrs",),
    "cmc": ("cmc",),
    "pending_commands": ("pending",),
    "register": ("register",),
    "passwd": ("passwd",),
    "log": ("log",),
    "conform": ("conform",),
    "quirks": ("quirks",),
    "labs": ("lab",),
    "workshop": ("workshop",),
}
"""The modules of this package that have commands, in the order of the help text, with the first words of these."""


@functools.cache
def program(first_word: str = "") -> Program:
    """The program with the commands of one module, the one that has this word; of all modules for any other word.

    So a command is not kept waiting for the libraries of the others.
    """
    wanted = [name for name, words in MODULES.items() if first_word in words]
    commands: list[Command] = []
    for name in wanted or MODULES:
        commands += importlib.import_module(f"estgw.cli.{name}").COMMANDS
    return Program(
        name="estgw",
        version=__version__,
        description="A CGI-style callout server for EST (RFC 7030): one script per operation.",
        commands=tuple(commands),
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
    words = sys.argv[1:] if argv is None else argv
    run, arguments = program(words[0] if words else "").parse(words)
    status = 0
    try:
        status = run(arguments)
        if sys.stdout is not None:  # it is None where the command was started with it closed
            sys.stdout.flush()
    except BrokenPipeError as broken:
        if not _is_cut_off():
            print(f"estgw: {broken}", file=sys.stderr)
            return 1
    except ConfigError as refusal:
        for fault in refusal.faults:
            print(f"estgw: {fault}", file=sys.stderr)
        return 1
    except (Unusable, Malformed, OSError) as fault:
        print(f"estgw: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _is_cut_off() -> bool:
    """Whether the reader of standard output has gone, as in `estgw ... | head`; the rest is then dropped."""
    output = select.poll()
    output.register(sys.stdout, 0)
    if not output.poll(0):  # no event is asked for, so what comes is an error
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left at its end
    return True
