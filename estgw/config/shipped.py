"""The files that estgw ships for a workspace."""

from __future__ import annotations

from pathlib import Path


def template() -> Path:
    """The directory of the shipped files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "template"
    return installed if installed.is_dir() else package.parent
