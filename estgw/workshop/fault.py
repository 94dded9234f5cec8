"""What goes wrong with a workshop; apart from all else, so that the command line knows it without loading more."""

from __future__ import annotations


class WorkshopError(Exception):
    """A workshop can't be made, changed or used; the text says why, and what to do."""
