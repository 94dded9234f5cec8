"""What goes wrong with a workshop."""

from __future__ import annotations

from estgw.errors import Unusable


class WorkshopError(Unusable):
    """A workshop can't be made, changed or used; the text says why, and what to do."""
