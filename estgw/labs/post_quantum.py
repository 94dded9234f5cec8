"""Lab 9: a certificate for an ML-DSA key (RFC 9881), and what it weighs."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.labs import facts
from estgw.labs.evidence import Evidence
from estgw.labs.step import Finding, Lab, Step, done, judged, not_yet
from estgw.record.ring import Record

PREFIX = "CN=lab9-"
_MLDSA = (mldsa.MLDSA44PublicKey, mldsa.MLDSA65PublicKey, mldsa.MLDSA87PublicKey)


def _requests(evidence: Evidence) -> list[Record]:
    return [
        each for each in evidence.of("simpleenroll") if facts.asked(each) and facts.subject(each).startswith(PREFIX)
    ]


def _is_post_quantum(certificate: x509.Certificate) -> bool:
    return isinstance(certificate.public_key(), _MLDSA)


def _certificate(evidence: Evidence) -> Finding:
    def fault(record: Record) -> str:
        certificate = facts.issued(record)
        if certificate is None:
            return f"The request got no certificate: {facts.refusal(record)}"
        return "" if _is_post_quantum(certificate) else "The key is not ML-DSA: say --new-key ml-dsa-65."

    return judged(
        [each for each in _requests(evidence) if facts.subject(each) != f"{PREFIX}ec"],
        fault,
        "An ML-DSA key has a certificate.",
        f"Nobody has asked for {PREFIX}… with an ML-DSA key yet.",
    )


def _sizes(evidence: Evidence) -> Finding:
    issued = [certificate for each in _requests(evidence) if (certificate := facts.issued(each))]
    small = [
        len(each.public_bytes(Encoding.DER))
        for each in issued
        if isinstance(each.public_key(), ec.EllipticCurvePublicKey)
    ]
    large = [len(each.public_bytes(Encoding.DER)) for each in issued if _is_post_quantum(each)]
    if not small or not large:
        return not_yet("For this, one certificate for an EC key and one for an ML-DSA key have to be issued.")
    return done(f"The certificate for EC has {small[-1]} bytes, that for ML-DSA {large[-1]}.")


def _size(certificate: x509.Certificate) -> int:
    return len(certificate.public_bytes(Encoding.DER))


LAB = Lab(9, (Step("certificate", _certificate), Step("sizes", _sizes)))
