"""Requests that go into CMC messages: PKCS#10 and CRMF, from one plan (RFC 5272 3.2.1.2).

A maker is called for every connection, as the makers of `session` are: with the connection's binding, if the request
gets one, and with a witness that links it to a secret, if there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from estgw.client import keys, request
from estgw.client.request import Plan
from estgw.cmc import crmf as crmf_tools
from estgw.cmc.controls import BY_NAME
from estgw.cmc.crmf import CertReqMsg, OtherPop, PopKind, SignaturePop, TypeAndValue
from estgw.cmc.requests import CRMFRequest, PKCS10Request
from estgw.cmc.values import Witness
from estgw.cms.algorithms import Algorithm
from estgw.cms.identifiers import key_id_of
from estgw.est import csr
from estgw.est.binding import Binding
from estgw.est.csrattrs import AttributeWish, ExtensionWish
from estgw.est.der import SEQUENCE, wrap

BODY_PART_ID = 1
"""The number of the one request in a message; controls come after it."""
_SUBJECT_KEY_ID = "2.5.29.14"
_LINK_WITNESS = BY_NAME["popLinkWitnessV2"].oid

Request: TypeAlias = "PKCS10Request | CRMFRequest"
RequestMaker = Callable[[Binding | None, Witness | None], Request]


def with_key_id(plan: Plan, key: PrivateKeyTypes) -> Plan:
    """The plan with the key's subject key identifier, which names the signer of the message (RFC 5272 3.2)."""
    value = wrap(b"\x04", key_id_of(key.public_key()))
    others = [each for each in plan.extensions if each.oid != _SUBJECT_KEY_ID]
    return replace(plan, extensions=(*others, ExtensionWish(_SUBJECT_KEY_ID, False, value)))


def pkcs10(plan: Plan, key: PrivateKeyTypes) -> RequestMaker:
    """A PKCS#10, as in `simpleenroll`."""

    def make(binding: Binding | None, witness: Witness | None) -> Request:
        extra = () if witness is None else (AttributeWish(_LINK_WITNESS, (witness.encode(),)),)
        return PKCS10Request(BODY_PART_ID, request.build(plan, key, binding, extra))

    return make


def ready(make: Callable[[Binding | None], bytes]) -> RequestMaker:
    """A PKCS#10 (PEM, DER or base64) that was made elsewhere; it can't be linked to a secret."""

    def wrapped(binding: Binding | None, _: Witness | None) -> Request:
        return PKCS10Request(BODY_PART_ID, csr.parse(make(binding)).der)

    return wrapped


def crmf(plan: Plan, key: PrivateKeyTypes, *, challenge: bool = False) -> RequestMaker:
    """A CRMF request, proved by a signature, or by a `challenge` that the CA encrypts to the key (RFC 5272 6.7).

    The binding and other attributes of a CSR become controls with the same OIDs.
    """

    def make(binding: Binding | None, witness: Witness | None) -> Request:
        controls = [TypeAndValue(each.oid, value) for each in plan.attributes for value in each.values[:1]]
        if binding is not None:
            controls.append(TypeAndValue(plan.linking, request.string(binding.text)))
        if witness is not None and not challenge:  # a link is made by a key that signs
            controls.append(TypeAndValue(_LINK_WITNESS, witness.encode()))
        extensions = wrap(SEQUENCE, b"".join(each.encode() for each in plan.extensions)) if plan.extensions else None
        asked = crmf_tools.request_for(key.public_key(), BODY_PART_ID, plan.subject, extensions, controls)
        if not challenge:
            method, signature = keys.sign(key, asked.encode(), plan.hash_name)
            return CRMFRequest(CertReqMsg(asked, SignaturePop(Algorithm.decode(method), signature)))
        is_rsa = keys.spec_of(key).kind == "rsa"
        kind = PopKind.KEY_ENCIPHERMENT if is_rsa else PopKind.KEY_AGREEMENT
        return CRMFRequest(CertReqMsg(asked, OtherPop(kind, crmf_tools.CHALLENGE.value)))

    return make
