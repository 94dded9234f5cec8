"""The command that prints the man page or the completion of a program, for a package to install."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from estgw.commandline.completion import bash
from estgw.commandline.manpage import Manual, man
from estgw.commandline.table import Program


def print_document(program: Program, manual: Manual, argv: Sequence[str] | None = None) -> int:
    """Print one of the two on stdout, as the first argument says: `man` or `bash`."""
    printers = {"man": lambda: man(program, manual), "bash": lambda: bash(program)}
    wanted = list(sys.argv[1:] if argv is None else argv)
    if len(wanted) != 1 or wanted[0] not in printers:
        print(
            f"usage: {{{' | '.join(printers)}}}: print the man page or the completion of {program.name}",
            file=sys.stderr,
        )
        return 2
    sys.stdout.write(printers[wanted[0]]())
    return 0
