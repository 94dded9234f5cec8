"""`estgw passwd`: the users of a password file."""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace
from pathlib import Path

from estgw.auth import digest, users
from estgw.commandline.table import Command, Option
from estgw.errors import ConfigError


def passwd(arguments: Namespace) -> int:
    """Set a user's password, for Basic or for Digest."""
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password for {arguments.user}: ")
        if getpass.getpass("Once more: ") != password:
            raise ConfigError(["the two passwords differ; nothing was changed"])
    else:
        password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise ConfigError(["the password is empty; nothing was changed"])
    try:
        if arguments.digest:
            digest.set_password(arguments.file, arguments.realm, arguments.user, password)
        else:
            users.set_password(arguments.file, arguments.user, password)
    except ValueError as fault:
        raise ConfigError([str(fault)]) from None
    return 0


COMMANDS = (
    Command(
        name="passwd",
        summary="Add a user to a password file, or change the password.",
        description="The password is asked for at a terminal, and otherwise read from standard input: one line, "
        f"{users.BCRYPT_BYTES} bytes at most.",
        run=passwd,
        options=[
            Option("file", "an htpasswd file, or a digest file with --digest", "FILE", type=Path),
            Option("user", "the user name", "USER"),
            Option("--digest", "write a digest file: lines with MD5 and SHA-256 in place of bcrypt"),
            Option("--realm", "the realm of --digest (default: estrealm)", "REALM", default="estrealm"),
        ],
        example="passwd users.htpasswd alice",
    ),
)
