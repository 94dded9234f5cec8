"""Fixtures of the modules in this directory."""

from __future__ import annotations

import pytest

from tests.kit.clients import People
from tests.kit.workspace import Workspace


@pytest.fixture(scope="module")
def people(own: Workspace) -> People:
    """The clients of a module, known to its own workspace."""
    return People(own)
