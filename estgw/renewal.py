"""Which certificate a request is about: the one renewed, or the one whose names are to change (RFC 7030 4.2.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from estgw.auth.identity import Client, Trust
from estgw.errors import BadRequest, Forbidden, Malformed
from estgw.est import certs, names
from estgw.est import csr as csrs
from estgw.est.csr import CSR, NewNames
from estgw.services import Route

INDEX = "index.txt"
ISSUED = "newcerts"
"""Where `openssl ca` keeps its index and the certificates that it issued, below the CA's directory."""


async def renewed_certificate(client: Client, csr: CSR, route: Route) -> x509.Certificate:
    """The certificate that a reenroll renews, which has the CSR's subject and SAN.

    It is the one that the client presents in TLS and that our CA issued.  A client whose certificate can't do TLS may
    authenticate otherwise (RFC 7030 2.3) where the configuration has `renew_without_certificate`; its certificate is
    then looked up by these names.  Raises `Forbidden` with the difference.
    """
    if client.certificate is not None and client.trust is Trust.EXPLICIT:
        if difference := csrs.difference(csr, client.certificate):
            raise Forbidden(f"A reenroll keeps subject and subject alternative name: {difference}.")
        return client.certificate
    if client.trust is Trust.IMPLICIT:
        raise Forbidden("A reenroll renews a certificate of this CA; yours is another's. Enroll instead.")
    if not route.renew_without_certificate:
        why = client.why_not or "; there was none"
        raise Forbidden(f"A reenroll renews the certificate that the client presents in TLS{why}.")
    found = await asyncio.to_thread(_look_up, route.ca_dir, csr)
    if found is None:
        raise Forbidden("No valid certificate with the CSR's subject and subject alternative name is known here.")
    return found


def new_names(client: Client, csr: CSR, route: Route) -> NewNames | None:
    """The names that a ChangeSubjectName attribute asks for (RFC 6402 2.8), or None without one.

    The CSR's own names must be those of the certificate that the client presents.  Raises `BadRequest` where the
    configuration does not allow it, and `Forbidden` without such a certificate.
    """
    try:
        wanted = csrs.change_subject_name(csr)
    except Malformed as fault:
        raise BadRequest(f"In the CSR: {fault}.") from None
    if wanted is None:
        return None
    if not route.change_subject_name:
        raise BadRequest("Names are not changed here: leave ChangeSubjectName out of the CSR.")
    try:
        names.openssl_subject(wanted.subject)
        names.require_sound(wanted.san)
    except Malformed as fault:
        raise BadRequest(f"In the CSR's ChangeSubjectName: {fault}.") from None
    if client.certificate is None or client.trust is Trust.NONE:
        raise Forbidden("ChangeSubjectName needs a TLS client certificate whose names are to be changed.")
    if difference := csrs.difference(csr, client.certificate):
        raise Forbidden(f"With ChangeSubjectName the CSR keeps the certificate's own names: {difference}.")
    return wanted


def _look_up(ca_dir: Path, csr: CSR) -> x509.Certificate | None:
    """The newest valid certificate with the CSR's subject and SAN in the index of `openssl ca`."""
    words = (names.common_name(csr.subject) or "").lower().split()
    now = datetime.now(UTC)
    for serial, subject in _valid_rows(ca_dir / INDEX):
        # The index writes everything but printable ASCII with backslashes, so it can only rule out what it has plainly;
        # the certificate decides.
        if "\\" not in subject and not all(word in subject.lower() for word in words if word.isascii()):
            continue
        try:
            certificate = certs.load_pem((ca_dir / ISSUED / f"{serial}.pem").read_bytes())[0]
        except (OSError, Malformed, IndexError):
            continue
        if certificate.not_valid_after_utc > now and csrs.difference(csr, certificate) is None:
            return certificate
    return None


def _valid_rows(index: Path) -> Iterator[tuple[str, str]]:
    """Serial and subject of the rows that are neither revoked nor expired, newest first."""
    try:
        lines = index.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in reversed(lines):
        fields = line.split("\t")
        if len(fields) == 6 and fields[0] == "V" and fields[3].isalnum():
            yield fields[3], fields[5]
