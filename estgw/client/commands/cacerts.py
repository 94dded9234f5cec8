"""`cacerts`: the CA's certificates, and which of them can be trusted (RFC 7030 4.1)."""

from __future__ import annotations

import argparse
import sys

from cryptography import x509

from estgw.client import bag, files
from estgw.client.commands import certificate_output, connecting
from estgw.client.commands.report import Report
from estgw.client.faults import Exit, Untrusted, clean
from estgw.client.transport import trust


def cacerts(arguments: argparse.Namespace, report: Report) -> Exit:
    """Get the CA's certificates and store those that can be trusted (RFC 7030 4.1)."""
    with connecting.open_session(arguments, report, may_bootstrap=True) as session:
        found = session.cacerts()
        connecting.describe(session, report)
        connected = session.connected
        assert connected is not None
    anchors = _anchors(arguments, found, connected.verdict.anchor, report)
    entries = bag.examine(found, anchors, arguments.fingerprint)
    _list(entries, report)
    for fingerprint in arguments.fingerprint:
        if fingerprint not in map(trust.fingerprint, bag.roots_of(found)):
            raise Untrusted(f"no root in the answer has the fingerprint {fingerprint}; nothing is stored")
    doubtful = [entry for entry in entries if entry.fault and not entry.is_expired]
    if doubtful:
        raise Untrusted(
            f"{len(doubtful)} of {len(entries)} certificates can't be trusted; nothing is stored.  "
            "If the CA has a new root, check its fingerprint and add --fingerprint"
        )
    good = [entry.certificate for entry in entries if entry.is_good]
    if not good:
        raise Untrusted("no certificate in the answer is valid now; nothing is stored")
    certificate_output.deliver(report, good, arguments.outform, arguments.out)
    return report.done()


def _anchors(
    arguments: argparse.Namespace, found: list[x509.Certificate], anchor: trust.Anchor, report: Report
) -> list[x509.Certificate]:
    """The anchors to judge a bag by: the configured ones, or roots that the user accepts now."""
    roots = bag.roots_of(found)
    match anchor:
        case trust.Anchor.EXPLICIT:
            return [one for path in arguments.cacert for one in files.certificates(path)]
        case trust.Anchor.IMPLICIT:
            # The server was authorized by its name, so its own root counts (RFC 7030 4.1.3).
            return roots
        case trust.Anchor.NONE if arguments.fingerprint:
            return []  # `bag.examine` compares the fingerprints
    if not roots:
        raise Untrusted("the answer holds no root whose fingerprint could be compared; nothing is stored")
    report.say("This server has not been verified.  Compare these fingerprints with those from its operator:")
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
        fault = f"\n    NOT TRUSTED: {clean(entry.fault, 200)}" if entry.fault and not entry.is_expired else ""
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
