"""Describe a CMC message in words: an indented tree of everything in it, for people who look for a fault.

Signatures are checked with the keys that the message itself contains.  Whether those keys are to be trusted is not
known here; the text says only whether the signature fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from estgw.cmc import requests
from estgw.cmc.controls import BODY_PART_PATH, Control
from estgw.cmc.crmf import SignaturePop
from estgw.cmc.explain_values import path_words, template_lines, value_lines
from estgw.cmc.messages import (
    MAXIMUM_DEPTH,
    PKI_DATA,
    PKI_RESPONSE,
    BadMessage,
    OtherMsg,
    PKIData,
    PKIResponse,
    TaggedContentInfo,
)
from estgw.cmc.outline import (
    Outline,
    certificate_words,
    crl_words,
    der_words,
    extension_words,
    identifier_words,
    key_words,
    octets_words,
    type_words,
)
from estgw.cmc.requests import CRMFRequest, OtherRequest, PKCS10Request, Possession, TaggedRequest
from estgw.cmc.status import StatusInfo
from estgw.cmc.values import EncryptedPOP
from estgw.cms import enveloped, signed
from estgw.cms.algorithms import Algorithm
from estgw.cms.faults import BadSignature
from estgw.cms.identifiers import is_named, key_of
from estgw.cms.signed import SignedData, SignerInfo
from estgw.errors import Malformed
from estgw.est import ber, encoding, names, oids
from estgw.est.csr import EXTENSION_REQUEST
from estgw.est.der import whole

_POSSESSION = {
    Possession.PROVED: "its signature fits its key",
    Possession.RA_VERIFIED: "raVerified, as the request claims",
    Possession.CHALLENGE: "asks for an encrypted challenge (RFC 5272 6.7)",
    Possession.ABSENT: "none",
}


def explain(data: bytes) -> str:
    """Return a PKIData or PKIResponse as lines of text.

    `data` is DER, BER, PEM or base64, in SignedData or bare.  An unknown or broken part is shown as hex or as a line
    that begins with `!`.  Raises `Malformed` when the whole is not a CMS or CMC message.
    """
    der = encoding.decode(data, ())
    out = Outline()
    if not _bare(out, der):
        signed.content_info(ber.to_der(der))
        _content_info(out, der, 1)
    return str(out)


def _bare(out: Outline, der: bytes) -> bool:
    """Describe a message without a CMS message around it, such as another tool's dump.  False if it is not one."""
    for read, lines in ((PKIData.decode, _data), (PKIResponse.decode, _response)):
        with suppress(Malformed):
            message: Any = read(der)
            lines(out, message, 1)
            return True
    return False


# CMS.


def _content_info(out: Outline, der: bytes, depth: int) -> None:
    if depth > MAXIMUM_DEPTH:
        out.add(f"! more than {MAXIMUM_DEPTH} messages in one another: {octets_words(der)}")
        return
    kind, body = signed.content_info(ber.to_der(der))
    match kind:
        case signed.SIGNED_DATA:
            _signed(out, signed.parse(der), len(der), depth)
        case enveloped.ENVELOPED_DATA | enveloped.AUTH_ENVELOPED_DATA:
            _enveloped(out, enveloped.parse(der), type_words(kind))
        case _:
            out.add(f"{type_words(kind)}: {octets_words(body)}")


def _signed(out: Outline, message: SignedData, length: int, depth: int) -> None:
    with out.deeper(f"SignedData, {length} octets"):
        data: PKIData | PKIResponse | None = None
        fault = ""
        try:
            if message.content is not None and message.content_type == PKI_DATA:
                data = PKIData.decode(message.content)
            elif message.content is not None and message.content_type == PKI_RESPONSE:
                data = PKIResponse.decode(message.content)
        except BadMessage as bad:
            fault = str(bad)
        for number, signer in enumerate(message.signers, 1):
            with out.deeper(f"signer {number}: {identifier_words(signer.whom)}"):
                _signer(out, message, signer, data)
        if not message.signers:
            out.add("no signer")
        for certificate in message.certificates:
            out.add(f"certificate: {certificate_words(certificate)}")
        for crl in message.crls:
            out.add(f"CRL: {crl_words(crl)}")
        match data:
            case PKIData():
                _data(out, data, depth)
            case PKIResponse():
                _response(out, data, depth)
            case _ if fault:
                out.add(f"! {type_words(message.content_type)}: {fault}")
                out.add(octets_words(message.content or b""))
            case _ if message.content is None:
                out.add("no content")
            case _:
                out.add(f"content: {type_words(message.content_type)}, {octets_words(message.content or b'')}")


def _signer(out: Outline, message: SignedData, signer: SignerInfo, data: PKIData | PKIResponse | None) -> None:
    out.add(f"digest {signer.digest.name}, signature {signer.algorithm.name}")
    out.add(f"signature: {_fit(message, signer, data)}")
    known = (signed.CONTENT_TYPE, signed.MESSAGE_DIGEST, signed.SIGNING_TIME)
    if (moment := signer.signing_time) is not None:
        out.add(f"signing time: {moment.isoformat()}")
    for attribute in (*signer.signed_attributes, *signer.unsigned_attributes):
        if attribute.oid not in known:
            out.add(f"attribute {type_words(attribute.oid)}: {', '.join(map(der_words, attribute.values))}")


