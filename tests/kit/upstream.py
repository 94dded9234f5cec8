"""Handlers for CAs that others run: the shipped script with the settings of a test, run as the gateway runs it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.processes import ROOT
from tests.kit.scripts import OWN_PYTHON
from tests.kit.workspace import Result, Workspace


@dataclass(frozen=True)
class Upstream:
    """One handler in a workspace, and the CA's directory, which has nothing but files for it."""

    lab: Workspace
    name: str
    folder: Path

    @classmethod
    def create(cls, lab: Workspace, name: str, settings: Mapping[str, str]) -> Upstream:
        """`settings` are texts of the script, each with what a test has in its place."""
        folder = lab.path / "upstream-ca"
        (folder / "secrets").mkdir(parents=True, exist_ok=True)
        made = cls(lab, name, folder)
        for before, after in settings.items():
            lab.edit(made.script, before, after)
        return made

    @property
    def script(self) -> str:
        return f"handlers/upstream/{self.name}"

    def write(self, name: str, content: str | bytes, mode: int = 0o600) -> Path:
        """A file in the CA's directory."""
        file = self.folder / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)
        return file

    def run(self, operation: str, request: bytes | None = None, **env: str) -> Result:
        environment = {"EST_OPERATION": operation, "EST_CA_DIR": str(self.folder), "PATH": OWN_PYTHON, **env}
        return self.lab.run(f"upstream/{self.name}", request, **environment)

    def settings(self, **more: Any) -> dict[str, Any]:
        """A label for conf.yaml."""
        handler = {"handler": str(self.lab.path / self.script)}
        operations = dict.fromkeys(("cacerts", "simpleenroll", "simplereenroll"), handler)
        return {"ca_dir": str(self.folder), "runner": "pool", "operations": operations, **more}


def commands(heading: str) -> str:
    """The first block of commands below a heading of handlers/upstream/README.md."""
    text = (ROOT / "handlers/upstream/README.md").read_text()
    found = re.search(rf"^## {re.escape(heading)}$.*?^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]
