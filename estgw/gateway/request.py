"""Judge a request by its facts: find its route, check its CSR, and make the call of its script.

These are plain functions, the same for a request over TLS, for one of `estgw run`, and for one inside a Full PKI
Request.  `pipeline` calls them in order; `enclosed` serves the last kind.  A check raises the `RequestError` with the
words for the client.  Nothing here waits, reads a file, or imports the HTTP and TLS libraries, so a handler's process
can load this module at little cost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cryptography import x509

from estgw.auth import pop
from estgw.auth.identity import Client, Trust
from estgw.callout.call import Call, ChannelFacts, CSRFacts, ExchangeFacts, HTTPFacts, InnerRules
from estgw.config.route import Linking, Route
from estgw.errors import BadRequest, Forbidden, Malformed, NotFound, TooLarge
from estgw.est import csr as csrs
from estgw.est import keygen, names, operations
from estgw.est.csr import CSR, NewNames
from estgw.est.operations import Body, Profile, Target

if TYPE_CHECKING:  # loads the model of the configuration
    from estgw.config.routes import Service
    from estgw.est.template_check import TemplateCheck


# The route.


@dataclass(frozen=True)
class Found:
    """The route of a request, with its service and profile."""

    service: Service
    route: Route
    profile: Profile


def find_route(target: Target, services: Mapping[str | None, Service], http: HTTPFacts) -> Found:
    """The route of a resolved path.  Raises `NotFound`, `MethodNotAllowed` or `UnsupportedMediaType`."""
    service = services[target.label]
    route = service.routes.get(target.operation)
    if route is None:
        raise NotFound(f"{target.operation} is not switched on here.")
    operations.check_method(route.operation, http.method)
    content_type = http.header("Content-Type")
    profile = operations.profile_of(target, content_type, service.profile)
    operations.check_media_type(route.operation, content_type, profile)
    return Found(service, route, profile)


def too_large(limit: int) -> TooLarge:
    """The error for a body of more than `limit` bytes."""
    return TooLarge(f"The body is larger than {limit} bytes.")


# The call.


def describe(
    exchange: ExchangeFacts, route: Route, profile: Profile, client: Client, http: HTTPFacts, channel: ChannelFacts
) -> Call:
    """Make the call of a request from the facts of its connection and head.  Each call is made here."""
    return Call(exchange, route, profile, client, http, channel)


def inner_rules(route: Route, linking: Linking) -> InnerRules:
    """The rules for the requests inside a message: those of simpleenroll."""
    return InnerRules(linking, route.authorize, route.csr_template, route.change_subject_name, route.name_bounds)


# The CSR.


def read_csr(body: bytes) -> CSR:
    """The CSR of a body, PEM, DER or base64; raises `BadRequest`."""
    try:
        return csrs.parse(body)
    except Malformed as fault:
        raise BadRequest(fault.sentence + _way_out(body)) from None


_FILE_NAME = re.compile(rb"@?[A-Za-z0-9_~./-]{1,100}")


def _way_out(body: bytes) -> str:
    """A hint for the two mistakes that people make with `curl --data-binary`."""
    text = body.strip()
    if not text:
        return " It must hold a PKCS#10, as curl --data-binary @req.pem sends it."
    if _FILE_NAME.fullmatch(text) and b"." in text:
        name = text.decode().lstrip("@")
        return f' It is the text "{name}": to send a file, write curl --data-binary @{name}.'
    return ""


def require_acceptable(csr: CSR, route: Route) -> None:
    """Raise `BadRequest` for a CSR that must not reach a script."""
    try:
        csrs.require_subject(csr)
        names.require_sound(csr.san)
        if route.operation.proves_key:
            csrs.verify(csr)
        if route.operation.body is Body.KEYGEN:
            keygen.wish(csr)
        require_verifiable_otp(csr, route)
    except Malformed as fault:
        raise BadRequest(fault.sentence) from None


def require_verifiable_otp(csr: CSR, route: Route) -> None:
    """Raise `Malformed` for an otpChallenge that nothing can verify.

    RFC 7894 4: what is present must be verified, and only a script can know one-time passwords.
    """
    if csr.text_attribute(csrs.OTP_CHALLENGE) is not None and route.authorize is None:
        raise Malformed("the CSR carries otpChallenge, and nothing here can verify it")


def certificate_to_renew(client: Client, csr: CSR) -> x509.Certificate | None:
    """The certificate that the client presents, if it is one of ours; its names are the CSR's (RFC 7030 4.2.2).

    None for a client without one.  Raises `Forbidden` with the difference.
    """
    if client.certificate is not None and client.trust is Trust.EXPLICIT:
        if difference := csrs.difference(csr, client.certificate):
            raise Forbidden(f"A reenroll keeps subject and subject alternative name: {difference}.")
        return client.certificate
    if client.trust is Trust.IMPLICIT:
        raise Forbidden("A reenroll renews a certificate of this CA; yours is another's. Enroll instead.")
    return None


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
    require_sound_names(wanted)
    if client.certificate is None or client.trust is Trust.NONE:
        raise Forbidden("ChangeSubjectName needs a TLS client certificate whose names are to be changed.")
    if difference := csrs.difference(csr, client.certificate):
        raise Forbidden(f"With ChangeSubjectName the CSR keeps the certificate's own names: {difference}.")
    return wanted


def require_sound_names(wanted: NewNames) -> None:
    """Raise `BadRequest` for new names that no certificate can have."""
    try:
        names.openssl_subject(wanted.subject)
        names.require_sound(wanted.san)
    except Malformed as fault:
        raise BadRequest(f"In the CSR's ChangeSubjectName: {fault}.") from None


def require_template(csr: CSRFacts, route: Route, check: TemplateCheck | None) -> None:
    """Raise `BadRequest` for names past their bounds, and for what the CSR lacks of the route's `csr_template`.

    The names are those to be certified: a name that is too long may be changed to a shorter one.
    """
    try:
        route.name_bounds.require(csr.subject, csr.san)
        if check is not None:
            check.require(csr.pkcs10, csr.new_names, proves_key=route.operation.proves_key)
    except Malformed as fault:
        raise BadRequest(fault.sentence) from None


def link(call: Call, linking: Linking, attribute: str) -> Call:
    """Linking identity and POP: does the CSR belong to the client's TLS connection? (RFC 7030 3.5)

    `attribute` is the one that csrattrs announces.  Raises `BadRequest`.
    """
    if call.csr is None:
        return call
    try:
        linked = pop.link(call.csr.pkcs10, call.channel.binding, linking, call.client.tls.version, attribute)
    except Malformed as fault:
        raise BadRequest(fault.sentence) from None
    return replace(call, csr=replace(call.csr, pop=linked))
