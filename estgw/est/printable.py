"""Make text from a peer safe for a terminal and a log: without control sequences, and bounded."""

from __future__ import annotations


def printable(text: str, limit: int = 500) -> str:
    """Return a text with control and format characters and line ends as \\xNN or \\uNNNN.

    A text longer than `limit` characters is cut and ends in dots.
    """
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:limit])
    return shown + ("..." if len(text) > limit else "")
