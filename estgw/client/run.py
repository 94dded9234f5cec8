"""One run of `estclient`: the command's function, and the exit status of whatever comes out of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from estgw.client.faults import ClientError, Exit, UsageError
from estgw.client.report import Report
from estgw.est import certs

Command = Callable[[argparse.Namespace, Report], Exit]


def run(arguments: argparse.Namespace) -> int:
    """Run the command that was parsed; returns the exit status and never 0 on a failure."""
    report = Report(arguments.command, arguments.operation, as_json=arguments.json, is_verbose=arguments.verbose)
    try:
        with certs.without_warnings():
            return _command(arguments.operation, arguments.command)(arguments, report)
    except ClientError as fault:
        return report.failed(fault)
    except KeyboardInterrupt:
        return report.failed(ClientError("interrupted"))


def _command(operation: str, command: str) -> Command:
    """The function of an operation or, for fullcmc, of a command; its module, TLS and all, is loaded only now."""
    if operation in ("simpleenroll", "simplereenroll"):
        from estgw.client import enrolling

        return enrolling.enroll if operation == "simpleenroll" else enrolling.reenroll
    if operation == "serverkeygen":
        from estgw.client import keygen

        return keygen.serverkeygen
    if operation == "fullcmc":
        from estgw.client import managing

        return managing.COMMANDS[command]
    from estgw.client import commands

    found: dict[str, Command] = {
        "cacerts": commands.cacerts,
        "csrattrs": commands.csrattrs,
    }
    if operation not in found:
        raise UsageError(f"no such command: {operation}")
    return found[operation]
