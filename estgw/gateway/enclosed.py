"""Requests inside a Full PKI Request: from the environment of its handler to the calls of its decisions.

The gateway does not open such a message, so its handler judges what is inside (RFC 5272, RFC 7030 4.3.1), each request
by the rules that it would have met alone.  This is how, in the handler's process:

    outer = enclosed.read(os.environ, body)                  # the call that the handler itself was run for
    client = enclosed.signed_by(outer.client, certificate, is_ra=...)   # or outer.client, if no certificate has signed
    route = enclosed.route(outer, "simpleenroll")            # simplereenroll for a renewal
    csr = CSRFacts(pkcs10, renewed, request.new_names(client, pkcs10, route), pop)
    request.require_template(csr, route, check)              # and the other checks of `request` that apply
    methods = enclosed.methods(outer, is_proved=...)
    call = enclosed.call(outer, route, client, csr, Enclosure(part, methods, identification, has_signer=...))
    scratch.lay_out(call)                                    # the files that the variables name
    environment = contract.environment(call)                 # what `authorize` is told

The checks raise a `RequestError` with the client's words: `BadRequest` is badRequest there, `Forbidden` badIdentity.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast
from urllib.parse import quote

from cryptography import x509

from estgw.auth.credentials import Credentials
from estgw.auth.identity import Client, Trust
from estgw.callout.call import Call, ChannelFacts, CSRFacts, Enclosure, ExchangeFacts, HTTPFacts, InnerRules
from estgw.callout.contract import ENV_VARS
from estgw.config.route import Linking, Route
from estgw.est.binding import Binding, BindingType
from estgw.est.bounds import NameBounds
from estgw.est.operations import OPERATIONS, Profile, Requires
from estgw.gateway import request
from estgw.tls.info import TLSInfo

_FAILED = "FAILED:"
_NUMBERED = re.compile(r"(.+_)\d+")
_NAMES = {row.name for row in ENV_VARS}


def read(environ: Mapping[str, str], body: bytes = b"") -> Call:
    """The call that the environment of a handler of Full PKI Requests describes: `contract.environment` backwards.

    What no variable tells is as little as can be; what is in no row of the contract counts as `handler_env`, so that
    it reaches the next script too.
    """
    client = _client(environ)
    route_ = _route(environ)
    http = HTTPFacts(
        method=environ["REQUEST_METHOD"],
        target=environ["SCRIPT_NAME"],
        raw_path=quote(environ["SCRIPT_NAME"]),
        query=environ["QUERY_STRING"],
        headers=_headers(environ),
        body=body,
        server_name=environ["SERVER_NAME"],
        server_port=int(environ["SERVER_PORT"]),
    )
    is_replay = "EST_REPLAY" in environ
    exchange = ExchangeFacts(environ["EST_REQUEST_ID"], Path(environ["EST_TMPDIR"]), is_replay=is_replay)
    channel = ChannelFacts(_binding(environ), environ["EST_POP_REQUIRED"] == "1")
    made = request.describe(exchange, route_, Profile(environ["EST_PROFILE"]), client, http, channel)
    return replace(made, inner=request.inner_rules(route_, cast(Linking, environ["EST_POP_LINKING"])))


def route(outer: Call, operation: str) -> Route:
    """The route that a request would have had if it had come alone, by the rules for what is inside."""
    rules = cast(InnerRules, outer.inner)
    return replace(
        outer.route,
        operation=OPERATIONS[operation],
        authorize=rules.authorize,
        csr_template=rules.csr_template,
        change_subject_name=rules.change_subject_name,
        name_bounds=rules.name_bounds,
    )


def signed_by(client: Client, certificate: x509.Certificate, *, is_ra: bool) -> Client:
    """The client of a request whose message this certificate of ours has signed, in place of the TLS client's."""
    if certificate == client.certificate:
        return client
    tls = replace(client.tls, certificate=certificate, chain=(), verified_chain=(), verify_error=None)
    return replace(client, tls=tls, certificate=certificate, trust=Trust.EXPLICIT, is_ra=is_ra)


