"""The HTTP side: facts of a connection that has ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp.test_utils import make_mocked_request

from estgw.gateway.app import Exchange


def test_a_client_that_went_away_before_its_request_is_no_unexpected_error() -> None:
    """asyncio's transport forgets the address when the socket under TLS is closed."""
    transport = Mock()
    transport.get_extra_info.return_value = None
    state: Any = SimpleNamespace(recorder=None, config=None)
    nobody: Any = None
    request = make_mocked_request("POST", "/.well-known/est/simpleenroll", transport=transport)
    exchange = Exchange(state, nobody, nobody, request)
    with pytest.raises(ConnectionResetError):
        exchange.identify()
