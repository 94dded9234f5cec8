"""From a handler's output or an error to the HTTP response (contract, "stdout of a handler")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web
from cryptography import x509

from estgw import __version__
from estgw.callout import cgi, ending
from estgw.callout.call import Call, HTTPFacts
from estgw.config import csrattrs_yaml
from estgw.errors import HandlerFailed, Malformed, RequestError, Unauthenticated, apology
from estgw.est import answers, certs, encoding
from estgw.est.answers import Answer
from estgw.est.csr import CHALLENGE_PASSWORD, CSR, EST_IDENTITY_LINKING
from estgw.est.keygen import Protection
from estgw.est.operations import Body, Operation, Profile
from estgw.logs import log

SERVER = f"estgw/{__version__}"
LINKING_OIDS = {"challengePassword": CHALLENGE_PASSWORD, "estIdentityLinking": EST_IDENTITY_LINKING}


def columns(base64_lines: str, http: HTTPFacts) -> int | None:
    """Base64 line length.

    One client fails on any line break and another on an unbroken body; the first is known by sending neither
    User-Agent nor Accept.
    """
    if base64_lines == "auto":
        terse = http.header("User-Agent") is None and http.header("Accept") is None
        return None if terse else 64
    return 64 if base64_lines == "64" else None


def to_wire(call: Call, output: cgi.Output, *, columns: int | None, linking_attribute: str) -> Answer:
    """Convert a handler's output to the form that the operation promises.  Raises `HandlerFailed`.

    Where linking is required, /csrattrs announces `linking_attribute` even if the handler has left it out
    (RFC 7030 4.5.2).
    """
    route, operation = call.route, call.route.operation
    text = output.body
    is_message = operation.holds_requests and text  # its form is the same with every status (RFC 7030 4.3.2)
    if route.raw_output or (output.status not in (None, 200) and not is_message):
        return Answer(text)
    try:
        if operation.body is Body.CSRATTRS:
            text = csrattrs_yaml.to_der(text)
            if call.channel.pop_required:
                text = answers.announce(text, LINKING_OIDS[linking_attribute])
        if not text.strip():
            if operation.body is Body.CSRATTRS:
                return Answer(b"")
            raise Malformed("printed nothing")
        answer = answers.to_wire(operation.body, text, columns=columns)
        _require_protected(call, answer)
    except Malformed as fault:
        text = ending.without_password(output.body, call)
        reason = ending.not_an_answer(route.handler, str(fault), text)
        raise HandlerFailed(apology(call.exchange.request_id), log=reason) from None
    if b"-----BEGIN" in text and (unused := ending.quoted(ending.without_password(encoding.outside_pem(text), call))):
        log.info("text outside of PEM is not used", handler=route.handler.name, printed=unused)
    if answer.issued and call.csr and operation.proves_key and not _is_for(answer.issued, call.csr.pkcs10):
        log.warning("the certificate issued is for another key than the CSR's", handler=route.handler.name)
    return answer


def _is_for(issued: x509.Certificate, csr: CSR) -> bool:
    """Whether a certificate is for a CSR's key; one whose key can't be read is not, as the CSR's could."""
    if csr.key_info in issued.tbs_certificate_bytes:  # nearly always, and reading two keys takes longer than this
        return True
    try:
        return certs.spki(issued) == csr.spki
    except Malformed:
        return False


def _require_protected(call: Call, answer: Answer) -> None:
    """Raise `Malformed` for a key in the clear if the client asked for an encrypted one (RFC 7030 4.4.1)."""
    if call.keygen and call.keygen.protection is not Protection.NONE and not answer.encrypted:
        raise Malformed("printed a private key in the clear, and the client asked for an encrypted one")


def success(operation: Operation, profile: Profile, output: cgi.Output, answer: Answer) -> web.Response:
    """The response for a success."""
    status = output.status or 200
    headers = {"Server": SERVER}
    if status == 200 and not answer.body and operation.body is Body.CSRATTRS:
        status = 204  # RFC 7030 4.5.2: no attributes
    if answer.body:
        headers["Content-Type"] = _media_type(operation, profile)
    headers = {**headers, **answer.headers, **output.headers}
    if status == 204:
        headers.pop("Content-Type", None)
        return web.Response(status=status, headers=headers)
    return web.Response(status=status, body=answer.body, headers=headers)


def refusal(error: RequestError, *, operation: str | None, challenges: list[str]) -> web.Response:
    """The answer for an error: one sentence, or nothing where real clients need an empty body."""
    status, text = error.status, error.public
    headers: Mapping[str, Any] = {"Server": SERVER, **error.headers}
    if isinstance(error, Unauthenticated) and not challenges:
        # RFC 9110 15.5.2 wants a challenge in every 401; without HTTP authentication there is none.
        status = 403
        text = "Passwords are not taken here: present a TLS client certificate, and send no Authorization header."
    silent = status in (202, 401) or (status == 404 and operation == "csrattrs")
    body = b"" if silent or not text else text.encode() + b"\n"
    response = web.Response(status=status, body=body, headers=headers)
    if body:
        response.headers["Content-Type"] = "text/plain; charset=utf-8"
    if status == 401:
        for challenge in challenges:
            response.headers.add("WWW-Authenticate", challenge)
    if error.close:
        response.force_close()
    return response


def _media_type(operation: Operation, profile: Profile) -> str:
    """The operation's media type; clients of the drafts compare for equality with the bare type."""
    if profile is Profile.DRAFT and operation.body is Body.ISSUED:
        return "application/pkcs7-mime"
    return operation.response_type
