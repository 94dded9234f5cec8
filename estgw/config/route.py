"""A route: one operation of one label as configured.

This module does not import the configuration's model: a script makes routes too, for the requests inside a Full PKI
Request, and must not load modules that only the gateway needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from estgw.est.bounds import NameBounds
from estgw.est.operations import OPERATIONS, Operation, Requires

RunnerName = Literal["auto", "exec", "fork", "pool"]
Linking = Literal["required", "optional", "waived"]


@dataclass(frozen=True)
class Route:
    """One operation of one label."""

    operation: Operation
    label: str | None
    handler: Path
    ca_dir: Path
    requires: Requires
    authenticate: Path | None
    authorize: Path | None
    change_subject_name: bool
    renew_without_certificate: bool
    csr_template: Path | None
    name_bounds: NameBounds
    timeout: float
    decision_timeout: float
    raw_output: bool
    pass_credentials: bool
    pass_headers: tuple[str, ...]
    serialize: str | None
    search_path: str
    """The variable PATH of the scripts."""
    handler_env: Mapping[str, str]
    runner: RunnerName = "auto"
    decision_runner: RunnerName = "auto"
    """The runner of the authenticate and authorize scripts; `runner` is the handler's."""
    register: str | None = None
    """The URL of the CA's register; None for `certs.sqlite` in its directory."""

    @property
    def programs(self) -> tuple[Path, ...]:
        """All scripts that this route may run."""
        return (self.handler, *self.decisions)

    @property
    def decisions(self) -> tuple[Path, ...]:
        """The decision scripts of this route."""
        return tuple(script for script in (self.authorize, self.authenticate) if script)

    @property
    def is_new(self) -> bool:
        """Whether the configuration defines this operation, and not the table of `estgw.est.operations`."""
        return self.operation.name not in OPERATIONS
