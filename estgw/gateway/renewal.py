"""Which certificate a request is about: the one renewed, or the one whose names are to change (RFC 7030 4.2.2)."""

from __future__ import annotations

import asyncio

from cryptography import x509

from estgw.auth.identity import Client, Trust
from estgw.config.routes import Route
from estgw.errors import BadRequest, Forbidden, Malformed
from estgw.est import csr as csrs
from estgw.est import names
from estgw.est.csr import CSR, NewNames
from estgw.register import lookup


async def renewed_certificate(client: Client, csr: CSR, route: Route) -> x509.Certificate:
    """The certificate that a reenroll renews, which has the CSR's subject and SAN.

    It is the one that the client presents in TLS and that our CA issued.  A client whose certificate can't do TLS may
    authenticate otherwise (RFC 7030 2.3) where the configuration has `renew_without_certificate`; its certificate is
    then looked up by these names.  Extended key usage does not count there: RFC 7030 2.3 means certificates without
    clientAuth, too, and it is not this certificate that shows who the client is.  Raises `Forbidden` with the
    difference.
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
    found = await asyncio.to_thread(lookup.newest_valid, route.ca_dir, csr)
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
