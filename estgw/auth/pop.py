"""Linking identity and POP: does the CSR belong to the TLS connection it came over? (RFC 7030 3.5)"""

from __future__ import annotations

from enum import Enum

from estgw.errors import BadRequest
from estgw.est.binding import Binding, BindingType
from estgw.est.csr import CHALLENGE_PASSWORD, CSR
from estgw.tls.info import TLSInfo


class POP(Enum):
    """The outcome of linking, as scripts see it."""

    LINKED = "linked"
    ABSENT = "absent"  # the CSR carries no binding and none is required
    WAIVED = "waived"  # an RA's CSR, whose binding belongs to another connection (RFC 7030 3.7)


_TLS13 = {"exporter": BindingType.TLS_EXPORTER, "finished": BindingType.TLS13_FINISHED}


def binding_in_force(tls: TLSInfo, tls13: str) -> Binding | None:
    """The channel binding that a CSR on this connection must carry.

    On TLS 1.2 it is tls-unique.  On 1.3, where no RFC names one for EST over HTTPS, `tls13` says: `exporter`
    (RFC 9266, as RFC 9148 3 has it for EST over coaps), `finished` (what libest sends) or `off`.
    """
    if tls.version == "TLSv1.2":
        return tls.bindings.get(BindingType.TLS_UNIQUE)
    return tls.bindings.get(_TLS13[tls13]) if tls13 in _TLS13 else None


def link(csr: CSR, binding: Binding | None, tls_version: str) -> POP:
    """Verify the channel binding that a CSR carries in challengePassword.

    A binding that is present is always verified (RFC 7030 3.5), whole and in constant time.  Raises
    `BadRequest` when it is not this connection's, or `Malformed` when it is no text.
    """
    claimed = csr.text_attribute(CHALLENGE_PASSWORD)
    if claimed is None:
        return POP.ABSENT
    if binding is None:
        raise BadRequest(
            "The CSR carries a challengePassword, but this server has no channel binding to compare it with "
            f"over {tls_version}; connect over TLS 1.2, or leave it out."
        )
    if not binding.matches(claimed):
        raise BadRequest(
            f"The CSR's challengePassword is not the {binding.type.value} value of this TLS connection; "
            "a CSR with a channel binding is made anew for each connection."
        )
    return POP.LINKED