def _fit(message: SignedData, signer: SignerInfo, data: PKIData | PKIResponse | None) -> str:
    """Words that say whether a signature fits a key in the message."""
    if not signer.is_signed:
        return "none (id-alg-noSignature)"
    holder, public = "", None
    with suppress(Malformed):
        found = next((each for each in message.bag if is_named(each, signer.whom)), None)
        if found is not None:
            holder, public = f"the certificate of {names.dn_text(found.subject)}", key_of(found)
    for request in data.requests if isinstance(data, PKIData) and public is None else ():
        with suppress(Malformed):
            if not isinstance(request, OtherRequest) and requests.key_id(request) == signer.whom:
                holder, public = f"the key of request {request.body_part_id}", key_of(request.csr.request)
    if public is None:
        return "not checked, the signer's key is not in the message"
    try:
        signed.verify(message, signer, public)
    except BadSignature as fault:
        return f"does not fit {holder}: {fault}"
    except Malformed as fault:
        return f"not checked with {holder}: {fault}"
    return f"fits {holder}"


def _enveloped(out: Outline, message: enveloped.EnvelopedData, name: str) -> None:
    with out.deeper(f"{name}: {type_words(message.content_type)}, encrypted with {message.algorithm.name}"):
        for recipient in message.recipients:
            method = f" by {recipient.algorithm.name}" if recipient.algorithm else ""
            out.add(f"for {identifier_words(recipient.whom)}: {recipient.kind}{method}")


# Messages.


def _data(out: Outline, data: PKIData, depth: int) -> None:
    with out.deeper("PKIData"):
        _controls(out, data.controls, depth)
        for request in data.requests:
            _request(out, request, "request")
        _rest(out, data.cms, data.others, depth)


def _response(out: Outline, response: PKIResponse, depth: int) -> None:
    with out.deeper("PKIResponse"):
        _controls(out, response.controls, depth)
        _rest(out, response.cms, response.others, depth)


def _rest(out: Outline, cms: Sequence[TaggedContentInfo], others: Sequence[OtherMsg], depth: int) -> None:
    for each in cms:
        with out.deeper(f"message {each.body_part_id}"):
            _content_info(out, each.der, depth + 1)
    for other in others:
        out.add(f"other message {other.body_part_id}: {type_words(other.oid)}, {der_words(other.value)}")


def _controls(out: Outline, controls: Sequence[Control], depth: int) -> None:
    for control in controls:
        headline = f"control {control.body_part_id}: {control.name}"
        if control.row is not None:
            headline += f" ({_section(control.row.section)})"
        with out.deeper(headline):
            for raw in control.values:
                _value(out, control, raw, depth)


def _section(section: str) -> str:
    return section if section.startswith("RFC") else f"RFC 5272 {section}"


def _value(out: Outline, control: Control, raw: bytes, depth: int) -> None:
    if control.row is None:
        out.add(der_words(raw))
        return
    try:
        value = control.row.kind.decode(raw, "its value")
    except Malformed as fault:
        out.add(f"! {fault}")
        out.add(octets_words(raw))
        return
    match value:
        case tuple() if control.row.kind is BODY_PART_PATH:
            out.add(path_words(value))
        case StatusInfo():
            _status(out, value)
        case EncryptedPOP():
            _request(out, value.request, "for request")
            out.add(f"MAC {value.mac.name}, hash {value.hash.name}, witness {octets_words(value.witness)}")
            _content_info(out, value.cms, depth + 1)
        case _:
            value_lines(out, value)


def _status(out: Outline, status: StatusInfo) -> None:
    out.add(status.words)
    out.add(f"about {', '.join(map(_part, status.body_list)) or 'nothing'}")
    if status.pending is not None:
        moment, token = status.pending.time.isoformat(), octets_words(status.pending.token)
        out.add(f"ask again at {moment} with the token {token}")
    if status.extended is not None:
        out.add(f"extended failure {type_words(status.extended.oid)}: {der_words(status.extended.value)}")


def _part(part: int | tuple[int, ...]) -> str:
    if isinstance(part, int):
        return str(part) if part else "0 (the whole)"
    return path_words(part)


# Requests.


def _request(out: Outline, request: TaggedRequest, noun: str) -> None:
    match request:
        case OtherRequest():
            out.add(f"{noun} {request.body_part_id}: {type_words(request.oid)}, {der_words(request.value)}")
        case PKCS10Request():
            with out.deeper(f"{noun} {request.body_part_id}: PKCS#10"):
                _csr(out, request)
                out.add(f"possession: {_possession(request)}")
        case CRMFRequest():
            with out.deeper(f"{noun} {request.body_part_id}: CRMF"):
                template_lines(out, request.message.request.template)
                for each in (*request.message.request.controls, *request.message.reg_info):
                    out.add(f"{type_words(each.oid)}: {der_words(each.value)}")
                if isinstance(request.message.pop, SignaturePop):
                    out.add(f"signature: {request.message.pop.algorithm.name}")
                out.add(f"possession: {_possession(request)}")


def _csr(out: Outline, request: PKCS10Request) -> None:
    csr = request.csr
    out.add(f"subject: {names.dn_text(csr.subject) or '(empty)'}")
    with suppress(Malformed):
        out.add(f"key: {key_words(key_of(csr.request))}")
    out.add(f"signature: {Algorithm(csr.request.signature_algorithm_oid.dotted_string).name}")
    for extension in csr.extensions:
        name, critical = oids.name_of(extension.oid.dotted_string), " (critical)" if extension.critical else ""
        words = extension_words(extension.oid.dotted_string, extension.value.public_bytes())
        out.add(f"{name}{critical}: {words}")
    for oid, values in csr.attributes.items():
        if oid != EXTENSION_REQUEST:
            out.add(f"attribute {type_words(oid)}: {', '.join(der_words(whole(each)) for each in values)}")


def _possession(request: PKCS10Request | CRMFRequest) -> str:
    try:
        return _POSSESSION[requests.possession(request)]
    except Malformed as fault:
        return f"! {fault}"
