"""How large a campaign is: small in `make test`, large in `make campaign` and `make test-scale FULL=1`."""

import os

LARGE = os.environ.get("CAMPAIGN") == "large"


def step(small: int) -> int:
    """Try each case in a large campaign, and one in `small` of them in a small one."""
    return 1 if LARGE else small


def times(small: int, large: int) -> int:
    """A number of repetitions, by the size of the campaign."""
    return large if LARGE else small
