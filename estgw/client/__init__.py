"""The EST client: `estclient` for a shell, and `estgw.client.Session` for a program.

A program needs the four names below and some of these modules: `keys` and `request` (a key and a CSR), `files` (storing
them), `bag` (which of the CA's certificates to trust), `keygen` (answers to serverkeygen), `fullcmc` and `cmcrequest`
(certificates, revocation and CRLs by CMC), and `faults` (every error).  `examples/library.py` is a first program.

`Session` and the other names are loaded on first use, so that `estclient --version` does not load TLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from estgw.client.transport.challenge import Credentials
    from estgw.client.transport.session import Session
    from estgw.client.transport.tls import Identity
    from estgw.client.transport.trust import Trust

__all__ = ["Credentials", "Identity", "Session", "Trust"]

_HOMES = {"Credentials": "challenge", "Identity": "tls", "Session": "session", "Trust": "trust"}
"""The module of each, in `estgw.client.transport`."""


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.transport.{_HOMES[name]}"), name)
