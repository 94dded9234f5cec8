"""`estgw passwd`: the users of a password file."""

from __future__ import annotations

import getpass
import secrets
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from estgw.auth import digest, users
from estgw.cli.arguments import content
from estgw.commandline.table import Command, Option
from estgw.errors import ConfigError
from estgw.est.printable import printable

MOST_NAMES, MOST_BYTES = 10_000, 4_000_000
"""Of one file of names."""
LETTERS = "abcdefghijkmnpqrstuvwxyz"
"""Of a generated password; l and o are left out, since people read them as digits."""
GROUPS, GROUP = 4, 4
"""A generated password has 16 of these letters: 73 bits."""


def passwd(arguments: Namespace) -> int:
    """Set or remove users' passwords, for Basic or for Digest."""
    if arguments.remove:
        _remove(arguments)
        return 0
    if arguments.names_file:
        passwords = {name: generated() for name in names(arguments.names_file)}
    elif arguments.generate:
        passwords = {arguments.user: generated()}
    else:
        passwords = {arguments.user: _asked_for(arguments.user)}
    _write(arguments, passwords)
    if arguments.names_file or arguments.generate:
        print(*(f"{name} {password}" for name, password in passwords.items()), sep="\n", flush=True)
    return 0


def generated() -> str:
    """Return a random password that a person can read out and type, such as abcd-efgh-ijkm-npqr."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(GROUP)) for _ in range(GROUPS))


def names(file: Path) -> list[str]:
    """Return the names in a file, one a line; raises `ConfigError` with each line that can't be used."""
    raw = content(file, MOST_BYTES)
    if len(raw) > MOST_BYTES:
        raise ConfigError([f"{file}: it has more than {MOST_BYTES} bytes; split it; nothing was changed"])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError([f"{file}: it is not text in UTF-8; nothing was changed"]) from None
    found: dict[str, int] = {}
    faults = []
    for number, line in enumerate(text.splitlines(), start=1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        try:
            users.require_name(name)
        except ValueError as fault:
            faults.append(f"{file}:{number}: {printable(name, 100)!r}: {fault}")
            continue
        if name in found:
            faults.append(f"{file}:{number}: {name} is on line {found[name]} already; name each user once")
        found.setdefault(name, number)
    if not faults and not found:
        faults = [f"{file}: there is no name in it; write one a line"]
    if len(found) > MOST_NAMES:
        faults = [f"{file}: it has {len(found)} names, and {MOST_NAMES} is the most; split it"]
    if faults:
        raise ConfigError([*faults, "nothing was changed"])
    return list(found)


def _asked_for(user: str) -> str:
    """The password that a person types, or the first line of standard input."""
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password for {user}: ")
        if getpass.getpass("Once more: ") != password:
            raise ConfigError(["the two passwords differ; nothing was changed"])
    else:
        password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise ConfigError(["the password is empty; nothing was changed"])
    return password


def _write(arguments: Namespace, passwords: Mapping[str, str]) -> None:
    try:
        if arguments.digest:
            digest.set_passwords(arguments.file, arguments.realm, passwords)
        else:
            users.set_passwords(arguments.file, passwords)
    except ValueError as fault:
        raise ConfigError([str(fault)]) from None


def _remove(arguments: Namespace) -> None:
    try:
        if arguments.digest:
            digest.remove(arguments.file, arguments.realm, arguments.remove)
        else:
            users.remove(arguments.file, arguments.remove)
    except ValueError as fault:
        raise ConfigError([str(fault)]) from None


def _fault(arguments: Namespace) -> str:
    given = [arguments.user is not None, arguments.names_file is not None, bool(arguments.remove)]
    if sum(given) != 1:
        return "give one of these: USER, --from NAMES_FILE, or --remove NAME"
    return (
        "--remove removes a user and makes no password; leave out --generate" if given[2] and arguments.generate else ""
    )


COMMANDS = (
    Command(
        name="passwd",
        summary="Add users to a password file, change their passwords, or remove them.",
        description="The password is asked for at a terminal, and otherwise read from standard input: one line, "
        f"{users.BCRYPT_BYTES} bytes at most. Generated passwords are printed, a line with name and password for "
        "each user, and are kept nowhere else. The file is replaced as a whole or stays as it was; send SIGHUP to the "
        "gateway then.",
        run=passwd,
        options=[
            Option("file", "an htpasswd file, or a digest file with --digest", "FILE", type=Path),
            Option("user", "the user name", "USER", optional=True),
            Option("--from", "a file of user names, one a line (- is standard input); each gets a generated password",
                   "NAMES_FILE", type=Path, dest="names_file"),
            Option("--generate", "generate the password and print it"),
            Option("--remove", "remove this user (may be repeated)", "NAME", repeatable=True),
            Option("--digest", "write a digest file: lines with MD5 and SHA-256 in place of bcrypt"),
            Option("--realm", "the realm of --digest (default: estrealm)", "REALM", default="estrealm"),
        ],
        fault=_fault,
        example="passwd users.htpasswd alice",
    ),
)  # fmt: skip
