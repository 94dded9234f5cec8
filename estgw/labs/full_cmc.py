"""Lab 8: Full CMC enrols and revokes; keys of the server's making arrive sealed."""

from __future__ import annotations

from cryptography import x509

from estgw.est import certs, names, zeroing
from estgw.labs import facts
from estgw.labs.evidence import Evidence
from estgw.labs.step import Finding, Lab, Step, done, judged, not_yet, wrong
from estgw.record.ring import Record

PREFIX, SEALED = "CN=lab8-", "CN=lab8-sealed"


def _messages(evidence: Evidence) -> list[Record]:
    return [each for each in evidence.of("fullcmc") if facts.gate(each) != "requires"]


def _by_cmc(evidence: Evidence) -> list[x509.Certificate]:
    """Certificates of this lab that Full CMC has issued."""
    found = (each for record in _messages(evidence) for each in zeroing.certificates(facts.body(record, "response")))
    return [each for each in found if names.dn_text(each.subject).startswith(PREFIX)]


def _enrolled(evidence: Evidence) -> Finding:
    if _by_cmc(evidence):
        return done("A Full PKI Request was answered with a certificate.")
    if tries := _messages(evidence):
        return wrong(f"The last message got no certificate for {PREFIX}…: {facts.refusal(tries[-1])}")
    return not_yet("No Full PKI Request has come yet.")


def _revoked(evidence: Evidence) -> Finding:
    serials = {each.serial_number for each in _by_cmc(evidence)}
    if serials & _listed(evidence):
        return done("The certificate is on the CA's revocation list.")
    messages = _messages(evidence)
    if serials and (facts.status(messages[-1]) or 500) >= 400:
        return wrong(f"The last message revoked nothing: {facts.refusal(messages[-1])}")
    return not_yet("The certificate is on no revocation list yet.")


def _listed(evidence: Evidence) -> set[int]:
    """Serial numbers on the CA's lists."""
    try:
        lists = certs.load_crls_pem((evidence.place.ca / "crl.pem").read_bytes())
    except (OSError, *certs.UNREADABLE):
        return set()
    return {entry.serial_number for each in lists for entry in each}


def _sealed(evidence: Evidence) -> Finding:
    def fault(record: Record) -> str:
        if facts.status(record) != 200:
            return f"No key came: {facts.refusal(record)}"
        if facts.handler_variable(record, "EST_KEYGEN_PROTECT") == "none":
            return "The key came in the clear: nothing but TLS protected it."
        return ""

    return judged(
        [each for each in evidence.of("serverkeygen") if facts.subject(each) == SEALED and facts.asked(each)],
        fault,
        "A key of the server's making came encrypted.",
        f"Nobody has asked serverkeygen for {SEALED} yet.",
    )


def _opened(evidence: Evidence) -> Finding:
    return judged(
        [each for each in evidence.records if facts.tls_subject(each) == SEALED],
        lambda each: (
            "" if each["tls"]["verify"] == "SUCCESS" else f"The certificate was shown: {each['tls']['verify']}."
        ),
        "The key was opened: a client has logged in with it.",
        "Nobody has logged in with the sealed key yet.",
    )


LAB = Lab(8, (Step("CMC", _enrolled), Step("revoked", _revoked), Step("sealed", _sealed), Step("opened", _opened)))
