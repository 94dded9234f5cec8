"""One run of `estclient`: the command's function, and the exit status of its result or error."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from estgw.client.commands.report import Report
from estgw.client.faults import ClientError, Exit
from estgw.est import certs

Function = Callable[[argparse.Namespace, Report], Exit]


def run(function: Function, arguments: argparse.Namespace) -> int:
    """Run a command; returns its exit status, which is never 0 after a failure."""
    report = Report(arguments.command, arguments.operation, as_json=arguments.json, is_verbose=arguments.verbose)
    try:
        with certs.without_warnings():
            return function(arguments, report)
    except ClientError as fault:
        return report.failed(fault)
    except KeyboardInterrupt:
        return report.failed(ClientError("interrupted"))
