"""`estgw cmc`: Full CMC messages in words."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from estgw.cli import arguments as shared
from estgw.commandline.table import Command, Option


def explain(arguments: Namespace) -> int:
    """Print a CMC message in words; the parser of CMC is loaded only now."""
    from estgw.cmc.explain import explain

    sys.stdout.write(explain(shared.content(arguments.file)))
    return 0


COMMANDS = (
    Command(
        name="cmc",
        summary="Show Full CMC messages (RFC 5272), requests and answers.",
        run=None,
        example="cmc explain request.p7",
    ),
    Command(
        name="cmc explain",
        summary="Print a PKIData or PKIResponse as a tree, with a name for everything in it.",
        run=explain,
        options=[Option("file", "DER, BER, base64 or PEM; - is standard input", "FILE", type=Path)],
        example="cmc explain request.p7",
    ),
)
