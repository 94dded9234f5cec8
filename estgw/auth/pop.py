"""Linking identity and POP: does the CSR belong to the TLS connection it came over? (RFC 7030 3.5, RFC 7894)"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from enum import Enum

from cryptography.hazmat.primitives.hashes import SHA256

from estgw.auth.identity import Client
from estgw.config.model import Linking, POPRule
from estgw.errors import BadRequest
from estgw.est import names
from estgw.est.binding import Binding, BindingType
from estgw.est.csr import ATTRIBUTE_NAMES, CHALLENGE_PASSWORD, CSR, EST_IDENTITY_LINKING
from estgw.tls.info import TLSInfo


class POP(Enum):
    """The outcome of linking, as scripts see it."""

    LINKED = "linked"
    ABSENT = "absent"  # the CSR carries no binding and none is required
    WAIVED = "waived"  # it carries another connection's, and a rule lets that pass (an RA's, RFC 7030 3.7)


_TLS13 = {"exporter": BindingType.TLS_EXPORTER, "finished": BindingType.TLS13_FINISHED}
_LINKING_ATTRIBUTES = (CHALLENGE_PASSWORD, EST_IDENTITY_LINKING)


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
    claims = {oid: csr.text_attribute(oid) for oid in _LINKING_ATTRIBUTES}
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


_PLACE = {"pop", "label", "address"}
"""What of a rule is known before anybody has authenticated."""


class Rules:
    """The configuration's word on linking: the first rule that fits a client decides, else the default."""

    def __init__(self, rules: Sequence[POPRule], default: Linking) -> None:
        self._rules = [(rule, _patterns(rule)) for rule in rules]
        self._default: Linking = default

    def linking(self, client: Client, operation: str, label: str | None) -> Linking:
        """Which word holds for this client's CSR."""
        for rule, patterns in self._rules:
            if _fits(rule, patterns, client, operation, label):
                return rule.pop
        return self._default

    def announces(self, client: Client, label: str | None) -> bool:
        """Whether /csrattrs must say that linking is required (RFC 7030 4.5.2).

        Asked before anybody has authenticated, so a condition on who the client is, or on the operation, counts as
        one that may come true: a client that links without need does no harm.  A rule with neither decides for
        everybody here, and what comes after it is not asked.
        """
        for rule, _ in self._rules:
            here = rule.label in (None, label or "") and (
                rule.address is None or _in_network(rule.address, client.address)
            )
            if here and rule.pop == "required":
                return True
            if here and not rule.model_dump(exclude=_PLACE, exclude_none=True):
                return False
        return self._default == "required"


def _patterns(rule: POPRule) -> dict[str, re.Pattern[str]]:
    given = {"subject": rule.subject, "issuer": rule.issuer}
    return {name: _pattern(text) for name, text in given.items() if text is not None}


def _pattern(text: str) -> re.Pattern[str]:
    """A DN with `*` for any run inside one value.

    It never reaches over a comma or plus that divides RDNs: else a CN that holds `\\,O=ours` would pass for an RDN.
    A subject is the client's own text, so no part but the last is looked for twice: the first place where one fits
    is as good as any other, and atomic groups keep to it.
    """
    first, *rest = map(re.escape, text.split("*"))
    middle, last = rest[:-1], rest[-1:]
    pattern = first + "".join(f"(?>{_RUN}*?{part})" for part in middle) + "".join(f"{_RUN}*{part}" for part in last)
    return re.compile(pattern)


_RUN = r"(?:[^,+\\]|\\.)"


def _fits(
    rule: POPRule, patterns: dict[str, re.Pattern[str]], client: Client, operation: str, label: str | None
) -> bool:
    certificate = client.certificate
    if patterns or rule.fingerprint:
        # What an unverified certificate says about itself is no reason for anything.
        if certificate is None or client.trust.value == "none":
            return False
        texts = {"subject": certificate.subject, "issuer": certificate.issuer}
        if not all(pattern.fullmatch(names.dn_text(texts[name])) for name, pattern in patterns.items()):
            return False
        if rule.fingerprint not in (None, certificate.fingerprint(SHA256()).hex()):
            return False
    return (
        rule.operation in (None, operation)
        and rule.label in (None, label or "")
        and rule.user in (None, client.user)
        and rule.trust in (None, client.trust.value)
        and rule.ra in (None, client.is_ra)
        and (rule.address is None or _in_network(rule.address, client.address))
    )


def _in_network(network: str, address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return parsed in ipaddress.ip_network(network)
