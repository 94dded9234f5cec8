"""`estgw conform`: judge an EST server by RFC 7030, from outside.

The judge and the client are loaded only when the command runs.
"""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from estgw.commandline.table import Command, Group, Option

if TYPE_CHECKING:
    from estgw.conform.model import Case, Result, Setup

CANNOT_RUN = 3


def conform(arguments: Namespace) -> int:
    """Run the cases and write the reports; 0 no FAIL, 1 some, 2 usage, 3 could not run."""
    from estgw.client import files
    from estgw.client.faults import ClientError, UsageError
    from estgw.conform import expect, runner, table
    from estgw.conform.reports import data, html, text

    try:
        cases = table.select(arguments.only, arguments.skip)
        if arguments.list:
            return _list(cases)
        setup = _setup(arguments)
        expected = expect.read(arguments.expect) if arguments.expect else {}
        report = runner.run(setup, cases, _repeat(arguments), expected, _teller())
        for path, form in (
            (arguments.json, data.as_json),
            (arguments.junit, data.as_junit),
            (arguments.html, html.page),
        ):
            if path is not None:
                files.write(path, form(report).encode())
    except UsageError as fault:
        print(f"estgw conform: {fault}", file=sys.stderr)
        return 2
    except (ClientError, runner.CannotRun) as fault:
        print(f"estgw conform: {fault}", file=sys.stderr)
        return CANNOT_RUN
    for line in (*text.details(report), *text.summary(report)):
        print(line)
    return report.exit_status(strict=arguments.strict)


def _list(cases: list[Case]) -> int:
    for case in cases:
        needs = f" [needs {', '.join(need.value for need in case.needs)}]" if case.needs else ""
        print(f"{case.id:26} {case.level.value:6} {case.clause}: {case.expected}{needs}")
    return 0


def _setup(arguments: Namespace) -> Setup:
    """What the options describe; raises `UsageError`."""
    from estgw.client.commands import options
    from estgw.client.faults import UsageError
    from estgw.client.transport import url
    from estgw.conform.model import Setup

    if arguments.url is None:
        raise UsageError("which server? give https://HOST[:PORT]")
    trust = options.trust(arguments.cacert, implicit=arguments.implicit)
    if trust.bootstrap:
        raise UsageError(
            "the server can't be verified without an anchor, and gets no password: give -c FILE "
            "(estclient cacerts gets it) or --implicit"
        )
    setup = Setup(
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
        setup.name(1)
    except ValueError:
        raise UsageError(f"--subject: {arguments.subject!r} is no RFC 4514 name such as CN=device-{{n}}") from None
    return setup


def _teller() -> Callable[[Result], None]:
    """Prints a line for each result as soon as it is there."""
    from estgw.conform.reports import text

    coloured = sys.stdout.isatty()

    def tell(result: Result) -> None:
        print(text.line(result, coloured=coloured), flush=True)

    return tell


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


def _repeat(arguments: Namespace) -> Callable[[Case], str]:
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
    if arguments.subject != SUBJECT:
        words += ["--subject", arguments.subject]
    start = shlex.join(words)
    return lambda case: f"{start} --only {case.id}"


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 600:
        raise ValueError
    return value


SUBJECT = "CN=estgw-conform-{n}"


def _file(spelling: str, help_: str) -> Option:
    return Option(spelling, help_, "FILE", type=Path)


COMMANDS = (
    Command(
        name="conform",
        summary="Judge an EST server by RFC 7030, from outside.",
        description="It gets some 60 certificates issued, for names that begin with estgw-conform; with --read-only "
        "none.  Exit status: 0 no FAIL, 1 some, 2 usage, 3 could not run.",
        run=conform,
        options=[
            Option("url", "the server, as https://HOST[:PORT]", "URL", optional=True),
            Group(
                "server",
                (
                    Option(
                        "-c --cacert", "anchors of the server's certificate, PEM", "FILE", type=Path, repeatable=True
                    ),
                    Option("--implicit", "trust the system's anchors as well (RFC 7030 3.6.2)"),
                    Option("--label", "the CA label", "LABEL"),
                    Option("--timeout", "seconds for TCP, TLS and each answer", "SECONDS", type=_seconds, default=10.0),
                ),
            ),
            Group(
                "credentials",
                (
                    Option(
                        "-p --userpass", "user and password; it is sent to a trusted server only", "USER[:PASSWORD]"
                    ),
                    _file("--password-file", "a file with the password in its first line"),
                    _file("--cert", "a certificate of the server's own CA"),
                    _file("--key", "its key (default: in --cert)"),
                    _file("--ra-cert", "a certificate with id-kp-cmcRA of the server's own CA"),
                    _file("--ra-key", "its key"),
                    _file("--other-cert", "a certificate of a CA that the server must not trust"),
                    _file("--other-key", "its key"),
                    _file("--decrypt-key", "a shared AES key that the server knows, for serverkeygen"),
                    Option("--decrypt-key-id", "its name on the server; 0x for hex", "ID"),
                    _file("--decrypt-cert", "a certificate to encrypt to, for serverkeygen"),
                    _file("--decrypt-cert-key", "its key"),
                ),
            ),
            Group(
                "cases",
                (
                    Option("--only", "run this group or case only", "GROUP|CASE", repeatable=True),
                    Option("--skip", "leave this group or case out", "GROUP|CASE", repeatable=True),
                    Option("--read-only", "get nothing issued"),
                    Option("--subject", "the names in the CSRs; {n} is a number", "NAME", default=SUBJECT),
                    Option("--list", "print the cases, and run none"),
                ),
            ),
            Group(
                "reports",
                (
                    Option("--strict", "a WARN counts as a FAIL in the exit status"),
                    _file("--expect", "lines `case reason`: these may fail; one that passes fails the run"),
                    _file("--json", "write the report as JSON"),
                    _file("--junit", "write the report as JUnit XML"),
                    _file("--html", "write the report as one HTML file"),
                ),
            ),
        ],
        example="conform https://localhost:8443 -c openssl-ca/cacert.pem -p estuser:estpwd --html report.html",
    ),
)
