"""The call that a request inside a message would be if it had come alone (RFC 7030 4.3, RFC 5272 3.2.1.2).

The checks are those of `estgw.gateway.request`.  What CMC adds stands here: names that an RA gives to a request, and
requests in the format of CRMF.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cryptography import x509

from estgw.auth.identity import Client
from estgw.callout.call import Call, CSRFacts, Enclosure
from estgw.cmc.crmf import SignaturePop
from estgw.cmc.requests import CRMFRequest, PKCS10Request
from estgw.cmc.status import CMCFailInfo
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.ca import CAFailed
from estgw.cmc_service.exchange import Exchange
from estgw.cmc_service.pending import PendingRequest
from estgw.cmc_service.policy import Signer
from estgw.cms.fields import Fields, bits, sequence
from estgw.config.route import Route
from estgw.errors import ConfigError
from estgw.est import csr as csrs
from estgw.est import names
from estgw.est.csr import CSR, NewNames
from estgw.gateway import enclosed
from estgw.gateway import request as pipeline

if TYPE_CHECKING:  # few configurations have a template
    from estgw.est.template_check import TemplateCheck


def make(exchange: Exchange, request: PKCS10Request | CRMFRequest, kept: PendingRequest) -> Call:
    """The call of a request that meets the rules.  Raises `Refused`, `Malformed`, `RequestError`."""
    outer, signer, csr = exchange.service.outer, exchange.signer, request.csr
    new_names = _new_names(outer, signer, csr, kept.changes)
    renewed = None
    if signer.certificate is not None and (not signer.is_ra or kept.changes is None):
        difference = csrs.difference(csr, signer.certificate)
        if difference is not None and not signer.is_ra:
            raise Refused(CMCFailInfo.BAD_IDENTITY, f"only an RA may ask for others: {difference}")
        renewed = signer.certificate if difference is None else None
    call = describe(outer, signer, request.body_part_id, CSRFacts(csr, renewed, new_names, kept.pop))
    _require_extensions(csr)
    pipeline.require_verifiable_otp(csr, call.route)
    facts = CSRFacts(_with_signature(request), renewed, new_names)
    pipeline.require_template(facts, call.route, _template_check(call.route))
    return call


def describe(outer: Call, signer: Signer, part: int, facts: CSRFacts) -> Call:
    """The call about a request with this body part id, in the message of `outer`."""
    client = _client(outer, signer)
    enclosure = Enclosure(
        part=part,
        methods=enclosed.methods(outer, is_proved=signer.is_proved),
        identification=signer.identification,
        has_signer=client is not outer.client,
    )
    route = enclosed.route(outer, "simpleenroll" if facts.renewed is None else "simplereenroll")
    outer = replace(outer, http=replace(outer.http, body=facts.pkcs10.der))
    return enclosed.call(outer, route, client, facts, enclosure)


def _client(outer: Call, signer: Signer) -> Client:
    """The holder of the certificate that signed the message, else the client of the connection."""
    if signer.certificate is None:
        return outer.client
    return enclosed.signed_by(outer.client, signer.certificate, is_ra=signer.is_ra)


def _new_names(outer: Call, signer: Signer, csr: CSR, changes: NewNames | None) -> NewNames | None:
    """The names to be certified, where they are not those of the request.  Raises as `make` does.

    An RA gives them by its controls (RFC 5272 6.5), or the request asks for them by ChangeSubjectName (RFC 6402 2.8).
    """
    wanted, route = csrs.change_subject_name(csr), enclosed.route(outer, "simpleenroll")
    if wanted is not None and not (route.change_subject_name and signer.is_ra):
        if route.change_subject_name and signer.certificate is None:
            words = "ChangeSubjectName needs a certificate whose names are to be changed"
            raise Refused(CMCFailInfo.BAD_IDENTITY, words)
        wanted = pipeline.new_names(_client(outer, signer), csr, route)
    elif wanted is not None:
        pipeline.require_sound_names(wanted)  # an RA may name others
    if changes is not None:
        names.require_sound(changes.san)
        names.openssl_subject(changes.subject)
    elif wanted is None:
        csrs.require_subject(csr)
    return changes or wanted


def _require_extensions(csr: CSR) -> None:
    """Refuse a critical extension that this CA can't give (RFC 5272 6.1.4, unsupportedExt)."""
    for extension in csr.extensions:
        if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension):
            words = f"the critical extension {extension.oid.dotted_string} is not known here"
            raise Refused(CMCFailInfo.UNSUPPORTED_EXT, words)


def _template_check(route: Route) -> TemplateCheck | None:
    """What `csr_template` insists on; raises `CAFailed`."""
    if route.csr_template is None:
        return None
    from estgw.config import csrattrs_yaml  # it takes 20 ms to import, and few configurations have a template

    try:
        return csrattrs_yaml.load_template_check(route.csr_template)
    except ConfigError as fault:
        raise CAFailed(str(fault)) from None


def _with_signature(request: PKCS10Request | CRMFRequest) -> CSR:
    """The request as a template compares it: a CRMF request's carrier gets the algorithm of its own proof."""
    if not isinstance(request, CRMFRequest) or not isinstance(request.message.pop, SignaturePop):
        return request.csr
    info = Fields(request.csr.der, "a carrier").take("its content")
    return csrs.parse(sequence(info, request.message.pop.algorithm.encode(), bits(b"")))
