"""Certificates as output: PEM, DER or PKCS#7, facts for JSON, and lines for a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.client import files
from estgw.client.commands.report import Report
from estgw.client.faults import ClientError, UsageError
from estgw.client.transport import trust
from estgw.est import certs, encoding, names

FORMS = ("pem", "der", "p7")


def render(certificates: Sequence[x509.Certificate], form: str) -> bytes:
    """`pem`: one block each; `der`: a single certificate; `p7`: a certs-only PKCS#7 in PEM."""
    if form == "p7":
        return encoding.encode_pem(certs.pack(certificates), "PKCS7")
    if form == "der":
        if len(certificates) != 1:
            raise UsageError(f"DER holds one certificate, and there are {len(certificates)}: --outform pem or p7")
        return certificates[0].public_bytes(Encoding.DER)
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def deliver(report: Report, certificates: Sequence[x509.Certificate], form: str, path: Path | None) -> None:
    """Write certificates to a file, or to stdout when there is none."""
    write(report, render(certificates, form), path)


def write(report: Report, data: bytes, path: Path | None) -> None:
    """Write bytes to a file, or to stdout when there is none.

    If the file can't be written, the command fails, and the certificate goes to stdout so that it is not lost.
    """
    if path is None:
        report.output(data)
        return
    try:
        files.write(path, data)
    except ClientError:
        report.output(data)
        raise
    report.fact(out=str(path))


def facts(certificate: x509.Certificate) -> dict[str, Any]:
    """Facts about a certificate for JSON."""
    return {
        "subject": names.dn_text(certificate.subject),
        "issuer": names.dn_text(certificate.issuer),
        "serial": certs.serial_hex(certificate),
        "not_before": f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
        "not_after": f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        "san": [names.san_text(entry) for entry in certs.san(certificate) or ()],
        "sha256": trust.fingerprint(certificate),
        "pem": certificate.public_bytes(Encoding.PEM).decode(),
    }


def line(certificate: x509.Certificate) -> str:
    """One line about a certificate."""
    return (
        f"{names.dn_text(certificate.subject)}, serial {certs.serial_hex(certificate)}, "
        f"until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    )
