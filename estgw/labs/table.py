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

LABS = {
    lab.LAB.number: lab.LAB
    for lab in (
        first_certificate,
        eight_gates,
        policy,
        renewal,
        linking,
        approval,
        rollover,
        full_cmc,
        post_quantum,
        judges,
    )
}
