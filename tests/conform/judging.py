"""Runs of the judge against a server in this process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from estgw.client.transport import url
from estgw.client.transport.challenge import Credentials
from estgw.client.transport.tls import Identity
from estgw.client.transport.trust import Trust
from estgw.conform import runner, table
from estgw.conform.case import Result
from estgw.conform.model import Setup
from estgw.conform.runner import Report
from tests.conform.server import EST, LABEL, LOGIN
from tests.kit.ca import CA, Credential


def setup(server: Any, ca: CA, **changes: Any) -> Setup:
    """What a user gives who has everything, the label too."""
    label = changes.pop("label", None)
    made = Setup(
        url.parse(server.url, label), Trust((ca.certificate,)), label, Credentials(*LOGIN.split(":")), timeout=3.0
    )
    return replace(made, **changes)


def identity(credential: Credential) -> Identity:
    return Identity(credential.certificate, credential.key, credential.chain)


def judge(given: Setup, *only: str, **options: Any) -> Report:
    """Run some cases, or all."""
    return runner.run(given, table.select(only, ()), lambda case: f"estgw conform --only {case.id}", **options)


def one(given: Setup, case: str) -> Result:
    (found,) = judge(given, case).results
    return found


__all__ = ["EST", "LABEL", "identity", "judge", "one", "setup"]
