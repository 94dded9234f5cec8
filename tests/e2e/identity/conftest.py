"""What the modules here share."""

from __future__ import annotations

import pytest

from tests.e2e.identity.kit import People
from tests.support import Lab


@pytest.fixture(scope="module")
def people(own: Lab) -> People:
    """The clients of a module, known to its own laboratory."""
    return People(own)