def methods(outer: Call, *, is_proved: bool) -> str:
    """How the sender is authenticated: `cmc` too, where the message itself and not the connection says who it is."""
    return "+".join(filter(None, (outer.client.methods, "cmc" if is_proved else "")))


def call(outer: Call, route: Route, client: Client, csr: CSRFacts, enclosure: Enclosure) -> Call:
    """The call about one request inside a message."""
    return replace(outer, route=route, client=client, csr=csr, inner=None, enclosure=enclosure)


def _client(environ: Mapping[str, str]) -> Client:
    verify = environ["SSL_CLIENT_VERIFY"]
    certificate = _certificate(environ["SSL_CLIENT_CERT"]) if "SSL_CLIENT_CERT" in environ else None
    chain = tuple(_certificate(text) for text in _family(environ, "SSL_CLIENT_CERT_CHAIN_"))
    tls = TLSInfo(
        version=environ["SSL_PROTOCOL"],
        cipher=environ["SSL_CIPHER"],
        server_name=environ.get("SSL_TLS_SNI"),
        certificate=certificate,
        chain=chain,
        verify_error=verify.removeprefix(_FAILED) if verify.startswith(_FAILED) else None,
    )
    return Client(
        address=environ["REMOTE_ADDR"],
        port=int(environ["REMOTE_PORT"]),
        tls=tls,
        certificate=certificate,
        trust=Trust(environ["EST_CLIENT_TRUST"]),
        is_ra=environ["EST_CLIENT_IS_RA"] == "1",
        claimed=_claimed(environ),
        user=environ.get("REMOTE_USER"),
    )


def _claimed(environ: Mapping[str, str]) -> Credentials | None:
    scheme = environ.get("EST_AUTH_SCHEME", environ.get("AUTH_TYPE"))
    if scheme is None:
        return None
    name = environ.get("EST_USERNAME", environ.get("REMOTE_USER", ""))
    return Credentials(scheme, name, environ.get("EST_PASSWORD"))


def _route(environ: Mapping[str, str]) -> Route:
    seconds = float(environ["EST_TIMEOUT"])
    name = environ["EST_OPERATION"]
    return Route(
        operation=OPERATIONS.get(name) or replace(OPERATIONS["fullcmc"], name=name),
        label=environ.get("EST_LABEL"),
        handler=Path(),
        ca_dir=Path(environ["EST_CA_DIR"]),
        requires=Requires.NONE,
        authenticate=None,
        authorize=_path(environ, "EST_AUTHORIZE"),
        change_subject_name=environ["EST_MAY_CHANGE_SUBJECT"] == "1",
        renew_without_certificate=False,
        csr_template=_path(environ, "EST_CSR_TEMPLATE"),
        name_bounds=NameBounds.parse(environ["EST_NAME_BOUNDS"]),
        timeout=seconds,
        decision_timeout=seconds,
        raw_output=False,
        pass_credentials="EST_AUTH_SCHEME" in environ,
        pass_headers=tuple(name for name, _ in _headers(environ) if name != "Content-Type"),
        serialize=None,
        search_path=environ["PATH"],
        register=environ.get("EST_REGISTER"),
        handler_env={name: value for name, value in environ.items() if not _is_known(name)},
    )


def _is_known(name: str) -> bool:
    """Whether a variable has a row in the contract."""
    family = _NUMBERED.fullmatch(name)
    return name in _NAMES or name.startswith("HTTP_") or (family is not None and f"{family[1]}n" in _NAMES)


def _headers(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    passed = [
        (name.removeprefix("HTTP_").replace("_", "-").title(), value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    return [("Content-Type", environ["CONTENT_TYPE"]), *passed] if "CONTENT_TYPE" in environ else passed


def _binding(environ: Mapping[str, str]) -> Binding | None:
    if "EST_TLS_BINDING" not in environ:
        return None
    return Binding(BindingType(environ["EST_TLS_BINDING"]), base64.b64decode(environ["TLS_UNIQUE_SR"]))


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if name in environ else None


def _family(environ: Mapping[str, str], prefix: str) -> list[str]:
    found: list[str] = []
    while (name := f"{prefix}{len(found)}") in environ:
        found.append(environ[name])
    return found


def _certificate(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode())
