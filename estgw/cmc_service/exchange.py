"""One message while it is served: what the modules of this package hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from estgw.callout.call import Call, InnerRules
from estgw.cmc.messages import PKIData
from estgw.cmc_service.answer import Answer, Refused
from estgw.cmc_service.ca import CA
from estgw.cmc_service.policy import Policy, Signer
from estgw.cmc_service.ra import Statements
from estgw.cmc_service.state import Full, State
from estgw.est.csr import NewNames


@dataclass(frozen=True)
class Service:
    """What all messages of one HTTP request share."""

    policy: Policy
    ca: CA
    state: State
    outer: Call
    """The HTTP request that the message came in."""
    deadline: float
    """By time.monotonic(): no part of a message is begun after it."""

    @property
    def is_replay(self) -> bool:
        """Whether the message comes from a record, so that it has been here before and may be old (EST_REPLAY)."""
        return self.outer.exchange.is_replay

    @property
    def rules(self) -> InnerRules:
        """What the configuration says of requests inside a message."""
        rules = self.outer.inner
        assert rules is not None, "the gateway tells them to each operation that takes messages"
        return rules


@dataclass(frozen=True)
class Exchange:
    """One message, outermost or inside another, and what is known about it."""

    service: Service
    signer: Signer
    """The client that the message is from.  An RA that has wrapped a message stands for its client."""
    is_by_ra: bool
    """Whether an RA signed this very message."""
    data: PKIData
    statements: Statements
    answer: Answer
    full: Full | None = None
    """Raised for every part of the message but a revocation: there is no room to remember the message."""

    @cached_property
    def changes(self) -> Mapping[int, NewNames | Refused]:
        """The names that an RA gives to requests (RFC 5272 6.5)."""
        return self.statements.changes(self.data, self.service.policy.may_add)
