"""`-R SCRIPT`: a program of the user that makes the request after the handshake.

The contract is the one of the reference client: the binding is in `TLS_UNIQUE_SR`, and the script prints the request.
It runs once for every connection that carries a request.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from estgw.client.faults import ClientError, UsageError
from estgw.est.binding import Binding


def run(script: Path, binding: Binding | None, server_url: str, timeout: float) -> bytes:
    """Run a request script and return its output; raises `UsageError` and `ClientError`.

    Its environment is the caller's, plus `TLS_UNIQUE_SR` (base64 of the binding; unset without one),
    `EST_TLS_BINDING` (its type) and `EST_SERVER_URL`.  stdin is empty; stderr is the caller's.
    """
    path = script.absolute()  # a bare name is a file in this directory, as in the reference client, never one in PATH
    environment = {name: value for name, value in os.environ.items() if name != "TLS_UNIQUE_SR"}
    environment["EST_SERVER_URL"] = server_url
    if binding is not None:
        environment |= {"TLS_UNIQUE_SR": binding.text, "EST_TLS_BINDING": binding.type.value}
    try:
        done = subprocess.run(
            [str(path)], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise ClientError(f"{script} took longer than {timeout:g} s") from None
    except PermissionError:
        raise UsageError(f"{script} is not executable (chmod +x)") from None
    except OSError as fault:
        raise UsageError(f"{script}: {fault.strerror}") from None
    if done.returncode != 0:
        raise ClientError(f"{script} failed with status {done.returncode}")
    if not done.stdout.strip():
        raise ClientError(f"{script} printed no request")
    return done.stdout
