"""What the options of `estgw conform` describe, and the command line that repeats one case."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from estgw.client import files
from estgw.client.commands import options
from estgw.client.faults import ClientError as ClientError
from estgw.client.faults import UsageError as UsageError
from estgw.client.transport import url
from estgw.conform.case import Case
from estgw.conform.model import DEFAULT_SUBJECT, Setup


def setup(arguments: Namespace) -> Setup:
    """What the options describe; raises `UsageError`."""
    if arguments.url is None:
        raise UsageError("which server? give https://HOST[:PORT]")
    trust = options.trust(arguments.cacert, implicit=arguments.implicit)
    if trust.bootstrap:
        raise UsageError(
            "the server can't be verified without an anchor, and gets no password: give -c FILE "
            "(estclient cacerts gets it) or --implicit"
        )
    made = Setup(
        url.parse(arguments.url, arguments.label),
        trust,
        arguments.label,
        options.credentials(arguments.userpass, arguments.password_file),
        options.identity(arguments.cert, arguments.key),
        options.identity(arguments.ra_cert, arguments.ra_key),
        options.identity(arguments.other_cert, arguments.other_key),
        options.sealing_secret(arguments),
        arguments.subject,
        arguments.read_only,
        arguments.timeout,
    )
    try:
        made.name(1)
    except ValueError:
        raise UsageError(f"--subject: {arguments.subject!r} is no RFC 4514 name such as CN=device-{{n}}") from None
    return made


def write(path: Path, text: str) -> None:
    """Put a report in place in one step; raises `ClientError`."""
    files.write(path, text.encode("utf-8", "backslashreplace"))


_KEPT = (
    ("cacert", "-c"),
    ("implicit", "--implicit"),
    ("label", "--label"),
    ("cert", "--cert"),
    ("key", "--key"),
    ("ra_cert", "--ra-cert"),
    ("ra_key", "--ra-key"),
    ("other_cert", "--other-cert"),
    ("other_key", "--other-key"),
    ("password_file", "--password-file"),
    ("decrypt_key", "--decrypt-key"),
    ("decrypt_key_id", "--decrypt-key-id"),
    ("decrypt_cert", "--decrypt-cert"),
    ("decrypt_cert_key", "--decrypt-cert-key"),
    ("read_only", "--read-only"),
)
"""Options that the command for one case repeats; the password is not among them."""


def repeat(arguments: Namespace) -> Callable[[Case], str]:
    """Makes the command that runs one case alone, without the password: the terminal asks for it."""
    words = ["estgw", "conform", arguments.url]
    for name, spelling in _KEPT:
        value = getattr(arguments, name)
        for each in value if isinstance(value, list) else [value]:
            if each is True:
                words.append(spelling)
            elif each not in (None, False):
                words += [spelling, str(each)]
    if arguments.userpass is not None:
        words += ["-p", arguments.userpass.partition(":")[0]]
    if arguments.subject != DEFAULT_SUBJECT:
        words += ["--subject", arguments.subject]
    start = shlex.join(words)
    return lambda case: f"{start} --only {case.id}"
