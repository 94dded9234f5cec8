"""The session that the options of a command describe, and the words about its connection."""

from __future__ import annotations

import argparse

from estgw.client.commands import options, trace
from estgw.client.commands.report import Report
from estgw.client.faults import UsageError
from estgw.client.transport import trust, url
from estgw.client.transport.session import Session


def open_session(arguments: argparse.Namespace, report: Report, *, may_bootstrap: bool = False) -> Session:
    """The session that the options describe; raises `UsageError`.

    Without an anchor it raises, unless the command `may_bootstrap` (RFC 7030 4.1.1): no command falls back from a
    verified connection to an unverified one.
    """
    place = url.parse(arguments.url, arguments.label)
    trusted = options.trust(arguments.cacert, implicit=arguments.implicit)
    if trusted.bootstrap and not may_bootstrap:
        raise UsageError(
            "the server can't be verified without an anchor: give -c FILE (estclient cacerts gets it) or --implicit"
        )
    credentials = options.credentials(arguments.userpass, arguments.password_file)
    identity = options.identity(arguments.cert, arguments.key)
    if trusted.bootstrap and (credentials or identity):
        raise UsageError("without -c or --implicit the server is not verified, and gets neither -p nor --cert")
    return Session(
        place,
        trusted,
        credentials=credentials,
        identity=identity,
        tls_version=arguments.tls,
        timeout=arguments.timeout,
        finished_binding=getattr(arguments, "pop_finished", False),
        allow_redirect=arguments.allow_redirect,
        any_certificate=getattr(arguments, "any_certificate", False),
        observer=trace.tracer(report.say) if arguments.trace else None,
    )


def describe(session: Session, report: Report) -> None:
    """Report the connection in use, for `-v` and `--json`."""
    connected = session.connected
    if connected is None:
        return
    verdict = connected.verdict
    binding = connected.binding.type.value if connected.binding else "none"
    report.fact(
        connection={
            "server": connected.place.authority,
            "tls": connected.version,
            "cipher": connected.cipher,
            "server_certificate": trust.fingerprint(verdict.certificate),
            "anchor": verdict.anchor.value,
            "authorized_by": verdict.by,
            "binding": binding,
        }
    )
    report.detail(
        f"{connected.place.authority}: {connected.version}, {connected.cipher}; server authorized by {verdict.by} "
        f"under {verdict.anchor.value} anchors; binding {binding}"
    )
