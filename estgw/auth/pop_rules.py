"""The rules of `pop` in conf.yaml: the clients that must link identity and POP (RFC 7030 3.5, 3.7)."""

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
"""The keys of a rule whose values are known before the client has authenticated."""


class Rules:
    """The configured rules for linking.  The first rule that fits a client decides, else the default."""

    def __init__(self, rules: Sequence[POPRule], default: Linking) -> None:
        self._rules = [(rule, _patterns(rule)) for rule in rules]
        self._default: Linking = default

    def linking(self, client: Client, operation: str, label: str | None) -> Linking:
        """Return the setting for this client's CSR."""
        for rule, patterns in self._rules:
            if _fits(rule, patterns, client, operation, label):
                return rule.pop
        return self._default

    def announces(self, client: Client, label: str | None) -> bool:
        """Whether /csrattrs must say that linking is required (RFC 7030 4.5.2).

        The client has not authenticated yet.  So a condition on its identity or on the operation counts as one that may
        be met: a client that links without need does no harm.  A rule without such a condition decides for each client
        here, and later rules are not consulted.
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
    """Return the expression for a DN in which `*` matches any text inside one value.

    A `*` does not match the comma or plus between RDNs: otherwise a CN that holds `\\,O=ours` would match as an RDN.
    A client chooses its subject, so matching must not take long: atomic groups keep the first match of each part but
    the last, which is enough.
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
        # The contents of an unverified certificate prove nothing.
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
