"""A CGI-style callout server for EST, Enrollment over Secure Transport (RFC 7030)."""

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

__version__ = "0.1.0"

FORMER_MODULES = {
    "estgw.cms.whom": "estgw.cms.identifiers",
    "estgw.csrattrs_yaml": "estgw.config.csrattrs_yaml",
}
"""Modules by the names that scripts in workspaces of earlier versions import, and where these modules are now.

`estgw init` copies scripts into a workspace, and an upgrade does not touch them there.
"""


class _FormerModules:
    """An importer that is asked last: a former name is the very module that has another name now."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, _FormerModules) if name in FORMER_MODULES else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """As importers usually do."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(FORMER_MODULES[module.__name__])


sys.meta_path.append(_FormerModules)
