"""Names and digests of scripts as a record has them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from estgw.callout.sources import Stamp, version_of


@dataclass
class Digests:
    """Names and SHA-256 of scripts, each file read once for each of its versions."""

    folder: Path
    """That of conf.yaml."""
    _known: dict[Path, tuple[Stamp, str]] = field(default_factory=dict)
    _names: dict[Path, str] = field(default_factory=dict)

    def name(self, script: Path) -> str:
        """A script's path as seen from conf.yaml's folder, or whole if it lies elsewhere."""
        name = self._names.get(script)
        if name is None:
            inside = script.is_relative_to(self.folder)
            name = self._names[script] = str(script.relative_to(self.folder) if inside else script)
        return name

    def of(self, script: Path, stamp: Stamp | None) -> str | None:
        """The digest of that version; None if the file is another one by now."""
        known = self._known.get(script)
        if stamp is not None and known is not None and known[0] == stamp:
            return known[1]
        try:
            digest = hashlib.sha256(script.read_bytes()).hexdigest()
        except OSError:
            return None
        if stamp is None or version_of(script) != stamp:
            return None
        self._known[script] = (stamp, digest)
        return digest
