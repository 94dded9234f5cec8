"""Lab 1: the CA's certificate by its fingerprint, and a certificate by curl."""

from __future__ import annotations

from functools import partial

from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from estgw.labs import facts
from estgw.labs.evidence import Evidence
from estgw.labs.step import Finding, Lab, Step, judged
from estgw.record.ring import Record

PREFIX = "CN=lab1-"
DIGITS = 8
"""Digits of the fingerprint that the name has."""


def _bag(evidence: Evidence) -> Finding:
    return judged(
        evidence.of("cacerts"),
        lambda each: "" if facts.status(each) == 200 else f"cacerts was asked, and {facts.refusal(each)}",
        "The CA's certificates were fetched.",
        "Nobody has asked cacerts yet.",
    )


def _asked(evidence: Evidence) -> list[Record]:
    return [each for each in evidence.of("simpleenroll") if facts.subject(each).startswith(PREFIX)]


def _fault_of_name(evidence: Evidence, record: Record) -> str:
    """What is wrong with the digits in the name; empty if they are the fingerprint's."""
    digits, roots = facts.subject(record).removeprefix(PREFIX).lower(), evidence.roots()
    if digits in {root.fingerprint(SHA256()).hex()[:DIGITS] for root in roots}:
        return ""
    if digits in {root.fingerprint(SHA1()).hex()[:DIGITS] for root in roots}:  # noqa: S303 - recognised, not trusted
        return f"{digits} is the beginning of the SHA-1 fingerprint; say -sha256."
    return f"{digits[:40]} is not how the CA's fingerprint begins: compare with the one that estgw demo prints."


def _fingerprint(evidence: Evidence) -> Finding:
    return judged(
        _asked(evidence),
        partial(_fault_of_name, evidence),
        "The name that was asked for begins as the CA's fingerprint does.",
        f"Nobody has asked for a name such as {PREFIX}0a1b2c3d yet.",
    )


def _certificate(evidence: Evidence) -> Finding:
    issuers = evidence.certificates(evidence.place.ca / "issuer.pem") + evidence.roots()

    def fault(record: Record) -> str:
        certificate = facts.issued(record)
        if certificate is None:
            return f"The request for {facts.subject(record)} got no certificate: {facts.refusal(record)}"
        if not any(facts.is_signed_by(certificate, issuer) for issuer in issuers):
            return "The certificate was not signed by the CA of today; enrol again."
        return ""

    return judged(
        [each for each in _asked(evidence) if not _fault_of_name(evidence, each)],
        fault,
        "A certificate was issued, and it verifies under the CA.",
        "No request with the right name has come to simpleenroll yet.",
    )


def _login(evidence: Evidence) -> Finding:
    return judged(
        [each for each in evidence.records if facts.tls_subject(each).startswith(PREFIX)],
        lambda each: (
            "" if each["tls"]["verify"] == "SUCCESS" else f"The certificate was shown: {each['tls']['verify']}."
        ),
        "A client has logged in with the certificate and its key.",
        "Nobody has logged in with the new certificate yet.",
    )


LAB = Lab(
    1,
    (
        Step("CA certificates", _bag),
        Step("fingerprint", _fingerprint),
        Step("certificate", _certificate),
        Step("login", _login),
    ),
)
