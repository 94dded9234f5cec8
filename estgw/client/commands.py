"""`cacerts` and `csrattrs`, and what all commands share."""

from __future__ import annotations

import argparse
import sys

from cryptography import x509

from estgw.client import bag, certificate_output, describe_csrattrs, options, trace, trust, url
from estgw.client.faults import Exit, InvalidAnswer, Untrusted, UsageError, clean
from estgw.client.report import Report
from estgw.client.session import Session
from estgw.errors import Malformed
from estgw.est import csrattrs as model


def open_session(arguments: argparse.Namespace, report: Report, *, may_bootstrap: bool = False) -> Session:
    """The session that the options describe; raises `UsageError`.

    Without any anchor there is none, except for `may_bootstrap` (RFC 7030 4.1.1): no command falls back from a
    verified connection to an unverified one.
    """
    place = url.parse(arguments.url, arguments.label)
    trusted = options.trust(arguments.cacert, implicit=arguments.implicit)
    if trusted.bootstrap and not may_bootstrap:
        raise UsageError("nothing to verify the server with: -c FILE (get it with `estclient cacerts`) or --implicit")
    credentials = options.credentials(arguments.userpass, arguments.password_file)
    identity = options.identity(arguments.cert, arguments.key)
    if trusted.bootstrap and (credentials or identity):
        raise UsageError("without -c or --implicit the server is unknown, and gets neither -p nor --cert")
    return Session(
        place,
        trusted,
        credentials=credentials,
        identity=identity,
        tls_version=arguments.tls,
        timeout=arguments.timeout,
        finished_binding=getattr(arguments, "pop_finished", False),
        allow_redirect=arguments.allow_redirect,
        observer=trace.tracer(report.say) if arguments.trace else None,
    )


def describe(session: Session, report: Report) -> None:
    """Tell about the connection in use, for `-v` and `--json`."""
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


def cacerts(arguments: argparse.Namespace, report: Report) -> Exit:
    """The CA's certificates, as far as they can be believed (RFC 7030 4.1)."""
    with open_session(arguments, report, may_bootstrap=True) as session:
        found = session.cacerts()
        describe(session, report)
        connected = session.connected
        assert connected is not None
    anchors = _vouched(arguments, found, connected.verdict.anchor, report)
    entries = bag.examine(found, anchors, arguments.fingerprint)
    _list(entries, report)
    for fingerprint in arguments.fingerprint:
        if fingerprint not in map(trust.fingerprint, bag.roots_of(found)):
            raise Untrusted(f"no root in the answer has the fingerprint {fingerprint}; nothing is stored")
    doubtful = [entry for entry in entries if entry.fault and not entry.is_expired]
    if doubtful:
        raise Untrusted(
            f"{len(doubtful)} of {len(entries)} certificates can't be believed; nothing is stored.  "
            "If the CA has a new root, check its fingerprint and add --fingerprint"
        )
    good = [entry.certificate for entry in entries if entry.is_good]
    if not good:
        raise Untrusted("no certificate in the answer is valid now; nothing is stored")
    certificate_output.deliver(report, good, arguments.outform, arguments.out)
    return report.done()


def _vouched(
    arguments: argparse.Namespace, found: list[x509.Certificate], anchor: trust.Anchor, report: Report
) -> list[x509.Certificate]:
    """The anchors to judge a bag by: the configured ones, or roots that somebody vouches for now."""
    roots = bag.roots_of(found)
    match anchor:
        case trust.Anchor.EXPLICIT:
            return [one for path in arguments.cacert for one in options.certificates(path)]
        case trust.Anchor.IMPLICIT:
            # Authenticated and authorized by its name, the server's word on its own CA counts (RFC 7030 4.1.3).
            return roots
        case trust.Anchor.NONE if arguments.fingerprint:
            return []  # `bag.examine` looks for them
    if not roots:
        raise Untrusted("the answer holds no root whose fingerprint could be compared; nothing is stored")
    report.say("This server has not been verified.  Compare these with what its operator told you:")
    for root in roots:
        report.say(f"  {certificate_output.line(root)}\n  SHA-256 {_grouped(trust.fingerprint(root))}")
    report.fact(candidates=[certificate_output.facts(root) for root in roots])
    if sys.stdin.isatty() and sys.stderr.isatty() and not arguments.json:
        report.say("Trust them? Type yes to store them.")
        if sys.stdin.readline().strip().lower() == "yes":
            return roots
    raise Untrusted("not accepted; nothing is stored (--fingerprint SHA256 accepts without a question)")


def _list(entries: list[bag.Entry], report: Report) -> None:
    for entry in entries:
        notes = ", the newest root" if entry.is_newest else ", expired: left out" if entry.is_expired else ""
        fault = f"\n    NOT BELIEVED: {clean(entry.fault, 200)}" if entry.fault and not entry.is_expired else ""
        report.say(f"{entry.role}{notes}: {certificate_output.line(entry.certificate)}{fault}")
        report.detail(f"    SHA-256 {_grouped(trust.fingerprint(entry.certificate))}")
    report.fact(
        certificates=[
            {
                **certificate_output.facts(entry.certificate),
                "role": entry.role,
                "newest": entry.is_newest,
                "expired": entry.is_expired,
                "fault": entry.fault,
            }
            for entry in entries
        ]
    )


def _grouped(fingerprint: str) -> str:
    return ":".join(fingerprint[at : at + 2] for at in range(0, len(fingerprint), 2)).upper()


def csrattrs(arguments: argparse.Namespace, report: Report) -> Exit:
    """What the server wants to see in a CSR (RFC 7030 4.5)."""
    if arguments.outform == "p7":
        raise UsageError("CSR attributes are no PKCS#7: --outform der for the bytes, nothing for words")
    with open_session(arguments, report) as session:
        attrs = session.csrattrs()
        describe(session, report)
    if attrs is None:
        report.say("The server has no wishes.")
        attrs = model.CsrAttrs()
    try:
        lines = describe_csrattrs.describe(attrs)
    except Malformed as fault:
        raise InvalidAnswer(f"the server's CSR attributes can't be read: {fault}") from None
    report.fact(wishes=lines)
    data = describe_csrattrs.render(attrs, lines, arguments.outform)
    certificate_output.write(report, data, arguments.out)
    return report.done()
