"""Why a run can't be made."""

from __future__ import annotations


class UsageError(Exception):
    """A name, a file or a command that can't be used; the text says which, and what there is."""


class CannotRunError(Exception):
    """The client can't be started, or does not even enrol at a server without faults."""
