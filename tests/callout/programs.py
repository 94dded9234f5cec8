"""Programs to be run: short scripts, the well-behaved and the others."""

from __future__ import annotations

import sys
from pathlib import Path


def script(directory: Path, text: str, name: str = "program") -> Path:
    """A Bash script, executable."""
    return _write(directory / name, f"#!/bin/bash\n{text}\n")


def python(directory: Path, text: str, name: str = "program") -> Path:
    """A Python script of this interpreter, isolated: nothing is imported that it does not import."""
    return _write(directory / name, f"#!{sys.executable} -IS\n{text}\n")


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path
