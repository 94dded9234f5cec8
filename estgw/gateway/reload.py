"""Reading the configuration again: what came of it, said once and counted, and what it can't change."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from estgw.callout import shortage
from estgw.config.model import Config, Log, Metrics, Page, Recording
from estgw.config.model import Server as ServerSettings
from estgw.errors import ConfigError
from estgw.logs import log
from estgw.metrics.meter import meter
from estgw.metrics.table import CONFIGURED, RELOADS

RELOADED_OF_SERVER = frozenset({"name", "proxies", "max_connection_age", "body_timeout", "max_body"})
"""The keys of `server` that a reload changes."""
FIXED = {
    "server": ServerSettings.model_fields.keys() - RELOADED_OF_SERVER,
    "log": Log.model_fields.keys(),
    "metrics": Metrics.model_fields.keys(),
    "record": Recording.model_fields.keys(),
    "page": Page.model_fields.keys(),
}
"""The keys that only a restart changes; all others take effect with a reload."""


def needs_restart(started: Config, fresh: Config) -> list[str]:
    """Each key that differs from the configuration at the start and that a reload can't change, with both values."""

    def shown(value: Any) -> str:
        return f"[{', '.join(value)}]" if isinstance(value, tuple) else "null" if value is None else str(value)

    return [
        f"{group}.{key}: {shown(before)} stays, not {shown(now)}"
        for group, keys in FIXED.items()
        for key in sorted(keys)
        for before, now in [(getattr(getattr(started, group), key), getattr(getattr(fresh, group), key))]
        if before != now
    ]


@contextlib.contextmanager
def told(config_file: Path) -> Iterator[None]:
    """A reload happens inside; an exception from there means that everything is as it was, and goes no further."""
    try:
        yield
    except ConfigError as refusal:
        log.error("reload failed, the old configuration stays", faults=refusal.faults)
        meter.add(RELOADS, "refused")
    except (OSError, MemoryError) as fault:  # the machine is out of something
        log.error("reload failed, the old configuration stays", faults=[shortage.words(fault) or str(fault)])
        meter.add(RELOADS, "refused")
    else:
        log.info("reloaded", file=str(config_file))
        meter.add(RELOADS, "done")
        meter.set(CONFIGURED, time.time())
