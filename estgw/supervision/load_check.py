"""Whether workers could use a configuration, asked before the supervisor binds a port.

A child process reads all that a worker reads, private keys included, and ends.  The supervisor never reads a key.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from estgw.callout import shortage
from estgw.errors import ConfigError
from estgw.gateway import state
from estgw.gateway.labels import Snapshot


def require_loadable(config_file: Path, snapshot: Snapshot) -> None:
    """Raise `ConfigError` with all that a worker would refuse; OSError if there can be no child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _tell_and_end(writing, config_file, snapshot)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    # A child that was killed tells nothing.  Then the workers say what is wrong.
    if faults := json.loads(told or b"[]"):
        raise ConfigError(faults)


def _tell_and_end(writing: int, config_file: Path, snapshot: Snapshot) -> None:
    """Write the faults as JSON; never returns, so that nothing of the parent is run twice."""
    status, faults = 0, []
    try:
        try:
            state.load(config_file, snapshot=snapshot)
        except ConfigError as refusal:
            faults = refusal.faults
        except (OSError, MemoryError) as fault:
            faults = [shortage.words(fault) or str(fault)]
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(json.dumps(faults).encode())
    except BaseException:  # noqa: BLE001 - the workers meet the same fault and say it
        status = 1
    finally:
        os._exit(status)
