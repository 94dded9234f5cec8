"""What came of reading the configuration again: said once, and counted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from estgw.callout import shortage
from estgw.errors import ConfigError
from estgw.logs import log
from estgw.metrics.meter import meter
from estgw.metrics.table import CONFIGURED, RELOADS


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
