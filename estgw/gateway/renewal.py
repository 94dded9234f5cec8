"""Which certificate a reenroll renews (RFC 7030 4.2.2)."""

from __future__ import annotations

import asyncio

from cryptography import x509

from estgw.auth.identity import Client
from estgw.config.route import Route
from estgw.errors import Forbidden
from estgw.est.csr import CSR
from estgw.gateway import request
from estgw.register import lookup


async def renewed_certificate(client: Client, csr: CSR, route: Route) -> x509.Certificate:
    """The certificate that a reenroll renews, which has the CSR's subject and SAN.

    It is the one that the client presents in TLS and that our CA issued.  A client whose certificate can't do TLS may
    authenticate otherwise (RFC 7030 2.3) where the configuration has `renew_without_certificate`; its certificate is
    then looked up by these names.  Extended key usage does not count there: RFC 7030 2.3 means certificates without
    clientAuth, too, and it is not this certificate that shows who the client is.  Raises `Forbidden` with the
    difference.
    """
    if (presented := request.certificate_to_renew(client, csr)) is not None:
        return presented
    if not route.renew_without_certificate:
        why = client.why_not or "; there was none"
        raise Forbidden(f"A reenroll renews the certificate that the client presents in TLS{why}.")
    found = await asyncio.to_thread(lookup.newest_valid, route.ca_dir, csr, route.register)
    if found is None:
        raise Forbidden("No valid certificate with the CSR's subject and subject alternative name is known here.")
    return found
