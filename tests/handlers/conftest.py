"""Fixtures of the modules in this directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.workspace import Workspace


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One CA, for the tests of a module that do not change it, and to be copied.

    Its path has a blank and a `$`, because scripts must quote it.
    """
    return Workspace.create(tmp_path_factory.mktemp("ca") / "work shop $HOME")


@pytest.fixture
def workspace(shared: Workspace, tmp_path: Path) -> Workspace:
    """A copy of it, for a test that changes something."""
    return shared.copy(tmp_path / "ws")
