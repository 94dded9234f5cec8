"""What an engine of a register promises, and the faults that it raises."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from estgw.errors import Unusable

Values = Mapping[str, object]
Rows = list[tuple[Any, ...]]


class RegisterError(Unusable):
    """The register can't be used; the text is for the log, and `status` the exit status that a script ends with."""

    status = os.EX_IOERR


class RegisterBusy(RegisterError):
    """The register can't be used now, and nothing was handed out: the client is to come back."""

    status = os.EX_UNAVAILABLE


class RegisterUnfit(RegisterError):
    """The register must be made or upgraded, or its URL mended, before anything works."""

    status = os.EX_CONFIG


class Engine(Protocol):
    """A register that is open."""

    place: str
    """Where it is, for a person; never with a password."""
    patience: float
    """Seconds that a statement may take."""

    def rows(self, statement: str, values: Values = {}) -> Rows:  # noqa: B006 - nobody writes to it
        """The rows of one statement, a transaction of its own.  Raises `RegisterError`."""

    def transaction(self) -> AbstractContextManager[None]:
        """The statements inside are committed together, or not at all.  Raises `RegisterError`.

        A transaction inside another is a part of that one.
        """

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """A transaction, and no other process is in one with this name.  Raises `RegisterBusy` if it takes too long."""

    def alone(self, name: str) -> AbstractContextManager[None]:
        """Only one process at a time is inside with this name.  Raises `RegisterBusy` if it takes too long."""

    def close(self) -> None:
        """Close it; the next statement opens it anew."""
