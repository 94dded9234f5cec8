"""The control socket of a running workshop: one JSON object asks, one answers.

The file system says who may connect: root, and the group of the trainer's page.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from estgw.workshop.fault import WorkshopError

SECONDS = 120.0
"""How long an answer may take; a reset waits for running requests."""
LINE = 1 << 20


def ask(path: Path, **order: str) -> dict[str, Any] | None:
    """Ask the running workshop; None if none runs.  Raises `WorkshopError` with its sentence if it refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(SECONDS)
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as fault:
            raise WorkshopError(f"{path}: {fault.strerror}") from None
        with sock.makefile("rw", encoding="utf-8") as file:
            try:
                file.write(json.dumps(order) + "\n")
                file.flush()
                answer = json.loads(file.readline(LINE) or "{}")
            except (OSError, ValueError):
                raise WorkshopError("the running workshop gave no answer") from None
    if "error" not in answer or answer["error"]:
        raise WorkshopError(str(answer.get("error") or "the running workshop gave no answer"))
    return dict(answer)
