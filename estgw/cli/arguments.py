"""Options and arguments that several groups of commands have."""

from __future__ import annotations

import sys
from pathlib import Path

from estgw.commandline.table import Option
from estgw.errors import ConfigError

CONFIG = Option("-c --config", "the configuration (default: conf.yaml)", "FILE", type=Path, default=Path("conf.yaml"))


def config_file(path: Path) -> Path:
    """The file of `-c`; raises `ConfigError` when there is none."""
    if not path.exists():
        raise ConfigError(
            [f"{path}: no such file; name your conf.yaml with -c FILE, or make a workspace with: estgw init DIR"]
        )
    return path


def content(path: Path, most: int = -1) -> bytes:
    """The bytes of a file or, for `-`, of standard input; raises `ConfigError`.

    Of a longer one it reads one byte more than `most`; -1 is all.
    """
    try:
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as file:
            return file.read(most + 1 if most >= 0 else -1)
    except OSError as fault:
        raise ConfigError([f"{path}: {fault.strerror}"]) from None
