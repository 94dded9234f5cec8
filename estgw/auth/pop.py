"""Linking identity and POP: does the CSR belong to the TLS connection it came over? (RFC 7030 3.5, RFC 7894)"""

from __future__ import annotations

from enum import Enum

from estgw.config.route import Linking
from estgw.errors import BadRequest
from estgw.est.binding import Binding, BindingType
from estgw.est.csr import ATTRIBUTE_NAMES, CHALLENGE_PASSWORD, CSR, EST_IDENTITY_LINKING
from estgw.tls.info import TLSInfo


class POP(Enum):
    """The outcome of linking, as scripts see it."""

    LINKED = "linked"
    ABSENT = "absent"  # the CSR carries no binding and none is required
    WAIVED = "waived"  # it carries another connection's, and a rule lets that pass (an RA's, RFC 7030 3.7)


_TLS13 = {"exporter": BindingType.TLS_EXPORTER, "finished": BindingType.TLS13_FINISHED}
LINKING_ATTRIBUTES = (CHALLENGE_PASSWORD, EST_IDENTITY_LINKING)


def binding_in_force(tls: TLSInfo, tls13: str) -> Binding | None:
    """The channel binding that a CSR on this connection must carry.

    On TLS 1.2 it is tls-unique.  On 1.3, where no RFC names one for EST over HTTPS, `tls13` says: `exporter`
    (RFC 9266, as RFC 9148 3 has it for EST over coaps), `finished` (what libest sends, outside any standard) or
    `off`.
    """
    if tls.version == "TLSv1.2":
        return tls.bindings.get(BindingType.TLS_UNIQUE)
    return tls.bindings.get(_TLS13[tls13]) if tls13 in _TLS13 else None


def link(csr: CSR, binding: Binding | None, linking: Linking, tls_version: str, attribute: str) -> POP:
    """Verify every channel binding that a CSR carries, in challengePassword or estIdentityLinking.

    One that is present is always verified (RFC 7030 3.5; RFC 7894 4: each for itself, and all must pass), whole and
    in constant time; only `waived` lets a foreign one pass.  Raises `BadRequest` with words that say what is wrong
    or missing (`attribute` is the one that csrattrs announces) and over which TLS version it could be given, and
    `Malformed` when an attribute is no text.
    """
    claims = {oid: csr.text_attribute(oid) for oid in LINKING_ATTRIBUTES}
    present = {oid: text for oid, text in claims.items() if text is not None}
    if not present:
        if linking == "required":
            raise BadRequest(_missing(attribute, binding, tls_version))
        return POP.ABSENT
    foreign = [oid for oid, text in present.items() if binding is None or not binding.matches(text)]
    if not foreign:
        return POP.LINKED
    if linking == "waived":
        return POP.WAIVED
    raise BadRequest(_wrong(ATTRIBUTE_NAMES[foreign[0]], binding, tls_version))


def _missing(attribute: str, binding: Binding | None, tls_version: str) -> str:
    if binding is None:
        return (
            "Linking identity and POP (RFC 7030 3.5) is required here, and there is no channel binding over "
            f"{tls_version}; connect over TLS 1.2 and put base64 of tls-unique into the CSR's {attribute}."
        )
    return (
        f"Linking identity and POP (RFC 7030 3.5) is required here: put base64 of this {tls_version} connection's "
        f"{binding.type.value} value into the CSR's {attribute}."
    )


def _wrong(attribute: str, binding: Binding | None, tls_version: str) -> str:
    if binding is None:
        return (
            f"The CSR carries {attribute}, but there is no channel binding to compare it with over {tls_version}; "
            "connect over TLS 1.2, or leave it out."
        )
    return (
        f"The CSR's {attribute} is not base64 of this TLS connection's {binding.type.value} value ({tls_version}); "
        "a CSR with a channel binding is made anew for each connection."
    )
