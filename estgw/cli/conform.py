"""`estgw conform`: judge an EST server by RFC 7030, from outside.

The judge and the client are loaded only when the command runs.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from estgw.commandline.table import Command, Group, Option

if TYPE_CHECKING:
    from estgw.conform.case import Case, Result

CANNOT_RUN = 3


def conform(arguments: Namespace) -> int:
    """Run the cases and write the reports; 0 no FAIL, 1 some, 2 usage, 3 could not run."""
    from estgw.conform import expect, invocation, runner, table
    from estgw.conform.invocation import ClientError, UsageError
    from estgw.conform.reports import data, html, text

    try:
        cases = table.select(arguments.only, arguments.skip)
        if arguments.list:
            return _list(cases)
        setup = invocation.setup(arguments)
        expected = expect.read(arguments.expect) if arguments.expect else {}
        report = runner.run(setup, cases, invocation.repeat(arguments), expected, _teller())
        for path, form in (
            (arguments.json, data.as_json),
            (arguments.junit, data.as_junit),
            (arguments.html, html.page),
        ):
            if path is not None:
                invocation.write(path, form(report))
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


def _teller() -> Callable[[Result], None]:
    """Prints a line for each result as soon as it is there."""
    from estgw.conform.reports import text

    coloured = sys.stdout.isatty()

    def tell(result: Result) -> None:
        print(text.line(result, coloured=coloured), flush=True)

    return tell


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 600:
        raise ValueError
    return value


def _file(spelling: str, help_: str) -> Option:
    return Option(spelling, help_, "FILE", type=Path)


COMMANDS = (
    Command(
        name="conform",
        summary="Judge an EST server by RFC 7030, from outside.",
        description="It gets about 30 certificates issued, for names that begin with estgw-conform; with --read-only "
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
                    Option(
                        "--subject", "the names in the CSRs; {n} is a number", "NAME", default="CN=estgw-conform-{n}"
                    ),
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
