"""Which clients must link identity and POP: the rules of `pop` in conf.yaml (RFC 7030 3.5, 3.7)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from cryptography.hazmat.primitives.hashes import SHA256

from estgw.auth.identity import Client
from estgw.config.model import POPRule
from estgw.config.route import Linking
from estgw.est import names

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
