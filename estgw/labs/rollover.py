"""Lab 7: the CA gets a new key, and a client that knows only the old one goes on."""

from __future__ import annotations

from cryptography import x509

from estgw.errors import Malformed
from estgw.est import certs, encoding
from estgw.labs import facts
from estgw.labs.evidence import Evidence
from estgw.labs.step import Finding, Lab, Step, done, judged, not_yet, wrong
from estgw.record.ring import Record

PREFIX = "CN=lab7-"


def _bag(record: Record) -> list[x509.Certificate]:
    """The certificates in an answer of cacerts."""
    try:
        return certs.unpack(encoding.decode_base64(facts.body(record, "response")))
    except (Malformed, *certs.UNREADABLE):
        return []


def _bags(evidence: Evidence) -> list[list[x509.Certificate]]:
    return [bag for bag in map(_bag, evidence.of("cacerts")) if bag]


def _old(evidence: Evidence) -> list[x509.Certificate]:
    """The roots of the first bag that was fetched: what an old client has."""
    bags = _bags(evidence)
    return [each for each in bags[0] if facts.is_signed_by(each, each)] if bags else []


def _bridges(evidence: Evidence, bag: list[x509.Certificate]) -> list[x509.Certificate]:
    """Certificates in a bag that an old root has signed for another key: NewWithOld."""
    old = _old(evidence)
    keys = {certs.spki(root) for root in old}
    return [
        each for each in bag if certs.spki(each) not in keys and any(facts.is_signed_by(each, root) for root in old)
    ]


def _before(evidence: Evidence) -> Finding:
    if not _old(evidence):
        return not_yet("Nobody has fetched the CA's certificates yet.")
    return done("A client has the root of before.")


def _rolled(evidence: Evidence) -> Finding:
    old, roots = _old(evidence), evidence.roots()
    if not old:
        return not_yet("First fetch the root of before.")
    if not roots or certs.spki(roots[0]) in {certs.spki(root) for root in old}:
        return not_yet("The CA still has the key of before.")
    if not _bridges(evidence, evidence.certificates(evidence.place.ca / "chain.pem")):
        return wrong("The CA is another one: nothing leads from the old root to it, so all old clients are lost.")
    return done("The CA has a new key, and the old one has signed it.")


def _served(evidence: Evidence) -> Finding:
    if any(_bridges(evidence, bag) for bag in _bags(evidence)):
        return done("The bag that was fetched leads from the old root to the new one.")
    return not_yet("Nobody has fetched the bag since the CA has a new key.")


def _certificate(evidence: Evidence) -> Finding:
    bridges = [each for bag in _bags(evidence) for each in _bridges(evidence, bag)]

    def fault(record: Record) -> str:
        certificate = facts.issued(record)
        if certificate is None:
            return f"No certificate was issued: {facts.refusal(record)}"
        if any(facts.is_signed_by(certificate, bridge) for bridge in bridges):
            return ""
        if any(facts.is_signed_by(certificate, root) for root in _old(evidence)):
            return "The certificate was signed by the old key; enrol once more."
        return "No bag that was fetched leads from the old root to this certificate."

    return judged(
        [each for each in evidence.of("simpleenroll") if facts.subject(each).startswith(PREFIX) and facts.asked(each)],
        fault,
        "A client with the old root alone can verify a certificate by the new key.",
        f"Nobody has enrolled {PREFIX}… yet.",
    )


def _login(evidence: Evidence) -> Finding:
    bridges = [each for bag in _bags(evidence) for each in _bridges(evidence, bag)]
    shown = ((each, facts.client(each)) for each in evidence.records)
    tries = [each for each, own in shown if own and any(facts.is_signed_by(own, bridge) for bridge in bridges)]
    reload = "The gateway reads anchors.pem at a start and on SIGHUP."
    return judged(
        tries,
        lambda each: f"{fault} {reload}" if (fault := facts.login_fault(each)) else "",
        "The gateway takes certificates by the new key.",
        "Nobody has logged in with a certificate by the new key yet.",
    )


LAB = Lab(
    7,
    (
        Step("old root", _before),
        Step("rollover", _rolled),
        Step("bag", _served),
        Step("certificate", _certificate),
        Step("login", _login),
    ),
)
