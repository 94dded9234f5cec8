"""The service runs in the process of its script, so it must not load the libraries of the gateway."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("aiohttp", "asyncio", "OpenSSL", "passlib", "pydantic", "structlog", "yaml", "prometheus_client")


def test_a_script_loads_no_library_of_the_gateway():
    code = f"import sys, estgw.cmc_service.service; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
