"""Fixtures of the modules in this directory."""

from __future__ import annotations

import pytest

from tests.kit.clients import People, sha_user
from tests.kit.scripts import REFLECT
from tests.kit.workspace import Workspace


@pytest.fixture(scope="module")
def own(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A module's own workspace, with a handler that shows its environment, and two users."""
    made = lab.copy(tmp_path_factory.mktemp("own"))
    made.script("reflect", REFLECT)
    (made.path / "users.htpasswd").write_text(sha_user("estuser", "estpwd") + sha_user("alice", "secret"))
    return made


@pytest.fixture(scope="module")
def people(own: Workspace) -> People:
    """The clients of a module, known to its own workspace."""
    return People(own)
