"""One message on its way through fullcmc: what the modules beside this one hand to each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from cmc_ca import Books

from estgw.cmc.messages import PKIData
from estgw.cmc_service.answer import Answer, Refused
from estgw.cmc_service.policy import Policy, Who
from estgw.cmc_service.ra import Statements
from estgw.cmc_service.state import Full, State
from estgw.est.csr import NewNames


@dataclass(frozen=True)
class Case:
    """One message, outermost or inside another, and what has been found out about it."""

    policy: Policy
    books: Books
    state: State
    who: Who
    """Who answers for it: of a message that an RA has wrapped, the RA."""
    ra: bool
    """Whether the very message is signed by an RA."""
    data: PKIData
    said: Statements
    answer: Answer
    deadline: float
    """By time.monotonic(): no request is begun after it."""
    full: Full | None = None
    """Why no part of the message is done but what it revokes: that there is no room to remember the message."""

    @cached_property
    def changes(self) -> Mapping[int, NewNames | Refused]:
        """The names that an RA gives to requests."""
        return self.said.changes(self.data, self.policy.may_add)
