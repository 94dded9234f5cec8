"""Link identity and POP: check that a CSR belongs to the TLS connection on which it came (RFC 7030 3.5, RFC 7894)."""

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
    ABSENT = "absent"  # the CSR has no binding, and none is required
    WAIVED = "waived"  # the CSR has another connection's binding, and a rule permits that (for an RA, RFC 7030 3.7)


_TLS13 = {"exporter": BindingType.TLS_EXPORTER, "finished": BindingType.TLS13_FINISHED}
LINKING_ATTRIBUTES = (CHALLENGE_PASSWORD, EST_IDENTITY_LINKING)


def binding_in_force(tls: TLSInfo, tls13: str) -> Binding | None:
    """Return the channel binding that a CSR on this connection must have, or None.

    On TLS 1.2 it is tls-unique.  For TLS 1.3 no RFC names one for EST over HTTPS, so the setting `tls13` does:
    `exporter` (RFC 9266, which RFC 9148 3 uses for EST over coaps), `finished` (libest sends it; no standard defines
    it) or `off`.
    """
    if tls.version == "TLSv1.2":
        return tls.bindings.get(BindingType.TLS_UNIQUE)
    return tls.bindings.get(_TLS13[tls13]) if tls13 in _TLS13 else None


def link(csr: CSR, binding: Binding | None, linking: Linking, tls_version: str, attribute: str) -> POP:
    """Verify each channel binding in a CSR, in challengePassword or estIdentityLinking.

    A binding that is present is always verified (RFC 7030 3.5; RFC 7894 4: all must pass), the whole value, in constant
    time.  Only `waived` permits one of another connection.  Raises `BadRequest` with a text that names the fault and
    the TLS version over which a binding is possible (`attribute` is the one that csrattrs announces), and `Malformed`
    when an attribute is not a text.
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
