"""Text from elsewhere, made fit for a terminal and a log: nothing in it can be obeyed, and it has a bound."""

from __future__ import annotations


def printable(text: str, limit: int = 500) -> str:
    """Control and format characters, line ends among them, as \\xNN or \\uNNNN; what is too long ends in dots."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:limit])
    return shown + ("..." if len(text) > limit else "")
