"""`csrattrs`: the attributes that the server asks for in a CSR (RFC 7030 4.5)."""

from __future__ import annotations

import argparse

from estgw.client.commands import certificate_output, connecting, describe_csrattrs
from estgw.client.commands.report import Report
from estgw.client.faults import Exit, InvalidAnswer, UsageError
from estgw.errors import Malformed
from estgw.est.csrattrs import CsrAttrs


def csrattrs(arguments: argparse.Namespace, report: Report) -> Exit:
    """Print the attributes that the server asks for in a CSR, in words or as DER."""
    if arguments.outform == "p7":
        raise UsageError(
            "CSR attributes can't be a PKCS#7: --outform der writes their bytes, and no --outform describes them"
        )
    with connecting.open_session(arguments, report) as session:
        attrs = session.csrattrs()
        connecting.describe(session, report)
    if attrs is None:
        report.say("The server asks for no attribute.")
        attrs = CsrAttrs()
    try:
        lines = describe_csrattrs.describe(attrs)
    except Malformed as fault:
        raise InvalidAnswer(f"the server's CSR attributes can't be read: {fault}") from None
    report.fact(wishes=lines)
    data = describe_csrattrs.render(attrs, lines, arguments.outform)
    certificate_output.write(report, data, arguments.out)
    return report.done()
