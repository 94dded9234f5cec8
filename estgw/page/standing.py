"""How a viewer of a page stands: the last request, the last refusal with its hint, the labs, a raised hand."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from estgw.page import rows
from estgw.page.viewers import View

LABS = Path(".estgw/labs.json")
"""Beside conf.yaml: what the checks of the labs have found, `{"1": {"step": "done" | "not yet" | "wrong"}}`."""
HAND = ".estgw/hand"
"""Beside conf.yaml, while a hand is raised; with `-LABEL` behind it for a viewer of one label."""
MOST = 256 << 10
"""Bytes of the file of labs that are read."""
HINT = 500
"""Characters of a hint."""


class Standing:
    """What a trainer asks about the viewers of one gateway's page, and the hands that these raise."""

    def __init__(self, folder: Path) -> None:
        """`folder` is where conf.yaml lies."""
        self._folder = folder

    def of(self, view: View) -> dict[str, Any]:
        """Return the standing as JSON values: rows of the list, or null where there is none."""
        every = [(number, entry.outline()) for number, entry in view.since(0)]
        found = [each for each in every if each[1].get("kind") != "replay"]
        refused = [is_refusal(record) for _, record in found]
        last = next(iter(found[::-1]), None)
        refusal = next((each for each, no in zip(found[::-1], refused[::-1], strict=True) if no), None)
        return {
            "last": rows.row(*last) if last else None,
            "refusal": {**rows.row(*refusal), "hint": _hint(refusal[1])} if refusal else None,
            "refusals": next((place for place, no in enumerate(refused[::-1]) if not no), len(refused)),
            "hand": self.hand(view.label),
            "labs": self._labs() if view.label is None else {},
        }

    def hand(self, label: str | None) -> bool:
        """Whether the hand is raised."""
        return self._file(label).exists()

    def raise_hand(self, label: str | None, *, up: bool) -> None:
        """Raise the hand, or lower it.  Raises OSError."""
        file = self._file(label)
        if up:
            file.parent.mkdir(mode=0o755, exist_ok=True)
            file.touch(mode=0o600)
        else:
            file.unlink(missing_ok=True)

    def _file(self, label: str | None) -> Path:
        return self._folder / (HAND if label is None else f"{HAND}-{label}")

    def _labs(self) -> dict[str, dict[str, str]]:
        """The outcomes of the labs' checks by lab and step; what is not of that form is left out."""
        content = b""
        with contextlib.suppress(OSError):
            # A FIFO there would hold up the page for ever.
            descriptor = os.open(self._folder / LABS, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                content = file.read(MOST + 1) or b""
        try:
            data = json.loads(content) if len(content) <= MOST else {}
        except (ValueError, RecursionError):
            data = {}
        labs = data.items() if isinstance(data, dict) else ()
        return {
            str(lab)[:40]: {str(step)[:100]: str(outcome)[:20] for step, outcome in steps.items()}
            for lab, steps in labs
            if isinstance(steps, dict)
        }


def is_refusal(record: Any) -> bool:
    """Whether a record is a failed handshake, or an answer of 400 and more.

    A 401 that asks for credentials is none: a client's first request often has no password yet.
    """
    outcome, auth = record.get("outcome") or {}, record.get("auth") or {}
    status = outcome.get("status")
    if status == 401 and auth.get("scheme") is None:
        return False
    return status is None or status >= 400


def _hint(record: Any) -> str | None:
    hint = (record.get("outcome") or {}).get("hint")
    return str(hint)[:HINT] if hint else None
