"""The gates that a request passes, in the order of the README's section "Who may enrol"."""

from __future__ import annotations

from enum import StrEnum


class Gate(StrEnum):
    """One gate; the values are the words of a record."""

    TLS = "TLS"
    PATH = "path"
    """Path, method, media type, and the body's arrival."""
    PASSWORD = "password"  # noqa: S105 - the name of a gate
    REQUIRES = "requires"
    CSR = "CSR"
    LINKING = "linking"
    AUTHORIZE = "authorize"
    HANDLER = "handler"
    """The handler, and the check of what it printed."""


GATES = tuple(Gate)
