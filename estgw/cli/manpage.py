"""The man page of `estgw` and its completion for Bash: `python -m estgw.cli.manpage man|bash`."""

from __future__ import annotations

import sys

from estgw.cli.main import program
from estgw.commandline.documents import print_document
from estgw.commandline.manpage import Manual

MANUAL = Manual(
    name="a callout server for Enrollment over Secure Transport (RFC 7030)",
    description=(
        "The gateway ends TLS and authenticates the client; then it runs one script for each operation and sends what "
        "the script prints.  conf.yaml says which scripts, and describes every setting in its comments."
    ),
    environment=(("TMPDIR", "The directory for the temporary files of scripts (default: memory, in /dev/shm)."),),
    examples=(
        ("Make a CA and serve it, to try everything out:", "estgw demo --dir lab"),
        ("Check a configuration, then serve it:", "estgw check -c conf.yaml && estgw serve -c conf.yaml"),
        (
            "Run a script that you have just edited, without a client:",
            "estgw run simpleenroll --csr req.pem --user alice",
        ),
        ("Give each participant of a course a password:", "estgw passwd users.htpasswd --from names.txt"),
        ("Show the last failure of a participant:", "estgw log gateway.log --user p7 --failures --last 1"),
        ("Let a request that waits be issued:", "estgw pending approve 1a2b"),
        ("Judge an EST client by a server that misbehaves:", "estgw quirks run --client estclient"),
    ),
    see_also="estclient(1), openssl(1), RFC 7030, RFC 8951, RFC 9908",
)

if __name__ == "__main__":
    sys.exit(print_document(program(), MANUAL))
