from __future__ import annotations

import pytest

from tests.kit.ca import CA, Credential, root


@pytest.fixture(scope="session")
def ca() -> CA:
    return root("Conform CA")


@pytest.fixture(scope="session")
def holder(ca: CA) -> Credential:
    """The certificate of a correct server."""
    return ca.server()


@pytest.fixture(scope="session")
def stranger() -> Credential:
    """A client's certificate of a CA that nobody trusts."""
    return root("A stranger").issue("device-1")
