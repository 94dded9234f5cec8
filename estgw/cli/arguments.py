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


def content(path: Path) -> bytes:
    """The bytes of a file or, for `-`, of standard input; raises `ConfigError`."""
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as fault:
        raise ConfigError([f"{path}: {fault.strerror}"]) from None
