"""A CGI-style callout server for EST, Enrollment over Secure Transport (RFC 7030)."""

import importlib
from types import ModuleType

__version__ = "0.1.0"

_FORMER = {"csrattrs_yaml": "estgw.config.csrattrs_yaml"}
"""Modules by names that handlers in workspaces of an earlier layout import, and where they are now."""


def __getattr__(name: str) -> ModuleType:
    if name in _FORMER:
        return importlib.import_module(_FORMER[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
