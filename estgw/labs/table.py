"""All labs, by their numbers."""

from __future__ import annotations

from estgw.labs import (
    approval,
    eight_gates,
    first_certificate,
    full_cmc,
    judges,
    linking,
    policy,
    post_quantum,
    renewal,
    rollover,
)
from estgw.labs.step import Lab

_ALL: tuple[Lab, ...] = (
    first_certificate.LAB,
    eight_gates.LAB,
    policy.LAB,
    renewal.LAB,
    linking.LAB,
    approval.LAB,
    rollover.LAB,
    full_cmc.LAB,
    post_quantum.LAB,
    judges.LAB,
)
LABS = {lab.number: lab for lab in _ALL}
